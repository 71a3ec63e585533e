"""DetectionLoss and EvalDetection beside NumPy written cell by cell, as the forks' loops are; their error texts."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError, SpecError
from caffecli.layers import types
from caffecli.layers.labels import LabelError
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import support, text
from tests.layers.forks.test_yolo import overlap, overlap_within, run, said, sigmoid
from tests.layers.oracle import build

SIDE, CLASSES, COUNT = 3, 3, 2
CELLS = SIDE * SIDE
LOSS: dict[str, Any] = {
    "side": SIDE, "num_class": CLASSES, "num_object": COUNT, "object_scale": 2, "noobject_scale": 0.5,
    "class_scale": 1.5, "coord_scale": 5, "sqrt": True, "constriant": False,
}  # fmt: skip
EVAL: dict[str, Any] = {
    "side": SIDE, "num_class": CLASSES, "num_object": COUNT, "threshold": 0.3, "nms": 0.5, "sqrt": True,
    "constriant": True, "score_type": "MULTIPLY",
}  # fmt: skip


def drawn(seed: int, num: int = 3, part: float = 0.4) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels of the first version, by chance."""
    draws = np.random.default_rng(seed)
    x = draws.uniform(0.05, 0.9, (num, CELLS * (CLASSES + 5 * COUNT))).astype(np.float32)
    labels = np.zeros((num, 7, CELLS), np.float32)
    labels[:, 2] = -1
    boxes = np.zeros((num, CELLS, 4), np.float32)
    for item, cell in itertools.product(range(num), range(CELLS)):
        if draws.random() < part:
            labels[item, :3, cell] = draws.random() < 0.3, 1, draws.integers(CLASSES)
            place = draws.random(2)
            boxes[item, cell] = [
                (cell % SIDE + place[0]) / SIDE,
                (cell // SIDE + place[1]) / SIDE,
                *draws.uniform(0.1, 0.8, 2),
            ]
    labels[:, 3:] = boxes.reshape(num, 4, CELLS)
    return x, labels.reshape(num, -1)


def first_box(v: Any, k: int, cell: int, o: dict[str, Any]) -> list[float]:
    """Of the values (C + 5 B, S^2) of a picture."""
    at = CLASSES + COUNT + 4 * k
    x, y, w, h = (float(each) for each in v[at : at + 4, cell])
    if o["constriant"]:
        x, y = (cell % SIDE + x) / SIDE, (cell // SIDE + y) / SIDE
    return [x, y, w**2, h**2] if o["sqrt"] else [x, y, w, h]


def slow_loss(x: np.ndarray, labels: np.ndarray, o: dict[str, Any]) -> tuple[float, np.ndarray]:
    """The loss, and d."""
    num = len(x)
    v, t = x.reshape(num, -1, CELLS).astype(np.float64), labels.reshape(num, 7, CELLS).astype(np.float64)
    d = np.zeros_like(v)
    classes = nothing = objects = coordinates = 0.0
    some = 0
    for b, j in itertools.product(range(num), range(CELLS)):
        for k in range(COUNT):
            value = v[b, CLASSES + k, j]
            nothing += o["noobject_scale"] * value**2
            d[b, CLASSES + k, j] = o["noobject_scale"] * value
        if not t[b, 1, j]:
            continue
        some += 1
        label = int(t[b, 2, j])
        for c in range(CLASSES):
            away = v[b, c, j] - (c == label)
            classes += o["class_scale"] * away**2
            d[b, c, j] = o["class_scale"] * away
        true = labels[b, 3 * CELLS + 4 * j :][:4].astype(np.float64)
        best, best_rmse, at = 0.0, 20.0, 0
        for k in range(COUNT):
            box = first_box(v[b], k, j, o)
            iou, rmse = overlap(box, true), math.sqrt(sum((p - q) ** 2 for p, q in zip(box, true, strict=True)))
            if best > 0 or iou > 0:
                if iou > best:
                    best, at = iou, k
            elif rmse < best_rmse:
                best_rmse, at = rmse, k
        value = v[b, CLASSES + at, j]
        nothing -= o["noobject_scale"] * value**2
        objects += o["object_scale"] * (value - 1) ** 2
        d[b, CLASSES + at, j] = o["object_scale"] * (value - best)
        if o["constriant"]:
            true[:2] = true[:2] * SIDE - [j % SIDE, j // SIDE]
        if o["sqrt"]:
            true[2:] = np.sqrt(true[2:])
        for i in range(4):
            away = v[b, CLASSES + COUNT + 4 * at + i, j] - true[i]
            coordinates += o["coord_scale"] * away**2
            d[b, CLASSES + COUNT + 4 * at + i, j] = o["coord_scale"] * away
    rest = CELLS * COUNT * num - some
    return (classes + coordinates + objects) / max(1, some) + nothing / rest, d.reshape(x.shape)


@pytest.mark.parametrize(
    "more", [{}, {"sqrt": False}, {"constriant": True}, {"sqrt": False, "constriant": True}], ids=str
)
@pytest.mark.parametrize("part", [0.4, 0.0])
def test_detection_loss(more: dict[str, Any], part: float) -> None:
    options = LOSS | more
    for seed in range(4):
        x, labels = drawn(seed, part=part)
        if seed == 3:  # boxes that meet no true one: the nearest is taken
            x.reshape(3, -1, CELLS)[:, CLASSES + COUNT + 2 :: 4] *= 0.05
        layer = build(f'type: "DetectionLoss" detection_loss_param {{ {said(options)} }}', x.shape, labels.shape)
        loss, gradient = run(layer, x, labels, 2)
        expected, d = slow_loss(x, labels, options)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        np.testing.assert_allclose(gradient, 2 * d / len(x), rtol=1e-4, atol=1e-6)


def judged(found: list[list[Any]], true: list[list[Any]], o: dict[str, Any], second: bool) -> np.ndarray:
    """The top of a picture: of rows label, score, box, and label, box, difficult."""
    top = np.zeros(CLASSES + 4 * COUNT * CELLS)
    like = overlap_within if second else overlap
    for label, _, hard in true:
        top[label] += not hard
    found.sort(key=lambda row: -row[1])
    if o["nms"] >= 0:
        gone: set[int] = set()
        for i, k in itertools.combinations(range(len(found)), 2):
            if i not in gone and k not in gone and like(found[i][2], found[k][2]) >= o["nms"]:
                gone.add(k)
        found = [row for i, row in enumerate(found) if i not in gone]
    if second:
        found = [row for row in found if row[1] >= 0.005]
    found.sort(key=lambda row: row[0])
    seen: set[int] = set()
    for i, (label, score, box) in enumerate(found):
        own = [k for k, each in enumerate(true) if each[0] == label]
        likes = [like(box, true[k][1]) for k in own]
        hit = miss = 0
        if not own:
            miss = 1
        elif max(likes) >= o["threshold"]:
            k = own[int(np.argmax(likes))]
            if not true[k][2]:
                hit, miss = int(k not in seen), int(k in seen)
                seen.add(k)
        elif not second:
            miss = 1
        top[CLASSES + 4 * i :][:4] = label, score, hit, miss
    return top


@pytest.mark.parametrize(
    "more", [{}, {"nms": -1}, {"nms": 0.1, "score_type": "OBJ"}, {"sqrt": False, "score_type": "PROB"},
             {"constriant": False, "threshold": 0.1}], ids=str,
)  # fmt: skip
def test_eval_detection_of_the_first_version(more: dict[str, Any]) -> None:
    options = EVAL | more
    some = np.zeros(2)
    for seed in range(6):
        x, labels = drawn(seed)
        v, t = x.reshape(3, -1, CELLS), labels.reshape(3, 7, CELLS)
        expected = []
        for b in range(3):
            found = []
            for j, k in itertools.product(range(CELLS), range(COUNT)):
                chance = v[b, :CLASSES, j]
                score = {"OBJ": v[b, CLASSES + k, j], "PROB": chance.max()}.get(
                    options["score_type"], v[b, CLASSES + k, j] * chance.max()
                )
                found.append([int(chance.argmax()), float(score), first_box(v[b], k, j, options)])
            true = [
                [int(t[b, 2, j]), labels[b, 3 * CELLS + 4 * j :][:4], t[b, 0, j] == 1]
                for j in range(CELLS)
                if t[b, 1, j]
            ]
            expected.append(judged(found, true, options, second=False))
        text = f'type: "EvalDetection" eval_detection_param {{ {said(options)} }}'
        layer = build(text, x.shape, labels.shape, (3, 3, 8, 8))
        top = layer(torch.tensor(x), torch.tensor(labels), torch.zeros(3, 3, 8, 8))
        assert isinstance(top, torch.Tensor)
        np.testing.assert_allclose(top.numpy(), np.array(expected), rtol=1e-4, atol=1e-6)
        some += np.array(expected)[:, CLASSES:].reshape(-1, 4)[:, 2:].sum(0)
    assert some.min() > 1  # hits and misses were among them


@pytest.mark.parametrize("more", [{}, {"score_type": "OBJ", "nms": 0.2}, {"score_type": "PROB"}], ids=str)
def test_eval_detection_of_the_second_version(more: dict[str, Any]) -> None:
    options = EVAL | {"biases": (0.6, 0.9, 1.6, 1.2)} | more
    for seed in range(5):
        draws = np.random.default_rng(seed)
        x = draws.normal(0, 1, (2, COUNT * (5 + CLASSES), SIDE, SIDE)).astype(np.float32)
        x.reshape(2, COUNT, -1, SIDE, SIDE)[:, 0, 4, 0] = -9  # too low a score
        labels = np.zeros((2, 1, 30, 5), np.float32)
        for row in range(4):
            labels[:, 0, row] = [draws.integers(CLASSES), *draws.uniform(0.1, 0.9, 2), *draws.uniform(0.2, 0.6, 2)]
        expected = []
        v = x.reshape(2, COUNT, 5 + CLASSES, SIDE, SIDE).astype(np.float64)
        for b in range(2):
            found = []
            for j, i, n in itertools.product(range(SIDE), range(SIDE), range(COUNT)):
                tx, ty, tw, th, o, *scores = v[b, n, :, j, i]
                chance = np.exp(scores) / np.exp(scores).sum()
                size = [
                    math.exp(tw) * options["biases"][2 * n] / SIDE,
                    math.exp(th) * options["biases"][2 * n + 1] / SIDE,
                ]
                box = [(i + sigmoid(tx)) / SIDE, (j + sigmoid(ty)) / SIDE, *size]
                score = {"OBJ": sigmoid(o), "PROB": chance.max()}.get(options["score_type"], sigmoid(o) * chance.max())
                found.append([int(chance.argmax()), float(score), box])
            true = [[int(row[0]), row[1:], False] for row in labels[b, 0, :4]]
            expected.append(judged(found, true, options, second=True))
        layer = build(f'type: "EvalDetection" eval_detection_param {{ {said(options)} }}', x.shape, labels.shape)
        top = layer(torch.tensor(x), torch.tensor(labels))
        assert isinstance(top, torch.Tensor)
        np.testing.assert_allclose(top.numpy(), np.array(expected), rtol=1e-4, atol=1e-6)


def test_what_the_first_version_refuses() -> None:
    x, labels = drawn(1)
    whole = f'type: "DetectionLoss" detection_loss_param {{ {said(LOSS)} }}'
    with pytest.raises(
        CaffeError, match=r"predictions \(num, 117\), 13 for each of 3 x 3 cells, and labels \(num, 63\)"
    ):
        build(whole, x.shape, (3, 64))
    labels[1, CELLS + 2], labels[1, 2 * CELLS + 2] = 1, 3
    for text_ in (whole, f'type: "EvalDetection" eval_detection_param {{ {said(EVAL)} }}'):
        with pytest.raises(LabelError, match="label 3 of a box of item 1 is none of the 3 classes, 0 to 2; mend"):
            build(text_, x.shape, labels.shape)(torch.tensor(x), torch.tensor(labels))
    second = f'type: "EvalDetection" eval_detection_param {{ {said(EVAL | {"biases": (1, 2, 3, 4)})} }}'
    with pytest.raises(CaffeError, match="expected predictions of side 3, got"):
        build(second, (1, 16, 4, 3), (1, 30, 5))
    with pytest.raises(CaffeError, match="a width and a height for each of 2 or more anchors, got 0"):
        build(f'type: "EvalDetection" eval_detection_param {{ {said(EVAL)} }}', (1, 16, 3, 3), (1, 30, 5))


def test_the_layer_of_the_same_name_of_ms_cnn_is_told() -> None:
    net = text.parse('layer { name: "l" type: "DetectionLoss" detection_loss_param { cls_num: 2 } }', NetParameter())
    with pytest.raises(SpecError, match=r"setting detection_loss_param.cls_num \('l'\) of MS-CNN"):
        support.check(net, types())
