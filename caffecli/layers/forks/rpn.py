"""Faster R-CNN's region proposal network: its anchors, what they should become, and what they propose.

Settings in ``param_str`` are those of py-faster-rcnn's layers, and of its configuration by its names:
``param_str: "'feat_stride': 16, 'RPN_BATCHSIZE': 128"``.

Boxes have pixels as ends, both in the box, and are of the scaled picture, whose height, width and scale are the bottom
``im_info`` (1, 3). Regions are rows (image, xmin, ymin, xmax, ymax); objects are rows (xmin, ymin, xmax, ymax, class).
Anchor a of place (h, w) of the features is place (h, w) of channel a, or of channels 4 a to 4 a + 3.
Source: Ren, He, Girshick and Sun, NIPS 2015; rbgirshick/py-faster-rcnn, ``lib/rpn``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffecli.layers.base import Shape
from caffecli.layers.boxes import first_of_those_that_stay, overlaps, sizes
from caffecli.layers.forks.param_str import FromParamStr
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import TRAIN

#: the label of an anchor that is not in the sample
_IGNORED = -1.0


def anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> Tensor:
    """The anchors around place (0, 0), (A, 4) in float64: by ratio (height / width), then by scale.

    Sides at scale 1 are whole numbers: base / sqrt(ratio), rounded, and ratio times that, rounded.
    """
    ratio = torch.tensor(ratios, dtype=torch.float64)
    width = (base**2 / ratio).sqrt().round()
    side = torch.stack([width, (width * ratio).round()], -1)  # (ratios, 2)
    half = (side[:, None] * torch.tensor(scales, dtype=torch.float64)[:, None] - 1).flatten(0, 1) / 2
    centre = (base - 1) / 2
    return torch.cat([centre - half, centre + half], -1)


def changes(boxes: Tensor, targets: Tensor) -> Tensor:
    """What takes each box to its target, (n, 4): the centre's move in sizes of the box, the logarithm of the growth."""
    size, wanted = sizes(boxes, 1), sizes(targets, 1)
    move = (targets[:, :2] + wanted / 2 - boxes[:, :2] - size / 2) / size
    return torch.cat([move, (wanted / size).log()], -1)


def changed(boxes: Tensor, change: Tensor) -> Tensor:
    """The boxes (n, 4) after changes (n, 4)."""
    size = sizes(boxes, 1)
    centre = change[:, :2] * size + boxes[:, :2] + size / 2
    half = change[:, 2:].exp() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def drawn(mask: Tensor, count: int) -> Tensor:
    """Up to ``count`` of the places where ``mask`` (n,) is true, drawn by chance: their indices."""
    places = mask.nonzero()[:, 0]
    return places[torch.randperm(len(places), device=places.device)[:count]]


class _Anchored(FromParamStr):
    """A layer over all anchors of the features."""

    #: of the changes that are learned, as py-R-FCN has them
    normalization: ClassVar[Mapping[str, Any]] = {
        "RPN_NORMALIZE_TARGETS": False,
        "RPN_NORMALIZE_MEANS": (0.0, 0.0, 0.0, 0.0),
        "RPN_NORMALIZE_STDS": (0.1, 0.1, 0.2, 0.2),
    }

    def mean_and_deviation(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, deviation = (like.new_tensor(self.given[f"RPN_NORMALIZE_{what}"]) for what in ("MEANS", "STDS"))
        return mean, deviation

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self._make_anchors(self.given["feat_stride"], 16, (0.5, 1, 2), self.given["scales"])

    def _make_anchors(self, stride: float, base: int, ratios: Sequence[float], scales: Sequence[float]) -> None:
        if stride <= 0 or base < 1 or min(*ratios, *scales, 1) <= 0:
            raise self.spec_error("expected feat_stride, base size, ratios and scales above 0")
        self.stride, self.base = stride, anchors(base, ratios, scales)

    def all_anchors(self, height: int, width: int, device: torch.device) -> Tensor:
        """The anchors of all places, row by row, (H W A, 4) in float64."""
        y, x = (torch.arange(count, device=device, dtype=torch.float64) * self.stride for count in (height, width))
        moves = torch.stack([x.expand(height, width), y[:, None].expand(height, width)] * 2, -1)
        return (moves.reshape(-1, 1, 4) + self.base.to(device)).reshape(-1, 4)


@register("rpn.anchor_target_layer.AnchorTargetLayer")
class AnchorTarget(_Anchored):
    """What each anchor should become: labels and changes, of a sample of the anchors.

    Bottoms: scores (1, 2 A, H, W), of which only the shape counts; objects (G, 5); im_info (1, 3); further ones are not
    looked at. Tops: labels (1, 1, A H, W): 1 object, 0 background, -1 not in the sample; changes, their inside weights
    and their outside weights, (1, 4 A, H, W), 0 for all but the anchors concerned.

    Of the anchors within the picture those with an overlap of RPN_POSITIVE_OVERLAP (0.7) or more with an object, and
    for each object those that overlap with it most, are objects; those below RPN_NEGATIVE_OVERLAP (0.3) for all objects
    are background, before objects are marked, or after with RPN_CLOBBER_POSITIVES (False). Kept, drawn by chance: at
    most RPN_FG_FRACTION (0.5) of RPN_BATCHSIZE (256) objects, then background to fill it. Inside weights are
    RPN_BBOX_INSIDE_WEIGHTS (1, 1, 1, 1) for objects; outside weights 1 / number of the sample, or with
    RPN_POSITIVE_WEIGHT (-1) p in 0 to 1, p / objects and (1 - p) / background. With RPN_NORMALIZE_TARGETS (False), as
    in py-R-FCN, changes have RPN_NORMALIZE_MEANS (0, 0, 0, 0) taken off, and are divided by RPN_NORMALIZE_STDS (0.1,
    0.1, 0.2, 0.2).
    Further settings of ``param_str``: feat_stride, required; scales (8, 16, 32); allowed_border (0): pixels by which an
    anchor may leave the picture. Nothing has a gradient. Raises ShapeError for a batch of several pictures.
    Source: py-faster-rcnn, ``anchor_target_layer.py``.

    Differences: a picture without objects makes all its anchors background, where py-faster-rcnn fails.
    """

    bottom_count = (3, 4)
    top_count = (4, 4)
    no_gradient = (0, 1, 2, 3)
    defaults: ClassVar[Mapping[str, Any]] = {
        "feat_stride": None,
        "scales": (8, 16, 32),
        "allowed_border": 0,
        "RPN_POSITIVE_OVERLAP": 0.7,
        "RPN_NEGATIVE_OVERLAP": 0.3,
        "RPN_CLOBBER_POSITIVES": False,
        "RPN_FG_FRACTION": 0.5,
        "RPN_BATCHSIZE": 256,
        "RPN_BBOX_INSIDE_WEIGHTS": (1.0, 1.0, 1.0, 1.0),
        "RPN_POSITIVE_WEIGHT": -1.0,
        **_Anchored.normalization,
    }

    @property
    def random(self) -> bool:
        return True

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.one_item(bottoms, bottoms[0])
        height, width = bottoms[0][2:]
        count = len(self.base)
        return [torch.Size((1, 1, count * height, width)), *[torch.Size((1, 4 * count, height, width))] * 3]

    def forward(self, scores: Tensor, objects: Tensor, info: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
        height, width = scores.shape[2:]
        every = self.all_anchors(height, width, scores.device)
        info, objects = info.detach().flatten().double(), objects.detach().reshape(-1, 5).double()
        border = self.given["allowed_border"]
        inside = (every[:, :2] >= -border).all(1) & (every[:, 2:] < info[:2].flip(0) + border).all(1)
        boxes = every[inside]
        labels, nearest = self._labels(boxes, objects)
        change = changes(boxes, objects[nearest, :4]) if len(objects) else torch.zeros_like(boxes)
        if self.given["RPN_NORMALIZE_TARGETS"]:
            mean, deviation = self.mean_and_deviation(change)
            change = (change - mean) / deviation
        positive, negative = labels == 1, labels == 0
        weights = boxes.new_tensor(self.given["RPN_BBOX_INSIDE_WEIGHTS"]) * positive[:, None]
        of_positive, of_negative = self._outside_weights(positive, negative)
        outside = (positive * of_positive + negative * of_negative)[:, None].expand_as(boxes)
        blobs = []
        for values, rest in ((labels[:, None], _IGNORED), (change, 0), (weights, 0), (outside, 0)):
            blob = values.new_full((len(every), values.shape[1]), rest)
            blob[inside] = values
            blobs.append(blob.reshape(1, height, width, -1).permute(0, 3, 1, 2).to(scores.dtype))
        return blobs[0].reshape(1, 1, -1, width), *blobs[1:]

    def _labels(self, boxes: Tensor, objects: Tensor) -> tuple[Tensor, Tensor]:
        """The label of each box, -1 for those left out, and which object is nearest to it."""
        setting = self.given
        labels = boxes.new_full((len(boxes),), _IGNORED)
        if not len(objects) or not len(boxes):
            labels[:] = 0
            nearest = torch.zeros(len(boxes), dtype=torch.long, device=boxes.device)
        else:
            shared = overlaps(boxes, objects[:, :4], 1)
            most, nearest = shared.max(1)
            background = most < setting["RPN_NEGATIVE_OVERLAP"]
            labels[background] = 0
            labels[(shared == shared.max(0).values).any(1) | (most >= setting["RPN_POSITIVE_OVERLAP"])] = 1
            if setting["RPN_CLOBBER_POSITIVES"]:
                labels[background] = 0
        kept = drawn(labels == 1, int(setting["RPN_FG_FRACTION"] * setting["RPN_BATCHSIZE"]))
        rest = drawn(labels == 0, setting["RPN_BATCHSIZE"] - len(kept))
        sample = torch.full_like(labels, _IGNORED)
        sample[kept], sample[rest] = 1, 0
        return sample, nearest

    def _outside_weights(self, positive: Tensor, negative: Tensor) -> tuple[Tensor | float, Tensor | float]:
        share = self.given["RPN_POSITIVE_WEIGHT"]
        counts = positive.sum().clamp(min=1), negative.sum().clamp(min=1)
        if share < 0:
            every = 1 / (positive.sum() + negative.sum()).clamp(min=1).double()
            return every, every
        return share / counts[0], (1 - share) / counts[1]


class _Proposes(_Anchored):
    """The regions that the anchors and their predicted changes propose, the best first."""

    bottom_count = (3, 3)
    top_count = (1, 2)
    no_gradient = (0, 1, 2)
    least: float
    before: int
    after: int
    threshold: float

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """How many regions there will be is not known: one."""
        scores, change = bottoms[:2]
        self.one_item(bottoms, scores)
        count = len(self.base)
        if scores[1] != 2 * count or tuple(change) != (1, 4 * count, *scores[2:]):
            raise self.shape_error(
                f"expected scores (1, {2 * count}, height, width) and changes (1, {4 * count}, height, width) of "
                f"{count} anchors, got {self.listing(bottoms)}"
            )
        return [torch.Size((1, 5)), torch.Size((1, 1))][: max(1, len(self.param.top))]

    def learned(self, change: Tensor) -> Tensor:
        """The changes (n, 4) that predictions stand for."""
        return change

    def forward(self, scores: Tensor, change: Tensor, info: Tensor) -> Tensor | tuple[Tensor, ...]:
        height, width = scores.shape[2:]
        scores, change, info = (bottom.detach().float() for bottom in (scores, change, info.flatten()))
        score = scores[0, len(self.base) :].permute(1, 2, 0).flatten()
        change = self.learned(change[0].permute(1, 2, 0).reshape(-1, 4))
        boxes = changed(self.all_anchors(height, width, scores.device).float(), change)
        size = info[:2].flip(0).repeat(2)  # width, height, width, height
        boxes = torch.minimum(boxes, size - 1).clamp(min=0)
        large = (sizes(boxes, 1) >= self.least * info[2]).all(1)
        boxes, score = boxes[large], score[large]
        order = score.argsort(descending=True, stable=True)
        order = order[: self.before] if self.before > 0 else order
        boxes, score = boxes[order], score[order]
        kept = first_of_those_that_stay(boxes, self.threshold, 1, self.after)
        regions = torch.cat([boxes.new_zeros(len(kept), 1), boxes[kept]], 1)
        return (regions, score[kept, None])[: max(1, len(self.param.top))]


@register("rpn.proposal_layer.ProposalLayer")
class ProposalLayer(_Proposes):
    """Regions that may hold an object, of anchors and what is predicted for them.

    Bottoms: the probabilities of background and object (1, 2 A, H, W), changes (1, 4 A, H, W), im_info (1, 3). Tops:
    regions (R, 5), the most probable first; where asked for, their probabilities (R, 1).

    The changed anchors are clipped to the picture; those with a side below RPN_MIN_SIZE (16) times the picture's scale
    go, of the others the RPN_PRE_NMS_TOP_N (12000; 6000 in phase TEST) most probable stay, of those that overlap by
    more than RPN_NMS_THRESH (0.7) the most probable, and of these RPN_POST_NMS_TOP_N (2000; 300); 0 is no limit. With
    RPN_NORMALIZE_TARGETS (False), RPN_NORMALIZE_MEANS and RPN_NORMALIZE_STDS changes are, in phase TRAIN, those that
    AnchorTargetLayer taught by the same settings.
    Further settings of ``param_str``: feat_stride, required; scales (8, 16, 32). Nothing has a gradient. Raises
    ShapeError for a batch of several pictures. Source: py-faster-rcnn, ``proposal_layer.py``.
    """

    defaults: ClassVar[Mapping[str, Any]] = {
        "feat_stride": None,
        "scales": (8, 16, 32),
        "RPN_NMS_THRESH": 0.7,
        "RPN_PRE_NMS_TOP_N": -1,
        "RPN_POST_NMS_TOP_N": -1,
        "RPN_MIN_SIZE": 16,
        **_Anchored.normalization,
    }

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        counts = (12000, 2000) if self.phase == TRAIN else (6000, 300)
        given = (self.given["RPN_PRE_NMS_TOP_N"], self.given["RPN_POST_NMS_TOP_N"])
        self.before, self.after = (own if own >= 0 else count for own, count in zip(given, counts, strict=True))
        self.threshold, self.least = self.given["RPN_NMS_THRESH"], self.given["RPN_MIN_SIZE"]

    def learned(self, change: Tensor) -> Tensor:
        if self.phase != TRAIN or not self.given["RPN_NORMALIZE_TARGETS"]:
            return change
        mean, deviation = self.mean_and_deviation(change)
        return change * deviation + mean


@register("Proposal")
class Proposal(_Proposes):
    """As Faster R-CNN's ProposalLayer, with settings of its own.

    ``proposal_param``: feat_stride (16); base_size (16), ratio (0.5, 1, 2) and scale (8, 16, 32) of the anchors;
    min_size (16): regions with a side below it, times the picture's scale, go; pre_nms_topn (6000), nms_thresh (0.7),
    post_nms_topn (300). Source: Kim et al., 2016 (PVANet); sanghoon/caffe, ``proposal_layer.cpp``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.proposal_param
        self._make_anchors(
            param.feat_stride, param.base_size, list(param.ratio) or (0.5, 1, 2), list(param.scale) or (8, 16, 32)
        )
        self.least, self.threshold = param.min_size, param.nms_thresh
        self.before, self.after = param.pre_nms_topn, param.post_nms_topn
