"""DetectionLoss, YOLO's first loss, and EvalDetection, what the first two versions found."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers import boxes
from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.yolo import grid
from caffecli.layers.labels import to_classes
from caffecli.layers.loss import Loss, full
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import EvalDetectionParameter

#: in the second version a prediction with a lower score does not count
_LEAST = 0.005


def check_cells(layer: Layer, bottoms: list[Shape], side: int, values: int) -> None:
    """Raise ShapeError where predictions or labels are not those of a first version's ``side`` x ``side`` cells."""
    cells = side * side
    if [math.prod(shape[1:]) for shape in bottoms[:2]] != [cells * values, cells * 7]:
        raise layer.shape_error(
            f"expected predictions (num, {cells * values}), {values} for each of {side} x {side} cells, and labels "
            f"(num, {cells * 7}), 7 for each, got {layer.listing(bottoms)}"
        )


class Cells(NamedTuple):
    """A first version's labels, for each of S^2 cells."""

    difficult: Tensor
    there: Tensor
    label: Tensor
    box: Tensor

    @classmethod
    def of(cls, layer: Layer, labels: Tensor, cells: int, classes: int) -> Cells:
        """All (N, S^2), the boxes (N, S^2, 4). Raises LabelError for one that is no class."""
        rows = full(labels.detach()).reshape(len(labels), -1)
        there, label = rows[:, cells : 2 * cells] != 0, to_classes(rows[:, 2 * cells : 3 * cells])
        grid.check_classes(layer, rows[:, 2 * cells : 3 * cells], there, classes)
        return cls(rows[:, :cells] == 1, there, label, rows[:, 3 * cells :].reshape(len(rows), cells, 4))


def predicted(values: Tensor, side: int, of_cell: bool, squared: bool) -> Tensor:
    """A first version's boxes (N, B, S^2, 4) of centres and sizes, of coordinates (N, B, 4, S^2): centres are places
    in the cell where ``of_cell``, sizes to be ``squared``.
    """
    centre, size = values[:, :, :2], values[:, :, 2:]
    if of_cell:
        cell = torch.arange(side * side, device=values.device)
        centre = (centre + torch.stack([cell % side, cell // side])) / side
    return torch.cat([centre, size.square() if squared else size], 2).transpose(2, 3)


@register("DetectionLoss")
class DetectionLoss(Loss):
    """YOLO's loss, version 1: the gradient is d / N, where d is how far each prediction is from what it should be.

    Bottoms: x (N, S^2 (C + 5 B)), for each of S x S cells, class by class, C scores, B objectnesses, and four
    coordinates of each of B boxes; labels (N, 7 S^2): for each cell whether its box is difficult, whether it has one,
    class, and centre x, centre y, width, height one after another. Top: the loss. In a cell with a box the one of the B
    should find it that overlaps most, or, where none does, whose numbers are nearest. There d of the objectness is
    object_scale (o - overlap), of the coordinates coord_scale (v - [true]), and of the cell's scores
    class_scale (p - [class]); all other objectnesses have noobject_scale o. The loss is the sum of the squares, with
    each scale, of p - [class], of the coordinates' differences, and of o - 1, divided by the number of boxes, and of
    the other objectnesses, divided by theirs.

    ``detection_loss_param``: side S (7), num_class C (20), num_object B (2), object_scale (1), noobject_scale (0.5),
    class_scale (1), coord_scale (5); sqrt (true): sizes are roots; constriant (false): centres are places in the cell.
    Raises ShapeError where the bottoms do not fit, LabelError for a label that is no class. Source: Redmon et al., CVPR
    2016 (YOLO); ``detection_loss_layer.cpp`` of yeahkun/caffe-yolo. MS-CNN's layer of this name is not here.

    Differences: nothing is logged; without any box the loss is that of the objectnesses, where the fork's is no number.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.settings = self.param.detection_loss_param
        self.cells = self.settings.side**2

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        check_cells(self, bottoms, self.settings.side, self.settings.num_class + 5 * self.settings.num_object)
        return super().reshape(bottoms)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            loss, difference = self._compare(full(x.detach()).reshape(len(x), -1, self.cells), labels)
            gradient = (difference / len(x)).reshape(x.shape).to(x.dtype)
        return grid.WithGradient.apply(x, loss, gradient)  # type: ignore[no-untyped-call]

    def _compare(self, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and d (N, C + 5 B, S^2)."""
        param, count = self.settings, self.settings.num_object
        scores, objects, coordinates = torch.split(x, [param.num_class, count, 4 * count], 1)
        values = coordinates.reshape(len(x), count, 4, self.cells)
        true = Cells.of(self, labels, self.cells, param.num_class)
        wanted = true.box.to(x.dtype)
        found = predicted(values, param.side, param.constriant, param.sqrt)
        overlap = boxes.overlap(grid.corners(found), grid.corners(wanted)[:, None])
        apart = (found - wanted[:, None]).square().sum(-1)
        most, best = overlap.max(1)
        best = torch.where(most > 0, best, apart.argmin(1))  # (N, S^2)
        own = F.one_hot(best, count).transpose(1, 2).bool() & true.there[:, None]
        if param.constriant:
            cell = torch.arange(self.cells, device=x.device)
            place = torch.stack([cell % param.side, cell // param.side], 1)
            wanted = torch.cat([wanted[..., :2] * param.side - place, wanted[..., 2:]], -1)
        if param.sqrt:
            wanted = torch.cat([wanted[..., :2], wanted[..., 2:].clamp(min=0).sqrt()], -1)
        classes = scores - F.one_hot(true.label.clamp(min=0), param.num_class).transpose(1, 2)
        classes = classes.where(true.there[:, None], 0)
        away = (values - wanted.transpose(1, 2)[:, None]).where(own[:, :, None], 0)
        some = true.there.sum()
        squares = param.class_scale * classes.square().sum() + param.coord_scale * away.square().sum()
        squares = squares + param.object_scale * (objects - 1).where(own, 0).square().sum()
        nothing = param.noobject_scale * objects.where(~own, 0).square().sum()
        loss = squares / some.clamp(min=1) + nothing / (own.numel() - some).clamp(min=1)
        confidence = torch.where(own, param.object_scale * (objects - most[:, None]), param.noobject_scale * objects)
        parts = [param.class_scale * classes, confidence, param.coord_scale * away.flatten(1, 2)]
        return loss, torch.cat(parts, 1)


class Predictions(NamedTuple):
    """The predictions of a picture: classes (n,), scores (n,), corners (n, 4)."""

    label: Tensor
    score: Tensor
    box: Tensor


class Objects(NamedTuple):
    """The true boxes of a picture: classes (n,), which are difficult (n,), corners (n, 4)."""

    label: Tensor
    difficult: Tensor
    box: Tensor


@register("EvalDetection")
class EvalDetection(Layer):
    """Which of the boxes that YOLO found, versions 1 and 2, are there. No gradient.

    Bottoms: predictions and labels as DetectionLoss reads them, or as RegionLoss reads those of 30 rows, which the
    second bottom's size tells; a third, pictures, is not looked at. Top: (N, C + 4 B S^2): the number of true boxes of
    each of C classes, in version 1 without the difficult; then, by class and falling score, for each prediction class,
    score, hit, miss, and zeros for those that others suppress. A hit is the first that overlaps with a true box of its
    class by the threshold or more, and with none of that class more; other such predictions are misses, or neither
    (0, 0) where that box is difficult. Those that overlap less are misses in version 1, and neither in version 2 where
    the picture has a box of the class.

    ``eval_detection_param``: side S (7), num_class C (20), num_object B (2), threshold (0.5); nms: a prediction goes
    that overlaps by so much or more with one of a greater score, also of another class; below 0 (-1) none does;
    score_type: OBJ the objectness, PROB the likeliest class' score, MULTIPLY (the default) their product. Version 1:
    sqrt (true), constriant (true) as in DetectionLoss. Version 2: biases, width and height of each of B anchors in
    cells; scores below 0.005 do not count, and only what lies in the picture overlaps.
    Raises ShapeError where the bottoms do not fit, LabelError for a label that is no class.
    Source: ``eval_detection_layer.cpp`` of yeahkun/caffe-yolo and of gklz1982/caffe-yolov2.

    With ``eval_type: "detection"`` of the solver, and in ``caffecli test``, the top is told as mean average precision;
    ``test_detection`` of these forks computes it by ``ap_version: "11point"``.

    Differences: gklz1982's gives no prediction at all where nms is below 0, and looks at five anchors alone.
    """

    compiles = False
    greater_is_better = True
    not_exported = "scores what was found; export the net without it"
    bottom_count = (2, 3)
    no_gradient = (0, 1, 2)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.settings = self.param.eval_detection_param
        self.cells, self.second = param.side**2, math.prod(bottoms[1][1:]) == grid.OLDER_LABELS
        self.overlap = boxes.just_below(param.nms)
        self.detection_classes = tuple(range(param.num_class))
        if self.second:
            self.anchors = grid.pairs(self, param.biases, param.num_object)[: param.num_object]

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        param = self.settings
        if self.second:
            grid.check(self, bottoms[0], param.num_object, 5 + param.num_class)
            if tuple(bottoms[0][2:]) != (param.side, param.side):
                raise self.shape_error(f"expected predictions of side {param.side}, got {self.listing(bottoms)}")
        else:
            check_cells(self, bottoms, param.side, param.num_class + 5 * param.num_object)
        return [torch.Size((bottoms[0][0], param.num_class + 4 * self.cells * param.num_object))]

    def detection_rows(self, top: Tensor) -> Tensor:
        """Without the zeros behind each picture's predictions."""
        classes = self.settings.num_class
        counts, rows = top[:, :classes], top[:, classes:].reshape(len(top), -1, 4)
        objects = top.new_full((classes, 5), -1)
        objects[:, 1], objects[:, 2] = torch.arange(classes, device=top.device), counts.sum(0)
        picture = torch.arange(len(top), device=top.device).to(top)[:, None, None].expand(-1, rows.shape[1], 1)
        found = torch.cat([picture, rows], 2).flatten(0, 1)
        return torch.cat([objects, found[found[:, 1:].any(1)]])

    def forward(self, x: Tensor, labels: Tensor, *pictures: Tensor) -> Tensor:
        with torch.no_grad():
            read = self._second if self.second else self._first
            own, true = read(full(x.detach()), labels)
            return torch.stack([self._judged(*each) for each in zip(own, true, strict=True)]).to(x.dtype)

    def _first(self, x: Tensor, labels: Tensor) -> tuple[list[Predictions], list[Objects]]:
        """The predictions and the true boxes of each picture."""
        param, count = self.settings, self.settings.num_object
        parts = torch.split(x.reshape(len(x), -1, self.cells), [param.num_class, count, 4 * count], 1)
        chance, label = parts[0].max(1, keepdim=True)
        box = predicted(parts[2].reshape(len(x), count, 4, self.cells), param.side, param.constriant, param.sqrt)
        score = self._score(parts[1], chance)
        label, order = label.expand_as(score), (0, 2, 1)  # cell by cell
        own = [
            Predictions(*each)
            for each in zip(
                label.permute(order).flatten(1),
                score.permute(order).flatten(1),
                grid.corners(box.transpose(1, 2)).flatten(1, 2),
                strict=True,
            )
        ]
        cells = Cells.of(self, labels, self.cells, param.num_class)
        true = [
            Objects(label[there], hard[there], grid.corners(box)[there])
            for hard, there, label, box in zip(*cells, strict=True)
        ]
        return own, true

    def _second(self, x: Tensor, labels: Tensor) -> tuple[list[Predictions], list[Objects]]:
        param = self.settings
        parts = grid.split(x, param.num_object)
        chance, label = parts[:, :, 5:].softmax(2).max(2)
        box = grid.decode(parts[:, :, :2].sigmoid(), parts[:, :, 2:4], self.anchors.to(x) / param.side)
        score = self._score(parts[:, :, 4].sigmoid(), chance)
        flat = [each.permute(0, 2, 3, 1, *range(4, each.dim())).flatten(1, 3) for each in (label, score, box)]
        own = [Predictions(label, score, grid.inside(box)) for label, score, box in zip(*flat, strict=True)]
        rows, there = grid.true_boxes(self, labels, len(x), param.num_class)
        true = [
            Objects(to_classes(each[:, 0]), torch.zeros_like(each[:, 0], dtype=torch.bool), grid.inside(each[:, 1:]))
            for each in (each[kept].to(x.dtype) for each, kept in zip(rows, there, strict=True))
        ]
        return own, true

    def _score(self, objectness: Tensor, chance: Tensor) -> Tensor:
        if self.settings.score_type == EvalDetectionParameter.OBJ:
            return objectness
        one = chance.expand_as(objectness)
        return one if self.settings.score_type == EvalDetectionParameter.PROB else objectness * one

    def _judged(self, own: Predictions, true: Objects) -> Tensor:
        """The top of one picture."""
        param = self.settings
        order = own.score.argsort(descending=True, stable=True)
        if param.nms >= 0:
            order = order[boxes.first_of_those_that_stay(own.box[order], self.overlap)]
        if self.second:
            order = order[own.score[order] >= _LEAST]
        order = order[own.label[order].argsort(stable=True)]
        label, score, box = (each[order] for each in own)
        counted = true.label[~true.difficult]
        known = torch.isin(label, true.label)
        shared = boxes.overlaps(box, true.box).masked_fill(label[:, None] != true.label, -1)
        most, at = shared.max(1) if len(true.label) else (score.new_full(score.shape, -1), torch.zeros_like(label))
        near = known & (most >= param.threshold)
        counts = near.clone()
        if len(true.label):
            counts &= ~true.difficult[at]
        hit = torch.zeros_like(near)
        keys = at[counts].flip(0)
        hit[counts] = grid.last_of_each(keys, max(1, len(true.label))).flip(0)
        miss = (counts & ~hit) | ~known
        if not self.second:
            miss |= known & ~near
        rows = torch.stack([label.to(score), score, hit.to(score), miss.to(score)], 1).flatten()
        top = score.new_zeros(param.num_class + 4 * self.cells * param.num_object)
        top[: param.num_class] = counted.bincount(minlength=param.num_class)
        top[param.num_class : param.num_class + len(rows)] = rows
        return top
