"""Rules of the operations that change a value's shape, take parts of it, or put parts together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.permuted import permuted
from converters.from_torch.program import Ref, Shape
from converters.from_torch.weighted import fixed_convolution

#: into how many parts an axis is taken that changes its place
MOST_PARTS = 64


def reshape(b: Builder, value: str, shape: Sequence[int], note: str = "", flat: bool = False) -> str:
    """``value`` in another shape, by Flatten (of axes from 1 on, or if ``flat``) or Reshape; itself if it has that shape."""
    before, after = b.shape(value), tuple(shape)
    if before == after:
        return value
    if len(after) == 2 and len(before) > 2 and before[0] == after[0]:
        return b.layer("Flatten", value, shape=after, note=note)
    kept = 0
    while kept < min(len(before), len(after)) and before[kept] == after[kept]:
        kept += 1
    dims = [0] * kept + list(after[kept:])
    if not kept:
        dims[0] = -1  # where the batch is, for batches of other sizes
    return b.layer("Reshape", value, shape=after, note=note, reshape_param={"shape": {"dim": dims}})


def whole_image(b: Builder, bottom: str, pool: str, note: str = "") -> str:
    param = {"pool": pool, "global_pooling": True}
    return b.layer("Pooling", bottom, shape=(*b.shape(bottom)[:2], 1, 1), note=note, pooling_param=param)


@rule("flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "unflatten", "expand", "expand_as")
def change_shape(b: Builder) -> str:
    bottom = b.bottom("self")
    found = permuted(b, bottom)
    if found is not None:
        return found
    if np.prod(b.shape(bottom)) != np.prod(b.top):
        return enlarged(b, bottom, b.top, "repeated")
    if not b.fixed(bottom, 0) and b.fixed(b.op.outputs[0], 0):
        raise Unsayable("it makes another axis of the batch")
    return reshape(b, bottom, b.top)


def enlarged(b: Builder, value: str, top: Shape, note: str) -> str:
    """``value`` repeated along the axes in which it has one place, by convolutions with ones."""
    value = reshape(b, value, (1,) * (len(top) - len(b.shape(value))) + b.shape(value), note=f"{note}_shape")
    shape = b.shape(value)
    if shape == top:
        return value
    if len(shape) == 2:
        value = reshape(b, value, (*shape, 1, 1), note=f"{note}_image")
        return reshape(b, enlarged(b, value, (*top, 1, 1), note), top, note=note)
    if len(shape) < 3 or shape[0] != top[0] or any(small not in (1, big) for small, big in zip(shape, top, strict=True)):
        raise Unsayable(f"it repeats values, from {shape} to {top}")
    if shape[1] != top[1]:
        ones = np.ones((top[1], 1, *[1] * (len(top) - 2)), np.float32)
        value = fixed_convolution(b, value, ones, (*top[:2], *shape[2:]), group=1, note=f"{note}_channels")
    steps = [big if small != big else 1 for small, big in zip(shape[2:], top[2:], strict=True)]
    if set(steps) == {1}:
        return value
    ones = np.ones((top[1], 1, *steps), np.float32)
    return fixed_convolution(b, value, ones, top, kind="Deconvolution", note=f"{note}_places")


@rule("permute", "transpose", "t", "movedim", "numpy_T")
def permute(b: Builder) -> str:
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    if b.op.short == "permute":
        order = [axis % len(shape) for axis in b.arg("dims")]
    else:
        order = list(range(len(shape)))
        first, second = (b.arg("dim0"), b.arg("dim1")) if b.op.short == "transpose" else (0, 1)
        order[first], order[second] = order[second], order[first]
    return turned(b, bottom, order)


def turned(b: Builder, value: str, order: Sequence[int], note: str = "") -> str:
    """``value`` with its axes in another order: Permute, which forks have, or, where one axis changes its place, its parts put
    together elsewhere."""
    shape = b.shape(value)
    top = tuple(shape[axis] for axis in order)
    real = [axis for axis in order if shape[axis] != 1 or not b.fixed(value, axis)]
    if real == sorted(real):
        return reshape(b, value, top, note=note)
    if b.audience == "forks":
        return b.layer("Permute", value, shape=top, note=note, permute_param={"order": list(order)})
    movable = [axis for axis in real if _without(real, axis) == sorted(_without(real, axis)) and b.fixed(value, axis)]
    axis = min(movable, key=lambda axis: shape[axis], default=-1)
    if axis < 0 or shape[axis] > MOST_PARTS:
        raise Unsayable(f"its axes change places, {list(order)}; of Caffe's only forks have Permute (--for forks)")
    place = list(order).index(axis)
    one = (*top[:place], 1, *top[place + 1 :])
    parts = sliced(b, value, axis, range(1, shape[axis] + 1), note=f"{note}_parts".removeprefix("_"))
    parts = [reshape(b, part, one, note=f"{note}_part{i}".removeprefix("_")) for i, part in enumerate(parts)]
    return b.layer("Concat", *parts, shape=top, note=note, concat_param={} if place == 1 else {"axis": place})


def _without(axes: Sequence[int], one: int) -> list[int]:
    return [axis for axis in axes if axis != one]


@rule("cat", "concat", "concatenate")
def concat(b: Builder) -> str:
    values = b.arg("tensors")
    if any(b.constant(value) is not None for value in values):
        raise Unsayable("one of its parts does not depend on the net's input")
    names = [value.name for value in values if isinstance(value, Ref)]
    axis = b.arg("dim", 0) % len(b.top)
    if len(names) == 1:
        return names[0]
    return b.layer("Concat", *names, shape=b.top, concat_param={} if axis == 1 else {"axis": axis})


@rule("stack")
def stack(b: Builder) -> str:
    axis = b.arg("dim", 0) % len(b.top)
    one = (*b.top[:axis], 1, *b.top[axis + 1 :])
    names = [reshape(b, value.name, one, note=f"part{i}") for i, value in enumerate(b.arg("tensors"))]
    return b.layer("Concat", *names, shape=b.top, concat_param={} if axis == 1 else {"axis": axis})


def sliced(b: Builder, value: str, axis: int, ends: Sequence[int], note: str = "") -> list[str]:
    """The parts of ``value`` along an axis, which end before ``ends``."""
    shape = b.shape(value)
    if len(ends) == 1:
        return [value]
    shapes = [(*shape[:axis], end - start, *shape[axis + 1 :]) for start, end in pairwise([0, *ends])]
    param = {"slice_point": list(ends[:-1]), **({} if axis == 1 else {"axis": axis})}
    return b.layers("Slice", value, shapes=shapes, note=note, slice_param=param)


def cut(b: Builder, value: str, parts: Sequence[tuple[int, int, int]], note: str = "cut") -> str:
    """``value`` from a place to another along some axes, (axis, from, to) each."""
    rest: list[str] = []
    for axis, start, end in parts:
        ends = sorted({start, end, b.shape(value)[axis]} - {0})
        tops = sliced(b, value, axis, ends, note=f"{note}{axis}")
        value = tops[ends.index(end)]
        rest += [top for top in tops if top != value]
    b.silence(rest)
    return value


@rule("split", "split_with_sizes", "chunk", "tensor_split", "unbind")
def split(b: Builder) -> list[str]:
    bottom = b.bottom("self")
    axis = b.arg("dim", 0) % len(b.shape(bottom))
    _need_fixed(b, bottom, axis)
    outputs = b.op.outputs
    unbound = b.op.short == "unbind"
    ends = list(accumulate(1 if unbound else b.program.shapes[name][axis] for name in outputs))
    parts = sliced(b, bottom, axis, ends)
    b.silence([part for part, name in zip(parts, outputs, strict=True) if name not in b.wanted])
    if unbound:
        return [
            reshape(b, part, b.program.shapes[name], note=f"part{i}") if name in b.wanted else part
            for i, (part, name) in enumerate(zip(parts, outputs, strict=True))
        ]
    return parts


@rule("slice", "narrow", "select")
def part(b: Builder) -> str:
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    axis = b.arg("dim", 0) % len(shape)
    if b.arg("step", 1) != 1:
        raise Unsayable("it takes every so-manieth value; Caffe's Slice takes all")
    size = shape[axis]
    start = b.arg("index", b.arg("start", 0)) or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    count = 1 if b.op.short == "select" else b.top[axis]
    if count == size:
        return reshape(b, bottom, b.top)
    _need_fixed(b, bottom, axis)
    return reshape(b, cut(b, bottom, [(axis, start, start + count)], note="slice"), b.top, note="shape")


def _need_fixed(b: Builder, value: str, axis: int) -> None:
    if not b.fixed(value, axis):
        raise Unsayable("it takes parts of an axis whose size is not fixed")
