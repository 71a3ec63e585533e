"""Rules of pooling and unpooling, and of means and sums over axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.linear import fixed_convolution, per_axis, spatial_setting
from converters.to_caffe.places import along_axis
from converters.to_caffe.program import Array
from converters.to_caffe.scalars import power
from converters.to_caffe.shapes import crop, global_pool, reshape


def _window_counts(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool
) -> list[int]:
    """How many windows each axis has; a last one that would start beyond the image is dropped."""
    counts = []
    for n, k, s, p in zip(sizes, kernel, stride, pad, strict=True):
        count = (-(-(n + 2 * p - k) // s) if ceil else (n + 2 * p - k) // s) + 1
        counts.append(count - 1 if (count - 1) * s >= n + p else count)
    return counts


@rule("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices")
def max_pool(b: Builder) -> list[str]:
    if any(step != 1 for step in per_axis(b.arg("dilation", 1), 1)):
        raise Unsupported("Caffe's windows have no dilation")
    if len(b.op.outputs) > 1 and b.op.outputs[1] in b.used_outputs:
        return _max_pool_with_indices(b)
    return [_pooled(b, "MAX"), *b.op.outputs[1:]]


def _max_pool_with_indices(b: Builder) -> list[str]:
    """Max pooling whose indices are read: they are Pooling's second top."""
    if "1d" in b.op.short or len(b.top_shape) != 4:
        raise Unsupported("its indices are read; Caffe gives those of pictures, with a batch axis")
    bottom = b.bottom("self")
    kernel, pad = per_axis(b.arg("kernel_size"), 2), per_axis(b.arg("padding", 0), 2)
    top = pool_windows(
        b, bottom, "MAX", kernel, per_axis(b.arg("stride") or kernel, 2), pad, bool(b.arg("ceil_mode", False))
    )
    (pooling,) = [layer for layer in b.new_layers if layer.type == "Pooling"]
    if pooling.bottoms != [bottom] or len(b.new_layers) > 1:
        raise Unsupported(
            "its indices are read, and Caffe has more windows, which round up; use ceil_mode=True, or --for caffe"
        )
    pooling.tops.append(f"{top}:mask")
    b.silence([] if b.op.outputs[0] in b.used_outputs else [top])
    return [top, pooling.tops[1]]


@rule("avg_pool1d", "avg_pool2d")
def avg_pool(b: Builder) -> str:
    return _pooled(b, "AVE")


def _pooled(b: Builder, pool: str) -> str:
    bottom = b.bottom("self")
    shape, one_axis = b.shape(bottom), "1d" in b.op.short
    if len(shape) != (3 if one_axis else 4):
        raise Unsupported("its input has no batch axis")
    axes = 1 if one_axis else 2
    kernel, pad = per_axis(b.arg("kernel_size"), axes), per_axis(b.arg("padding", 0), axes)
    stride = per_axis(b.arg("stride") or kernel, axes)
    if one_axis:
        shape = (*shape[:2], 1, shape[2])
        bottom = reshape(b, bottom, shape, suffix="as_image")
        kernel, pad, stride = [1, *kernel], [0, *pad], [1, *stride]
    top = pool_windows(b, bottom, pool, kernel, stride, pad, bool(b.arg("ceil_mode", False)))
    if pool == "AVE":
        spans = list(zip(shape[2:], kernel, stride, pad, b.shape(top)[2:], strict=True))
        include_pad = b.arg("count_include_pad", True)
        caffe_divisors = np.outer(*(_window_sizes(*span, include_pad=True) for span in spans))
        aten_divisors = np.outer(*(_window_sizes(*span, include_pad=include_pad) for span in spans))
        top = _rescale_means(b, top, caffe_divisors, b.arg("divisor_override") or aten_divisors)
    return reshape(b, top, b.top_shape, suffix="as_line") if one_axis else top


@rule("caffe.pool_windows")
def any_windows(b: Builder) -> str:
    """Pooling over windows whose padding may differ between the sides: as many windows as the top has places."""
    bottom, pool = b.bottom("self"), b.arg("pool")
    shape, top_shape = b.shape(bottom), b.top_shape
    kernel, stride = b.arg("kernel"), b.arg("stride")
    before, after = b.arg("before"), b.arg("after")
    one_axis = len(shape) == 3
    if one_axis:
        shape, top_shape = (*shape[:2], 1, shape[2]), (*top_shape[:2], 1, top_shape[2])
        bottom = reshape(b, bottom, shape, suffix="as_image")
        kernel, stride, before, after = [1, *kernel], [1, *stride], [0, *before], [0, *after]
    elif len(shape) != 4:
        raise Unsupported("its input is no picture")
    counts = list(top_shape[2:])
    # Caffe pads both sides alike, by less than the kernel: windows too many at the front are cut off
    front = [_windows_before(*axis) for axis in zip(kernel, stride, before, counts, shape[2:], strict=True)]
    pad = [p + f * s for p, f, s in zip(before, front, stride, strict=True)]
    wanted = [f + count for f, count in zip(front, counts, strict=True)]
    top = pool_windows(b, bottom, pool, kernel, stride, pad, False, wanted)
    top = crop(b, top, [(2 + i, f, f + counts[i]) for i, f in enumerate(front) if f], suffix="front")
    if pool == "AVE":
        spans = list(zip(shape[2:], kernel, stride, before, counts, strict=True))
        caffe = [
            _window_sizes(n, k, s, p, f + count, include_pad=True)[f:]
            for n, k, s, p, f, count in zip(shape[2:], kernel, stride, pad, front, counts, strict=True)
        ]
        if b.arg("count_include_pad"):
            wide = zip(spans, after, strict=True)
            divisors = [_window_sizes(*span, include_pad=True, end=end) for span, end in wide]
        else:
            divisors = [_window_sizes(*span, include_pad=False) for span in spans]
        top = _rescale_means(b, top, np.outer(*caffe), np.outer(*divisors))
    return reshape(b, top, b.top_shape, suffix="as_line") if one_axis else top


def _windows_before(kernel: int, stride: int, before: int, count: int, size: int) -> int:
    """How many windows Caffe has to have before the first, so that it has the last: its padding is that of the front.

    Raises Unsupported where none will do.
    """
    for front in range(kernel):
        pad = before + front * stride
        if pad and pad >= kernel:
            break
        if _most_windows(size, kernel, stride, pad) >= front + count:
            return front
    raise Unsupported(
        f"its windows of {kernel} reach beyond a padding of {kernel - 1}; Caffe pads by less than a window"
    )


def _most_windows(size: int, kernel: int, stride: int, pad: int) -> int:
    """How many windows Caffe has along an axis where it rounds up."""
    every = -(-(size + 2 * pad - kernel) // stride) + 1
    return every - 1 if pad and (every - 1) * stride >= size + pad else every


def _window_sizes(
    n: int, kernel: int, stride: int, pad: int, count: int, include_pad: bool, end: int | None = None
) -> Array:
    """How many places each of ``count`` windows covers along an axis, with the padding or without.

    ``end`` is the padding behind the axis, ``pad`` by default.
    """
    starts = np.arange(count) * stride - pad
    ends = np.minimum(starts + kernel, n + (pad if end is None else end))
    return ends - starts if include_pad else np.minimum(ends, n) - np.maximum(starts, 0)


def _rescale_means(b: Builder, top: str, caffe_divisors: Array, aten_divisors: Array | int) -> str:
    """Multiply Caffe's means so that they are ATen's, which divides by other numbers of places."""
    factor = caffe_divisors / aten_divisors
    if np.all(factor == 1):
        return top
    if np.all(factor == factor.flat[0]):
        return power(b, top, scale=float(factor.flat[0]), suffix="count")
    param = {"axis": 2, "num_axes": 2}
    return b.layer(
        "Scale", top, shape=b.shape(top), blobs=[factor.astype(np.float32)], suffix="count", scale_param=param
    )


def pool_windows(
    b: Builder,
    bottom: str,
    pool: str,
    kernel: list[int],
    stride: list[int],
    pad: list[int],
    ceil: bool,
    wanted: list[int] | None = None,
) -> str:
    """A Pooling layer over these windows; ``wanted`` is how many each axis has, by default as many as ATen makes.

    Caffe rounds the number of windows up. Where that gives more than the program has, ``round_mode`` turns it off for
    Caffe itself; OpenCV does not read that setting, so that for both the input is cropped to what the program's windows
    cover, or, along a padded axis, the additional windows are cropped from the top.
    """
    shape = b.shape(bottom)
    counts = wanted or _window_counts(shape[2:], kernel, stride, pad, ceil)
    caffe_counts = _window_counts(shape[2:], kernel, stride, pad, True)
    # without padding Caffe does not drop a window that starts beyond the image; OpenCV decides that for each axis
    undropped = [-(-(n - k) // s) + 1 for n, k, s in zip(shape[2:], kernel, stride, strict=True)]
    both = b.read_by_opencv
    caffe_counts = [
        every if p == 0 and (both or not any(pad)) else count
        for count, every, p in zip(caffe_counts, undropped, pad, strict=True)
    ]
    param: dict[str, Any] = {"pool": pool}
    param |= (
        _scalar_settings(spatial_setting("kernel", kernel))
        | _scalar_settings(spatial_setting("stride", stride, 1))
        | _scalar_settings(spatial_setting("pad", pad, 0))
    )
    if caffe_counts == counts:
        return b.layer("Pooling", bottom, shape=(*shape[:2], *counts), pooling_param=param)
    if any(has < count for has, count in zip(caffe_counts, counts, strict=True)):
        raise Unsupported("it has windows over padding alone")
    if not both and counts == _window_counts(shape[2:], kernel, stride, pad, False):
        return b.layer("Pooling", bottom, shape=(*shape[:2], *counts), pooling_param={**param, "round_mode": "FLOOR"})
    additional = [i for i in range(2) if caffe_counts[i] != counts[i]]
    covered = [(2 + i, 0, min(shape[2 + i], (counts[i] - 1) * stride[i] + kernel[i])) for i in additional if not pad[i]]
    bottom = crop(b, bottom, covered)
    tops = [caffe_counts[i] if pad[i] else counts[i] for i in range(2)]
    top = b.layer("Pooling", bottom, shape=(*shape[:2], *tops), pooling_param=param)
    return crop(b, top, [(2 + i, 0, counts[i]) for i in additional if pad[i]], suffix="windows")


def _scalar_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with numbers instead of lists: pooling_param has no lists, as convolution_param does."""
    return {name: value[0] if isinstance(value, list) else value for name, value in settings.items()}


@rule(
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "_adaptive_avg_pool2d"
)
def adaptive(b: Builder) -> list[str]:
    if len(b.op.outputs) > 1 and b.op.outputs[1] in b.used_outputs:
        raise Unsupported("its indices are read")
    bottom, pool = b.bottom("self"), "MAX" if "max" in b.op.short else "AVE"
    shape, one_axis = b.shape(bottom), "1d" in b.op.short
    if len(shape) != (3 if one_axis else 4):
        raise Unsupported("its input has no batch axis")
    if one_axis:
        shape = (*shape[:2], 1, shape[2])
        bottom = reshape(b, bottom, shape, suffix="as_image")
    goal = (1, *b.top_shape[2:]) if one_axis else b.top_shape[2:]
    if set(goal) == {1}:
        top = global_pool(b, bottom, pool)
    else:
        windows = [_uniform_windows(n, count) for n, count in zip(shape[2:], goal, strict=True)]
        uniform = [window for window in windows if window is not None]
        if len(uniform) == 2:
            top = pool_windows(
                b, bottom, pool, [kernel for kernel, _ in uniform], [stride for _, stride in uniform], [0, 0], False
            )
        elif pool == "AVE":
            top = bottom
            for axis, count in enumerate(goal, 2):
                top = along_axis(b, top, axis, _adaptive_means(shape[axis], count), suffix=f"axis{axis}")
        else:
            raise Unsupported(
                f"its windows, from {list(shape[2:])} to {list(goal)}, are not of one size; take an input whose size "
                f"they divide"
            )
    return [reshape(b, top, b.top_shape, suffix="as_line") if one_axis else top, *b.op.outputs[1:]]


def _adaptive_windows(size: int, count: int) -> list[tuple[int, int]]:
    """The first place of each of ``count`` adaptive windows over ``size`` places, and the one behind its last."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _uniform_windows(size: int, count: int) -> tuple[int, int] | None:
    """Kernel and stride of ``count`` adaptive windows over ``size`` places; None where they differ."""
    windows = _adaptive_windows(size, count)
    lengths = {end - start for start, end in windows}
    strides = {after[0] - before[0] for before, after in pairwise(windows)} or {1}
    return (lengths.pop(), strides.pop()) if len(lengths) == len(strides) == 1 else None


def _adaptive_means(size: int, count: int) -> Array:
    """The share of each place in each adaptive window."""
    matrix = np.zeros((count, size), np.float32)
    for row, (start, end) in zip(matrix, _adaptive_windows(size, count), strict=True):
        row[start:end] = 1 / (end - start)
    return matrix


@rule("mean", "sum")
def reduce(b: Builder) -> str:
    """Global pooling over axes 2 and 3, a convolution over the channels, Reduction over the last axes."""
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    dims = b.arg("dim")
    axes = sorted({d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(shape)))})
    if len(shape) == 4 and axes == [2, 3]:
        top = global_pool(b, bottom, "AVE")
        top = power(b, top, scale=float(math.prod(shape[2:])), suffix="sum") if b.op.short == "sum" else top
    elif axes == [1] and len(shape) > 2:
        weight = np.full((1, shape[1], *[1] * (len(shape) - 2)), 1 if b.op.short == "sum" else 1 / shape[1], np.float32)
        top = fixed_convolution(b, bottom, weight, (shape[0], 1, *shape[2:]), group=1)
    elif axes == list(range(axes[0], len(shape))) and b.audience != "opencv":
        param = {"operation": b.op.short.upper(), **({"axis": axes[0]} if axes[0] else {})}
        top = b.layer("Reduction", bottom, shape=shape[: axes[0]], reduction_param=param)
    elif axes[0] > 0 and len(shape) > 2:
        top = bottom
        for axis in axes:
            share = 1 if b.op.short == "sum" else 1 / shape[axis]
            top = along_axis(b, top, axis, np.full((1, shape[axis]), share, np.float32), suffix=f"axis{axis}")
    else:
        raise Unsupported(f"over axes {axes} of {len(shape)}; Caffe reduces the axes of items, not the batch")
    return reshape(b, top, b.top_shape, suffix="shape")


@rule("max_unpool2d")
def unpool(b: Builder) -> str:
    if not b.has_forks_layers:
        raise Unsupported("of Caffe's only forks have Upsample (--for forks)")
    bottom, size = b.bottom("self"), b.top_shape[2:]
    shape = b.shape(bottom)[2:]
    scale = size[0] // shape[0]
    multiple = size == tuple(scale * n for n in shape)
    param = {"scale": scale} if multiple else {"upsample_h": size[0], "upsample_w": size[1]}
    return b.layer("Upsample", bottom, b.bottom("indices"), shape=b.top_shape, upsample_param=param)
