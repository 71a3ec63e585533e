"""Convolutions of forks with a kernel of its own for each channel: ConvolutionDepthwise, DepthwiseConvolution."""

from __future__ import annotations

from typing import Any

from caffecli.layers.conv import Convolution
from caffecli.layers.folding import Array
from caffecli.layers.registry import register


@register("ConvolutionDepthwise")
class ConvolutionDepthwise(Convolution):
    """y[c] = bias[c] + sum over k of weight[c, 0, k] * x[c, stride * i - pad + dilation * k]: a Convolution whose group is C.

    Blobs: weight (C, 1, kernel...) and bias (C). ``convolution_param`` as in Convolution, but that group and num_output are
    always the C channels of the bottom, whatever is written.
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
    """A Convolution, in whose ``convolution_param`` group is to be the number of channels; then each has a kernel of its own.

    Source: eric612/MobileNet-YOLO, ``depthwise_conv_layer.cpp``.
    """
