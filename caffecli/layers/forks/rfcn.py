"""R-FCN's layers: PSROIPooling, and mining of the regions with the largest losses (OHEM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.rcnn import check_images, round_half_away
from caffecli.layers.labels import check_count, classes_of
from caffecli.layers.loss import WORST, Loss, full, normalizer
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LossParameter


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


@register("SoftmaxWithLossOHEM")
class SoftmaxWithLossOHEM(Loss):
    """loss = -sum_i log p_i[label_i] / normalizer, as SoftmaxWithLoss; its third top has each prediction's own part.

    Bottoms: scores (N, C, …), labels 0 to C - 1, one for each prediction. Tops: the loss; where asked for, the
    probabilities; and -log p_i[label_i] in the shape of the labels, with axes of length 1 at its end up to four, 0
    where ``ignore_label`` is, not normalized, and without gradient. ``loss_param``: ignore_label, normalization, as of
    SoftmaxWithLoss; ``softmax_param``: axis (1). Raises ShapeError where the labels' count differs, LabelError where a
    label is not a class.
    Source: Dai, Li, He and Sun, NIPS 2016 (R-FCN); microsoft/caffe, ``softmax_loss_ohem_layer.cpp``.
    """

    label_bottoms = (1,)
    top_count = (1, 3)
    makes_inner_layer = True
    class_axis: int

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.mode = self.normalization(LossParameter.VALID)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        super().reshape(bottoms)
        self.class_axis = self.axis(self.param.softmax_param.axis, len(bottoms[0]))
        check_count(self, self.class_axis, bottoms)
        each = torch.Size((*bottoms[1], *(1,) * (4 - len(bottoms[1]))))
        return [torch.Size(), torch.Size(bottoms[0]), each][: max(1, len(self.param.top))]

    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, ...]:
        log_p = torch.log_softmax(full(x), self.class_axis)
        scores = log_p.movedim(self.class_axis, -1).flatten(0, -2)
        target, wrong = classes_of(self, labels, scores.shape[1], self.ignore_label)
        each = -scores.gather(1, target[:, None])[:, 0]
        each.data.clamp_(max=WORST)  # past autograd, as in SoftmaxWithLoss
        kept = None if self.ignore_label is None else labels.flatten().trunc() != self.ignore_label
        if kept is not None:
            each = each * kept
        if wrong is not None:
            each = each.masked_fill(wrong, math.nan)
        loss = each.sum() / normalizer(self.mode, x.shape[0], len(each), kept)
        each = each.detach().reshape(*labels.shape, *(1,) * (4 - labels.dim()))
        return (loss, log_p.detach().exp(), each)[: max(1, len(self.param.top))]


@register("SmoothL1LossOHEM")
class SmoothL1LossOHEM(Loss):
    """loss = sum f(w (a - b)) / normalizer, f(d) = d^2 / 2 where |d| < 1, else |d| - 1/2; a part for each region too.

    Bottoms: predictions a and targets b, (N, C, H, W) or (N, C), and, where given, weights w, all of that shape (axes
    of length 1 may be left out at the end); without weights w is 1.
    Tops: the loss; where asked for, (N, 1, H, W): the sum over the channels, not normalized, and without gradient. The
    gradient to a is clip(d, -1, 1) / normalizer, to b its negative: it has no second factor w, as in the fork.
    ``loss_param``: normalization VALID (the default) and FULL divide by N H W, BATCH_SIZE by N, PRE_FIXED by
    pre_fixed_normalizer (1), NONE by 1; no divisor is below 1. Raises ShapeError where the shapes differ.
    Source: Dai, Li, He and Sun, NIPS 2016 (R-FCN); microsoft/caffe, ``smooth_l1_loss_ohem_layer.cu``.
    """

    bottom_count = (2, 3)
    top_count = (1, 2)
    no_gradient = (2,)
    compares_values = True

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.fixed = self.param.loss_param.normalization == LossParameter.PRE_FIXED
        self.mode = LossParameter.NONE if self.fixed else self.normalization(LossParameter.VALID)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len({(*shape, 1, 1)[:4] for shape in bottoms}) > 1 or any(not 2 <= len(shape) <= 4 for shape in bottoms):
            raise self.shape_error(f"expected (num, channels, height, width) for all, got {self.listing(bottoms)}")
        items, _, height, width = (*bottoms[0], 1, 1)[:4]
        return [torch.Size(), torch.Size((items, 1, height, width))][: max(1, len(self.param.top))]

    def forward(self, a: Tensor, b: Tensor, weights: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        difference = full(a) - full(b).reshape(a.shape)
        if weights is not None:
            difference = difference + (difference * (weights.reshape(a.shape) - 1)).detach()
        each = F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none").sum(1, keepdim=True)
        fixed = max(1.0, self.param.loss_param.pre_fixed_normalizer)
        loss = each.sum() / (fixed if self.fixed else normalizer(self.mode, len(a), each.numel(), None))
        if len(self.param.top) < 2:
            return loss
        return loss, each.detach().reshape((*each.shape, 1, 1)[:4])


@register("BoxAnnotatorOHEM")
class BoxAnnotatorOHEM(Layer):
    """Keeps the labels and weights of each image's ``roi_per_img`` regions with the largest losses.

    Bottoms: regions (R, 5, H, W), the first value the index of the image; the loss of each, (R, 1, H, W); labels
    (R, 1, H, W); weights (R, C, H, W); axes left out at the end are of length 1. Tops: labels (R, 1, H, W), which are
    ``ignore_label`` (-1) for the other regions, and weights (R, C, H, W), which are 0 for those. Of equal losses the
    first region counts as larger. Nothing has a gradient.

    ``box_annotator_ohem_param``: roi_per_img, required, above 0. Source: Shrivastava, Gupta and Girshick, CVPR 2016;
    daijifeng001/caffe-rfcn, ``box_annotator_ohem_layer.cu``.
    """

    compiles = False
    bottom_count = (4, 4)
    top_count = (2, 2)
    no_gradient = (0, 1, 2, 3)

    def setup(self, bottoms: list[Shape]) -> None:
        self.most = self.param.box_annotator_ohem_param.roi_per_img
        if self.most < 1:
            raise self.spec_error("expected box_annotator_ohem_param { roi_per_img: N }, N above 0")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shapes = [(*shape, 1, 1, 1)[:4] for shape in bottoms]
        count, _, height, width = shapes[0]
        channels = (5, 1, 1, shapes[3][1])
        if any(len(shape) > 4 for shape in bottoms) or shapes != [(count, c, height, width) for c in channels]:
            raise self.shape_error(
                "expected regions (count, 5, height, width), losses and labels (count, 1, height, width) and weights "
                f"(count, channels, height, width), got {self.listing(bottoms)}"
            )
        return [torch.Size((count, 1, height, width)), torch.Size(shapes[3])]

    def forward(self, regions: Tensor, losses: Tensor, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        regions, losses, labels, weights = (
            bottom.detach().reshape((*bottom.shape, 1, 1, 1)[:4]) for bottom in (regions, losses, labels, weights)
        )
        order = losses.flatten().argsort(descending=True, stable=True)
        images = regions[:, 0].flatten()[order]
        by_image = images.argsort(stable=True)  # the regions of an image one after another, the largest loss first
        images = images[by_image]
        place = torch.arange(len(images), device=images.device)
        rank = place - torch.searchsorted(images.contiguous(), images)
        kept = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        kept = kept.index_put((order[by_image],), rank < self.most).reshape(labels.shape)
        return labels.masked_fill(~kept, self.param.box_annotator_ohem_param.ignore_label), weights * kept
