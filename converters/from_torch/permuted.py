"""Rules of channels that change places, among themselves or with places of the picture: convolutions of zeros and ones."""

from __future__ import annotations

import math

import numpy as np

from converters.from_torch.builder import Builder, rule
from converters.from_torch.program import Array, Ref, Shape
from converters.from_torch.weighted import fixed_convolution

_SHAPING = ("view", "reshape", "_unsafe_view", "flatten", "unflatten")


@rule("pixel_shuffle", "pixel_unshuffle")
def pixel_shuffle(b: Builder) -> str:
    bottom = b.bottom("self")
    return _shuffle(b, bottom, b.arg("upscale_factor", b.arg("downscale_factor")), "un" not in b.op.short)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(b: Builder) -> str:
    bottom, groups = b.bottom("self"), b.arg("groups")
    channels = b.top[1]
    return _reorder(b, bottom, np.arange(channels).reshape(groups, channels // groups).T.ravel())


def permuted(b: Builder, value: str) -> str | None:
    """The layer for a shape that is taken apart, its axes permuted, and put together, where that is one of the above."""
    permute = b.maker(value, "permute", "transpose")
    apart = None if permute is None else b.maker(b.of(permute).arg("self").name, *_SHAPING)
    source = None if apart is None else b.of(apart).arg("self")
    if permute is None or apart is None or not isinstance(source, Ref) or b.constant(source) is not None:
        return None
    before, after = b.shape(source.name), b.top
    between = b.program.shapes[apart.outputs[0]]
    order = _order(b.of(permute), len(between))
    if len(before) < 3 or len(before) != len(after) or order[0] != 0 or not before[0] == between[0] == after[0]:
        return None
    places = np.arange(math.prod(before[1:])).reshape(between[1:]).transpose([axis - 1 for axis in order[1:]]).reshape(after[1:])
    if before == after:
        channels = places.reshape(after[1], -1)[:, 0] // math.prod(before[2:])
        if np.array_equal(places, _places(before)[channels]):
            return _reorder(b, source.name, channels)
    small, big = (before, after) if before[1] > after[1] else (after, before)
    factor = math.isqrt(small[1] // big[1])
    if len(before) == 4 and factor > 1 and small[1] == factor**2 * big[1]:
        up = small == before
        if np.array_equal(places, _pixels(_places(before), factor, up)):
            return _shuffle(b, source.name, factor, up)
    return None


def _order(b: Builder, axes: int) -> list[int]:
    if b.op.short == "permute":
        return [axis % axes for axis in b.arg("dims")]
    order = list(range(axes))
    first, second = b.arg("dim0"), b.arg("dim1")
    order[first], order[second] = order[second], order[first]
    return order


def _places(shape: Shape) -> Array:
    return np.arange(math.prod(shape[1:])).reshape(shape[1:])


def _pixels(places: Array, factor: int, up: bool) -> Array:
    """What pixel_shuffle, or pixel_unshuffle, makes of one item."""
    channels, height, width = places.shape
    if up:
        parts = places.reshape(channels // factor**2, factor, factor, height, width).transpose(0, 3, 1, 4, 2)
        return parts.reshape(channels // factor**2, height * factor, width * factor)
    parts = places.reshape(channels, height // factor, factor, width // factor, factor).transpose(0, 2, 4, 1, 3)
    return parts.reshape(channels * factor**2, height // factor, width // factor)


def _shuffle(b: Builder, bottom: str, factor: int, up: bool) -> str:
    """Kernels of factor by factor with a single 1."""
    few = (b.top if up else b.shape(bottom))[1]
    weight = np.tile(np.eye(factor**2, dtype=np.float32).reshape(factor**2, 1, factor, factor), (few, 1, 1, 1))
    return fixed_convolution(b, bottom, weight, b.top, group=few, kind="Deconvolution" if up else "Convolution", stride=factor)


def _reorder(b: Builder, bottom: str, channels: Array) -> str:
    """Kernels of a single place, one channel each."""
    count = len(channels)
    weight = np.eye(count, dtype=np.float32)[channels].reshape(count, count, *[1] * (len(b.top) - 2))
    return fixed_convolution(b, bottom, weight, b.top, group=1)
