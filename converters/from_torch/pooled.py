"""Rules of pooling, of means and sums over axes, and of enlarging."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.program import Array, Shape
from converters.from_torch.scalars import power
from converters.from_torch.shaped import cut, reshape, whole_image
from converters.from_torch.weighted import fixed_convolution, listed, sizes


def _counts(sizes_: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool) -> list[int]:
    """How many windows each axis has; a last one that would start behind the image is dropped."""
    found = []
    for n, k, s, p in zip(sizes_, kernel, stride, pad, strict=True):
        count = (-(-(n + 2 * p - k) // s) if ceil else (n + 2 * p - k) // s) + 1
        found.append(count - 1 if (count - 1) * s >= n + p else count)
    return found


@rule("max_pool1d", "max_pool2d", "max_pool2d_with_indices", "max_pool1d_with_indices")
def max_pool(b: Builder) -> list[str]:
    if any(step != 1 for step in listed(b.arg("dilation", 1), 1)):
        raise Unsayable("Caffe's windows have no dilation")
    if len(b.op.outputs) > 1 and b.op.outputs[1] in b.wanted:
        return _with_mask(b)
    return [_pooled(b, "MAX"), *b.op.outputs[1:]]


def _with_mask(b: Builder) -> list[str]:
    """With the places of the largest, in the picture: Pooling's second top."""
    if "1d" in b.op.short or len(b.top) != 4:
        raise Unsayable("its indices are read; Caffe gives those of pictures, with a batch axis")
    bottom = b.bottom("self")
    kernel, pad = listed(b.arg("kernel_size"), 2), listed(b.arg("padding", 0), 2)
    top = windows(b, bottom, "MAX", kernel, listed(b.arg("stride") or kernel, 2), pad, bool(b.arg("ceil_mode", False)))
    (pooling,) = [made for made in b.made if made.type == "Pooling"]
    if pooling.bottoms != [bottom] or len(b.made) > 1:
        raise Unsayable("its indices are read, and Caffe has more windows, which round up; use ceil_mode=True, or --for caffe")
    pooling.tops.append(f"{top}:mask")
    b.silence([] if b.op.outputs[0] in b.wanted else [top])
    return [top, pooling.tops[1]]


@rule("avg_pool1d", "avg_pool2d")
def avg_pool(b: Builder) -> str:
    return _pooled(b, "AVE")


def _pooled(b: Builder, pool: str) -> str:
    bottom = b.bottom("self")
    shape, line = b.shape(bottom), "1d" in b.op.short
    if len(shape) != (3 if line else 4):
        raise Unsayable("its input has no batch axis")
    axes = 1 if line else 2
    kernel, pad = listed(b.arg("kernel_size"), axes), listed(b.arg("padding", 0), axes)
    stride = listed(b.arg("stride") or kernel, axes)
    if line:
        shape = (*shape[:2], 1, shape[2])
        bottom = reshape(b, bottom, shape, note="as_image")
        kernel, pad, stride = [1, *kernel], [0, *pad], [1, *stride]
    top = windows(b, bottom, pool, kernel, stride, pad, bool(b.arg("ceil_mode", False)))
    if pool == "AVE":
        own = [_parts(n, k, s, p, count, True) for n, k, s, p, count in _each(shape, kernel, stride, pad, b.shape(top))]
        inside = b.arg("count_include_pad", True)
        wanted = [_parts(n, k, s, p, count, inside) for n, k, s, p, count in _each(shape, kernel, stride, pad, b.shape(top))]
        top = _divided_anew(b, top, np.outer(*own), np.outer(*wanted), b.arg("divisor_override"))
    return reshape(b, top, b.top, note="as_line") if line else top


def _each(shape: Shape, kernel: list[int], stride: list[int], pad: list[int], top: Shape) -> Any:
    return zip(shape[2:], kernel, stride, pad, top[2:], strict=True)


def _parts(n: int, kernel: int, stride: int, pad: int, count: int, padded: bool) -> Array:
    """How many places of the image, the padded one or the bare one, each window has along an axis."""
    starts = np.arange(count) * stride - pad
    ends = np.minimum(starts + kernel, n + pad)
    return ends - starts if padded else np.minimum(ends, n) - np.maximum(starts, 0)


def _divided_anew(b: Builder, top: str, own: Array, wanted: Array, divisor: int | None) -> str:
    """Means by the places that ATen counts, out of those by the places that Caffe counts."""
    factor = own / (wanted if divisor is None else divisor)
    if np.all(factor == 1):
        return top
    if np.all(factor == factor.flat[0]):
        return power(b, top, scale=float(factor.flat[0]), note="count")
    param = {"axis": 2, "num_axes": 2}
    return b.layer("Scale", top, shape=b.shape(top), blobs=[factor.astype(np.float32)], note="count", scale_param=param)


def windows(b: Builder, bottom: str, pool: str, kernel: list[int], stride: list[int], pad: list[int], ceil: bool) -> str:
    """Pooling by these windows. Where Caffe, which rounds up, has more of them than rounding down gives, the places that only
    those see are cut off, or they themselves are where they see padding."""
    shape = b.shape(bottom)
    counts = _counts(shape[2:], kernel, stride, pad, ceil)
    up = _counts(shape[2:], kernel, stride, pad, True)
    # without padding the reference keeps windows behind the image, too, and reads what is not its own; OpenCV for each axis
    behind = [-(-(n - k) // s) + 1 for n, k, s in zip(shape[2:], kernel, stride, strict=True)]
    both = b.audience == "both"
    up = [all_ if p == 0 and (both or not any(pad)) else u for u, all_, p in zip(up, behind, pad, strict=True)]
    param: dict[str, Any] = {"pool": pool}
    param |= _single(sizes("kernel", kernel)) | _single(sizes("stride", stride, 1)) | _single(sizes("pad", pad, 0))
    if up == counts:
        return b.layer("Pooling", bottom, shape=(*shape[:2], *up), pooling_param=param)
    if not both:
        return b.layer("Pooling", bottom, shape=(*shape[:2], *counts), pooling_param={**param, "round_mode": "FLOOR"})
    axes = list(zip(range(2, 4), shape[2:], counts, up, pad, strict=True))
    ends = [
        (axis, min(n, (c - 1) * s + k)) for (axis, n, c, u, p), s, k in zip(axes, stride, kernel, strict=True) if p == 0 != u - c
    ]
    bottom = cut(b, bottom, [(axis, 0, end) for axis, end in ends])
    tops = [u if p else c for _, _, c, u, p in axes]
    top = b.layer("Pooling", bottom, shape=(*shape[:2], *tops), pooling_param=param)
    return cut(b, top, [(axis, 0, c) for axis, _, c, u, p in axes if p and u != c], note="windows")


def _single(settings: dict[str, Any]) -> dict[str, Any]:
    """Pooling's settings are no lists."""
    return {name: value[0] if isinstance(value, list) else value for name, value in settings.items()}


@rule("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "_adaptive_avg_pool2d")
def adaptive(b: Builder) -> list[str]:
    if len(b.op.outputs) > 1 and b.op.outputs[1] in b.wanted:
        raise Unsayable("its indices are read")
    bottom, pool = b.bottom("self"), "MAX" if "max" in b.op.short else "AVE"
    shape, line = b.shape(bottom), "1d" in b.op.short
    if len(shape) != (3 if line else 4):
        raise Unsayable("its input has no batch axis")
    if line:
        shape = (*shape[:2], 1, shape[2])
        bottom = reshape(b, bottom, shape, note="as_image")
    goal = (1, *b.top[2:]) if line else b.top[2:]
    if set(goal) == {1}:
        top = whole_image(b, bottom, pool)
    else:
        laid = [_even_windows(n, count) for n, count in zip(shape[2:], goal, strict=True)]
        top = windows(b, bottom, pool, [kernel for kernel, _ in laid], [stride for _, stride in laid], [0, 0], False)
    return [reshape(b, top, b.top, note="as_line") if line else top, *b.op.outputs[1:]]


def _even_windows(size: int, count: int) -> tuple[int, int]:
    """Kernel and stride of ``count`` windows over ``size`` places."""
    starts = [i * size // count for i in range(count)]
    lengths = {-(-(i + 1) * size // count) - start for i, start in enumerate(starts)}
    strides = {b - a for a, b in pairwise(starts)} or {1}
    if len(lengths) > 1 or len(strides) > 1:
        raise Unsayable(f"its {count} windows over {size} places are not of one size; take an input whose size they divide")
    return lengths.pop(), strides.pop()


@rule("mean", "sum")
def reduced(b: Builder) -> str:
    """By what fits: pooling of whole images, a convolution over the channels, Reduction over the last axes."""
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    dims = b.arg("dim")
    axes = sorted({d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(shape)))})
    if len(shape) == 4 and axes == [2, 3]:
        top = whole_image(b, bottom, "AVE")
        top = power(b, top, scale=float(math.prod(shape[2:])), note="sum") if b.op.short == "sum" else top
    elif axes == [1] and len(shape) > 2:
        weight = np.full((1, shape[1], *[1] * (len(shape) - 2)), 1 if b.op.short == "sum" else 1 / shape[1], np.float32)
        top = fixed_convolution(b, bottom, weight, (shape[0], 1, *shape[2:]), group=1)
    elif axes == list(range(axes[0], len(shape))):
        param = {"operation": b.op.short.upper(), **({"axis": axes[0]} if axes[0] else {})}
        top = b.layer("Reduction", bottom, shape=shape[: axes[0]], reduction_param=param)
    else:
        raise Unsayable(f"over axes {axes} of {len(shape)}; Caffe reduces the last axes, or the channels")
    return reshape(b, top, b.top, note="shape")


@rule("max_unpool2d")
def unpool(b: Builder) -> str:
    if b.audience != "forks":
        raise Unsayable("of Caffe's only forks have Upsample (--for forks)")
    bottom, size = b.bottom("self"), b.top[2:]
    shape = b.shape(bottom)[2:]
    scale = size[0] // shape[0]
    even = size == tuple(scale * n for n in shape)
    param = {"scale": scale} if even else {"upsample_h": size[0], "upsample_w": size[1]}
    return b.layer("Upsample", bottom, b.bottom("indices"), shape=b.top, upsample_param=param)


@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def nearest(b: Builder) -> str:
    bottom = b.bottom("input") if "input" in b.op.args else b.bottom("self")
    shape, top = b.shape(bottom), b.top
    factors = [big // small for big, small in zip(top[2:], shape[2:], strict=True)]
    if (
        any(small * factor != big for small, factor, big in zip(shape[2:], factors, top[2:], strict=True))
        or len(set(factors)) > 1
    ):
        raise Unsayable(f"from {list(shape[2:])} to {list(top[2:])}; Caffe enlarges by whole numbers, the same for each axis")
    weight = np.ones((shape[1], 1, *factors), np.float32)
    return fixed_convolution(b, bottom, weight, top, kind="Deconvolution", stride=factors[0])


@rule("upsample_bilinear2d")
def bilinear(b: Builder) -> str:
    if b.audience != "forks" or not b.arg("align_corners", False):
        raise Unsayable(
            "Caffe's Deconvolution differs from it at the border; forks have Interp, for align_corners=True (--for forks)"
        )
    param = {"height": b.top[2], "width": b.top[3]}
    return b.layer("Interp", b.bottom("input"), shape=b.top, interp_param=param)
