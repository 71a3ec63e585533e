"""Rules of operations that reshape, broadcast, permute, shuffle, slice and concatenate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.linear import fixed_convolution, per_axis
from converters.to_caffe.program import Array, Op, Ref, Shape

#: an axis longer than this is not moved by slicing it and concatenating the parts elsewhere
MAX_PARTS = 64


def reshape(b: Builder, value: str, shape: Sequence[int], suffix: str = "") -> str:
    """``value`` in another shape, by Flatten (of all axes but the first) or Reshape; itself where it has that shape."""
    before, after = b.shape(value), tuple(shape)
    if before == after:
        return value
    if len(after) == 2 and len(before) > 2 and before[0] == after[0]:
        return b.layer("Flatten", value, shape=after, suffix=suffix)
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    dims = [0] * kept + list(after[kept:])
    if not kept:
        dims[0] = -1  # the batch axis: a batch of another size fits too
    return b.layer("Reshape", value, shape=after, suffix=suffix, reshape_param={"shape": {"dim": dims}})


def global_pool(b: Builder, bottom: str, pool: str, suffix: str = "") -> str:
    """Pooling over whole images."""
    param = {"pool": pool, "global_pooling": True}
    return b.layer("Pooling", bottom, shape=(*b.shape(bottom)[:2], 1, 1), suffix=suffix, pooling_param=param)


@rule("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "unflatten", "expand", "expand_as")
def change_shape(b: Builder) -> str:
    bottom = b.bottom("self")
    top = match_shuffle(b, bottom)
    if top is not None:
        return top
    if np.prod(b.shape(bottom)) != np.prod(b.top_shape):
        return broadcast(b, bottom, b.top_shape, "repeated")
    if not b.fixed(bottom, 0) and b.fixed(b.op.outputs[0], 0):
        raise Unsupported("it makes another axis of the batch")
    return reshape(b, bottom, b.top_shape)


def broadcast(b: Builder, value: str, top: Shape, suffix: str) -> str:
    """``value`` repeated along its axes of size 1 up to the shape ``top``, by convolutions with kernels of ones."""
    value = reshape(b, value, (1,) * (len(top) - len(b.shape(value))) + b.shape(value), suffix=f"{suffix}_shape")
    shape = b.shape(value)
    if shape == top:
        return value
    if len(shape) == 2:
        value = reshape(b, value, (*shape, 1, 1), suffix=f"{suffix}_image")
        return reshape(b, broadcast(b, value, (*top, 1, 1), suffix), top, suffix=suffix)
    if (
        len(shape) < 3
        or shape[0] != top[0]
        or any(small not in (1, big) for small, big in zip(shape, top, strict=True))
    ):
        raise Unsupported(f"it repeats values, from {shape} to {top}")
    if shape[1] != top[1]:
        ones = np.ones((top[1], 1, *[1] * (len(top) - 2)), np.float32)
        value = fixed_convolution(b, value, ones, (*top[:2], *shape[2:]), group=1, suffix=f"{suffix}_channels")
    steps = [big if small != big else 1 for small, big in zip(shape[2:], top[2:], strict=True)]
    if set(steps) == {1}:
        return value
    ones = np.ones((top[1], 1, *steps), np.float32)
    return fixed_convolution(b, value, ones, top, kind="Deconvolution", suffix=f"{suffix}_places")


@rule("permute", "transpose", "t", "movedim", "numpy_T")
def permute(b: Builder) -> str:
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    return permute_axes(b, bottom, order_of_axes(b.op, len(shape)))


def permute_axes(b: Builder, value: str, order: Sequence[int], suffix: str = "") -> str:
    """``value`` with its axes in another order.

    Forks have Permute. For others, where a single axis moves, the value is sliced along it and concatenated along the
    new one.
    """
    shape = b.shape(value)
    top = tuple(shape[axis] for axis in order)
    nontrivial = [axis for axis in order if shape[axis] != 1 or not b.fixed(value, axis)]
    if nontrivial == sorted(nontrivial):
        return reshape(b, value, top, suffix=suffix)
    if b.has_permute:
        return b.layer("Permute", value, shape=top, suffix=suffix, permute_param={"order": list(order)})
    movable = [axis for axis in nontrivial if _is_sorted_without(nontrivial, axis) and b.fixed(value, axis)]
    axis = min(movable, key=lambda axis: shape[axis], default=-1)
    if axis < 0 or shape[axis] > MAX_PARTS:
        raise Unsupported(
            f"its axes change places, {list(order)}; Caffe has no Permute; OpenCV and forks have (--for opencv, "
            f"--for forks)"
        )
    target = list(order).index(axis)
    one = (*top[:target], 1, *top[target + 1 :])
    parts = slice_axis(b, value, axis, range(1, shape[axis] + 1), suffix=f"{suffix}_parts".removeprefix("_"))
    parts = [reshape(b, part, one, suffix=f"{suffix}_part{i}".removeprefix("_")) for i, part in enumerate(parts)]
    return b.layer("Concat", *parts, shape=top, suffix=suffix, concat_param={} if target == 1 else {"axis": target})


def _is_sorted_without(axes: Sequence[int], one: int) -> bool:
    others = [axis for axis in axes if axis != one]
    return others == sorted(others)


@rule("cat", "concat", "concatenate")
def concat(b: Builder) -> str:
    values = b.arg("tensors")
    if any(b.constant(value) is not None for value in values):
        raise Unsupported("one of its parts does not depend on the net's input")
    names = [value.name for value in values if isinstance(value, Ref)]
    axis = b.arg("dim", 0) % len(b.top_shape)
    if len(names) == 1:
        return names[0]
    return b.layer("Concat", *names, shape=b.top_shape, concat_param={} if axis == 1 else {"axis": axis})


@rule("stack")
def stack(b: Builder) -> str:
    axis = b.arg("dim", 0) % len(b.top_shape)
    one = (*b.top_shape[:axis], 1, *b.top_shape[axis + 1 :])
    names = [reshape(b, value.name, one, suffix=f"part{i}") for i, value in enumerate(b.arg("tensors"))]
    return b.layer("Concat", *names, shape=b.top_shape, concat_param={} if axis == 1 else {"axis": axis})


def slice_axis(b: Builder, value: str, axis: int, ends: Sequence[int], suffix: str = "") -> list[str]:
    """``value`` sliced along an axis; the parts end before the indices ``ends``."""
    shape = b.shape(value)
    if len(ends) == 1:
        return [value]
    shapes = [(*shape[:axis], end - start, *shape[axis + 1 :]) for start, end in pairwise([0, *ends])]
    param = {"slice_point": list(ends[:-1]), **({} if axis == 1 else {"axis": axis})}
    return b.layers("Slice", value, shapes=shapes, suffix=suffix, slice_param=param)


def crop(b: Builder, value: str, parts: Sequence[tuple[int, int, int]], suffix: str = "cut") -> str:
    """``value`` from one index up to another along each of some axes: ``parts`` has (axis, start, end)."""
    rest: list[str] = []
    for axis, start, end in parts:
        ends = sorted({start, end, b.shape(value)[axis]} - {0})
        tops = slice_axis(b, value, axis, ends, suffix=f"{suffix}{axis}")
        value = tops[ends.index(end)]
        rest += [top for top in tops if top != value]
    b.silence(rest)
    return value


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unbind")
def split(b: Builder) -> list[str]:
    bottom = b.bottom("self")
    axis = b.arg("dim", 0) % len(b.shape(bottom))
    require_fixed(b, bottom, axis)
    outputs = b.op.outputs
    unbound = b.op.short == "unbind"
    ends = list(accumulate(1 if unbound else b.program.shapes[name][axis] for name in outputs))
    parts = slice_axis(b, bottom, axis, ends)
    b.silence([part for part, name in zip(parts, outputs, strict=True) if name not in b.used_outputs])
    if unbound:
        return [
            reshape(b, part, b.program.shapes[name], suffix=f"part{i}") if name in b.used_outputs else part
            for i, (part, name) in enumerate(zip(parts, outputs, strict=True))
        ]
    return parts


def require_fixed(b: Builder, value: str, axis: int) -> None:
    """Raise Unsupported where the size of this axis is not fixed."""
    if not b.fixed(value, axis):
        raise Unsupported("it takes parts of an axis whose size is not fixed")


#: operations that split or join axes
_RESHAPES = ("view", "reshape", "_unsafe_view", "flatten", "unflatten")


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(b: Builder) -> str:
    bottom = b.bottom("self")
    return _shuffle(b, bottom, b.arg("upscale_factor", b.arg("downscale_factor")), "un" not in b.op.short)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(b: Builder) -> str:
    bottom, groups = b.bottom("self"), b.arg("groups")
    channels = b.top_shape[1]
    return _reorder(b, bottom, np.arange(channels).reshape(groups, channels // groups).T.ravel())


def match_shuffle(b: Builder, value: str) -> str | None:
    """A layer where ``value`` is reshaped, permuted and reshaped again as in a pixel or channel shuffle; else None."""
    permute = b.producer(value, "permute", "transpose")
    split = None if permute is None else b.producer(b.for_op(permute).arg("self").name, *_RESHAPES)
    source = None if split is None else b.for_op(split).arg("self")
    if permute is None or split is None or not isinstance(source, Ref) or b.constant(source) is not None:
        return None
    before, after = b.shape(source.name), b.top_shape
    between = b.program.shapes[split.outputs[0]]
    order = order_of_axes(permute, len(between))
    if len(before) < 3 or len(before) != len(after) or order[0] != 0 or not before[0] == between[0] == after[0]:
        return None
    indices = (
        np.arange(math.prod(before[1:]))
        .reshape(between[1:])
        .transpose([axis - 1 for axis in order[1:]])
        .reshape(after[1:])
    )
    if before == after:
        channels = indices.reshape(after[1], -1)[:, 0] // math.prod(before[2:])
        if np.array_equal(indices, _indices(before)[channels]):
            return _reorder(b, source.name, channels)
    low, high = (before, after) if before[1] > after[1] else (after, before)  # of low and high resolution
    factor = math.isqrt(low[1] // high[1])
    if len(before) == 4 and factor > 1 and low[1] == factor**2 * high[1]:
        up = low == before
        if np.array_equal(indices, _pixel_shuffled(_indices(before), factor, up)):
            return _shuffle(b, source.name, factor, up)
    return None


def order_of_axes(op: Op, count: int) -> list[int]:
    """The order of ``count`` axes that a permutation produces."""
    if op.short == "permute":
        return [axis % count for axis in op.args["dims"]]
    order = list(range(count))
    if op.short == "movedim":
        moved, to = ([axis % count for axis in per_axis(op.args[key], 1)] for key in ("source", "destination"))
        rest = iter(axis for axis in order if axis not in moved)
        return [moved[to.index(place)] if place in to else next(rest) for place in range(count)]
    if op.short != "transpose":
        return order[::-1]
    first, second = op.args["dim0"], op.args["dim1"]
    order[first], order[second] = order[second], order[first]
    return order


def _indices(shape: Shape) -> Array:
    """The index of each value of an item in its flat memory."""
    return np.arange(math.prod(shape[1:])).reshape(shape[1:])


def _pixel_shuffled(item: Array, factor: int, up: bool) -> Array:
    """pixel_shuffle, or, not ``up``, pixel_unshuffle, of one item."""
    channels, height, width = item.shape
    if up:
        parts = item.reshape(channels // factor**2, factor, factor, height, width).transpose(0, 3, 1, 4, 2)
        return parts.reshape(channels // factor**2, height * factor, width * factor)
    parts = item.reshape(channels, height // factor, factor, width // factor, factor).transpose(0, 2, 4, 1, 3)
    return parts.reshape(channels * factor**2, height // factor, width // factor)


def _shuffle(b: Builder, bottom: str, factor: int, up: bool) -> str:
    """A pixel shuffle: a convolution, transposed if ``up``, of kernels of factor by factor with a single 1."""
    channels = (b.top_shape if up else b.shape(bottom))[1]
    weight = np.tile(np.eye(factor**2, dtype=np.float32).reshape(factor**2, 1, factor, factor), (channels, 1, 1, 1))
    return fixed_convolution(
        b, bottom, weight, b.top_shape, group=channels, kind="Deconvolution" if up else "Convolution", stride=factor
    )


def _reorder(b: Builder, bottom: str, channels: Array) -> str:
    """The channels in another order: a 1 x 1 convolution by a permutation matrix."""
    count = len(channels)
    weight = np.eye(count, dtype=np.float32)[channels].reshape(count, count, *[1] * (len(b.top_shape) - 2))
    return fixed_convolution(b, bottom, weight, b.top_shape, group=1)
