"""R-CNN's layers: ROIPooling and SmoothL1Loss of Fast R-CNN, ROIAlign of Mask R-CNN and of MS-CNN,
ROIAlignment of AffordanceNet.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli import logs
from caffecli.layers.base import Layer, Shape
from caffecli.layers.loss import Loss, full
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter, PoolingParameter

#: places of an axis and their weights, for each sum that is taken over them: two tensors (sums, places)
Taps = tuple[Tensor, Tensor]
#: torch.embedding_bag's number for the largest
_MAX = 2


class OfRegions(Layer):
    """What is read of regions of the features.

    Bottoms: features (N, C, H, W), regions (R, 5): index of the image, x1, y1, x2, y2 in pixels of the input. Top:
    (R, C, *size).
    """

    compiles = False
    bottom_count = (2, 2)
    no_gradient: tuple[int, ...] = (1,)
    size: tuple[int, int]

    def pooled(self, height: int, width: int) -> tuple[int, int]:
        """pooled_h and pooled_w; raises SpecError where one is missing."""
        if min(height, width) < 1:
            raise self.spec_error(f"expected pooled_h and pooled_w of at least 1, got {[height, width]}")
        return height, width

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        features, regions = (tuple(shape) for shape in bottoms)
        if len(features) != 4 or regions[1:2] != (5,) or any(dim != 1 for dim in regions[2:]):
            raise self.shape_error(
                f"expected features (num, channels, height, width) and regions (count, 5), got {self.listing(bottoms)}"
            )
        return [torch.Size((regions[0], features[1], *self.size))]


@register("ROIPooling")
class ROIPooling(OfRegions):
    """The largest value in each part of a region, which is cut into pooled_h by pooled_w parts.

    Bottoms: features (N, C, H, W), regions (R, 5): index of the image, x1, y1, x2, y2 in pixels of the input, both ends
    in it. Top: (R, C, pooled_h, pooled_w). Part i of a region of h rows has the rows from floor(i h / pooled_h) up to,
    without, ceil((i + 1) h / pooled_h); parts that lie outside of the features are 0. The gradient goes to the first of
    the largest.

    ``roi_pooling_param``: pooled_h, pooled_w; spatial_scale (1): features per pixel; its product with a coordinate is
    rounded, halves away from zero; pad_ratio (0): how many times its width, or height, a region grows at each side
    before. A region has a row and a column at least. Raises ShapeError where a region names no image of the batch.
    Source: Girshick, ICCV 2015 (Fast R-CNN); rbgirshick/caffe-fast-rcnn, ``roi_pooling_layer.cpp``; pad_ratio is of
    zhaoweicai/mscnn.
    """

    read_by_opencv = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.roi_pooling_param
        self.size, self.scale = self.pooled(param.pooled_h, param.pooled_w), param.spatial_scale

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        shape = (regions.shape[0], x.shape[1], *self.size)
        if not shape[0]:
            return x.new_zeros(shape)
        regions = regions.detach().reshape(-1, 5).float()
        images = check_images(self, regions, len(x))
        corners = round_half_away(grown(regions[:, 1:], self.param.roi_pooling_param.pad_ratio) * self.scale)
        rows = _parts(corners[:, 1], corners[:, 3], self.size[0], x.shape[2])
        columns = _parts(corners[:, 0], corners[:, 2], self.size[1], x.shape[3])
        places, starts = _places(torch.tensor(images, device=x.device), rows, columns, x.shape[2], x.shape[3])
        table = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
        # embedding_bag knows the first of the largest, and gives 0 for no part; its own gradient takes longer
        best, _, sizes, at = torch.embedding_bag(table.detach(), places, starts, mode=_MAX)
        if table.requires_grad:
            best = table.gather(0, at).masked_fill(sizes[:, None] == 0, 0)
        return best.reshape(shape[0], *self.size, -1).permute(0, 3, 1, 2)


def grown(boxes: Tensor, ratio: float) -> Tensor:
    """Boxes (R, 4) in pixels, both ends in them, ``ratio`` times their width or height larger at each side."""
    more = (boxes[:, 2:] - boxes[:, :2] + 1) * ratio
    return torch.cat([boxes[:, :2] - more, boxes[:, 2:] + more], 1)


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


def _parts(first: Tensor, last: Tensor, count: int, size: int) -> Tensor:
    """Where each of the ``count`` parts from ``first`` to ``last`` begins and ends, (R, count, 2),
    within an axis of ``size``.
    """
    length = (last - first + 1).clamp(min=1) / count
    i = torch.arange(count, device=first.device)
    begin = (i * length[:, None]).floor() + first[:, None]
    end = ((i + 1) * length[:, None]).ceil() + first[:, None]
    return torch.stack([begin, end], -1).clamp(0, size).long()


def _places(images: Tensor, rows: Tensor, columns: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The places of each part of each region, row by row, one part after the other, and where each part's begin.

    A place is an index into the positions of features (N, ., height, width).
    """
    parts = (len(images), rows.shape[1], columns.shape[1])
    many, wide = ((axis[..., 1] - axis[..., 0]).clamp(min=0) for axis in (rows, columns))
    counts = (many[:, :, None] * wide[:, None]).flatten()
    starts = counts.cumsum(0) - counts
    part = torch.repeat_interleave(counts)
    within = torch.arange(len(part), device=part.device) - starts[part]
    top = ((images * height)[:, None] + rows[..., 0])[:, :, None].expand(parts).flatten()[part]
    left, length = (each[:, None].expand(parts).flatten()[part] for each in (columns[..., 0], wide))
    return (top + within // length) * width + left + within % length, starts


@register("ROIAlign")
class ROIAlign(OfRegions):
    """The mean of samples in each part of a region, which is cut into pooled_h by pooled_w parts; nothing is rounded.

    Bottoms: features (N, C, H, W), regions (R, 5): index of the image, x1, y1, x2, y2 in pixels of the input. Top:
    (R, C, pooled_h, pooled_w). A region runs from y1 s to y2 s, s = ``spatial_scale`` (1), and is at least 1 high. Each
    part has ``sampling_ratio`` rows of samples, or where that is not above 0 (-1) as many as it is high, rounded up,
    each in the middle of its share of the part; columns likewise. A sample is interpolated between the four places
    around it; beyond the features it is the one at their edge, from 1 above the first or beyond H 0. The regions have
    no gradient. Raises ShapeError where a region names no image of the batch.

    MS-CNN's and Cascade R-CNN's layer of this name is computed where its top goes to Poolings, AVE of kernel_size 2 and
    stride 1: the corners of the parts, top (R, C, pooled_h + 1, pooled_w + 1), one sample each. There a region is grown
    by ``pad_ratio`` (0) first, as for ROIPooling, and lies half a place further up and left; samples more than half a
    place beyond the features are 0, and so are regions without extent.

    Settings: ``roi_align_param``, or pooled_h, pooled_w, spatial_scale and pad_ratio in ``roi_pooling_param``.
    Source: He, Gkioxari, Dollár and Girshick, ICCV 2017 (Mask R-CNN), and Caffe2's RoIAlign, which most forks took;
    zhaoweicai/cascade-rcnn, ``roi_align_layer.cu``.

    Differences: some forks take the largest of the samples, or place them otherwise (jasjeetIM/Mask-RCNN,
    zuokai/roialign); the log warns where no ``sampling_ratio`` is set, which these do not have.
    """

    corners = False

    def placed_in(self, net: NetParameter) -> None:
        self.corners = bool(self.param.top) and _averaged(self.param.top[0], net)

    def setup(self, bottoms: list[Shape]) -> None:
        own, other = self.param.roi_align_param, self.param.roi_pooling_param
        param = own if self.param.HasField("roi_align_param") else other
        self.parts, self.scale, self.samples = self.pooled(param.pooled_h, param.pooled_w), param.spatial_scale, 0
        if self.corners:
            self.size = (self.parts[0] + 1, self.parts[1] + 1)
            return
        self.size, self.samples = self.parts, own.sampling_ratio
        if other.pad_ratio:
            raise self.spec_error(
                "pad_ratio is of MS-CNN's ROIAlign, whose top goes to a Pooling, AVE of kernel_size 2 and stride 1"
            )
        if param is other or not own.HasField("sampling_ratio"):
            logs.warning(
                "roi_align_layer.cpp:15",
                f"layer {self.name!r} (ROIAlign): computed as in Mask R-CNN, the mean of the samples; without a "
                "sampling_ratio it may be of a fork that computes another thing (jasjeetIM/Mask-RCNN, zuokai/roialign)",
            )

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5).to(full(x).dtype)
        images = check_images(self, regions, len(x))
        boxes = grown(regions[:, 1:], self.param.roi_pooling_param.pad_ratio) * self.scale
        axes = [self._taps(boxes[:, axis], boxes[:, 2 + axis], axis, x.shape[3 - axis]) for axis in (1, 0)]
        return sums_of_places(full(x), images, axes[0], axes[1])

    def _taps(self, first: Tensor, last: Tensor, axis: int, places: int) -> Taps:
        """The places, and their weights, of each part (R, parts, 2 samples) along an axis; axis 0 is x."""
        parts = self.parts[1 - axis]
        if self.corners:
            step = torch.arange(parts + 1, device=first.device)
            index, weight = taps(first[:, None] - 0.5 + step * ((last - first) / parts)[:, None], places, 0.5, 0.5)
            return index, weight * (last > first)[:, None, None]
        length = (last - first).clamp(min=1)[:, None, None] / parts
        count = torch.full_like(length, self.samples) if self.samples > 0 else length.ceil()
        most = float(count.max()) if len(count) else 0
        if not most <= 8 * places + self.samples:
            raise self.shape_error(
                f"a region is {most * parts:g} places {'wide' if axis == 0 else 'high'}, the features {places}; clip "
                "regions to their picture"
            )
        part = torch.arange(parts, device=first.device)[:, None]
        sample = torch.arange(int(most), device=first.device)
        at = first[:, None, None] + part * length + (sample + 0.5) * length / count
        index, weight = taps(at, places, 1, 1)
        return index.flatten(2), (weight * (sample < count)[..., None] / count[..., None]).flatten(2)


@register("ROIAlignment")
class ROIAlignment(OfRegions):
    """The value in the middle of each part of a region, which is cut into pooled_h by pooled_w parts.

    Bottoms: features (N, C, H, W), regions (R, 5): index of the image, x1, y1, x2, y2 in pixels of the input. Top:
    (R, C, pooled_h, pooled_w). A region has y2 s - y1 s + 1 rows, s = ``spatial_scale`` (1), and one at least; nothing
    is rounded. A part begins and ends within the features, from 0 to H - 1, and its middle is interpolated between the
    four places around it; columns likewise. The regions have no gradient.

    ``roi_alignment_param``: pooled_h, pooled_w, spatial_scale. Raises ShapeError where a region names no image of the
    batch. Source: Do, Nguyen and Reid, ICRA 2018 (AffordanceNet); nqanh/affordance-net, ``roi_alignment_layer.cu``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.roi_alignment_param
        self.size, self.scale = self.pooled(param.pooled_h, param.pooled_w), param.spatial_scale

    def forward(self, x: Tensor, regions: Tensor) -> Tensor:
        regions = regions.detach().reshape(-1, 5).to(full(x).dtype)
        images = check_images(self, regions, len(x))
        boxes = regions[:, 1:] * self.scale
        rows, columns = (
            self._taps(boxes[:, axis], boxes[:, 2 + axis], self.size[1 - axis], x.shape[3 - axis]) for axis in (1, 0)
        )
        return sums_of_places(full(x), images, rows, columns)

    @staticmethod
    def _taps(first: Tensor, last: Tensor, parts: int, places: int) -> Taps:
        """The places, and their weights, of each part (R, parts, 2) along an axis."""
        length = (last - first + 1).clamp(min=1)[:, None] / parts
        ends = torch.arange(parts + 1, device=first.device) * length + first[:, None]
        ends = ends.nan_to_num().clamp(0, places - 1)
        return taps((ends[:, :-1] + ends[:, 1:]) / 2, places, 0, 0)


def _averaged(top: str, net: NetParameter) -> bool:
    """Whether all that reads ``top`` averages two by two neighbours."""
    readers: list[LayerParameter] = []
    names = [top]
    for layer in net.layer:
        if layer.type == "Split" and layer.bottom[:1] and layer.bottom[0] in names:
            names += layer.top
        elif set(layer.bottom) & set(names):
            readers.append(layer)
    settings = [layer.pooling_param for layer in readers if layer.type == "Pooling"]
    two = [p.pool == PoolingParameter.AVE and p.kernel_size == 2 and p.stride == 1 for p in settings]
    return bool(two) and all(two) and len(settings) == len(readers)


def taps(at: Tensor, places: int, before: float, beyond: float) -> Taps:
    """The two places around each coordinate of ``at`` (...), (..., 2), and what each weighs in linear interpolation.

    Coordinates outside of the first and the last place are at it; nothing weighs more than ``before`` in front of the
    first, or ``beyond`` behind the last.
    """
    inside = (at >= -before) & (at <= places - 1 + beyond)
    at = at.nan_to_num().clamp(0, places - 1)
    first = at.floor()
    share = at - first
    weights = torch.stack([1 - share, share], -1) * inside[..., None]
    return torch.stack([first, (first + 1).clamp(max=places - 1)], -1).long(), weights


def sums_of_places(x: Tensor, images: list[int], rows: Taps, columns: Taps) -> Tensor:
    """For each region r the sums over places (h, w) of rows[r, i, h] columns[r, j, w] x[images[r], :, h, w].

    ``x``: (N, C, H, W); taps (R, I, rows) and (R, J, columns); the sums: (R, C, I, J).
    """
    (row, row_weight), (column, column_weight) = rows, columns
    count, (height, width) = row.shape[:1], x.shape[2:]
    first = torch.tensor(images, device=x.device).reshape(-1, 1, 1) * height
    places = (first + row)[:, :, None, :, None] * width + column[:, None, :, None, :]
    weights = row_weight[:, :, None, :, None] * column_weight[:, None, :, None, :]
    if not places.numel():
        return x.new_zeros(*count, x.shape[1], row.shape[1], column.shape[1])
    table = x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])
    each = places.shape[3] * places.shape[4]
    sums = F.embedding_bag(
        places.reshape(-1, each), table, mode="sum", per_sample_weights=weights.reshape(-1, each).to(x.dtype)
    )
    return sums.reshape(*count, row.shape[1], column.shape[1], -1).permute(0, 3, 1, 2)


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
