"""YoloDetectionOutput and Yolov3DetectionOutput: predictions of YOLO to a list of boxes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor

from caffecli.layers import boxes
from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.yolo import grid
from caffecli.layers.loss import full
from caffecli.layers.registry import register

#: a box overlaps with itself by more, whatever is rounded
_SAME = 0.99


class YoloOutput(Layer):
    """What both versions share."""

    compiles = False
    not_exported = "makes a list of boxes, whose length depends on their values; export the net without it"
    bottom_count: ClassVar[tuple[int, int | None]] = (1, None)
    settings: Any

    def setup(self, bottoms: list[Shape]) -> None:
        if not self.settings.HasField("num_classes"):
            raise self.spec_error("expected num_classes, without a background, got none")
        self.no_gradient = tuple(range(len(bottoms)))
        self.classes, self.count = self.settings.num_classes, self.settings.num_box
        self.threshold = self.settings.confidence_threshold
        self.overlap = boxes.just_below(self.settings.nms_threshold)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """How many boxes there will be is not known: one."""
        for bottom in bottoms:
            grid.check(self, bottom, self.count, 5 + self.classes)
            if bottom[0] != bottoms[0][0]:
                raise self.shape_error(f"expected bottoms with as many items, got {self.listing(bottoms)}")
        return [torch.Size((1, 1, 1, 7))]

    def forward(self, *bottoms: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [grid.split(full(each), self.count) for each in bottoms]
            found = [self.candidates(each, turn) for turn, each in enumerate(parts)]
            rows = torch.cat(found)
            rows = torch.cat([self._kept(rows[rows[:, 0] == image]) for image in range(len(bottoms[0]))])
        if not len(rows):
            rows = rows.new_full((len(bottoms[0]), 7), -1)
            rows[:, 0] = torch.arange(len(rows), device=rows.device)
        return rows.to(bottoms[0].dtype)[None, None]

    def candidates(self, x: Tensor, turn: int) -> Tensor:
        """The rows (K, 7) of a bottom (N, A, 5 + C, H, W), before any goes for another: image, label, confidence,
        corners.
        """
        raise NotImplementedError

    def _kept(self, rows: Tensor) -> Tensor:
        """Those of an image that stay, by falling confidence, whatever their label."""
        rows = rows[rows[:, 2].argsort(descending=True, stable=True)]
        return rows[boxes.first_of_those_that_stay(rows[:, 3:], self.overlap)]


@register("YoloDetectionOutput")
class YoloDetectionOutput(YoloOutput):
    """The boxes found by YOLO, version 2: of each prediction its likeliest class, without those that overlap with one
    of more confidence.

    Bottoms: one or two, (N, A (5 + C), H, W), as RegionLoss reads them. Top: (1, 1, K, 7), a row for each of the K
    boxes: image, label (1 to C), confidence, xmin, ymin, xmax, ymax, as parts of the image, by image and falling
    confidence; without any box a row for each image, the image and -1s. A prediction's confidence is its objectness
    times the chance of its likeliest class. No gradient. ``yolo_detection_output_param``: num_classes C; num_box A (5);
    biases: width and height of each anchor, in cells; confidence_threshold (0.01): the least; nms_threshold (0.45): a
    box goes that overlaps with one that stays by so much or more, also of another class. side, coords and
    label_map_file have no effect. Raises SpecError for too few biases. Source: Redmon and Farhadi, CVPR 2017 (YOLO,
    version 2); ``yolo_detection_output_layer.cpp`` of eric612/MobileNet-YOLO.

    Differences: of several images each has its own boxes; the fork has them all in image 0, where they remove each
    other.
    """

    bottom_count = (1, 2)

    def setup(self, bottoms: list[Shape]) -> None:
        self.settings = self.param.yolo_detection_output_param
        super().setup(bottoms)
        self.anchors = grid.pairs(self, self.settings.biases, self.count)[: self.count]

    def candidates(self, x: Tensor, turn: int) -> Tensor:
        chance, label = x[:, :, 5:].softmax(2).max(2)
        score = x[:, :, 4].sigmoid() * chance
        found = (score >= self.threshold).nonzero(as_tuple=True)
        anchors = self.anchors.to(x) / x.new_tensor([x.shape[4], x.shape[3]])
        box = grid.corners(grid.decode(x[:, :, :2].sigmoid(), x[:, :, 2:4], anchors)[found])
        first = torch.stack([found[0].to(x.dtype), label[found] + 1, score[found]], 1)
        return torch.cat([first, box], 1)


@register("Yolov3DetectionOutput")
class Yolov3DetectionOutput(YoloOutput):
    """The boxes found by YOLO, version 3: of each prediction all classes of enough confidence, without those boxes that
    overlap with one of more.

    Bottoms: one for each scale, (N, A (5 + C), H, W), as Yolov3 reads it. Top: (1, 1, K, 7), a row for each of the K
    boxes: image, label (1 to C), confidence, xmin, ymin, xmax, ymax, as parts of the image, by image and falling
    confidence; without any box a row for each image, the image and -1s. The confidence of a class is its chance times
    the objectness. No gradient. ``yolov3_detection_output_param``: num_classes C; num_box A (3); biases: width and
    height of each anchor, in pixels; mask_group_num (2): the number of scales; mask: the anchors of each, as many one
    after another; anchors_scale: for each the pixels of a cell; confidence_threshold (0.01): more than that counts;
    nms_threshold (0.45): a box goes that overlaps with one that stays by so much or more, also of another class. Raises
    SpecError where these do not fit the bottoms. Source: Redmon and Farhadi, 2018 (YOLO, version 3);
    ``yolov3_detection_output_layer.cpp`` of eric612/MobileNet-YOLO.

    Differences: of several images each has its own boxes; the fork has them all in image 0, where they remove each
    other.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.settings = self.param.yolov3_detection_output_param
        super().setup(bottoms)
        groups, scales = param.mask_group_num, list(param.anchors_scale)
        if groups != len(bottoms) or len(scales) < groups or not all(scales[:groups]):
            raise self.spec_error(
                "expected as many bottoms as mask_group_num, and an anchors_scale above 0 for each, got "
                f"{len(bottoms)}, {groups} and {scales}"
            )
        each = len(param.mask) // groups
        anchors = grid.pairs(self, param.biases, 1)
        masks = [param.mask[turn * each : turn * each + self.count] for turn in range(groups)]
        own = [grid.own_anchors(self, mask, self.count, len(anchors)) for mask in masks]
        self.anchors = [anchors[mask] / scale for mask, scale in zip(own, scales, strict=False)]

    def candidates(self, x: Tensor, turn: int) -> Tensor:
        scores = x[:, :, 4:5].sigmoid() * x[:, :, 5:].sigmoid()
        if self.overlap < _SAME:  # of one box only the likeliest class stays
            best, label = scores.max(2, keepdim=True)
            scores = torch.full_like(scores, -math.inf).scatter(2, label, best)
        image, anchor, label, row, column = (scores > self.threshold).nonzero(as_tuple=True)
        anchors = self.anchors[turn].to(x) / x.new_tensor([x.shape[4], x.shape[3]])
        box = grid.corners(grid.decode(x[:, :, :2].sigmoid(), x[:, :, 2:4], anchors)[image, anchor, row, column])
        first = torch.stack([image.to(x.dtype), label + 1, scores[image, anchor, label, row, column]], 1)
        return torch.cat([first, box], 1)
