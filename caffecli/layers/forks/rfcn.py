"""R-FCN's layers: PSROIPooling."""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.rcnn import check_images, round_half_away
from caffecli.layers.registry import register


@register("PSROIPooling")
class PSROIPooling(Layer):
    """y[r, c, i, j] = the mean of channel (c k + i) k + j of region r's image over part (i, j) of the region.

    Bottoms: features (N, output_dim k k, H, W), k = group_size; regions (R, 5) or (R, 5, 1, 1): index of the image,
    x1, y1, x2, y2 in pixels of the input. Top: (R, output_dim, k, k). A region runs from round(x1) s to
    (round(x2) + 1) s, s = spatial_scale, halves rounded away from zero, and is at least 0.1 wide; each of its k equal
    parts has the columns from the floor of its begin to the ceiling of its end, but for those outside of the features;
    rows likewise. A part without any is 0. The regions have no gradient.

    ``psroi_pooling_param``: spatial_scale, output_dim, group_size, all required. Raises SpecError where one is missing,
    ShapeError where the channels are not output_dim k k or a region names no image of the batch.
    Source: Dai, Li, He and Sun, NIPS 2016 (R-FCN); daijifeng001/caffe-rfcn, ``psroi_pooling_layer.cu``.
    """

    compiles = False
    bottom_count = (2, 2)
    no_gradient = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.psroi_pooling_param
        missing = [name for name in ("spatial_scale", "output_dim", "group_size") if not param.HasField(name)]
        if missing or param.spatial_scale <= 0 or param.output_dim < 1 or param.group_size < 1:
            raise self.spec_error(
                f"expected spatial_scale, output_dim and group_size, all above 0, got {'no ' if missing else ''}"
                f"{' and no '.join(missing) or f'{param.spatial_scale:g}, {param.output_dim} and {param.group_size}'}"
            )
        self.scale, self.outputs, self.group = param.spatial_scale, param.output_dim, param.group_size

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        features, regions = (tuple(shape) for shape in bottoms)
        channels = self.outputs * self.group**2
        if (
            len(features) != 4
            or features[1] != channels
            or regions[1:2] != (5,)
            or any(dim != 1 for dim in regions[2:])
        ):
            raise self.shape_error(
                f"expected features (num, {channels}, height, width) and regions (count, 5), got "
                f"{self.listing(bottoms)}"
            )
        return [torch.Size((regions[0], self.outputs, self.group, self.group))]

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5).float()
        images = check_images(self, regions, len(x))
        low, high = round_half_away(regions[:, 1:3]) * self.scale, (round_half_away(regions[:, 3:]) + 1) * self.scale
        size = (high - low).clamp(min=0.1) / self.group
        rows = self._inside(low[:, 1], size[:, 1], x.shape[2]).to(x.dtype)
        columns = self._inside(low[:, 0], size[:, 0], x.shape[3]).to(x.dtype)
        area = (rows.sum(2)[:, :, None] * columns.sum(2)[:, None]).clamp(min=1)
        parts = x.reshape(len(x), self.outputs, self.group, self.group, *x.shape[2:])
        y = x.new_zeros(len(regions), self.outputs, self.group, self.group)
        for image in sorted(set(images)):
            own = torch.tensor([i for i, other in enumerate(images) if other == image], device=x.device)
            sums = torch.einsum("cijhw,rih,rjw->rcij", parts[image], rows[own], columns[own])
            y = y.index_copy(0, own, sums)
        return y / area[:, None]

    def _inside(self, begin: Tensor, size: Tensor, count: int) -> Tensor:
        """Which of ``count`` rows are in each part of the regions: (regions, parts, count)."""
        part = torch.arange(self.group, device=begin.device)
        first = (part * size[:, None] + begin[:, None]).floor()[..., None]
        last = ((part + 1) * size[:, None] + begin[:, None]).ceil()[..., None]
        place = torch.arange(count, device=begin.device)
        return (place >= first) & (place < last)
