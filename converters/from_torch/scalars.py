"""Numbers that operations add to values, multiply them by, and raise them to, put together: what Power does in one layer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from converters.from_torch.builder import Builder
from converters.from_torch.program import Op, Ref


class Affine(NamedTuple):
    """scale * value + shift."""

    value: str
    scale: float
    shift: float


def power(b: Builder, value: str, exponent: float = 1, scale: float = 1, shift: float = 0, note: str = "") -> str:
    """(shift + scale * value) ** exponent; the value itself where that is what it is."""
    given = {"power": exponent, "scale": scale, "shift": shift}
    param = {name: number for name, number in given.items() if number != (0 if name == "shift" else 1)}
    return b.layer("Power", value, shape=b.shape(value), note=note, power_param=param) if param else value


def affine(b: Builder, value: str, alone: bool = True) -> Affine:
    """What ``value`` is a number times, plus a number; where ``alone``, by way of values that nothing else reads."""
    found = Affine(value, 1, 0)
    while True:
        op = b.maker(found.value, *_STEPS) if alone else b.program.makers.get(found.value)
        one = None if op is None else step(b, op)
        if one is None:
            return found
        found = Affine(one.value, found.scale * one.scale, found.scale * one.shift + found.shift)


def step(b: Builder, op: Op) -> Affine | None:
    """A single operation with a number."""
    if op.short not in _STEPS:
        return None
    other = b.of(op)
    first, second = other.arg("self"), other.arg("other")
    if op.short == "neg":
        return _affine(b, op, first, -1, 0)
    one, two = _number(b, first), _number(b, second)
    if op.args.get("rounding_mode") is not None or (one is None) == (two is None):
        return None
    if two is not None:
        return _affine(b, op, first, *_STEPS[op.short](two, other.arg("alpha", 1)))
    if one is None or op.short not in _REVERSED:
        return None
    return _affine(b, op, second, *_REVERSED[op.short](one, other.arg("alpha", 1)))


def _affine(b: Builder, op: Op, value: Any, scale: float, shift: float) -> Affine | None:
    if not isinstance(value, Ref) or b.constant(value) is not None:
        return None
    same = b.program.shapes[value.name] == b.program.shapes[op.outputs[0]]
    return Affine(value.name, scale, shift) if same else None


_Numbers = Callable[[float, float], tuple[float, float]]
#: the factor and the summand that an operation with a number c comes to, alpha a
_STEPS: dict[str, _Numbers] = {
    "add": lambda c, a: (1, a * c),
    "div": lambda c, a: (1 / c if c else math.inf, 0),
    "mul": lambda c, a: (c, 0),
    "neg": lambda c, a: (-1, 0),
    "rsub": lambda c, a: (-a, c),
    "sub": lambda c, a: (1, -a * c),
}
#: where the number comes first
_REVERSED: dict[str, _Numbers] = {"add": lambda c, a: (a, c), "mul": lambda c, a: (c, 0), "sub": lambda c, a: (-a, c)}


def _number(b: Builder, value: Any) -> float | None:
    array = b.constant(value)
    return float(array.flat[0]) if array is not None and array.size == 1 else None


def power_of(b: Builder, value: str) -> tuple[str, float]:
    """The base and the exponent that ``value`` is made of: rsqrt(x) * sqrt(rsqrt(x)) is x to -0.75."""
    op = b.program.makers.get(value)
    if op is None:
        return value, 1
    other = b.of(op)
    if op.short == "mul":
        names = [other.arg(key) for key in ("self", "other")]
        if all(isinstance(name, Ref) for name in names):
            (base, one), (base_2, two) = (power_of(b, name.name) for name in names)
            if base == base_2 and base != value and not (float(one).is_integer() and float(two).is_integer()):
                return base, one + two
        return value, 1
    exponent = _EXPONENTS.get(op.short)
    if op.short == "pow" and isinstance(op.args.get("exponent"), int | float):
        exponent = float(op.args["exponent"])
    if exponent is None or not isinstance(other.arg("self"), Ref):
        return value, 1
    base, inner = power_of(b, other.arg("self").name)
    if float(inner).is_integer() and inner != 1:  # the root of a square is not the number
        return other.arg("self").name, exponent
    return base, inner * exponent


_EXPONENTS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "square": 2.0}
