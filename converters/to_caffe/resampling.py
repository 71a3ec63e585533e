"""Rules of resizing, which is linear along each axis: a fixed matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.linear import fixed_convolution, per_axis
from converters.to_caffe.places import along_axis
from converters.to_caffe.program import Array, as_float32


@dataclass(frozen=True)
class Resizing:
    """How ONNX's Resize, whose names these are, makes a value of its neighbours."""

    mode: str
    transform: str
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False

    def matrix(self, before: int, after: int, scale: float) -> Array:
        """The share of each of ``before`` places in each of ``after``; ``scale`` is after / before, or about that."""
        matrix = np.zeros((after, before))
        for i in range(after):
            place = self._place(i, before, after, scale)
            if self.mode == "nearest":
                matrix[i, min(max(self._nearest(place), 0), before - 1)] = 1
                continue
            width = max(1 / scale, 1) if self.antialias else 1.0
            reach = (1 if self.mode == "linear" else 2) * width
            taps = range(math.floor(place - reach), math.ceil(place + reach) + 1)
            shares = [self._share((tap - place) / width) for tap in taps]
            inside = self.exclude_outside or self.antialias
            for tap, share in zip(taps, shares, strict=True):
                if not inside or 0 <= tap < before:
                    matrix[i, min(max(tap, 0), before - 1)] += share
        return matrix / matrix.sum(1, keepdims=True)

    def _place(self, i: int, before: int, after: int, scale: float) -> float:
        if self.transform == "align_corners":
            return i * (before - 1) / (after - 1) if after > 1 else 0.0
        if self.transform == "asymmetric":
            return i / scale
        if self.transform == "tf_half_pixel_for_nn":
            return (i + 0.5) / scale
        if self.transform == "pytorch_half_pixel" and after == 1:
            return 0.0
        shift = 0.0
        if self.transform == "half_pixel_symmetric":
            shift = before / 2 * (1 - after / (scale * before))
        elif self.transform not in ("half_pixel", "pytorch_half_pixel"):
            raise Unsupported(f"its coordinate_transformation_mode is {self.transform}")
        return shift + (i + 0.5) / scale - 0.5

    def _nearest(self, place: float) -> int:
        if self.rounding == "floor":
            return math.floor(place)
        if self.rounding == "ceil":
            return math.ceil(place)
        return math.floor(place + 0.5) if self.rounding == "round_prefer_ceil" else math.ceil(place - 0.5)

    def _share(self, distance: float) -> float:
        x, a = abs(distance), self.cubic
        if self.mode == "linear":
            return max(1 - x, 0.0)
        if self.mode != "cubic":
            raise Unsupported(f"its mode is {self.mode}")
        if x < 1:
            return ((a + 2) * x - (a + 3)) * x * x + 1
        return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


@rule("caffe.resize")
def resize(b: Builder) -> str:
    names = ("mode", "transform", "rounding", "cubic", "exclude_outside", "antialias")
    return _resized(b, b.bottom("self"), Resizing(**{name: b.arg(name) for name in names}), b.arg("scales"))


@rule(
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
)
def upsample(b: Builder) -> str:
    bottom, kind = b.bottom("input" if "input" in b.op.args else "self"), b.op.short
    corners = "align_corners" if b.arg("align_corners", False) else "half_pixel"
    if "nearest" in kind:
        exact = "exact" in kind
        how = Resizing("nearest", "half_pixel" if exact else "asymmetric", "round_prefer_ceil" if exact else "floor")
    elif "cubic" in kind:
        aa = kind.endswith("_aa")
        how = Resizing("cubic", corners, cubic=-0.5 if aa else -0.75, antialias=aa)
    else:
        how = Resizing("linear", corners, antialias=kind.endswith("_aa"))
    axes = len(b.top_shape) - 2
    given = b.arg("scale_factors") or [b.arg(f"scales_{axis}", b.arg("scales")) for axis in "dhw"[-axes:]]
    sizes = zip(b.top_shape[2:], b.shape(bottom)[2:], per_axis(given, axes), strict=True)
    return _resized(b, bottom, how, [scale or after / before for after, before, scale in sizes])


def _resized(b: Builder, value: str, how: Resizing, scales: Sequence[float]) -> str:
    shape, top = b.shape(value), b.top_shape
    matrices = [how.matrix(*each) for each in zip(shape[2:], top[2:], scales, strict=True)]
    repeats = [after // before for before, after in zip(shape[2:], top[2:], strict=True)]
    if all(
        repeat and np.array_equal(matrix, np.repeat(np.eye(matrix.shape[1]), repeat, axis=0))
        for matrix, repeat in zip(matrices, repeats, strict=True)
    ):
        if set(repeats) == {1}:
            return value
        ones = np.ones((shape[1], 1, *repeats), np.float32)
        return fixed_convolution(b, value, ones, top, kind="Deconvolution", stride=repeats)
    if len(shape) == 4 and b.has_forks_layers and how.mode == "linear" and how.transform == "align_corners":
        param: dict[str, Any] = {"height": top[2], "width": top[3]}
        return b.layer("Interp", value, shape=top, interp_param=param)
    if len(shape) > 4:
        raise Unsupported(f"from {list(shape[2:])} to {list(top[2:])}; Caffe enlarges volumes by whole numbers")
    last = len(matrices) - 1
    for i in sorted(range(len(matrices)), key=lambda i: top[2 + i] / shape[2 + i]):  # the one that shrinks first
        name = "" if i == last else f"axis{2 + i}"
        value = along_axis(b, value, 2 + i, as_float32(matrices[i]), suffix=name)
    return value
