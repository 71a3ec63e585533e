"""RegionLoss: YOLO's loss, version 2."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.formats.atomic import read_bytes
from caffecli.layers import boxes
from caffecli.layers.base import Shape
from caffecli.layers.forks.yolo import grid
from caffecli.layers.loss import Loss, full
from caffecli.layers.registry import register

#: so many pictures gklz1982's moves the boxes towards the anchors
_FIRST = 12800


@register("RegionLoss")
class RegionLoss(Loss):
    """YOLO's loss, version 2: 1 / N times the sum of the squares of d, while its gradient is d / N, where d is how far
    each prediction is from what it should be.

    Bottoms: x (N, A (5 + C), H, W), for each of A anchors (a, b), in cells, tx, ty, tw, th, objectness and C classes;
    labels (N, ..., 5) as AnnotatedData gives them with yolo_data_type: 1: class, centre x, centre y, width, height, up
    to the first row without a width. Top: the loss. A prediction in column i, row j is the box ((i + s(tx)) / W, (j +
    s(ty)) / H, a exp(tw) / W, b exp(th) / H), s(x) = 1 / (1 + exp(-x)), its objectness o = s(x_4), p the softmax of its
    classes. For each true box one prediction should find it: in the cell of its centre the anchor whose size overlaps
    with its own most (with bias_match: 0 the predicted size). There d = coord_scale f (s(tx) - x W + i) s'(tx), in the
    same way of ty, coord_scale f (tw - log(w W / a)), in the same way of th, object_scale (o - t) s'(x_4), and
    class_scale (p - [class]); of two true boxes of one prediction the last counts. Elsewhere d of the objectness is
    noobject_scale o s'(x_4), 0 where the prediction overlaps with a true box by more than thresh.

    ``region_loss_param``: num A (5), num_class C (20), biases: a and b of each; object_scale (1), noobject_scale (0.5),
    class_scale (1), coord_scale (5), thresh (0.2), bias_match (1); coords is 4; side, softmax, jitter, absolute and
    random have no effect. rescore: 1 (default): t is the overlap with the true box, f = 1; 0: t = 1, f = 2 - w h. Where
    a picture has 30 rows of labels, 150 numbers, the loss is gklz1982's: t = 1 and f = 1, only what lies in the image
    overlaps, its value is not divided by N, class_map names a file with the class to take for each, and for the first
    12800 pictures, of each process, all other predictions have d = 0.01 as coord_scale f, for a true box that is their
    anchor in the middle of their cell. Each 10 passes (gklz1982's 100) the log has means of the objectness, of those
    that should find a box, their overlap, score of its class, and the parts that overlap by more than 0.5 and 0.75.
    Raises SpecError for too few biases, LabelError for a label that is no class. Source: Redmon and Farhadi, CVPR 2017
    (YOLO, version 2); ``region_loss_layer.cpp`` of eric612/MobileNet-YOLO and gklz1982/caffe-yolov2.

    Differences: H and W may differ; less than ten biases do not count as zeros. softmax_tree, gklz1982's, is not here.
    """

    anchors: Tensor
    map: Tensor | None

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.settings = self.param.region_loss_param
        if param.coords != 4:
            raise self.spec_error(f"expected coords: 4, got {param.coords}")
        anchors = grid.pairs(self, param.biases, param.num)[: param.num]
        self.register_buffer("anchors", anchors, persistent=False)
        self.classes = param.num_class
        self.older = math.prod(bottoms[1][1:]) == grid.OLDER_LABELS
        classes = self._read_map(param.class_map) if self.older and param.class_map else None
        self.register_buffer("map", classes, persistent=False)
        self.stateful = self.older  # counts its pictures
        self.seen = 0
        self.scores = grid.Scores(100 if self.older else 10, "region_loss_layer.cpp:406")

    def _read_map(self, path: str) -> Tensor:
        lines = read_bytes(path).decode("utf-8", "replace").splitlines()
        try:
            numbers = [int(line.split()[0]) for line in lines]
        except (ValueError, IndexError):
            numbers = []
        if not numbers or not 0 <= min(numbers) <= max(numbers) < self.classes:
            raise self.spec_error(f"class_map {path!r}: expected a number of 0 to {self.classes - 1} in each line")
        return torch.tensor(numbers)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        grid.check(self, bottoms[0], len(self.anchors), 5 + self.classes)
        grid.check_labels(self, bottoms)
        return super().reshape(bottoms)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            parts = grid.split(full(x.detach()), len(self.anchors))
            gradient = self._differences(parts, labels).reshape(x.shape)
            loss = gradient.square().sum() / (1 if self.older else len(x))
        return grid.WithGradient.apply(x, loss, (gradient / len(x)).to(x.dtype))  # type: ignore[no-untyped-call]

    def _differences(self, x: Tensor, labels: Tensor) -> Tensor:
        """d (N, A, 5 + C, H, W)."""
        param, (num, count, _, high, wide) = self.settings, x.shape
        classes = self.classes if self.map is None else len(self.map)
        rows, there = grid.true_boxes(self, labels, num, classes)
        rows = rows.to(x.dtype)
        anchors = self.anchors.to(x) / x.new_tensor([wide, high])
        predicted = grid.decode(x[:, :, :2].sigmoid(), x[:, :, 2:4], anchors)
        corners = grid.inside if self.older else grid.corners
        overlap = boxes.overlaps(corners(predicted).flatten(1, 3), corners(rows[..., 1:]))
        near = (overlap.masked_fill(~there[:, None], 0) > param.thresh).any(-1)
        difference = self._of_nothing(x, near)
        own = x.flatten(3).permute(0, 1, 3, 2)  # (N, A, H W, 5 + C)
        item, at = there.nonzero(as_tuple=True)
        true, cell = rows[item, at], grid.cells(rows, high, wide)[item, at]
        sizes = anchors if param.bias_match else predicted.flatten(2, 3)[item, :, cell, 2:]
        anchor = _of_size(true[:, 3:], sizes.clamp(max=2) if self.older else sizes).argmax(1)
        found = own[item, anchor, cell]
        box = predicted.flatten(2, 3)[item, anchor, cell]
        hit = boxes.overlap(corners(box), corners(true[:, 1:]))
        inside = found[:, :2].sigmoid()
        wanted = grid.in_cell(true, cell, high, wide)
        scale = param.coord_scale * x.new_ones(len(true), 1)
        if not (self.older or param.rescore):
            scale = scale * (2 - true[:, 3:4] * true[:, 4:5])
        score = found[:, 4:5].sigmoid()
        target = hit[:, None] if param.rescore and not self.older else 1
        label = true[:, 0].long() if self.map is None else self.map[true[:, 0].long()]
        chance = found[:, 5:].softmax(1)
        values = [
            scale * (inside - wanted) * _slope(inside),
            scale * (found[:, 2:4] - (true[:, 3:] / anchors[anchor]).log()),
            param.object_scale * (score - target) * _slope(score),
            param.class_scale * (chance - F.one_hot(label, self.classes)),
        ]
        key = (item * count + anchor) * high * wide + cell
        stays = grid.last_of_each(key, num * count * high * wide)
        table = difference.flatten(3).permute(0, 1, 3, 2)
        table[item[stays], anchor[stays], cell[stays]] = torch.cat(values, 1)[stays]
        self.scores.add(x[:, :, 4].sigmoid(), score[:, 0], hit, chance.gather(1, label[:, None])[:, 0])
        return difference

    def _of_nothing(self, x: Tensor, near: Tensor) -> Tensor:
        """d of predictions that have no box to find; those ``near`` one (N, A H W) need not say so."""
        place, objectness = x[:, :, :2].sigmoid(), x[:, :, 4].sigmoid()
        difference = torch.zeros_like(x)
        less = self.settings.noobject_scale * objectness * _slope(objectness)
        difference[:, :, 4] = less.masked_fill(near.reshape(objectness.shape), 0)
        if self.older and self.seen < _FIRST // len(x):
            difference[:, :, :2] = 0.01 * (place - 0.5) * _slope(place)
            difference[:, :, 2:4] = 0.01 * x[:, :, 2:4]
        self.seen += 1
        return difference


def _slope(s: Tensor) -> Tensor:
    """The derivative of the sigmoid, by its value."""
    return s * (1 - s)


def _of_size(true: Tensor, sizes: Tensor) -> Tensor:
    """How much boxes of widths and heights (M, 2) overlap with others, (A, 2) or (M, A, 2), of one centre: (M, A)."""
    shared = torch.minimum(true[:, None], sizes).prod(-1)
    return shared / (true.prod(-1)[:, None] + sizes.prod(-1) - shared)
