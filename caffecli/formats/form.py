"""Values that came from JSON, checked field by field before they are used."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

#: ``int``, ``float``, ``str``, ``object``, ``None``, ``[form]``, ``{name: form}``, ``{str: form}`` or ``(form, form)``
Form = Any

_MOST = 2**63 - 1
_NOUNS: dict[Form, str] = {int: "a whole number from 0 to 2^63 - 1", float: "a number", str: "a text", None: "null"}


def read_json(text: str | bytes, remedy: str) -> Any:
    """What a JSON text says. Raises ValueError for what is none, with the ``remedy``."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is no JSON that can be read, but JSON within JSON without end; {remedy}") from error
    except ValueError as error:
        raise ValueError(f"it is no JSON ({error}); {remedy}") from error


def check(value: object, form: Form, where: str = "") -> None:
    """Raise ValueError, naming the field, where ``value`` has not the form.

    ``int`` is a whole number from 0 to 2^63 - 1, ``float`` any number but NaN, ``object`` anything; ``[form]`` is a
    list of such values, ``{name: form}`` an object with these fields, at least, ``{str: form}`` one with fields of any
    name, and ``(form, form)`` a choice. ``where`` is the path of the value.
    """
    match form:
        case tuple():
            if not any(_fits(value, one) for one in form):
                raise _wrong(where, value, " or ".join(_noun(one) for one in form))
        case list():
            if not isinstance(value, list):
                raise _wrong(where, value, _noun(form))
            for i, item in enumerate(value):
                check(item, form[0], f"{where}[{i}]")
        case dict():
            if not isinstance(value, Mapping):
                raise _wrong(where, value, _noun(form))
            for name in value if str in form else form:
                path = f"{where}.{name}" if where else name
                if name not in value:
                    raise ValueError(f"{path} is missing")
                check(value[name], form[str] if str in form else form[name], path)
        case _:
            if not _fits(value, form):
                raise _wrong(where, value, _noun(form))


def _fits(value: object, form: Form) -> bool:
    if form is None:
        return value is None
    if isinstance(form, list | dict | tuple):
        try:
            check(value, form)
        except ValueError:
            return False
        return True
    if form is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST
    if form is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    return isinstance(value, form)


def _noun(form: Form) -> str:
    return "a list" if isinstance(form, list) else "an object" if isinstance(form, dict) else _NOUNS[form]


def _wrong(where: str, value: object, wanted: str) -> ValueError:
    shown = json.dumps(value, default=str)
    shown = shown if len(shown) <= 40 else f"{shown[:37]}..."
    return ValueError(f"{where or 'it'} is {shown}; expected {wanted}")
