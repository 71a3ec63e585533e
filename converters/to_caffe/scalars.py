"""Chains of operations with single numbers (x * 2 + 1, squared), combined into what one Power layer computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from converters.to_caffe.builder import Builder
from converters.to_caffe.program import Op, Ref


class Affine(NamedTuple):
    """scale * value + shift."""

    value: str
    scale: float
    shift: float


def power(b: Builder, value: str, exponent: float = 1, scale: float = 1, shift: float = 0, suffix: str = "") -> str:
    """A layer for (shift + scale * value) ** exponent; ``value`` itself where that changes nothing."""
    given = {"power": exponent, "scale": scale, "shift": shift}
    param = {name: number for name, number in given.items() if number != (0 if name == "shift" else 1)}
    return b.layer("Power", value, shape=b.shape(value), suffix=suffix, power_param=param) if param else value


def affine(b: Builder, value: str, alone: bool = True) -> Affine:
    """``value`` as scale * x + shift, of the x furthest back.

    ``alone``: only by way of values that nothing else reads.
    """
    found = Affine(value, 1, 0)
    while True:
        op = b.producer(found.value, *_STEPS) if alone else b.program.producers.get(found.value)
        one = None if op is None else affine_step(b, op)
        if one is None:
            return found
        found = Affine(one.value, found.scale * one.scale, found.scale * one.shift + found.shift)


def affine_step(b: Builder, op: Op) -> Affine | None:
    """An operation with one number as scale * x + shift; None for any other operation."""
    if op.short not in _STEPS:
        return None
    other = b.for_op(op)
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
    """scale * value + shift; None where the value is constant, or the operation broadcasts it to another shape."""
    if not isinstance(value, Ref) or b.constant(value) is not None:
        return None
    same_shape = b.program.shapes[value.name] == b.program.shapes[op.outputs[0]]
    return Affine(value.name, scale, shift) if same_shape else None


_Numbers = Callable[[float, float], tuple[float, float]]
#: (scale, shift) of an operation of x and a number c, with alpha a
_STEPS: dict[str, _Numbers] = {
    "add": lambda c, a: (1, a * c),
    "div": lambda c, a: (1 / c if c else math.inf, 0),
    "mul": lambda c, a: (c, 0),
    "neg": lambda c, a: (-1, 0),
    "rsub": lambda c, a: (-a, c),
    "sub": lambda c, a: (1, -a * c),
}
#: the same of c and x
_REVERSED: dict[str, _Numbers] = {"add": lambda c, a: (a, c), "mul": lambda c, a: (c, 0), "sub": lambda c, a: (-a, c)}


def _number(b: Builder, value: Any) -> float | None:
    array = b.constant(value)
    return float(array.flat[0]) if array is not None and array.size == 1 else None


def power_of(b: Builder, value: str) -> tuple[str, float]:
    """``value`` as a power: its base and exponent. rsqrt(x) * sqrt(rsqrt(x)) is x to the power -0.75."""
    op = b.program.producers.get(value)
    if op is None:
        return value, 1
    other = b.for_op(op)
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
    if float(inner).is_integer() and inner != 1:  # the root of x squared is not x
        return other.arg("self").name, exponent
    return base, inner * exponent


_EXPONENTS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0, "square": 2.0}
