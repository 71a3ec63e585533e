"""Rules of taking, repeating and padding places along an axis: Slice and Concat, or a fixed matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.linear import fixed_convolution, pad_kernel, zero_padding
from converters.to_caffe.program import Array, as_float32
from converters.to_caffe.shapes import MAX_PARTS, crop, require_fixed, reshape, slice_axis


@rule("slice", "narrow", "select")
def part(b: Builder) -> str:
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    axis = b.arg("dim", 0) % len(shape)
    size = shape[axis]
    start = b.arg("index", b.arg("start", 0)) or 0
    start = max(start + size, 0) if start < 0 else min(start, size)
    count = 1 if b.op.short == "select" else b.top_shape[axis]
    step = b.arg("step", 1)
    if step != 1:
        require_fixed(b, bottom, axis)
        return take(b, bottom, axis, range(start, start + count * step, step))
    if count == size:
        return reshape(b, bottom, b.top_shape)
    require_fixed(b, bottom, axis)
    return reshape(b, crop(b, bottom, [(axis, start, start + count)], suffix="slice"), b.top_shape, suffix="shape")


@rule("pad", "constant_pad_nd")
def pad(b: Builder) -> str:
    """A 1 x 1 convolution of each channel by 1, with padding; other modes take places along each axis."""
    bottom, mode = b.bottom("self"), b.arg("mode", "constant")
    if mode != "constant":
        flat = b.arg("pad")
        given = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
        return _pad_by_places(b, bottom, [(0, 0)] * (len(b.shape(bottom)) - len(given)) + given, mode)
    pairs = zero_padding(b, b.op)
    shape = b.shape(bottom)
    if len(shape) < 3 or any(map(any, pairs[:2])) or min(map(min, pairs)) < 0:
        raise Unsupported("Caffe pads spatial axes alone")
    one = np.ones((shape[1], 1, *[1] * (len(shape) - 2)), np.float32)
    steps = [(max(after - before, 0), max(before - after, 0)) for before, after in pairs[2:]]
    return fixed_convolution(
        b, bottom, pad_kernel(one, steps, [1] * len(steps)), b.top_shape, pad=[max(p) for p in pairs[2:]]
    )


def along_axis(b: Builder, value: str, axis: int, matrix: Array, suffix: str = "") -> str:
    """``value`` multiplied by a fixed matrix (after, before) along a picture's axis.

    Along the last axis that is InnerProduct; along another one a convolution, to which that axis are the channels.
    """
    shape = b.shape(value)
    after, before = matrix.shape
    if after == before and np.array_equal(matrix, np.eye(after)):
        return value
    top = (*shape[:axis], after, *shape[axis + 1 :])
    if axis == len(shape) - 1:
        param = {"num_output": after, "bias_term": False, "axis": axis}
        frozen = [{"lr_mult": 0.0, "decay_mult": 0.0}]
        return b.layer(
            "InnerProduct", value, shape=top, blobs=[matrix], suffix=suffix, inner_product_param=param, param=frozen
        )
    rows, rest = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    value = reshape(b, value, (rows, before, 1, rest), suffix=f"{suffix}_rows".removeprefix("_"))
    value = fixed_convolution(
        b,
        value,
        as_float32(matrix)[:, :, None, None],
        (rows, after, 1, rest),
        group=1,
        suffix=f"{suffix}_product".removeprefix("_"),
    )
    return reshape(b, value, top, suffix=suffix)


@rule("caffe.take")
def take_rule(b: Builder) -> str:
    bottom = b.bottom("self")
    axis = b.arg("dim") % len(b.shape(bottom))
    require_fixed(b, bottom, axis)
    return take(b, bottom, axis, b.arg("places"))


@rule("index_select", "flip")
def select_places(b: Builder) -> str:
    bottom = b.bottom("self")
    count = len(b.shape(bottom))
    if b.op.short == "flip":
        for axis in (axis % count for axis in b.arg("dims")):
            bottom = take(b, bottom, axis, list(range(b.shape(bottom)[axis]))[::-1], suffix=f"axis{axis}")
        return bottom
    places = b.constant(b.arg("index"))
    if places is None:
        raise Unsupported("at places that are computed; Caffe's Slice takes fixed ones")
    return take(b, bottom, b.arg("dim") % count, [int(place) for place in places.reshape(-1)])


def take(b: Builder, value: str, axis: int, places: Sequence[int], suffix: str = "") -> str:
    """The values at ``places`` along an axis: runs of them are sliced and concatenated.

    Of many runs, every n-th place is a convolution with that stride, and others are a matrix.
    """
    shape = b.shape(value)
    top = (*shape[:axis], len(places), *shape[axis + 1 :])
    runs = _runs(places)
    if runs == [(0, shape[axis])]:
        return value
    if len(runs) == 1:
        return crop(b, value, [(axis, *runs[0])], suffix=suffix or "slice")
    steps = {after - before for before, after in pairwise(places)}
    if len(steps) == 1 and min(steps) > 1 and axis > 1 and len(shape) > 2:
        value = crop(b, value, [(axis, places[0], places[-1] + 1)], suffix=f"{suffix}_cut".removeprefix("_"))
        one = np.ones((shape[1], 1, *[1] * (len(shape) - 2)), np.float32)
        stride = [1] * (len(shape) - 2)
        stride[axis - 2] = steps.pop()
        return fixed_convolution(b, value, one, top, stride=stride, suffix=suffix)
    if axis == 1 and len(shape) > 2:
        weight = np.eye(shape[1], dtype=np.float32)[list(places)]
        weight = weight.reshape(*weight.shape, *[1] * (len(shape) - 2))
        return fixed_convolution(b, value, weight, top, group=1, suffix=suffix)
    if len(runs) > MAX_PARTS:
        if not axis:
            raise Unsupported("it takes single items of the batch")
        return along_axis(b, value, axis, np.eye(shape[axis], dtype=np.float32)[list(places)], suffix)
    ends = sorted({point for run in runs for point in run} | {shape[axis]} - {0})
    ends = [end for end in ends if end]
    parts = dict(zip(pairwise([0, *ends]), slice_axis(b, value, axis, ends, suffix="parts"), strict=True))
    wanted = [part for start, end in runs for (first, last), part in parts.items() if start <= first and last <= end]
    b.silence([part for part in parts.values() if part not in wanted])
    return b.layer("Concat", *wanted, shape=top, suffix=suffix, concat_param={} if axis == 1 else {"axis": axis})


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """The places as runs of places in a row, each from one up to another."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


@rule("caffe.tile", "repeat")
def tile(b: Builder) -> str:
    """A value beside itself, along each axis."""
    value, repeats = b.bottom("self"), list(b.arg("repeats"))
    shape = b.shape(value)
    value = reshape(b, value, (*[1] * (len(repeats) - len(shape)), *shape), suffix="shape")
    for axis, count in enumerate(repeats):
        if count == 1:
            continue
        if count > MAX_PARTS:
            raise Unsupported(f"{count} times along axis {axis}; {MAX_PARTS} are the bound")
        shape = b.shape(value)
        top = (*shape[:axis], shape[axis] * count, *shape[axis + 1 :])
        value = b.layer("Concat", *[value] * count, shape=top, suffix=f"axis{axis}", concat_param={"axis": axis})
    return value


def _pad_by_places(b: Builder, value: str, pairs: Sequence[tuple[int, int]], mode: str) -> str:
    """Padding by the values of the border: replicate, reflect or circular."""
    kind = {"replicate": "edge", "reflect": "reflect", "circular": "wrap"}.get(mode)
    if kind is None:
        raise Unsupported(f"its mode is {mode}")
    for axis, pair in enumerate(pairs):
        if any(pair):
            require_fixed(b, value, axis)
            places = np.pad(np.arange(b.shape(value)[axis]), pair, mode=kind)  # type: ignore[call-overload]
            value = take(b, value, axis, places.tolist(), suffix=f"axis{axis}")
    return value
