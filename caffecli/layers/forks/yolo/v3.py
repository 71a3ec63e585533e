"""Yolov3: YOLO's loss, version 3, with the overlaps of boxes that later versions learn by."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers import boxes
from caffecli.layers.base import Shape
from caffecli.layers.forks.yolo import grid
from caffecli.layers.loss import Loss, full
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import Yolov3Parameter

IOU, GIOU, MSE, DIOU, CIOU = (getattr(Yolov3Parameter, name) for name in ("IOU", "GIOU", "MSE", "DIOU", "CIOU"))


@register("Yolov3")
class Yolov3(Loss):
    """YOLO's loss, version 3, of one of its scales: 1 / N times the sum of the squares of d, while its gradient is
    d / N, where d is how far each prediction is from what it should be.

    Bottoms: x (N, A (5 + C), H, W), for each of A anchors (a, b), in pixels, tx, ty, tw, th, objectness and C classes;
    labels (N, 1, 300, 5) as AnnotatedData gives them with yolo_data_type: 1: class, centre x, centre y, width, height,
    up to the first row without a width. Top: the loss. A prediction in column i, row j is the box ((i + s(tx)) / W,
    (j + s(ty)) / H, a exp(tw) / (W k), b exp(th) / (H k)), k = anchors_scale (32), s(x) = 1 / (1 + exp(-x)); its
    objectness and chances of classes are s of the others. In the cell of each true box's centre those predictions
    should find it whose anchor's size overlaps with its own most, of all biases, where that is one of the layer's own,
    or by more than iou_thresh (0.5; 1: no others). For these d of the coordinates is
    coord_scale (2 - w h) ((s(tx), s(ty), tw, th) - (x W - i, y H - j, log(w W k / a), log(h H k / b))), of the last
    such box; of the objectness s - 1; of the classes class_scale (s - [class]), where the classes of several boxes of
    one prediction count together, with label_smooth_eps e (0.1): e / 2 for 0 and 1 - e / 2 for 1. For all others d of
    the objectness is s, 0 where the prediction overlaps with a true box by more than thresh (0.2).

    iou_loss: MSE is the above. With IOU, GIOU, DIOU or CIOU d of the coordinates is the gradient of that overlap,
    -iou_normalizer (0.25) d(overlap) by centre and, times exp(tw) and exp(th), size, each at most max_delta (10),
    summed over a prediction's true boxes, or the last one's with accumulate: false; the boxes' part of the loss is
    iou_normalizer / N times the mean of 1 - overlap; and overlaps are of this kind everywhere. use_focal_loss: d of a
    prediction's first true box's classes is times the focal loss' factor (Lin et al., 2017, with 0.5 and 2), without
    smoothing. use_logic_gradient: d of the objectness is times object_scale (1) where it should find a box, and the
    gradient, not the loss, of all but tw and th times s'. ``yolov3_param``, further: num A (5), num_class C (20),
    biases: a and b of all scales' anchors; mask: which of them are the layer's own. side and noobject_scale have no
    effect. Each 16 passes the log has means of the objectness, of those that should find a box, their overlap, score of
    its class, and the parts that overlap by more than 0.5 and 0.75. Raises SpecError for too few biases or a mask that
    names none of them, LabelError for a label that is no class. Source: Redmon and Farhadi, 2018 (YOLO, version 3);
    ``yolov3_layer.cpp``, ``bbox_util.cpp`` of eric612/MobileNet-YOLO.

    Differences: with use_logic_gradient and another iou_loss than MSE the fork takes s' of x as if it were s.
    """

    anchors: Tensor
    #: the place of each of the biases among the layer's own; -1: it is none
    place: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.settings = self.param.yolov3_param
        self.classes, self.kind = param.num_class, param.iou_loss
        self.register_buffer("anchors", grid.pairs(self, param.biases, 1), persistent=False)
        self.mask = grid.own_anchors(self, param.mask, param.num, len(self.anchors))
        if not param.anchors_scale:
            raise self.spec_error("expected an anchors_scale above 0, got 0")
        own = torch.full((len(self.anchors),), -1)
        for place, anchor in reversed(list(enumerate(self.mask))):
            own[anchor] = place
        self.register_buffer("place", own, persistent=False)
        self.scores = grid.Scores(16, "yolov3_layer.cpp:673")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        grid.check(self, bottoms[0], len(self.mask), 5 + self.classes)
        grid.check_labels(self, bottoms)
        return super().reshape(bottoms)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            parts = grid.split(full(x.detach()), len(self.mask))
            act = torch.cat([parts[:, :, :2].sigmoid(), parts[:, :, 2:4], parts[:, :, 4:].sigmoid()], 2)
            difference, of_boxes = self._differences(act, labels)
            squares = difference if self.kind == MSE else difference[:, :, 4:]
            loss = (squares.square().sum() + of_boxes) / len(x)
            if self.settings.use_logic_gradient:
                for own in (slice(0, 2), slice(4, None)):
                    difference[:, :, own] *= act[:, :, own] * (1 - act[:, :, own])
            gradient = (difference / len(x)).reshape(x.shape).to(x.dtype)
        return grid.WithGradient.apply(x, loss, gradient)  # type: ignore[no-untyped-call]

    def _differences(self, act: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """d (N, A, 5 + C, H, W), and the boxes' part of the loss where that is none of its squares."""
        param, (num, count, _, high, wide) = self.settings, act.shape
        rows, there = grid.true_boxes(self, labels, num, self.classes)
        rows = rows.to(act.dtype)
        anchors = self.anchors.to(act) / (act.new_tensor([wide, high]) * param.anchors_scale)
        predicted = grid.decode(act[:, :, :2], act[:, :, 2:4], anchors[self.mask])
        overlap = similarity(predicted.flatten(1, 3)[:, :, None], rows[:, None, :, 1:], self.kind)
        near = (overlap.masked_fill(~there[:, None], 0) > param.thresh).any(-1).reshape(num, count, high, wide)
        difference = torch.zeros_like(act)
        difference[:, :, 4] = act[:, :, 4].masked_fill(near, 0)
        item, at, place, anchor = self._assigned(rows, there, anchors)
        true, cell = rows[item, at], grid.cells(rows, high, wide)[item, at]
        own = act.flatten(3).permute(0, 1, 3, 2)[item, place, cell]
        box = predicted.flatten(2, 3)[item, place, cell]
        hit = similarity(box, true[:, 1:], DIOU if self.kind == IOU else self.kind)
        table = difference.flatten(3).permute(0, 1, 3, 2)  # (N, A, H W, 5 + C), of the same memory
        key, keys = (item * count + place) * high * wide + cell, num * count * high * wide
        last = grid.last_of_each(key, keys)
        if self.kind == MSE:
            target = grid.in_cell(true, cell, high, wide)
            size = (true[:, 3:] / anchors[anchor]).log()
            scale = param.coord_scale * (2 - true[:, 3:4] * true[:, 4:5])
            move = scale * (own[:, :4] - torch.cat([target, size], 1))
        else:
            move = self._uphill(box, true[:, 1:], own[:, 2:4])
        if self.kind == MSE or not param.accumulate:
            table[item[last], place[last], cell[last], :4] = move[last]
        else:
            flat = move.new_zeros(keys, 4).index_add(0, key, move)
            table[..., :4] = flat.reshape(num, count, high * wide, 4)
        table[item, place, cell, 4] = (own[:, 4] - 1) * (param.object_scale if param.use_logic_gradient else 1)
        self._classify(table, key, (item, place, cell), own[:, 5:], true[:, 0].long())
        score = own[:, 5:].gather(1, true[:, :1].long())[:, 0]
        self.scores.add(act[:, :, 4], own[:, 4], hit, score)
        lost = (1 - hit).sum() / max(1, len(hit)) if self.kind != MSE else hit.new_zeros(())
        return difference, param.iou_normalizer * lost

    def _assigned(self, rows: Tensor, there: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Which predictions should find which true boxes, in the fork's order: item, true box, place of the anchor
        among the layer's own, and among all. A pair may come twice, as there.
        """
        own = self.place
        size = torch.cat([torch.zeros_like(rows[..., 3:]), rows[..., 3:]], -1)
        shape = torch.cat([torch.zeros_like(anchors), anchors], -1)
        overlap = similarity(shape, size[:, :, None], self.kind)
        most, best = overlap.max(-1)
        first = there & (most > 0) & (own[best] >= 0)
        best = best.where(most > 0, -1)
        taken = torch.where(first, own[best], best)
        others = (overlap > self.settings.iou_thresh) & (own >= 0) & (self.settings.iou_thresh < 1)
        others &= there[..., None] & (torch.arange(len(own), device=rows.device) != taken[..., None])
        item, at, turn = torch.cat([first[..., None], others], -1).nonzero(as_tuple=True)
        anchor = torch.where(turn == 0, best[item, at], turn - 1)
        return item, at, own[anchor], anchor

    def _uphill(self, box: Tensor, true: Tensor, size: Tensor) -> Tensor:
        """d (E, 4) of the boxes, by the gradient of the overlap; ``size`` (E, 2): tw and th."""
        param = self.settings
        slope = gradient(box, true, self.kind)
        slope = torch.cat([slope[:, :2], slope[:, 2:] * size.exp()], 1) * param.iou_normalizer
        return -slope.nan_to_num(0, 0, 0).clamp(-param.max_delta, param.max_delta)

    def _classify(self, table: Tensor, key: Tensor, where: tuple[Tensor, ...], chance: Tensor, label: Tensor) -> None:
        """Put d of the classes into ``table``: all of a prediction's first true box, then each one's own."""
        param = self.settings
        first = grid.last_of_each(key.flip(0), math.prod(table.shape[:3])).flip(0)
        low, high = param.label_smooth_eps / 2, 1 - param.label_smooth_eps / 2
        target = F.one_hot(label, self.classes).to(chance.dtype)
        if param.use_focal_loss:
            p = chance.gather(1, label[:, None]) + 1e-15
            every = (chance - target) * -0.5 * (1 - p) * (2 * p * p.log() + p - 1)
        else:
            every = chance - (low + target * (high - low))
        item, place, cell = where
        table[item[first], place[first], cell[first], 5:] = (param.class_scale * every[first]).nan_to_num(0, 0, 0)
        item, place, cell, label = item[~first], place[~first], cell[~first], label[~first]
        one = chance[~first].gather(1, label[:, None])[:, 0] - high
        table[item, place, cell, 5 + label] = (param.class_scale * one).nan_to_num(0, 0, 0)


def similarity(a: Tensor, b: Tensor, kind: int) -> Tensor:
    """How much boxes (..., 4), of centres and sizes, overlap, each with its own, by an ``iou_loss``.

    GIOU: Rezatofighi et al., CVPR 2019; DIOU and CIOU: Zheng et al., AAAI 2020, where DIOU's distance has the power 0.6
    that Darknet gives it. Without an area in common and around them: 0.
    """
    a_corners, b_corners = grid.corners(a), grid.corners(b)
    iou = boxes.overlap(a_corners, b_corners)
    if kind in (IOU, MSE):
        return iou
    around = torch.maximum(a_corners, b_corners)[..., 2:] - torch.minimum(a_corners, b_corners)[..., :2]
    if kind == GIOU:
        area = around.prod(-1)
        union = (a[..., 2:].prod(-1) + b[..., 2:].prod(-1)) / (1 + iou)
        return iou - ((area - union) / area).masked_fill(area == 0, 0)
    diagonal = around.square().sum(-1)
    distance = ((a[..., :2] - b[..., :2]).square().sum(-1) / diagonal).masked_fill(diagonal == 0, 0)
    if kind == DIOU:
        return iou - distance**0.6
    form = 4 / math.pi**2 * (_angle(b) - _angle(a)).square()
    return iou - (distance + form.square() / (1 - iou + form + 1e-6)).masked_fill(diagonal == 0, 0)


def _angle(box: Tensor) -> Tensor:
    return (box[..., 2] / box[..., 3]).atan()


def gradient(box: Tensor, true: Tensor, kind: int) -> Tensor:
    """Darknet's gradient of the overlap of boxes (E, 4), of centres and sizes, with their own true ones: by centre x,
    centre y, width, height; that of the sizes is twice the derivative, or of another sign in the terms of DIOU.
    """
    low, high = grid.corners(box).chunk(2, 1)
    true_low, true_high = grid.corners(true).chunk(2, 1)
    other = (high - low).flip(1)  # a side's area grows by the other
    inner = torch.minimum(high, true_high) - torch.maximum(low, true_low)
    apart = (inner <= 0).any(1, keepdim=True)
    shared = inner.prod(1, keepdim=True)
    union = box[:, 2:].prod(1, keepdim=True) + true[:, 2:].prod(1, keepdim=True) - shared
    shared_low, shared_high = -inner.flip(1) * (low > true_low), inner.flip(1) * (high < true_high)
    union_low, union_high = -other - shared_low, other - shared_high
    by_low, by_high = (
        ((union * s - shared * u) / union**2).masked_fill(union <= 0, 0)
        for s, u in ((shared_low, union_low), (shared_high, union_high))
    )
    around = torch.maximum(high, true_high) - torch.minimum(low, true_low)
    beyond_low, beyond_high = (low < true_low).to(box), (high > true_high).to(box)
    if kind == GIOU:
        area = around.prod(1, keepdim=True)
        term_low = (area * union_low + union * beyond_low * around.flip(1)) / area**2
        term_high = (area * union_high - union * beyond_high * around.flip(1)) / area**2
        by_low, by_high = torch.where(apart, 0, by_low) + term_low, torch.where(apart, 0, by_high) + term_high
    slope = torch.cat([by_low + by_high, by_high - by_low], 1)
    if kind in (DIOU, CIOU):
        diagonal = around.square().sum(1, keepdim=True)
        away = true[:, :2] - box[:, :2]
        distance = away.square().sum(1, keepdim=True)
        moves = 2 * (away * diagonal - around * (beyond_high - beyond_low) * distance)
        grows = around * (beyond_high + beyond_low) * distance
        term = torch.cat([moves, grows], 1) / diagonal**2
        if kind == CIOU:
            turn = (_angle(true) - _angle(box))[:, None]
            form = 4 / math.pi**2 * turn.square()
            weight = form / (1 - shared / union + form + 1e-6)
            term[:, 2:] += weight * 8 / math.pi**2 * turn * torch.cat([box[:, 3:], -box[:, 2:3]], 1)
        slope = torch.where(apart, 0, slope) + term
    return slope
