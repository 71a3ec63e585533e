"""Layers that bring each item to length 1, as several forks have them: L2Normalization, L2Normalize."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Shape
from caffecli.layers.registry import register


@register("L2Normalization")
class L2Normalization(Layer):
    """y = x / sqrt(sum x^2), the sum over an item. No settings, no blobs.

    Bottom and top: (N, ...). Source: binLearning/caffe-tea, ``l2normalization_layer.cpp``.

    Differences: an item of zeros stays one; there it becomes NaN. Forks whose layer of this name has settings are not
    covered.
    """

    keeps_shape = True
    coordinates = Coordinates.SAME

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if not bottoms[0]:
            raise self.shape_error("expected a bottom of at least 1 axis (num, ...), got ()")
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x.flatten(1), dim=1).reshape(x.shape) if x.dim() > 1 else x.sign()


@register("L2Normalize")
class L2Normalize(Layer):
    """y = x / sqrt(1e-7 + sum x^2), the sum over an item. No settings, no blobs.

    Bottom and top: (N, ...). Source: Gao, Beijbom, Zhang and Darrell, CVPR 2016; gy20073/compact_bilinear_pooling,
    ``l2_normalize_layer.cpp``.
    """

    keeps_shape = True
    coordinates = Coordinates.SAME

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if not bottoms[0]:
            raise self.shape_error("expected a bottom of at least 1 axis (num, ...), got ()")
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        axes = tuple(range(1, x.dim()))
        squares = x.square()
        return x * (squares.sum(axes, keepdim=True) if axes else squares).add(1e-7).rsqrt()
