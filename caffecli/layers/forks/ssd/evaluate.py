"""DetectionEvaluate: which of the boxes that were found are there."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffecli import logs
from caffecli.layers import boxes
from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.ssd import words
from caffecli.layers.forks.ssd.originals import in_pixels, read_originals
from caffecli.layers.labels import LabelError, to_classes
from caffecli.layers.registry import register


@register("DetectionEvaluate")
class DetectionEvaluate(Layer):
    """For each detection whether it is a hit: the first, by falling score, of its image and class that overlaps with
    the true box it overlaps with most by the threshold or more. What the solver makes average precisions of.

    Bottoms: detections (1, 1, D, 7) as DetectionOutput gives them, true boxes (1, 1, K, 8) as AnnotatedData gives them;
    what TextBoxes++ has behind these values does not count.
    Top: (1, 1, R, 5). First a row for each class but the background: -1, class, the number of its true boxes, -1, -1;
    then one for each detection whose label is not -1, by image, class and mostly falling score: image, class, score,
    hit, miss. A detection of a box that another one hit, or of none, is a miss (0, 1); that of a difficult box, where
    these do not count, is neither (0, 0). No gradient; computed on the CPU.

    ``detection_evaluate_param``: num_classes, with the background's; background_label_id (0); overlap_threshold (0.5)
    of intersection over union, above 0; evaluate_difficult_gt (true): difficult boxes count. name_size_file: a file of
    lines ``NAME HEIGHT WIDTH``, one for each picture in the order of the records, over and over: overlaps are those in
    whole pixels of the pictures, whose size resize_param was applied to (WARP, FIT_SMALL_SIZE, or
    FIT_LARGE_SIZE_AND_PAD, whose padding does not count); else those of the parts of the image that both bottoms hold.
    Raises SpecError for settings that make no sense, FormatError for a name_size_file that is none, LabelError for a
    box of the background's class. Source: Liu et al., ECCV 2016 (SSD); ``detection_evaluate_layer.cpp``.

    Differences: with name_size_file SSD goes one line further for each image that has detections, here for each image;
    boxes that do not meet overlap by 0, where SSD counts a pixel; a box in the padding alone is without area.
    With height_scale and width_scale SSD's areas lack the pixel of their ends, which its intersections have.
    """

    compiles = False
    stateful = True
    bottom_count = (2, 2)
    no_gradient = (0, 1)
    greater_is_better = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.settings = self.param.detection_evaluate_param
        if not param.num_classes:
            raise self.spec_error("expected num_classes, with the background's, got none")
        if not param.overlap_threshold > 0:
            raise self.spec_error(f"expected an overlap_threshold above 0, got {param.overlap_threshold:g}")
        self.background = param.background_label_id - (param.background_label_id >> 31 << 32)  # SSD keeps it as int32
        self.resize = param.resize_param if param.HasField("resize_param") else None
        self.originals = read_originals(self, param.name_size_file) if param.name_size_file else []
        self.seen = 0  # images of passes before
        self.told = False
        self.detection_classes = tuple(self._classes())

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """As many rows as there are detections; only a pass tells how many have a label."""
        behind = (0, words.CORNERS, words.RECTANGLE)
        for shape, columns in zip(bottoms, (7, 8), strict=True):
            if tuple(shape)[-1] - columns not in behind or math.prod(shape[:2]) != 1 or len(shape) != 4:
                raise self.shape_error(
                    f"expected detections (1, 1, count, 7) and true boxes (1, 1, count, 8), got {self.listing(bottoms)}"
                )
        return [torch.Size((1, 1, len(self._classes()) + bottoms[0][2], 5))]

    def _classes(self) -> list[int]:
        return [label for label in range(self.settings.num_classes) if label != self.background]

    def forward(self, detections: Tensor, truth: Tensor) -> Tensor:
        found, true = detections.detach().cpu().float()[0, 0], truth.detach().cpu().float()[0, 0]
        ends = (to_classes(true[:, 0]) == -1).nonzero()[:, 0]
        true = true[: int(ends[0])] if len(ends) else true
        self._check(found, "a detection")
        self._check(true, "a true box")
        self._tell_others(true)
        counted = true if self.settings.evaluate_difficult_gt else true[true[:, 7] == 0]
        labels = to_classes(counted[:, 1])
        rows = [found.new_tensor([[-1, label, int((labels == label).sum()), -1, -1]]) for label in self._classes()]
        valid = found[:, 1] != -1
        own = found[valid & (to_classes(found[:, 0]) != -1)]
        for image, label in sorted({(int(row[0]), int(row[1])) for row in own.tolist()}):
            rows.append(self._judged(image, label, _of(own, image, label), _of(true, image, label)))
        images = [int(each.max()) + 1 for each in (found[:, 0], true[:, 0]) if len(each)]
        self.seen += max(images, default=0)
        top = torch.cat(rows) if rows else found.new_zeros(0, 5)
        missing = len(self._classes()) + int(valid.sum()) - len(top)  # detections of image -1
        return torch.cat([top, top.new_zeros(missing, 5)]).to(detections)[None, None]

    def _check(self, rows: Tensor, what: str) -> None:
        items = to_classes(rows[:, 0])
        wrong = items[(items != -1) & (to_classes(rows[:, 1]) == self.background)]
        if len(wrong):
            raise LabelError(
                f"layer {self.name!r}: {what} of item {int(wrong[0])} has label {self.background}, the background's; "
                "set background_label_id to fit the data",
                int(wrong[0]),
            )

    def _tell_others(self, true: Tensor) -> None:
        """Say once which labels of true boxes are none of the classes: they are not scored."""
        labels = to_classes(true[:, 1])
        others = labels[(labels < 0) | (labels >= self.settings.num_classes)]
        if len(others) and not self.told:
            self.told = True
            logs.warning(
                "detection_evaluate_layer.cpp:97",
                f"Layer {self.name!r}: true boxes have the label {int(others[0])}, which is none of the "
                f"{self.settings.num_classes} classes; such boxes do not count. Does the data fit the net?",
            )

    def _judged(self, image: int, label: int, found: Tensor, true: Tensor) -> Tensor:
        """The rows of an image's detections of a class."""
        rows = found.new_zeros(len(found), 5)
        if len(true):
            found = found[found[:, 2].argsort(dim=0, descending=True, stable=True)]
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 4] = image, label, found[:, 2], 1
        if not len(true):
            return rows
        own, others = found[:, 3:7], true[:, 3:7]
        if self.originals:
            rank, count = self.context.shard
            original = self.originals[((self.seen + image) * count + rank) % len(self.originals)]
            own, others = (in_pixels(each, original, self.resize) for each in (own, others))
        skipped = torch.zeros_like(true[:, 7]) if self.settings.evaluate_difficult_gt else true[:, 7]
        rows[:, 3:] = judged(own, others, skipped, self.settings.overlap_threshold, 1 if self.originals else 0)
        return rows


def judged(found: Tensor, true: Tensor, skipped: Tensor, threshold: float, pixel: float = 0) -> Tensor:
    """For each box of an image and a class that was found (D, 4), by falling score, what it is: (D, 2), hit and miss.

    A hit (1, 0) is the first whose overlap with the true box (K, 4), of those it overlaps with most, is ``threshold``
    or more; a box of a ``skipped`` one (K,) is neither (0, 0), all others are misses (0, 1).
    """
    said = found.new_tensor([0, 1]).repeat(len(found), 1)
    if not len(found) or not len(true):
        return said
    overlap, nearest = boxes.overlaps(found, true, pixel).max(1)
    visited: set[int] = set()
    for row, most, at in zip(said, overlap.tolist(), nearest.tolist(), strict=True):
        if not most >= threshold:
            continue
        if skipped[at]:
            row[1] = 0
        elif at not in visited:
            row[0], row[1] = 1, 0
            visited.add(at)
    return said


def _of(rows: Tensor, image: int, label: int) -> Tensor:
    return rows[(to_classes(rows[:, 0]) == image) & (to_classes(rows[:, 1]) == label)]
