"""Rules of maxima and minima: of two values, over whole images, and along an axis, with their indices."""

from __future__ import annotations

from converters.to_caffe.activations import FLOAT_MAX, clip
from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.scalars import power
from converters.to_caffe.shapes import global_pool, reshape


@rule("max", "min", "amax", "amin")
def extremum(b: Builder) -> str | list[str]:
    """max and min of two values, or over axes; along a single axis they have indices as a second output."""
    if "other" in b.op.args:
        return maximum(b)
    if len(b.op.outputs) > 1:
        return along_axis(b, b.arg("dim"), 1, b.op.short == "max")
    bottom, largest, dims = b.bottom("self"), b.op.short in ("max", "amax"), b.arg("dim")
    shape = b.shape(bottom)
    axes = sorted({d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(shape)))})
    if axes == [2, 3] and len(shape) == 4:
        top = global_pool(b, _negate_unless(b, bottom, largest, "minus"), "MAX")
        return reshape(b, _negate_unless(b, top, largest, "back"), b.top_shape, suffix="shape")
    if len(axes) != 1:
        raise Unsupported(
            f"over axes {axes} of {len(shape)}; Caffe has it over whole images, axes 2 and 3 of 4, and over one axis"
        )
    return _arg_max_layer(b, bottom, axes[0], 1, largest, values=True)


@rule("topk")
def topk(b: Builder) -> list[str]:
    return along_axis(b, b.arg("dim", -1), b.arg("k"), b.arg("largest", True))


def along_axis(b: Builder, dim: int, count: int, largest: bool) -> list[str]:
    """The ``count`` largest or smallest values along an axis, and their indices: an ArgMax layer for each."""
    bottom = b.bottom("self")
    axis = dim % len(b.shape(bottom))
    outputs = b.op.outputs
    return [
        _arg_max_layer(b, bottom, axis, count, largest, i == 0) if name in b.used_outputs else name
        for i, name in enumerate(outputs)
    ]


def _arg_max_layer(b: Builder, bottom: str, axis: int, count: int, largest: bool, values: bool) -> str:
    shape = list(b.shape(bottom))
    shape[axis] = count
    param = {"axis": axis, **({} if count == 1 else {"top_k": count}), **({"out_max_val": True} if values else {})}
    suffix = "" if len(b.used_outputs) == 1 else "values" if values else "places"
    bottom = _negate_unless(b, bottom, largest, f"{suffix}_minus".removeprefix("_"))
    top = b.layer("ArgMax", bottom, shape=shape, suffix=suffix, argmax_param=param)
    top = _negate_unless(b, top, largest or not values, f"{suffix}_back".removeprefix("_"))
    return reshape(b, top, b.program.shapes[b.op.outputs[0]], suffix=f"{suffix}_shape".removeprefix("_"))


def _negate_unless(b: Builder, value: str, largest: bool, suffix: str) -> str:
    """``-value`` unless ``largest``: min(x) is -max(-x)."""
    return value if largest else power(b, value, scale=-1, suffix=suffix)


@rule("argmax", "argmin")
def argmax(b: Builder) -> str:
    bottom, dim = b.bottom("self"), b.arg("dim")
    if dim is None:
        raise Unsupported("over all axes, the batch too; name the axis")
    return _arg_max_layer(b, bottom, dim % len(b.shape(bottom)), 1, b.op.short == "argmax", values=False)


@rule("caffe.argmax")
def caffe_argmax(b: Builder) -> str:
    """Caffe's ArgMax, found by ``recompose``."""
    param = {"out_max_val": True} if b.arg("out_max_val") else {}
    param |= {} if b.arg("axis") is None else {"axis": b.arg("axis")}
    param |= {} if b.arg("top_k") == 1 else {"top_k": b.arg("top_k")}
    return b.layer("ArgMax", b.bottom("self"), shape=b.top_shape, argmax_param=param)


@rule("maximum", "minimum")
def maximum(b: Builder) -> str:
    """The elementwise maximum or minimum of two values, one of which may be a number."""
    largest = b.op.short in ("max", "maximum")
    for one, other in (("self", "other"), ("other", "self")):
        bound = b.constant(b.arg(one))
        if bound is not None and bound.size == 1:
            low, high = (float(bound.flat[0]), FLOAT_MAX) if largest else (-FLOAT_MAX, float(bound.flat[0]))
            return clip(b, b.bottom(other), low, high)
    first, second = b.bottom("self"), b.bottom("other")
    if b.shape(first) != b.shape(second):
        raise Unsupported("its inputs have different shapes")
    first, second = (_negate_unless(b, value, largest, f"minus{i}") for i, value in enumerate((first, second)))
    top = b.layer("Eltwise", first, second, shape=b.top_shape, eltwise_param={"operation": "MAX"})
    return _negate_unless(b, top, largest, "minus")
