"""Rules of the largest and smallest: of two values, of a whole picture, and along an axis."""

from __future__ import annotations

from converters.from_torch.activations import LARGEST, clip
from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.scalars import power
from converters.from_torch.shaped import reshape, whole_image


@rule("max", "min", "amax", "amin")
def most_of(b: Builder) -> str | list[str]:
    """Of two values, or along axes; for a single one torch's max and min give places, too."""
    if "other" in b.op.args:
        return maximum(b)
    if len(b.op.outputs) > 1:
        return along(b, b.arg("dim"), 1, b.op.short == "max")
    bottom, most, dims = b.bottom("self"), b.op.short in ("max", "amax"), b.arg("dim")
    shape = b.shape(bottom)
    axes = sorted({d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(shape)))})
    if axes == [2, 3] and len(shape) == 4:
        top = whole_image(b, _turned_over(b, bottom, most, "minus"), "MAX")
        return reshape(b, _turned_over(b, top, most, "back"), b.top, note="shape")
    if len(axes) != 1:
        raise Unsayable(f"over axes {axes} of {len(shape)}; Caffe has it over whole images, axes 2 and 3 of 4, and over one axis")
    return _along(b, bottom, axes[0], 1, most, values=True)


@rule("topk")
def topk(b: Builder) -> list[str]:
    return along(b, b.arg("dim", -1), b.arg("k"), b.arg("largest", True))


def along(b: Builder, dim: int, count: int, most: bool) -> list[str]:
    """The values and the places of the largest, or smallest, along an axis: each takes an ArgMax."""
    bottom = b.bottom("self")
    axis = dim % len(b.shape(bottom))
    outputs = b.op.outputs
    return [_along(b, bottom, axis, count, most, i == 0) if name in b.wanted else name for i, name in enumerate(outputs)]


def _along(b: Builder, bottom: str, axis: int, count: int, most: bool, values: bool) -> str:
    shape = list(b.shape(bottom))
    shape[axis] = count
    param = {"axis": axis, **({} if count == 1 else {"top_k": count}), **({"out_max_val": True} if values else {})}
    note = "" if len(b.wanted) == 1 else "values" if values else "places"
    bottom = _turned_over(b, bottom, most, f"{note}_minus".removeprefix("_"))
    top = b.layer("ArgMax", bottom, shape=shape, note=note, argmax_param=param)
    top = _turned_over(b, top, most or not values, f"{note}_back".removeprefix("_"))
    return reshape(b, top, b.program.shapes[b.op.outputs[0]], note=f"{note}_shape".removeprefix("_"))


def _turned_over(b: Builder, value: str, as_it_is: bool, note: str) -> str:
    """The smallest are the largest of the opposite."""
    return value if as_it_is else power(b, value, scale=-1, note=note)


@rule("argmax", "argmin")
def argmax(b: Builder) -> str:
    bottom, dim = b.bottom("self"), b.arg("dim")
    if dim is None:
        raise Unsayable("over all axes, the batch too; name the axis")
    return _along(b, bottom, dim % len(b.shape(bottom)), 1, b.op.short == "argmax", values=False)


@rule("caffe.argmax")
def own(b: Builder) -> str:
    """A layer of ours; see ``found.py``."""
    param = {"out_max_val": True} if b.arg("out_max_val") else {}
    param |= {} if b.arg("axis") is None else {"axis": b.arg("axis")}
    param |= {} if b.arg("top_k") == 1 else {"top_k": b.arg("top_k")}
    return b.layer("ArgMax", b.bottom("self"), shape=b.top, argmax_param=param)


@rule("maximum", "minimum")
def maximum(b: Builder) -> str:
    """The larger, or smaller, of two values in each place."""
    most = b.op.short in ("max", "maximum")
    for one, other in (("self", "other"), ("other", "self")):
        bound = b.constant(b.arg(one))
        if bound is not None and bound.size == 1:
            low, high = (float(bound.flat[0]), LARGEST) if most else (-LARGEST, float(bound.flat[0]))
            return clip(b, b.bottom(other), low, high)
    first, second = b.bottom("self"), b.bottom("other")
    if b.shape(first) != b.shape(second):
        raise Unsayable("its inputs have different shapes")
    first, second = (_turned_over(b, value, most, f"minus{i}") for i, value in enumerate((first, second)))
    top = b.layer("Eltwise", first, second, shape=b.top, eltwise_param={"operation": "MAX"})
    return _turned_over(b, top, most, "minus")
