"""Layers of forks that work on channels: Permute, ShuffleChannel, Axpy, ReLU6, Normalize, L2Normalization, L2Normalize."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.registry import register
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import FillerParameter


@register("Permute")
class Permute(Layer):
    """y = x with its axes in another order: axis i of the top is axis ``order[i]`` of the bottom.

    ``permute_param { order }``: axes that it leaves out follow in their own order. One bottom, one top.
    Raises SpecError where an axis does not exist or is given twice. Source: SSD, ``permute_layer.cpp``.
    """

    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        self.given = list(forks.named(self.param).permute_param.order)
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


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """y[:, j g + i] = x[:, i C / g + j]: the channels of g groups taken in turn, one of each group after another.

    ``shuffle_channel_param { group }``: g (1), a divisor of the C channels. Bottom and top: (N, C, ...).
    Source: Zhang, Zhou, Lin and Sun, CVPR 2018 (ShuffleNet); farmingyard/ShuffleNet.
    """

    keeps_shape = True
    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        self.group = forks.named(self.param).shuffle_channel_param.group

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len(bottoms[0]) < 2:
            raise self.shape_error(f"expected a bottom of at least 2 axes (num, channels, ...), got {tuple(bottoms[0])}")
        if self.group < 1 or bottoms[0][1] % self.group:
            raise self.spec_error(f"expected a group that divides the {bottoms[0][1]} channels, got {self.group}")
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], self.group, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


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
                f"expected (num, channels, 1, 1), then two of one shape (num, channels, ...), got {self.listing(bottoms)}"
            )
        self.ones = (1,) * (len(x) - 2)
        return [torch.Size(x)]

    def forward(self, a: Tensor, x: Tensor, b: Tensor) -> Tensor:
        return torch.addcmul(b, a.reshape(*x.shape[:2], *self.ones), x)


@register("ReLU6")
class ReLU6(Layer):
    """y = min(max(x, 0) + slope min(x, 0), 6). One bottom and one top of the same shape.

    ``relu6_param { negative_slope }``: slope (0). Source: Krizhevsky, 2010; eric612/MobileNet-YOLO, ``relu6_layer.cpp``.

    Differences: chuanqi305/ssd has ``relu6_param`` without a slope, under another number (208).
    """

    keeps_shape = True
    coordinates = Coordinates.SAME
    precision = Precision.ANY

    def setup(self, bottoms: list[Shape]) -> None:
        self.slope = forks.named(self.param).relu6_param.negative_slope

    def deconvolved(self, diff: Tensor) -> Tensor:
        """What is positive on its way down passes, whatever went up."""
        return diff.clamp(min=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope).clamp(max=6) if self.slope else F.relu6(x)


@register("Normalize")
class Normalize(Layer):
    """y = s x / sqrt(eps + sum x^2): each item, or each place of it, has length 1, times a learned scale.

    ``norm_param``: across_spatial (true): the sum is over the whole item, else over the channels of each place;
    channel_shared (true): one s for all, blob shape (), else one for each channel, (C,); scale_filler (constant 1);
    eps (1e-10). Bottom and top: (N, C, ...).
    Source: Liu, Rabinovich and Berg, 2015 (ParseNet); SSD, ``normalize_layer.cpp``.

    Differences: ParseNet's own layer has fix_scale besides, and keeps its settings under other numbers.
    """

    keeps_shape = True
    coordinates = Coordinates.SAME
    blob_order = ("scale",)
    scale: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        param = forks.named(self.param).norm_param
        self.eps, self.across_spatial = param.eps, param.across_spatial
        filler = FillerParameter(type="constant", value=1)
        if param.HasField("scale_filler"):
            filler = FillerParameter.FromString(param.scale_filler.SerializeToString())
        self.add_blob("scale", () if param.channel_shared else (self._channels(bottoms),), filler)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        channels, dims = self._channels(bottoms), len(bottoms[0])
        if self.scale.dim():
            self.check_fit("channels", len(self.scale), channels, bottoms)
        self.axes = tuple(range(1, dims)) if self.across_spatial else (1,)
        self.per_channel = (1, -1, *(1,) * (dims - 2))
        return super().reshape(bottoms)

    def _channels(self, bottoms: list[Shape]) -> int:
        if len(bottoms[0]) < 2:
            raise self.shape_error(f"expected a bottom of at least 2 axes (num, channels, ...), got {tuple(bottoms[0])}")
        return bottoms[0][1]

    def forward(self, x: Tensor) -> Tensor:
        length = x.square().sum(self.axes, keepdim=True).add(self.eps)
        return x * length.rsqrt() * (self.scale.reshape(self.per_channel) if self.scale.dim() else self.scale)


@register("L2Normalization")
class L2Normalization(Layer):
    """y = x / sqrt(sum x^2), the sum over an item. No settings, no blobs.

    Bottom and top: (N, ...). Source: binLearning/caffe-tea, ``l2normalization_layer.cpp``.

    Differences: an item of zeros stays one; there it becomes NaN. Forks whose layer of this name has settings are not covered.
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
