"""Rules of sums, products and powers: Power with numbers, Scale and Bias with arrays, Eltwise with other blobs."""

from __future__ import annotations

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.normalized import lrn
from converters.from_torch.program import Array, Ref, Shape
from converters.from_torch.scalars import affine, power, power_of, step
from converters.from_torch.shaped import enlarged, reshape


@rule("add", "sub", "rsub", "mul", "div", "neg")
def arithmetic(b: Builder) -> str:
    last = step(b, b.op)
    if last is not None:
        source = affine(b, last.value)
        return power(b, source.value, 1, last.scale * source.scale, last.scale * source.shift + last.shift)
    if b.arg("rounding_mode") is not None:
        raise Unsayable("it rounds")
    found = lrn(b)
    if found is not None:
        return found
    first, second = b.arg("self"), b.arg("other")
    one, two = b.constant(first), b.constant(second)
    if b.op.short == "rsub":
        raise Unsayable("it takes an array from an array")
    if one is not None and two is not None:
        raise Unsayable("it does not depend on the net's input")
    return _of_two(b) if one is None and two is None else _with_array(b, one, two)


def _with_array(b: Builder, one: Array | None, two: Array | None) -> str:
    """With a fixed array."""
    kind, alpha = b.op.short, b.arg("alpha", 1)
    array = one if two is None else two
    if array is None:
        raise Unsayable("it has no array")
    value = b.bottom("other" if two is None else "self")
    if kind == "div":
        if two is None:
            value = power(b, value, -1, note="reciprocal")
        else:
            array = np.float32(1) / array
    if kind in ("mul", "div"):
        return _scale(b, value, array, None)
    if kind == "sub" and two is not None:
        alpha = -alpha
    scaled = _scaled(b, value, array) if two is not None or (kind == "add" and alpha == 1) else None
    if scaled is not None:
        return _scale(b, *scaled, alpha * array)
    if two is None:  # array + alpha * value
        return _biased(b, power(b, value, scale=-alpha if kind == "sub" else alpha, note="alpha"), array)
    return _biased(b, value, alpha * array)


def _scaled(b: Builder, value: str, array: Array) -> tuple[str, Array] | None:
    """What ``value`` is an array times, and that array, where one of this shape may be added in the same layer."""
    op = b.maker(value, "mul")
    if op is None or b.shape(value) != b.top:
        return None
    other = b.of(op)
    for one, two in (("self", "other"), ("other", "self")):
        factor, source = other.constant(other.arg(one)), other.arg(two)
        if factor is not None and factor.size > 1 and factor.shape == array.shape and isinstance(source, Ref):
            return source.name, factor
    return None


def _biased(b: Builder, value: str, array: Array) -> str:
    """Bias, which OpenCV does not read: Scale by ones, then."""
    if b.audience == "both":
        return _scale(b, value, np.ones_like(array), array)
    axis, blob = placed(array, b.shape(value), b.top)
    return b.layer("Bias", value, shape=b.top, blobs=[blob], bias_param=_where(axis, blob))


def _scale(b: Builder, value: str, factor: Array, bias: Array | None) -> str:
    axis, blob = placed(factor, b.shape(value), b.top)
    blobs = [blob] if bias is None else [blob, placed(bias, b.shape(value), b.top)[1]]
    param = _where(axis, blob) | ({} if bias is None else {"bias_term": True})
    return b.layer("Scale", value, shape=b.top, blobs=blobs, scale_param=param)


def _where(axis: int, blob: Array) -> dict[str, int]:
    return ({} if axis == 1 else {"axis": axis}) | ({} if blob.ndim == 1 else {"num_axes": blob.ndim})


def placed(array: Array, shape: Shape, top: Shape) -> tuple[int, Array]:
    """The axis of ``shape`` on which a blob of an array stands, and the blob."""
    if shape != top:
        raise Unsayable(f"an array of {array.shape} makes {top} of {shape}; Caffe's Scale and Bias leave the shape")
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    real = [axis for axis in range(full.ndim) if full.shape[axis] != 1]
    if not real:
        real = [1] if len(shape) > 1 else [0]
    if real[0] == 0:
        raise Unsayable("an array that differs along the batch")
    first, last = real[0], real[-1]
    blob = np.broadcast_to(full, (*full.shape[:first], *shape[first : last + 1], *full.shape[last + 1 :]))
    return first, np.ascontiguousarray(blob).reshape(shape[first : last + 1])


def _of_two(b: Builder) -> str:
    """Of two values of the net."""
    first, second, kind = b.bottom("self"), b.bottom("other"), b.op.short
    if kind == "div":
        second = power(b, second, -1, note="reciprocal")
    if kind == "mul" and first == second:
        return power(b, first, 2)
    for value, other in ((first, second), (second, first)):
        if b.shape(value) == b.top and b.shape(other) != b.top and kind in ("mul", "div"):
            prefix = _prefix(b, other)
            if prefix is not None:
                return b.layer("Scale", value, prefix, shape=b.top, scale_param={"axis": 0})
    first, second = enlarged(b, first, b.top, "first"), enlarged(b, second, b.top, "second")
    if kind in ("mul", "div"):
        return b.layer("Eltwise", first, second, shape=b.top, eltwise_param={"operation": "PROD"})
    alpha = b.arg("alpha", 1) * (-1 if kind == "sub" else 1)
    param = {} if alpha == 1 else {"coeff": [1.0, float(alpha)]}
    return b.layer("Eltwise", first, second, shape=b.top, eltwise_param=param)


def _prefix(b: Builder, value: str) -> str | None:
    """``value`` as one number for each item and channel, if that is what it has."""
    shape, top = b.shape(value), b.top
    if len(shape) != len(top) or shape[:2] != top[:2] or set(shape[2:]) != {1}:
        return None
    return reshape(b, value, shape[:2], note="factors")


@rule("pow", "sqrt", "rsqrt", "reciprocal", "square")
def powers(b: Builder) -> str:
    if b.op.short == "pow" and isinstance(b.op.args.get("self"), int | float):
        base = float(b.op.args["self"])
        if base <= 0:
            raise Unsayable(f"its base is {base}; Caffe's Exp has one above 0")
        return b.layer("Exp", b.bottom("exponent"), shape=b.top, exp_param={"base": base})
    base_value, exponent = power_of(b, b.op.outputs[0])
    if base_value == b.op.outputs[0]:
        raise Unsayable("its exponent is no number")
    source = affine(b, base_value)
    return power(b, source.value, exponent, source.scale, source.shift)
