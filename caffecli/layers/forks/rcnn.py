"""R-CNN's layers, of Fast and Faster R-CNN: ROIPooling, SmoothL1Loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer, Shape
from caffecli.layers.loss import Loss, full
from caffecli.layers.registry import register


@register("ROIPooling")
class ROIPooling(Layer):
    """The largest value in each part of a region, which is cut into pooled_h by pooled_w parts.

    Bottoms: features (N, C, H, W), regions (R, 5): index of the image, x1, y1, x2, y2 in pixels of the input, both ends
    in it. Top: (R, C, pooled_h, pooled_w). Part i of a region of h rows has the rows from floor(i h / pooled_h) up to,
    without, ceil((i + 1) h / pooled_h); parts that lie outside of the features are 0. The gradient goes to the first of
    the largest.

    ``roi_pooling_param``: pooled_h, pooled_w; spatial_scale (1): features per pixel; its product with a coordinate is
    rounded, halves away from zero. A region has a row and a column at least. Raises ShapeError where a region names no
    image of the batch. Source: Girshick, ICCV 2015 (Fast R-CNN); rbgirshick/caffe-fast-rcnn, ``roi_pooling_layer.cpp``.
    """

    read_by_opencv = True
    compiles = False
    bottom_count = (2, 2)
    no_gradient = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.roi_pooling_param
        self.pooled, self.scale = (param.pooled_h, param.pooled_w), param.spatial_scale
        if min(self.pooled) < 1:
            raise self.spec_error(f"expected pooled_h and pooled_w of at least 1, got {list(self.pooled)}")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        features, regions = (tuple(shape) for shape in bottoms)
        if len(features) != 4 or regions[1:2] != (5,) or any(dim != 1 for dim in regions[2:]):
            raise self.shape_error(
                f"expected features (num, channels, height, width) and regions (count, 5), got {self.listing(bottoms)}"
            )
        return [torch.Size((regions[0], features[1], *self.pooled))]

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        shape = (regions.shape[0], x.shape[1], *self.pooled)
        if not shape[0]:
            return x.new_zeros(shape)
        regions = regions.detach().reshape(-1, 5).float()
        images = check_images(self, regions, len(x))
        corners = round_half_away(regions[:, 1:] * self.scale)
        columns = _parts(corners[:, 0], corners[:, 2], self.pooled[1], x.shape[3])
        rows = _parts(corners[:, 1], corners[:, 3], self.pooled[0], x.shape[2])
        planes = x.detach()
        parts = zip(images, rows, columns, strict=True)
        places = torch.stack([_largest(planes[image], row, column) for image, row, column in parts])
        # a part's place among all values, rather than a copy of the features for each region
        first = regions[:, :1].long() * x.shape[1] + torch.arange(x.shape[1], device=x.device)
        values = x.reshape(-1)[first[:, :, None] * planes[0, 0].numel() + places.clamp(min=0)]
        return values.masked_fill(places < 0, 0).reshape(shape)


def check_images(layer: Layer, regions: Tensor, count: int) -> list[int]:
    """The image of each region. Raises ShapeError for one that is none of ``count``."""
    images: list[int] = regions[:, 0].long().tolist()
    wrong = next((i for i, image in enumerate(images) if not 0 <= image < count), None)
    if wrong is not None:
        raise layer.shape_error(
            f"region {wrong} is of image {regions[wrong, 0]:g}, the batch has images 0 to {count - 1}"
        )
    return images


def round_half_away(values: Tensor) -> Tensor:
    """The nearest whole number, halves away from zero; the sum with a half would be rounded itself."""
    whole = values.trunc()
    return whole + ((values - whole).abs() >= 0.5) * values.sign()


def _parts(first: Tensor, last: Tensor, count: int, size: int) -> list[list[list[int]]]:
    """Where each of the ``count`` parts from ``first`` to ``last`` begins and ends, (R, count, 2),
    within an axis of ``size``.
    """
    length = (last - first + 1).clamp(min=1) / count
    i = torch.arange(count, device=first.device)
    begin = (i * length[:, None]).floor() + first[:, None]
    end = ((i + 1) * length[:, None]).ceil() + first[:, None]
    parts: list[list[list[int]]] = torch.stack([begin, end], -1).clamp(0, size).long().tolist()
    return parts


def _largest(planes: Tensor, rows: list[list[int]], columns: list[list[int]]) -> Tensor:
    """Where in its plane the largest value of each part is, (C, parts), -1 for parts without values.

    ``planes``: (C, H, W).

    First along each row, then down the columns: of equals that finds the first.
    """
    channels, _, width = planes.shape
    places = torch.full((channels, len(rows), len(columns)), -1, device=planes.device)
    filled = [j for j, (left, right) in enumerate(columns) if left < right]
    top, bottom = min(row[0] for row in rows), max(row[1] for row in rows)
    if top >= bottom or not filled:
        return places.flatten(1)
    along = [planes[:, top:bottom, slice(*columns[j])].max(2) for j in filled]
    best = torch.stack([values for values, _ in along], 2)
    at = torch.stack([index + columns[j][0] for j, (_, index) in zip(filled, along, strict=True)], 2)
    for i, (begin, end) in enumerate(rows):
        if begin < end:
            row = best[:, begin - top : end - top].max(1, keepdim=True)[1] + begin
            places[:, i, filled] = (row * width + at.gather(1, row - top))[:, 0]
    return places.flatten(1)


@register("SmoothL1Loss")
class SmoothL1Loss(Loss):
    """loss = sum out f(in (a - b)) / N, f(d) = (sigma d)^2 / 2 where |d| < 1 / sigma^2, else |d| - 1 / (2 sigma^2).

    Bottoms: a, b, and, where given, the weights ``in``, or both ``in`` and ``out``, all with as many values in each of
    N items; a and b get a gradient. ``smooth_l1_loss_param``: sigma (1), above 0. Raises ShapeError where the counts
    differ. Source: Girshick, ICCV 2015, equation 3; rbgirshick/caffe-fast-rcnn, ``smooth_L1_loss_layer.cu``; with three
    bottoms weiliu89/caffe, branch ssd (daijifeng001/caffe-rfcn's divides by N H W, the same for bottoms of H = W = 1).
    """

    bottom_count = (2, 4)
    no_gradient = (2, 3)
    compares_values = True

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        sigma = self.param.smooth_l1_loss_param.sigma
        if sigma <= 0:
            raise self.spec_error(f"expected a sigma above 0, got {sigma:g}")
        self.turn = 1 / sigma**2

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len({(shape[0], torch.Size(shape).numel()) for shape in bottoms if shape}) > 1 or not all(bottoms):
            raise self.shape_error(f"expected bottoms with as many values, got {self.listing(bottoms)}")
        return super().reshape(bottoms)

    def forward(self, a: Tensor, b: Tensor, *weights: Tensor) -> Tensor:
        difference = full(a) - full(b).reshape(a.shape)
        inside, outside = [*(full(weight.detach()).reshape(a.shape) for weight in weights), None, None][:2]
        if inside is not None:
            difference = difference * inside
        loss = F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=self.turn)
        return (loss if outside is None else loss * outside).sum() / a.shape[0]
