"""Layers of nets for phones: depthwise convolutions, ShuffleChannel, ReLU6."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.conv import Convolution
from caffecli.layers.folding import Array
from caffecli.layers.registry import register


@register("ConvolutionDepthwise")
class ConvolutionDepthwise(Convolution):
    """y[c] = bias[c] + sum over k of weight[c, 0, k] * x[c, stride * i - pad + dilation * k]:
    a Convolution whose group is C.

    Blobs: weight (C, 1, kernel...) and bias (C). ``convolution_param`` as in Convolution, but that group and num_output
    are always the C channels of the bottom, whatever is written.
    Source: farmingyard/ShuffleNet's nets; ``conv_dw_layer.cpp``.
    """

    @classmethod
    def fold_groups(cls, settings: Any, weight: Array) -> int:
        return len(weight)

    def _check_channels(self, channels: int) -> None:
        self.group = self.num_output = channels
        super()._check_channels(channels)


@register("DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """A Convolution, in whose ``convolution_param`` group is to be the number of channels;
    then each has a kernel of its own.

    Source: eric612/MobileNet-YOLO, ``depthwise_conv_layer.cpp``.
    """


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """y[:, j g + i] = x[:, i C / g + j]: the channels of g groups taken in turn, one of each group after another.

    ``shuffle_channel_param { group }``: g (1), a divisor of the C channels. Bottom and top: (N, C, ...).
    Source: Zhang, Zhou, Lin and Sun, CVPR 2018 (ShuffleNet); farmingyard/ShuffleNet.
    """

    read_by_opencv = True
    keeps_shape = True
    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        self.group = self.param.shuffle_channel_param.group

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        channels = self.channels_of(bottoms)
        if self.group < 1 or channels % self.group:
            raise self.spec_error(f"expected a group that divides the {channels} channels, got {self.group}")
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.group, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


@register("ReLU6")
class ReLU6(Layer):
    """y = min(max(x, 0) + slope min(x, 0), 6). One bottom and one top of the same shape.

    ``relu6_param { negative_slope }``: slope (0). Source: Krizhevsky, 2010; eric612/MobileNet-YOLO,
    ``relu6_layer.cpp``.

    Differences: chuanqi305/ssd has ``relu6_param`` without a slope, under another number (208).
    """

    read_by_opencv = True
    keeps_shape = True
    coordinates = Coordinates.SAME
    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        self.slope = self.param.relu6_param.negative_slope

    def deconvolved(self, diff: Tensor) -> Tensor:
        """Passes on the positive part of ``diff``, whatever the bottom was."""
        return diff.clamp(min=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope).clamp(max=6) if self.slope else F.relu6(x)
