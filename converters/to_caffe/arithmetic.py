"""Rules of sums, products and powers: Power for numbers, Scale and Bias for constant arrays, Eltwise for two blobs."""

from __future__ import annotations

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.normalization import match_lrn
from converters.to_caffe.program import Array, Ref, Shape
from converters.to_caffe.scalars import affine, affine_step, power, power_of
from converters.to_caffe.shapes import broadcast, reshape


@rule("add", "sub", "rsub", "mul", "div", "neg")
def arithmetic(b: Builder) -> str:
    outer = affine_step(b, b.op)
    if outer is not None:
        inner = affine(b, outer.value)
        return power(b, inner.value, 1, outer.scale * inner.scale, outer.scale * inner.shift + outer.shift)
    if b.arg("rounding_mode") is not None:
        raise Unsupported("it rounds")
    top = match_lrn(b)
    if top is not None:
        return top
    first, second = b.arg("self"), b.arg("other")
    one, two = b.constant(first), b.constant(second)
    if b.op.short == "rsub":
        raise Unsupported("it takes an array from an array")
    if one is not None and two is not None:
        raise Unsupported("it does not depend on the net's input")
    return _with_value(b) if one is None and two is None else _with_constant(b, one, two)


def _with_constant(b: Builder, one: Array | None, two: Array | None) -> str:
    """An operation of a value and a constant array, of which ``one`` or ``two`` is given."""
    kind, alpha = b.op.short, b.arg("alpha", 1)
    array = one if two is None else two
    if array is None:
        raise Unsupported("it has no array")
    value = b.bottom("other" if two is None else "self")
    if kind == "div":
        if two is None:
            value = power(b, value, -1, suffix="reciprocal")
        else:
            array = np.float32(1) / array
    if kind in ("mul", "div"):
        return _scale(b, value, array, None)
    if kind == "sub" and two is not None:
        alpha = -alpha
    product = _match_scale(b, value, array) if two is not None or (kind == "add" and alpha == 1) else None
    if product is not None:
        return _scale(b, *product, alpha * array)
    if two is None:  # array + alpha * value
        return _add_constant(b, power(b, value, scale=-alpha if kind == "sub" else alpha, suffix="alpha"), array)
    return _add_constant(b, value, alpha * array)


def _match_scale(b: Builder, value: str, array: Array) -> tuple[str, Array] | None:
    """Where ``value`` is x times an array of the shape of ``array``: x and that array, for one Scale with a bias."""
    op = b.producer(value, "mul")
    if op is None or b.shape(value) != b.top_shape:
        return None
    other = b.for_op(op)
    for one, two in (("self", "other"), ("other", "self")):
        factor, source = other.constant(other.arg(one)), other.arg(two)
        if factor is not None and factor.size > 1 and factor.shape == array.shape and isinstance(source, Ref):
            return source.name, factor
    return None


def _add_constant(b: Builder, value: str, array: Array) -> str:
    """A Bias layer; for OpenCV, which has none, a Scale by ones with a bias."""
    if b.read_by_opencv:
        return _scale(b, value, np.ones_like(array), array)
    axis, blob = axis_and_blob(array, b.shape(value), b.top_shape)
    return b.layer("Bias", value, shape=b.top_shape, blobs=[blob], bias_param=_axis_settings(axis, blob))


def _scale(b: Builder, value: str, factor: Array, bias: Array | None) -> str:
    axis, blob = axis_and_blob(factor, b.shape(value), b.top_shape)
    blobs = [blob] if bias is None else [blob, axis_and_blob(bias, b.shape(value), b.top_shape)[1]]
    param = _axis_settings(axis, blob) | ({} if bias is None else {"bias_term": True})
    return b.layer("Scale", value, shape=b.top_shape, blobs=blobs, scale_param=param)


def _axis_settings(axis: int, blob: Array) -> dict[str, int]:
    return ({} if axis == 1 else {"axis": axis}) | ({} if blob.ndim == 1 else {"num_axes": blob.ndim})


def axis_and_blob(array: Array, shape: Shape, top: Shape) -> tuple[int, Array]:
    """A constant array as a blob of Scale or Bias: its first axis, and the array without outer axes of size 1."""
    if shape != top:
        raise Unsupported(f"an array of {array.shape} makes {top} of {shape}; Caffe's Scale and Bias leave the shape")
    full = array.reshape((1,) * (len(shape) - array.ndim) + array.shape)
    axes = [axis for axis in range(full.ndim) if full.shape[axis] != 1]
    if not axes:
        axes = [1] if len(shape) > 1 else [0]
    if axes[0] == 0:
        raise Unsupported("an array that differs along the batch")
    first, last = axes[0], axes[-1]
    blob = np.broadcast_to(full, (*full.shape[:first], *shape[first : last + 1], *full.shape[last + 1 :]))
    return first, np.ascontiguousarray(blob).reshape(shape[first : last + 1])


def _with_value(b: Builder) -> str:
    """An operation of two values that both depend on the net's input."""
    first, second, kind = b.bottom("self"), b.bottom("other"), b.op.short
    if kind == "div":
        second = power(b, second, -1, suffix="reciprocal")
    if kind == "mul" and first == second:
        return power(b, first, 2)
    for value, other in ((first, second), (second, first)):
        if b.shape(value) == b.top_shape and b.shape(other) != b.top_shape and kind in ("mul", "div"):
            factors = _per_channel(b, other)
            if factors is not None:
                return b.layer("Scale", value, factors, shape=b.top_shape, scale_param={"axis": 0})
    first, second = broadcast(b, first, b.top_shape, "first"), broadcast(b, second, b.top_shape, "second")
    if kind in ("mul", "div"):
        return b.layer("Eltwise", first, second, shape=b.top_shape, eltwise_param={"operation": "PROD"})
    alpha = b.arg("alpha", 1) * (-1 if kind == "sub" else 1)
    param = {} if alpha == 1 else {"coeff": [1.0, float(alpha)]}
    return b.layer("Eltwise", first, second, shape=b.top_shape, eltwise_param=param)


def _per_channel(b: Builder, value: str) -> str | None:
    """``value`` in the shape (items, channels), where it has one number for each; else None."""
    shape, top = b.shape(value), b.top_shape
    if len(shape) != len(top) or shape[:2] != top[:2] or set(shape[2:]) != {1}:
        return None
    return reshape(b, value, shape[:2], suffix="factors")


@rule("pow", "sqrt", "rsqrt", "reciprocal", "square")
def powers(b: Builder) -> str:
    if b.op.short == "pow" and isinstance(b.op.args.get("self"), int | float):
        base = float(b.op.args["self"])
        if base <= 0:
            raise Unsupported(f"its base is {base}; Caffe's Exp has one above 0")
        return b.layer("Exp", b.bottom("exponent"), shape=b.top_shape, exp_param={"base": base})
    base_value, exponent = power_of(b, b.op.outputs[0])
    if base_value == b.op.outputs[0]:
        raise Unsupported("its exponent is no number")
    source = affine(b, base_value)
    return power(b, source.value, exponent, source.scale, source.shift)
