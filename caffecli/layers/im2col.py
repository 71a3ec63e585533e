"""Im2col: the windows that a convolution multiplies by its weights, laid out as columns."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Shape
from caffecli.layers.conv import spatial_setting
from caffecli.layers.registry import register


@register("Im2col")
class Im2col(Layer):
    """y[c, k, i] = x[c, stride * i - pad + dilation * k]: each window's values as channels, zeros beyond the edges.

    ``convolution_param``: kernel_size, pad (0), stride (1) and dilation (1), each once or once per spatial axis, the first three
    also as ``*_h`` and ``*_w``; axis (1): the channels, with independent inputs before it and spatial axes behind it, one at
    least. Its other settings have no effect. Bottom (N, C, n...), top (N, C * kernel..., m...), where
    m = (n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1. Raises ShapeError where the kernel does not fit.
    Source: ``im2col_layer.cpp``.
    """

    coordinates = Coordinates.STRIDED

    def setup(self, bottoms: list[Shape]) -> None:
        param, shape = self.param.convolution_param, tuple(bottoms[0])
        self.channel_axis = self.axis(param.axis, len(shape))
        axes = len(shape) - self.channel_axis - 1
        if not axes:
            raise self.shape_error(f"expected a spatial axis behind the channels, axis {self.channel_axis}, got {shape}")
        self.kernel = tuple(spatial_setting(self, param, "kernel_size", axes, None, 1))
        self.stride = tuple(spatial_setting(self, param, "stride", axes, 1, 1))
        self.pad = tuple(spatial_setting(self, param, "pad", axes, 0, 0))
        self.dilation = tuple(spatial_setting(self, param, "dilation", axes, 1, 1))

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        axes = self.channel_axis + 1 + len(self.kernel)
        if len(bottoms[0]) != axes:
            raise self.shape_error(f"expected a bottom of {axes} axes, as it was set up for, got {tuple(bottoms[0])}")
        lead, (channels, *sizes) = bottoms[0][: self.channel_axis], bottoms[0][self.channel_axis :]
        tops = self._tops(sizes)
        if any(size < 1 for size in tops):
            raise self.shape_error(
                f"kernel of {self._extent()} does not fit the bottom's {sizes} with pad {list(self.pad)}; "
                "use a smaller kernel or more pad"
            )
        return [torch.Size((*lead, channels * math.prod(self.kernel), *tops))]

    def _extent(self) -> list[int]:
        """The kernel's reach per spatial axis, dilation counted."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def _tops(self, sizes: Shape) -> list[int]:
        settings = zip(sizes, self.pad, self._extent(), self.stride, strict=True)
        return [(size + 2 * pad - extent) // stride + 1 for size, pad, extent, stride in settings]

    def forward(self, x: Tensor) -> Tensor:
        lead, (channels, *sizes) = x.shape[: self.channel_axis], x.shape[self.channel_axis :]
        x = x.reshape(math.prod(lead), channels, *sizes)
        columns = F.unfold(x, self.kernel, self.dilation, self.pad, self.stride) if len(sizes) == 2 else self._unfold(x)
        return columns.reshape(*lead, channels * math.prod(self.kernel), *self._tops(sizes))

    def _unfold(self, x: Tensor) -> Tensor:
        """The windows over any number of spatial axes, as (N, C, kernel..., tops...)."""
        axes = len(self.kernel)
        x = F.pad(x, [side for pad in reversed(self.pad) for side in (pad, pad)])
        for i, extent in enumerate(self._extent()):
            x = x.unfold(2 + i, extent, self.stride[i])[..., :: self.dilation[i]]
        return x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))
