"""Axpy, of Squeeze-and-Excitation nets."""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register


@register("Axpy")
class Axpy(Layer):
    """y = a x + b, with one a for each channel of an item.

    Bottoms: a (N, C, 1, 1) or (N, C), x (N, C, H, W), b as x. Raises ShapeError where they do not agree.
    Source: Hu, Shen and Sun, CVPR 2018 (Squeeze-and-Excitation); hujie-frank/SENet, ``axpy_layer.cpp``.
    """

    bottom_count = (3, 3)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        scale, x, b = (tuple(shape) for shape in bottoms)
        if len(x) < 2 or x != b or scale[:2] != x[:2] or any(dim != 1 for dim in scale[2:]):
            raise self.shape_error(
                "expected (num, channels, 1, 1), then two of one shape (num, channels, ...), got "
                f"{self.listing(bottoms)}"
            )
        self.ones = (1,) * (len(x) - 2)
        return [torch.Size(x)]

    def forward(self, a: Tensor, x: Tensor, b: Tensor) -> Tensor:
        return torch.addcmul(b, a.reshape(*x.shape[:2], *self.ones), x)
