"""What a net of the R-CNN family finds: the objects in its regions, for ``caffecli detect``, and in rows as SSD's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffecli.layers.base import Shape
from caffecli.layers.boxes import first_of_those_that_stay
from caffecli.layers.forks.param_str import FromParamStr
from caffecli.layers.forks.rpn import changed
from caffecli.layers.registry import register


def objects(
    regions: Tensor, scores: Tensor, change: Tensor | None, size: Tensor, threshold: float, overlap: float, most: int
) -> Tensor:
    """The objects (n, 6) in regions (R, 4) of a picture, whose ``size`` is (width, height), by falling score: class,
    score, xmin, ymin, xmax, ymax in its pixels, both ends in the box.

    ``scores`` (R, C) are the classes' probabilities, ``change`` (R, C, 4), or (R, 2, 4) where that of 1 is all
    classes', takes each region to its object; None: nothing does. Of a class, but 0, the background, stay those with a
    score of ``threshold`` or more that overlap by at most ``overlap`` with none of a higher score; and of all the
    ``most`` probable.
    """
    classes = scores.shape[1]
    boxes = regions[:, None].expand(-1, classes, 4)
    if change is not None:
        each = change if change.shape[1] == classes else change[:, [0] + [1] * (classes - 1)]
        boxes = changed(boxes.flatten(0, 1), each.flatten(0, 1)).reshape(-1, classes, 4)
    boxes = torch.minimum(boxes, size.repeat(2) - 1).clamp(min=0)
    rows = [scores.new_zeros(0, 6)]
    for label in range(1, classes):
        order = scores[:, label].argsort(descending=True, stable=True)
        order = order[scores[order, label] >= threshold]
        kept = order[first_of_those_that_stay(boxes[order, label], overlap, 1)]
        score = scores[kept, label, None]
        rows.append(torch.cat([torch.full_like(score, label), score, boxes[kept, label]], 1))
    found = torch.cat(rows)
    return found[found[:, 1].argsort(descending=True, stable=True)[:most]]


@register("fast_rcnn.detection_layer.DetectionLayer")
class Detection(FromParamStr):
    """What a Faster R-CNN or R-FCN finds in a picture, and what is there, for DetectionEvaluate: so the net is scored
    while it is trained.

    Bottoms: regions (R, 5), their classes' probabilities (R, C), changes (R, 4 C), or (R, 8) of all classes together,
    im_info (1, 3), objects (G, 5), the last two as RoIDataLayer gives them. Tops: what is found (1, 1, D, 7), as
    DetectionOutput gives it, or one row of -1; the true boxes (1, 1, G, 8), as AnnotatedData gives them, none of them
    difficult, or one row of -1. Overlaps of both are those of whole pixels of the picture as it was.

    As py-faster-rcnn's ``test_net``: objects of a class that overlap by more than NMS (0.3) with one of a higher score
    go, as do scores below thresh (0.05); the max_per_image (100) most probable stay. With
    BBOX_NORMALIZE_TARGETS_PRECOMPUTED (False), BBOX_NORMALIZE_MEANS (0, 0, 0, 0) and BBOX_NORMALIZE_STDS (0.1, 0.1,
    0.2, 0.2) changes are those that ProposalTargetLayer taught by the same settings. Nothing has a gradient. Raises
    ShapeError where the bottoms do not fit. The layer is of here: py-faster-rcnn scores outside of its nets.
    """

    not_exported = "makes a list of boxes, whose length depends on their values; export the net without it"
    bottom_count = (5, 5)
    top_count = (2, 2)
    no_gradient = (0, 1, 2, 3, 4)
    defaults: ClassVar[Mapping[str, Any]] = {
        "NMS": 0.3,
        "thresh": 0.05,
        "max_per_image": 100,
        "BBOX_NORMALIZE_TARGETS_PRECOMPUTED": False,
        "BBOX_NORMALIZE_MEANS": (0.0, 0.0, 0.0, 0.0),
        "BBOX_NORMALIZE_STDS": (0.1, 0.1, 0.2, 0.2),
    }

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """How many boxes there will be is not known: one."""
        regions, scores, change, info, there = map(tuple, bottoms)
        values = math.prod(change[1:])
        of_one = math.prod(info) == 3 and math.prod(regions[1:]) == math.prod(there[1:]) == 5
        if not of_one or len(scores) < 2 or scores[0] != change[0] or values not in (8, 4 * scores[1]):
            raise self.shape_error(
                "expected regions (R, 5), probabilities (R, C), changes (R, 4 C) or (R, 8), im_info (1, 3) of one "
                f"picture and objects (G, 5), got {self.listing(bottoms)}"
            )
        return [torch.Size((1, 1, 1, 7)), torch.Size((1, 1, 1, 8))]

    def forward(
        self, regions: Tensor, scores: Tensor, change: Tensor, info: Tensor, true: Tensor
    ) -> tuple[Tensor, Tensor]:
        regions, scores, change, info, true = (each.detach().float() for each in (regions, scores, change, info, true))
        height, width, scale = info.flatten()
        true = true.reshape(-1, 5)
        size = (torch.stack([width, height]) / scale).round()  # of the picture as it was
        change = change.reshape(len(regions), -1, 4)
        if self.given["BBOX_NORMALIZE_TARGETS_PRECOMPUTED"]:
            mean, deviation = (change.new_tensor(self.given[f"BBOX_NORMALIZE_{what}"]) for what in ("MEANS", "STDS"))
            change = change * deviation + mean
        found = objects(
            regions.reshape(-1, 5)[:, 1:] / scale,
            scores.reshape(len(regions), -1),
            change,
            size,
            self.given["thresh"],
            self.given["NMS"],
            self.given["max_per_image"],
        )
        found = torch.cat([found.new_zeros(len(found), 1), found[:, :2], self._parts(found[:, 2:], size)], 1)
        there = true.new_zeros(len(true), 8)
        there[:, 1], there[:, 3:7] = true[:, 4], self._parts(true[:, :4] / scale, size)
        return self._or_none(found), self._or_none(there)

    @staticmethod
    def _parts(boxes: Tensor, size: Tensor) -> Tensor:
        """Boxes in pixels, both ends in them, as parts of a picture."""
        return (boxes + boxes.new_tensor([0, 0, 1, 1])) / size.repeat(2)

    @staticmethod
    def _or_none(rows: Tensor) -> Tensor:
        return (rows if len(rows) else rows.new_full((1, rows.shape[1]), -1))[None, None]
