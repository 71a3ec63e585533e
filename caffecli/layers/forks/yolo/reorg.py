"""Reorg: a finer layer's values beside those of a coarser one."""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Layer, Precision, Shape
from caffecli.layers.registry import register


@register("Reorg")
class Reorg(Layer):
    """(N, C, H, W) to (N, C s^2, H / s, W / s), as Darknet does: the memory of the bottom is read as
    z (N, C / s^2, H s, W s), and of z each s x s pixels are put into channels, y[d C / s^2 + c, i, j] =
    z[c, i s + d div s, j s + d mod s], whose memory then is the top's. ``reverse``: (N, C, H, W) to
    (N, C / s^2, H s, W s), y[c, i s + d div s, j s + d mod s] = x[d C / s^2 + c, i, j].

    ``reorg_param { stride, reverse (false) }``: s. C has to be a multiple of s^2, and without ``reverse`` H and W of s.
    Source: Redmon and Farhadi, CVPR 2017 (YOLO, version 2), the passthrough layer; ``reorg_layer.cpp`` of
    gklz1982/caffe-yolov2 and eric612/MobileNet-YOLO.

    Differences: the gradient goes on to the bottom, where the forks, by a mistake, pass on a memory that is zero.
    """

    in_place = False
    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.reorg_param
        if param.stride < 1:
            raise self.spec_error("expected reorg_param { stride }, 1 or more")
        self.stride, self.reverse = param.stride, param.reverse

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shape, s = tuple(bottoms[0]), self.stride
        if len(shape) != 4 or shape[1] % s**2 or (not self.reverse and (shape[2] % s or shape[3] % s)):
            sides = "" if self.reverse else f", height and width of {s}"
            raise self.shape_error(
                f"expected a bottom of 4 axes (num, channels, height, width), channels a multiple of {s**2}{sides}, "
                f"got {shape}"
            )
        num, channels, high, wide = shape
        if self.reverse:
            return [torch.Size((num, channels // s**2, high * s, wide * s))]
        return [torch.Size((num, channels * s**2, high // s, wide // s))]

    def forward(self, x: Tensor) -> Tensor:
        num, channels, high, wide = x.shape
        s = self.stride
        few = channels // s**2
        if self.reverse:
            parts = x.reshape(num, s, s, few, high, wide)
            return parts.permute(0, 3, 4, 1, 5, 2).reshape(num, few, high * s, wide * s)
        parts = x.reshape(num, few, high, s, wide, s).permute(0, 3, 5, 1, 2, 4)
        return parts.reshape(num, channels * s**2, high // s, wide // s)
