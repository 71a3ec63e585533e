"""DetectionOutput: a detector's predictions to a list of boxes."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli import logs
from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register

Array = NDArray[np.float32]
CORNER, CENTER_SIZE, CORNER_SIZE = 1, 2, 3


def check_predictions(layer: Layer, bottoms: list[Shape], boxes_per_prior: int, classes: int) -> None:
    """Raise ShapeError where the first three bottoms are not locations, confidences and priors that fit each other."""
    locations, confidences, priors = (tuple(shape) for shape in bottoms[:3])
    count = priors[2] // 4 if len(priors) > 2 else 0
    expected = [count * boxes_per_prior * 4, count * classes]
    came = [math.prod(shape[1:]) for shape in (locations, confidences)]
    if not count or priors[1] != 2 or expected != came or locations[:1] != confidences[:1]:
        raise layer.shape_error(
            f"expected locations (num, priors * {boxes_per_prior * 4}), confidences (num, priors * {classes}) and "
            f"priors (1, 2, priors * 4), got {layer.listing(bottoms)}"
        )


def check_first_stage(layer: Layer, bottoms: list[Shape], begin: int, boxes_per_prior: int) -> None:
    """Raise ShapeError where the bottoms from ``begin`` on, objectness and locations of RefineDet's first stage, do not
    fit the priors, the third bottom.
    """
    num, count = bottoms[0][0], bottoms[2][2] // 4
    wrong = any(
        tuple(shape)[:1] != (num,) or math.prod(shape[1:]) != count * values
        for shape, values in zip(bottoms[begin:], (2, 4), strict=False)
    )
    if wrong or (boxes_per_prior > 1 and len(bottoms) > begin + 1):
        raise layer.shape_error(
            "expected objectness (num, priors * 2) and, with share_location: true, locations (num, priors * 4) of the "
            f"first stage as bottoms {begin} and {begin + 1}, got {layer.listing(bottoms)}"
        )


@register("DetectionOutput")
class DetectionOutput(Layer):
    """The boxes found in each image: predictions decoded, by class the best of those that overlap, in all the best few.

    Bottoms: locations (N, P L 4), confidences (N, P C), priors (1, 2, P 4) as PriorBox gives them; L is 1 with
    share_location (true), else C. Top: (1, 1, K, 7), a row for each of the K boxes: image, label, confidence, xmin,
    ymin, xmax, ymax, by image, label and falling confidence; without any box a row for each image, the image and -1s.
    No gradient.

    ``detection_output_param``: num_classes C; background_label_id (0): the class that is no object, -1 for none;
    code_type: how locations l change a prior p, v being its variances (all 1 with variance_encoded_in_target):
    CORNER (default) p + v l; CORNER_SIZE p + v l (width, height); CENTER_SIZE centre + v l (width, height), and sizes
    exp(v l). confidence_threshold: boxes must be above it; nms_param: of two boxes of a class whose intersection over
    union is above nms_threshold (0.3) the one of lower confidence goes, among the top_k (-1: all) best; eta (1): factor
    for the threshold, after each box kept, while it is above 0.5. keep_top_k (-1: all): the best of all classes of an
    image.
    Source: Liu et al., ECCV 2016 (SSD); ``detection_output_layer.cpp``, ``bbox_util.cpp``.

    Differences: no files are written; a warning says so where SSD would write some (``save_output_param``). Nothing is
    shown: ``visualize`` is an error; a fourth bottom, the images for it, is taken and not looked at.
    """

    read_by_opencv = True
    compiles = False
    bottom_count = (3, 4)
    no_gradient = (0, 1, 2, 3)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.detection_output_param
        if not param.num_classes:
            raise self.spec_error("expected num_classes, with the background's, got none")
        if param.nms_param.nms_threshold < 0 or not 0 < param.nms_param.eta <= 1:
            raise self.spec_error(
                f"expected nms_threshold 0 or more and eta above 0, up to 1, got {param.nms_param.nms_threshold:g} and "
                f"{param.nms_param.eta:g}"
            )
        self.classes, self.background, self.code = param.num_classes, param.background_label_id, param.code_type
        self.boxes_per_prior = 1 if param.share_location else self.classes
        self.scaled, self.keep_top_k = not param.variance_encoded_in_target, param.keep_top_k
        self.threshold = param.confidence_threshold if param.HasField("confidence_threshold") else -np.inf
        self.overlap, self.eta = param.nms_param.nms_threshold, param.nms_param.eta
        self.top_k = param.nms_param.top_k if param.nms_param.HasField("top_k") else -1
        saved = param.save_output_param
        if saved.output_directory and saved.label_map_file and saved.name_size_file:
            logs.warning(
                "detection_output_layer.cpp:56",
                f"Layer {self.param.name!r}: save_output_param is ignored, nothing is written to "
                f"{saved.output_directory!r}.",
            )

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """How many boxes there will be is not known: one."""
        check_predictions(self, bottoms, self.boxes_per_prior, self.classes)
        return [torch.Size((1, 1, 1, 7))]

    def forward(self, locations: Tensor, confidences: Tensor, priors: Tensor, *_: Tensor) -> Tensor:
        num = locations.shape[0]
        given = [bottom.detach().float().cpu().numpy() for bottom in (locations, confidences, priors)]
        scores = given[1].reshape(num, -1, self.classes)
        with np.errstate(over="ignore", invalid="ignore"):  # an untrained net's boxes can be of any size
            boxes = self._decode(given[0].reshape(num, -1, self.boxes_per_prior, 4), given[2].reshape(2, -1, 1, 4))
            rows = [row for image in range(num) for row in self._found(image, boxes[image], scores[image])]
        if not rows:
            rows = [np.array([[image, -1, -1, -1, -1, -1, -1]], np.float32) for image in range(num)]
        return torch.from_numpy(np.concatenate(rows)).to(locations)[None, None]

    def _decode(self, change: Array, priors: Array) -> Array:
        """Boxes (..., 4) of predicted changes (num, priors, L, 4) to the priors."""
        prior, variance = priors
        change = change * variance if self.scaled else change
        if self.code == CORNER:
            return prior + change
        size = prior[..., 2:] - prior[..., :2]
        if self.code == CORNER_SIZE:
            return prior + change * np.concatenate([size, size], -1)
        centre = (prior[..., :2] + prior[..., 2:]) / 2 + change[..., :2] * size
        half = np.exp(change[..., 2:]) * size / 2
        return np.concatenate([centre - half, centre + half], -1)

    def _found(self, image: int, boxes: Array, scores: Array) -> list[Array]:
        """The rows of an image, by label; ``boxes`` (priors, L, 4), ``scores`` (priors, classes)."""
        rows = []
        for label in range(self.classes):
            if label == self.background:
                continue
            own = boxes[:, label if self.boxes_per_prior > 1 else 0]
            kept = self._suppress(own, scores[:, label])
            if kept.size:
                head = np.stack([np.full(kept.size, image), np.full(kept.size, label), scores[kept, label]], -1)
                rows.append(np.concatenate([head, own[kept]], -1).astype(np.float32))
        if -1 < self.keep_top_k < sum(map(len, rows)):
            every = np.concatenate(rows)
            best = np.sort(np.argsort(-every[:, 2], kind="stable")[: self.keep_top_k])  # back into the order by label
            rows = [every[best]] if best.size else []
        return rows

    def _suppress(self, boxes: Array, scores: Array) -> NDArray[np.int64]:
        """Which boxes stay, best first."""
        order = np.flatnonzero(scores > self.threshold)
        order = order[np.argsort(-scores[order], kind="stable")]
        order = order[: self.top_k] if self.top_k > -1 else order
        boxes = boxes[order]
        worst, limit = np.zeros(len(order)), self.overlap  # worst: a box's largest overlap with one that was kept
        kept = []
        for i in range(len(order)):
            if not worst[i] <= limit:  # above it, or not a number
                continue
            kept.append(i)
            worst[i + 1 :] = np.maximum(worst[i + 1 :], overlaps(boxes[i], boxes[i + 1 :]))
            limit = limit * self.eta if limit > 0.5 else limit
        return order[kept]


def overlaps(box: Array, boxes: Array) -> Array:
    """Intersection over union of a box (4,) with others (n, 4); 0 where they do not meet."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.prod(np.maximum(high - low, 0), -1)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), -1)
    union = np.prod(np.maximum(box[2:] - box[:2], 0)) + areas - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
