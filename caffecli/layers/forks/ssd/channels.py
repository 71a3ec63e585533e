"""SSD's layers that rearrange and scale channels: Permute, and Normalize, which came from ParseNet."""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import FillerParameter


@register("Permute")
class Permute(Layer):
    """y = x with its axes in another order: axis i of the top is axis ``order[i]`` of the bottom.

    ``permute_param { order }``: axes that it leaves out follow in their own order. One bottom, one top.
    Raises SpecError where an axis does not exist or is given twice. Source: SSD, ``permute_layer.cpp``.
    """

    read_by_opencv = True
    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        self.given = list(self.param.permute_param.order)
        if len(set(self.given)) < len(self.given):
            raise self.spec_error(f"expected each axis once in order, got {self.given}")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        dims = len(bottoms[0])
        if max(self.given, default=0) >= max(dims, 1):
            raise self.spec_error(f"order {max(self.given)} is out of range for a blob of {dims} dimensions")
        self.order = self.given + [axis for axis in range(dims) if axis not in self.given]
        return [torch.Size([bottoms[0][axis] for axis in self.order])]

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


@register("Normalize")
class Normalize(Layer):
    """y = s x / sqrt(eps + sum x^2): each item, or each place of it, has length 1, times a learned scale.

    ``norm_param``: across_spatial (true): the sum is over the whole item, else over the channels of each place;
    channel_shared (true): one s for all, blob shape (), else one for each channel, (C,); scale_filler (constant 1);
    eps (1e-10). Bottom and top: (N, C, ...).
    Source: Liu, Rabinovich and Berg, 2015 (ParseNet); SSD, ``normalize_layer.cpp``.

    Differences: ParseNet's own layer has fix_scale besides, and keeps its settings under other numbers.
    """

    read_by_opencv = True
    keeps_shape = True
    coordinates = Coordinates.SAME
    blob_order = ("scale",)
    scale: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.norm_param
        self.eps, self.across_spatial = param.eps, param.across_spatial
        filler = param.scale_filler if param.HasField("scale_filler") else FillerParameter(type="constant", value=1)
        self.add_blob("scale", () if param.channel_shared else (self.channels_of(bottoms),), filler)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        channels, dims = self.channels_of(bottoms), len(bottoms[0])
        if self.scale.dim():
            self.check_fit("channels", len(self.scale), channels, bottoms)
        self.axes = tuple(range(1, dims)) if self.across_spatial else (1,)
        self.per_channel = (1, -1, *(1,) * (dims - 2))
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        length = x.square().sum(self.axes, keepdim=True).add(self.eps)
        return x * length.rsqrt() * (self.scale.reshape(self.per_channel) if self.scale.dim() else self.scale)
