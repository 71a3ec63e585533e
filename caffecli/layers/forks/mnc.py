"""MNC's layers, which cut objects out in stages: ROIWarping, MaskPooling, MaskResize.

Source: Dai, He and Sun, CVPR 2016 (Multi-task Network Cascades); daijifeng001/caffe-mnc.
"""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.rcnn import OfRegions, Taps, check_images, round_half_away, sums_of_places, taps
from caffecli.layers.loss import full
from caffecli.layers.registry import register


def with_gradient_of(value: Tensor, other: Tensor) -> Tensor:
    """``value``, which goes backward as ``other`` does."""
    return value.detach() + (other - other.detach())


@register("ROIWarping")
class ROIWarping(OfRegions):
    """One sample at the begin of each part of a region, which is cut into pooled_h by pooled_w parts.

    Bottoms: features (N, C, H, W), regions (R, 5): index of the image, x1, y1, x2, y2 in pixels of the input. Top:
    (R, C, pooled_h, pooled_w). The ends of a region are rounded(y1 s) and rounded(y2 s), s = ``spatial_scale`` (1),
    halves away from zero; sample i is at b_i = y1 s + i (y2 s - y1 s) / pooled_h of them, and interpolated between the
    four places around it; columns likewise. Samples up to half a place beyond the features are at their edge, others 0.

    The gradients are the fork's, not the derivatives. To the features: place h of a region gets that of the samples i
    next to it which a region larger by one would have about there: from floor((h - y1 s - 1) / p - 1) to, without,
    ceil((h - y1 s + 1) / p), p = (y2 s - y1 s + 1) / pooled_h, and none where it lies outside of the region. To the
    regions: as if sample i were at (1 - m) s y1 + m s y2, m = (b_i - y1 s) / (y2 s - y1 s + 1); none of samples outside
    of the features or at their last row or column.

    ``roi_warping_param``: pooled_h, pooled_w, required; spatial_scale. Raises ShapeError where a region names no image
    of the batch. Source: daijifeng001/caffe-mnc, ``roi_warping_layer.cu``.

    Differences: of samples outside of the features the fork reads a gradient to the regions from other memory.
    """

    no_gradient = ()

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.roi_warping_param
        self.size, self.scale = self.pooled(param.pooled_h, param.pooled_w), param.spatial_scale

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        x, boxes = full(x), regions.reshape(-1, 5).to(full(x).dtype)
        images = check_images(self, boxes, len(x))
        ends = round_half_away(boxes.detach()[:, 1:] * self.scale)
        axes = [_Axis(ends[:, a], ends[:, 2 + a], self.size[1 - a], x.shape[3 - a]) for a in (1, 0)]
        top = sums_of_places(x, images, axes[0].taps, axes[1].taps)
        if not torch.is_grad_enabled():
            return top
        if x.requires_grad:
            top = with_gradient_of(top, sums_of_places(x, images, axes[0].backward(), axes[1].backward()))
        if boxes.requires_grad:
            (row_slope, rows), (column_slope, columns) = (axis.between() for axis in axes)
            for along, pair in enumerate([(row_slope, columns), (rows, column_slope)]):
                at = axes[along].at(*(boxes[:, end - along] * self.scale for end in (2, 4)))
                moves = at[:, None, :, None] if along == 0 else at[:, None, None]
                top = with_gradient_of(top, top + sums_of_places(x.detach(), images, *pair) * moves)
        return top


class _Axis:
    """The samples of all regions along one axis: their places, and what the fork makes of them going backward."""

    def __init__(self, first: Tensor, last: Tensor, parts: int, places: int) -> None:
        self.first, self.last, self.parts, self.places = first[:, None], last[:, None], parts, places
        self.part = torch.arange(parts, device=first.device)
        self.samples = self.first + self.part * ((self.last - self.first).clamp(min=0) / parts)
        self.taps = taps(self.samples, places, 0.5, 0.5)
        #: one larger than the regions are
        self.length = (self.last - self.first + 1).clamp(min=1)

    def backward(self) -> Taps:
        """Their places, without those to which no gradient goes."""
        index, weight = self.taps
        step, part = (self.length / self.parts)[..., None], self.part[:, None]
        offset = index - self.first[..., None]
        feasible = (part >= ((offset - 1) / step - 1).floor()) & (part < ((offset + 1) / step).ceil())
        within = (index >= self.first[..., None]) & (index <= self.last[..., None])
        return index, weight * (feasible & within)

    def between(self) -> tuple[Taps, Taps]:
        """Where there are places on both sides of a sample, their difference, and what each weighs; 0 elsewhere."""
        index, weight = self.taps
        two = ((index[..., 1] > index[..., 0]) & weight.any(-1))[..., None]
        return (index, two * weight.new_tensor([-1.0, 1.0])), (index, two * weight)

    def at(self, first: Tensor, last: Tensor) -> Tensor:
        """Where the samples are, by the ends of the regions, which may have a gradient."""
        share = (self.samples.clamp(0, self.places - 1) - self.first) / self.length
        return (1 - share) * first[:, None] + share * last[:, None]


@register("MaskPooling")
class MaskPooling(Layer):
    """y = x m: features by a mask, the same for all channels.

    Bottoms: x (R, C, H, W), m (R, 1, H, W). Top: (R, C, H, W). Raises ShapeError for other shapes. Source:
    daijifeng001/caffe-mnc, ``mask_pooling_layer.cu``.
    """

    bottom_count = (2, 2)
    keeps_shape = True
    in_place = False

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        x, mask = (tuple(shape) for shape in bottoms)
        if len(x) != 4 or mask != (x[0], 1, *x[2:]):
            raise self.shape_error(
                "expected features (num, channels, height, width) and masks (num, 1, height, width), got "
                f"{self.listing(bottoms)}"
            )
        return super().reshape(bottoms)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return full(x) * full(mask)


@register("MaskResize")
class MaskResize(Layer):
    """Masks of another size: row i is interpolated at row i H / output_height, columns likewise.

    Bottom: (N, C, H, W). Top: (N, C, output_height, output_width). Up to half a place beyond the last row, or column,
    lies that one, then 0. ``mask_resize_param``: output_height, output_width, required. The gradient is the fork's: of
    row h of the bottom only the rows of the top next to h output_height / H are looked at, which are fewer than depend
    on it where the mask grows; columns likewise. Source: daijifeng001/caffe-mnc, ``mask_resize_layer.cu``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.mask_resize_param
        self.size = (param.output_height, param.output_width)
        if min(self.size) < 1:
            raise self.spec_error(f"expected output_height and output_width of at least 1, got {list(self.size)}")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len(bottoms[0]) != 4 or 0 in bottoms[0][2:]:
            raise self.shape_error(f"expected (num, channels, height, width), got {self.listing(bottoms)}")
        return [torch.Size((*bottoms[0][:2], *self.size))]

    def forward(self, x: Tensor) -> Tensor:
        x = full(x)
        rows, columns = (self._weights(x, axis) for axis in (0, 1))
        top = rows[0] @ x @ columns[0].t()
        if not torch.is_grad_enabled() or all(size <= own for size, own in zip(self.size, x.shape[2:], strict=True)):
            return top
        return with_gradient_of(top, rows[1] @ x @ columns[1].t())

    def _weights(self, x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        """What each row of the bottom weighs in each row of the top, and what it does going backward."""
        size, places = self.size[axis], x.shape[2 + axis]
        row, place = torch.arange(size, device=x.device), torch.arange(places, device=x.device)
        ratio = torch.tensor(places / size, dtype=x.dtype, device=x.device)
        index, weight = taps(row * ratio, places, 0.5, 0.5)
        weights = x.new_zeros(size, places).scatter_add_(1, index, weight)
        near = (place / ratio).floor()
        return weights, weights * ((row[:, None] == near) | (row[:, None] == near + 1))
