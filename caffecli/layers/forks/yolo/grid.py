"""What YOLO's layers share: boxes predicted at the places of a grid, the true boxes, and what is logged of both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from caffecli import logs
from caffecli.layers.base import Layer, Shape
from caffecli.layers.labels import LabelError, out_of_range, to_classes
from caffecli.sources import YOLO_ROWS

#: how many numbers of labels a picture has in gklz1982/caffe-yolov2: 30 rows of five
OLDER_LABELS = 150


def check(layer: Layer, bottom: Shape, anchors: int, values: int) -> None:
    """Raise ShapeError for a bottom that is not (N, anchors * values, H, W)."""
    shape = tuple(bottom)
    if len(shape) != 4 or shape[1] != anchors * values:
        raise layer.shape_error(
            f"expected a bottom of {anchors * values} channels, for each of {anchors} anchors 4 coordinates, an "
            f"objectness and {values - 5} classes, of 4 axes (num, channels, height, width), got {shape}"
        )


def check_labels(layer: Layer, bottoms: list[Shape]) -> None:
    """Raise ShapeError where the second bottom is not rows of five numbers for each item."""
    shape = tuple(bottoms[1])
    if len(shape) < 2 or not (shape[-1] == 5 or math.prod(shape[1:]) in (OLDER_LABELS, math.prod(YOLO_ROWS))):
        raise layer.shape_error(
            f"expected labels (num, 1, 300, 5), as AnnotatedData gives them with annotated_data_param {{ "
            f"yolo_data_type: 1 }}, got {layer.listing(bottoms)}"
        )


def split(x: Tensor, anchors: int) -> Tensor:
    """(N, A values, H, W) as (N, A, values, H, W)."""
    return x.reshape(len(x), anchors, -1, *x.shape[2:])


def pairs(layer: Layer, biases: Sequence[float], least: int) -> Tensor:
    """The anchors (count, 2), width and height. Raises SpecError where there are fewer than ``least``."""
    if len(biases) % 2 or len(biases) < 2 * least or min(biases) <= 0:
        raise layer.spec_error(
            f"expected biases above 0, a width and a height for each of {least} or more anchors, got {len(biases)}"
        )
    return torch.tensor(list(biases)).reshape(-1, 2)


def own_anchors(layer: Layer, mask: Sequence[int], count: int, anchors: int) -> list[int]:
    """The first ``count`` of a ``mask``, places of anchors. Raises SpecError where it has not so many of them."""
    own = list(mask)[:count]
    if not count or len(own) < count or max(own) >= anchors:
        raise layer.spec_error(
            f"expected a mask of {max(1, count)} or more places of the {anchors} anchors, each 0 to {anchors - 1}, got "
            f"{list(mask)}"
        )
    return own


def decode(place: Tensor, size: Tensor, anchors: Tensor) -> Tensor:
    """The boxes (N, A, H, W, 4), centre x, centre y, width, height, as parts of the image.

    ``place`` (N, A, 2, H, W) within the cell, ``size`` (N, A, 2, H, W) logarithms of parts of the ``anchors`` (A, 2).
    """
    high, wide = place.shape[3:]
    x = (place[:, :, 0] + torch.arange(wide, device=place.device)) / wide
    y = (place[:, :, 1] + torch.arange(high, device=place.device)[:, None]) / high
    sides = size.exp() * anchors.to(size)[:, :, None, None]
    return torch.stack([x, y, sides[:, :, 0], sides[:, :, 1]], -1)


def corners(boxes: Tensor) -> Tensor:
    """(xmin, ymin, xmax, ymax) of boxes (..., 4) of centres and sizes."""
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def inside(boxes: Tensor) -> Tensor:
    """The ``corners`` of the parts of boxes that lie in the image."""
    return corners(boxes).clamp(0, 1)


def true_boxes(layer: Layer, labels: Tensor, num: int, classes: int) -> tuple[Tensor, Tensor]:
    """The rows (num, most, 5) class, centre x, centre y, width, height, and which of them are there (num, most): those
    before the first without a width. Raises LabelError for one that is no class. Read on the CPU, as how many there are
    has to be known.
    """
    rows = labels.detach().reshape(num, -1, 5).cpu()
    there = ((rows[..., 1] != 0) & (rows[..., 3] != 0)).cumprod(1).bool()
    most = int(there.sum(1).max()) if there.numel() else 0
    rows, there = rows[:, :most], there[:, :most]
    check_classes(layer, rows[..., 0], there, classes)
    return rows.to(labels.device), there.to(labels.device)


def check_classes(layer: Layer, labels: Tensor, there: Tensor, classes: int) -> None:
    """Raise LabelError for a label (num, boxes) that is no class, of a box that is ``there`` (num, boxes)."""
    wrong = (there & out_of_range(to_classes(labels), classes, None)).nonzero()
    if len(wrong):
        item, at = wrong[0].tolist()
        raise LabelError(
            f"layer {layer.name!r}: the label {float(labels[item, at]):g} of a box of item {item} is none of the "
            f"{classes} classes, 0 to {classes - 1}; mend the data, or set num_class to fit it",
            item,
        )


def cells(rows: Tensor, high: int, wide: int) -> Tensor:
    """In which cell of the grid the centre of each box is: row * wide + column."""
    column = (rows[..., 1] * wide).long().clamp(0, wide - 1)
    return (rows[..., 2] * high).long().clamp(0, high - 1) * wide + column


def in_cell(rows: Tensor, cell: Tensor, high: int, wide: int) -> Tensor:
    """Where in its cell the centre of each box (E, 5) is, (E, 2): x and y, 0 to 1."""
    return rows[:, 1:3] * rows.new_tensor([wide, high]) - torch.stack([cell % wide, cell // wide], 1)


def last_of_each(keys: Tensor, count: int) -> Tensor:
    """Which of the keys (E,), 0 to count - 1, do not come again after it."""
    order = torch.arange(len(keys), device=keys.device)
    last = order.new_full((count,), -1).scatter_reduce(0, keys, order, "amax")
    return last[keys] == order


class WithGradient(torch.autograd.Function):
    """A loss whose gradient is given: YOLO's is not the derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None


class Scores:
    """Means over passes of what the forks log of a loss, in their words, each ``every`` passes.

    ``line``: the fork's, for the log.
    """

    NAMES = ("obj", "iou", "cat", "recall", "recall75")

    def __init__(self, every: int, line: str) -> None:
        self._every, self._line = every, line
        self._passes: list[Tensor] = []

    def add(self, objectness: Tensor, found: Tensor, overlap: Tensor, score: Tensor) -> None:
        """Of a pass: the objectness of all predictions; of the E that should find something their objectness, their
        overlap with that, and the score of its class, each (E,).
        """
        count = overlap.new_tensor(len(overlap))
        means = [each.sum() / count for each in (found, overlap, score, overlap > 0.5, overlap > 0.75)]
        self._passes.append(torch.stack([objectness.mean(), *means, count]))
        if len(self._passes) == self._every:
            self._log(torch.stack(self._passes).cpu())
            self._passes = []

    def _log(self, passes: Tensor) -> None:
        some = passes[passes[:, -1] > 0]
        if len(some):
            said = zip(("noobj", *self.NAMES), [passes[:, 0].mean(), *some[:, 1:-1].mean(0)], strict=True)
            words = " ".join(f"{name}: {logs.number(float(mean))}" for name, mean in said)
            logs.info(self._line, f"{words} count: {int(some[:, -1].mean())}")
