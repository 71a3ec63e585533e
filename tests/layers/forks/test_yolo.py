"""YOLO's layers beside NumPy written prediction by prediction, as the forks' loops are; their error texts."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import CaffeError
from caffecli.layers.base import Layer
from caffecli.layers.labels import LabelError
from tests.layers.oracle import build

CLASSES, HIGH, WIDE = 3, 3, 4
BIASES = (10.0, 14.0, 23.0, 27.0, 37.0, 58.0, 81.0, 82.0)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def said(options: dict[str, Any]) -> str:
    parts = []
    for key, value in options.items():
        for each in value if isinstance(value, tuple | list) else [value]:
            parts.append(f"{key}: {str(each).lower() if isinstance(each, bool) else each}")
    return " ".join(parts)


def drawn(anchors: int, num: int, seed: int, most: int = 4, rows: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and labels by chance; some true boxes share a cell."""
    draws = np.random.default_rng(seed)
    x = draws.normal(0, 1, (num, anchors * (5 + CLASSES), HIGH, WIDE)).astype(np.float32)
    labels = np.zeros((num, 1, rows, 5), np.float32)
    for item in range(num):
        for row in range(int(draws.integers(most + 1))):
            labels[item, 0, row] = [draws.integers(CLASSES), *draws.uniform(0.05, 0.95, 2), *draws.uniform(0.1, 0.8, 2)]
            if row and draws.random() < 0.5:
                labels[item, 0, row, 1:] = labels[item, 0, row - 1, 1:] * draws.uniform(0.97, 1.03, 4)
    return x, labels


def run(layer: Layer, x: np.ndarray, labels: np.ndarray, weight: float = 1) -> tuple[float, np.ndarray]:
    """The loss, and the gradient of ``weight`` times it."""
    bottom = torch.tensor(x, requires_grad=True)
    loss = layer(bottom, torch.tensor(labels))
    assert isinstance(loss, Tensor) and loss.shape == ()
    (weight * loss).backward()
    assert bottom.grad is not None
    return float(loss.detach()), bottom.grad.numpy()


# -- boxes --------------------------------------------------------------------------------------------------------


def overlap(a: Any, b: Any, kind: str = "MSE") -> float:
    """Of two boxes of centres and sizes, by an ``iou_loss``."""
    shared = 1.0
    around = []
    for i in (0, 1):
        low, high = (
            pick(a[i] + sign * a[i + 2] / 2, b[i] + sign * b[i + 2] / 2) for pick, sign in ((max, -1), (min, 1))
        )
        shared *= max(0.0, high - low)
        around.append(max(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - min(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2))
    union = a[2] * a[3] + b[2] * b[3] - shared
    iou = shared / union
    distance = ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / (around[0] ** 2 + around[1] ** 2)
    if kind == "GIOU":
        return iou - (around[0] * around[1] - union) / (around[0] * around[1])
    if kind == "DIOU":
        return iou - distance**0.6
    if kind == "CIOU":
        form = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
        return iou - distance - form / (1 - iou + form + 1e-6) * form
    return iou


def within(box: Any) -> list[float]:
    """The part of a box that lies in the picture, as centre and size."""
    low, high = ([min(1.0, max(0.0, box[i] + sign * box[i + 2] / 2)) for i in (0, 1)] for sign in (-1, 1))
    return [(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[0] - low[0], high[1] - low[1]]


def overlap_within(a: Any, b: Any) -> float:
    a, b = within(a), within(b)
    return overlap(a, b) if min(*a[2:], *b[2:]) > 0 else 0.0


def rise(pred: Any, truth: Any, kind: str) -> list[float]:
    """Darknet's gradient of the overlap, term by term, of centre and size."""
    pl, pr, pt, pb = pred[0] - pred[2] / 2, pred[0] + pred[2] / 2, pred[1] - pred[3] / 2, pred[1] + pred[3] / 2
    tl, tr, tt, tb = truth[0] - truth[2] / 2, truth[0] + truth[2] / 2, truth[1] - truth[3] / 2, truth[1] + truth[3] / 2
    iw, ih = min(pr, tr) - max(pl, tl), min(pb, tb) - max(pt, tt)
    inter = iw * ih
    union = pred[2] * pred[3] + truth[2] * truth[3] - inter
    whole = {"t": -(pr - pl), "b": pr - pl, "l": -(pb - pt), "r": pb - pt}
    common = {
        "t": -iw if pt > tt else 0.0,
        "b": iw if pb < tb else 0.0,
        "l": -ih if pl > tl else 0.0,
        "r": ih if pr < tr else 0.0,
    }
    joined = {side: whole[side] - common[side] for side in whole}
    found = {side: (union * common[side] - inter * joined[side]) / union**2 if union > 0 else 0.0 for side in whole}
    cw, ch = max(pr, tr) - min(pl, tl), max(pb, tb) - min(pt, tt)
    if kind == "GIOU":
        area = cw * ch
        hull = {
            "t": -cw if pt < tt else 0.0,
            "b": cw if pb > tb else 0.0,
            "l": -ch if pl < tl else 0.0,
            "r": ch if pr > tr else 0.0,
        }
        for side in found:
            term = (area * joined[side] - union * hull[side]) / area**2
            found[side] = term if iw <= 0 or ih <= 0 else found[side] + term
    slope = [found["l"] + found["r"], found["t"] + found["b"], found["r"] - found["l"], found["b"] - found["t"]]
    if kind in ("DIOU", "CIOU"):
        c, s = cw**2 + ch**2, (pred[0] - truth[0]) ** 2 + (pred[1] - truth[1]) ** 2
        left, right, top, bottom = (int(each) for each in (pl < tl, pr > tr, pt < tt, pb > tb))
        terms = [
            (2 * (truth[0] - pred[0]) * c - 2 * cw * (right - left) * s) / c**2,
            (2 * (truth[1] - pred[1]) * c - 2 * ch * (bottom - top) * s) / c**2,
            2 * cw * (0.5 * right + 0.5 * left) * s / c**2,
            2 * ch * (0.5 * bottom + 0.5 * top) * s / c**2,
        ]
        if kind == "CIOU":
            turn = math.atan(truth[2] / truth[3]) - math.atan(pred[2] / pred[3])
            form = 4 / math.pi**2 * turn**2
            alpha = form / (1 - inter / union + form + 1e-6)
            terms[2] += alpha * 8 / math.pi**2 * turn * pred[3]
            terms[3] -= alpha * 8 / math.pi**2 * turn * pred[2]
        slope = terms if iw <= 0 or ih <= 0 else [a + b for a, b in zip(slope, terms, strict=True)]
    return slope


# -- RegionLoss ---------------------------------------------------------------------------------------------------

REGION: dict[str, Any] = {
    "num": 2, "num_class": CLASSES, "biases": (0.8, 1.2, 2.0, 1.1), "object_scale": 4, "noobject_scale": 0.7,
    "class_scale": 1.5, "coord_scale": 2, "thresh": 0.3, "rescore": 1, "bias_match": 1,
}  # fmt: skip


def slow_region(x: np.ndarray, labels: np.ndarray, o: dict[str, Any], seen: int = 0) -> tuple[float, np.ndarray]:
    """The loss, and d."""
    num, count, older = len(x), o["num"], labels[0].size == 150
    v = x.reshape(num, count, 5 + CLASSES, HIGH, WIDE).astype(np.float64)
    d = np.zeros_like(v)
    rows = labels.reshape(num, -1, 5)
    like = overlap_within if older else overlap

    def box(b: int, n: int, j: int, i: int) -> list[float]:
        tx, ty, tw, th = v[b, n, :4, j, i]
        sides = math.exp(tw) * o["biases"][2 * n] / WIDE, math.exp(th) * o["biases"][2 * n + 1] / HIGH
        return [(i + sigmoid(tx)) / WIDE, (j + sigmoid(ty)) / HIGH, *sides]

    def towards(b: int, n: int, j: int, i: int, true: Any, scale: float) -> None:
        targets = true[0] * WIDE - i, true[1] * HIGH - j
        for c in (0, 1):
            s = sigmoid(v[b, n, c, j, i])
            d[b, n, c, j, i] = -scale * (targets[c] - s) * s * (1 - s)
        sides = true[2] * WIDE / o["biases"][2 * n], true[3] * HIGH / o["biases"][2 * n + 1]
        for c in (0, 1):
            d[b, n, 2 + c, j, i] = -scale * (math.log(sides[c]) - v[b, n, 2 + c, j, i])

    for b in range(num):
        for j, i, n in itertools.product(range(HIGH), range(WIDE), range(count)):
            s = sigmoid(v[b, n, 4, j, i])
            best = 0.0
            for row in rows[b]:
                if not row[1]:
                    break
                best = max(best, like(box(b, n, j, i), row[1:]))
            d[b, n, 4, j, i] = 0 if best > o["thresh"] else o["noobject_scale"] * s * s * (1 - s)
            if older and seen < 12800 // num:
                anchor = o["biases"][2 * n] / WIDE, o["biases"][2 * n + 1] / HIGH
                towards(b, n, j, i, ((i + 0.5) / WIDE, (j + 0.5) / HIGH, *anchor), 0.01)
        for row in rows[b]:
            label, true = int(row[0]), row[1:].tolist()
            if not true[2]:
                break
            i, j = int(true[0] * WIDE), int(true[1] * HIGH)
            best, n = 0.0, 0
            for each in range(count):
                size = [o["biases"][2 * each] / WIDE, o["biases"][2 * each + 1] / HIGH]
                size = size if o["bias_match"] else box(b, each, j, i)[2:]
                if (iou := like((0, 0, *size), (0, 0, *true[2:]))) > best:
                    best, n = iou, each
            plain = older or o["rescore"]
            towards(b, n, j, i, true, o["coord_scale"] * (1 if plain else 2 - true[2] * true[3]))
            s = sigmoid(v[b, n, 4, j, i])
            target = like(box(b, n, j, i), true) if o["rescore"] and not older else 1
            d[b, n, 4, j, i] = -o["object_scale"] * (target - s) * s * (1 - s)
            chance = np.exp(v[b, n, 5:, j, i]) / np.exp(v[b, n, 5:, j, i]).sum()
            d[b, n, 5:, j, i] = -o["class_scale"] * ((np.arange(CLASSES) == o.get("map", range(9))[label]) - chance)
    return float((d**2).sum()) / (1 if older else num), d.reshape(x.shape)


@pytest.mark.parametrize("rows", [300, 30], ids=["eric612", "gklz1982"])
@pytest.mark.parametrize("more", [{}, {"rescore": 0}, {"bias_match": 0}, {"thresh": 0.05}], ids=str)
def test_region_loss(more: dict[str, Any], rows: int) -> None:
    options = REGION | more
    for seed in range(4):
        x, labels = drawn(2, 1 + seed, seed, rows=rows)
        layer = build(f'type: "RegionLoss" region_loss_param {{ {said(options)} }}', x.shape, labels.shape)
        for _ in range(2):
            loss, gradient = run(layer, x, labels, 3)
            expected, d = slow_region(x, labels, options)
            np.testing.assert_allclose(loss, expected, rtol=1e-4)
            np.testing.assert_allclose(gradient, 3 * d / len(x), rtol=1e-4, atol=1e-5)


def test_region_loss_of_gklz1982_after_its_first_pictures_and_with_a_class_map(tmp_path: Path) -> None:
    classes = tmp_path / "map"
    classes.write_text("2\n0 a name\n1\n")
    x, labels = drawn(2, 3, 5, rows=30)
    text = f'type: "RegionLoss" region_loss_param {{ {said(REGION)} class_map: "{classes}" }}'
    layer = build(text, x.shape, labels.shape)
    assert layer.stateful
    options = REGION | {"map": (2, 0, 1)}
    for seen in (0, 12800 // 3 - 1, 12800 // 3):
        layer.seen = seen  # type: ignore[assignment]
        loss, gradient = run(layer, x, labels)
        expected, d = slow_region(x, labels, options, seen)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        np.testing.assert_allclose(gradient, d / len(x), rtol=1e-4, atol=1e-5)
    classes.write_text("2\n9\n")
    with pytest.raises(CaffeError, match=r"class_map .*map': expected a number of 0 to 2 in each line"):
        build(text, x.shape, labels.shape)


# -- Yolov3 -------------------------------------------------------------------------------------------------------

YOLO3: dict[str, Any] = {
    "num": 2, "num_class": CLASSES, "biases": BIASES, "mask": (1, 3), "anchors_scale": 32, "object_scale": 4,
    "class_scale": 1.5, "coord_scale": 2, "thresh": 0.3, "iou_loss": "MSE", "iou_normalizer": 0.25, "iou_thresh": 0.4,
    "max_delta": 10, "accumulate": True, "label_smooth_eps": 0.1, "use_focal_loss": False, "use_logic_gradient": False,
}  # fmt: skip


def slow_yolov3(x: np.ndarray, labels: np.ndarray, o: dict[str, Any]) -> tuple[float, np.ndarray]:
    """The loss, and what N times its gradient is."""
    num, count, kind, mask = len(x), o["num"], o["iou_loss"], o["mask"]
    v = x.reshape(num, count, 5 + CLASSES, HIGH, WIDE).astype(np.float64)
    act = v.copy()
    for c in (0, 1, *range(4, 5 + CLASSES)):
        act[:, :, c] = sigmoid(v[:, :, c])
    d = np.zeros_like(v)
    rows = labels.reshape(num, -1, 5)
    anchors = [(o["biases"][2 * k] / WIDE / 32, o["biases"][2 * k + 1] / HIGH / 32) for k in range(len(BIASES) // 2)]
    lost, events = 0.0, 0

    def box(b: int, n: int, j: int, i: int) -> list[float]:
        a, c = anchors[mask[n]]
        x, y, w, h = act[b, n, :4, j, i]
        return [(i + x) / WIDE, (j + y) / HIGH, math.exp(w) * a, math.exp(h) * c]

    def find(b: int, n: int, j: int, i: int, true: Any, label: int) -> None:
        nonlocal lost, events
        at = (b, n, slice(None), j, i)
        pred, dd, p = box(b, n, j, i), d[at], act[at]
        if kind == "MSE":
            a, c = anchors[mask[n]]
            target = np.array([true[0] * WIDE - i, true[1] * HIGH - j, math.log(true[2] / a), math.log(true[3] / c)])
            dd[:4] = -o["coord_scale"] * (2 - true[2] * true[3]) * (target - p[:4])
        else:
            slope = np.array(rise(pred, true, kind)) * [1, 1, math.exp(p[2]), math.exp(p[3])] * o["iou_normalizer"]
            if not o["accumulate"]:
                dd[:4] = 0
            dd[:4] -= np.clip(slope, -o["max_delta"], o["max_delta"])
        dd[4] = -(1 - p[4]) * (o["object_scale"] if o["use_logic_gradient"] else 1)
        smooth = o["label_smooth_eps"]
        if dd[5 + label]:
            dd[5 + label] = -o["class_scale"] * ((1 - smooth) + 0.5 * smooth - p[5 + label])
        else:
            for c in range(CLASSES):
                y = float(c == label)
                if o["use_focal_loss"]:
                    pt = p[5 + label] + 1e-15
                    grad = -(1 - pt) * (2 * pt * math.log(pt) + pt - 1)
                    dd[5 + c] = -o["class_scale"] * (y - p[5 + c]) * 0.5 * grad
                else:
                    dd[5 + c] = -o["class_scale"] * (y * (1 - smooth) + 0.5 * smooth - p[5 + c])
        lost += 1 - overlap(pred, true, "DIOU" if kind == "IOU" else kind)
        events += 1

    for b in range(num):
        for j, i, n in itertools.product(range(HIGH), range(WIDE), range(count)):
            best = 0.0
            for row in rows[b]:
                if not row[1]:
                    break
                best = max(best, overlap(box(b, n, j, i), row[1:], kind))
            d[b, n, 4, j, i] = 0 if best > o["thresh"] else act[b, n, 4, j, i]
        for row in rows[b]:
            label, true = int(row[0]), row[1:].tolist()
            if not true[2]:
                break
            i, j = int(true[0] * WIDE), int(true[1] * HIGH)
            likes = [overlap((0, 0, *anchor), (0, 0, *true[2:]), kind) for anchor in anchors]
            best_n = -1 if max(likes) <= 0 else int(np.argmax(likes))
            if best_n in mask:
                best_n = mask.index(best_n)
                find(b, best_n, j, i, true, label)
            for k, like in enumerate(likes):
                if k in mask and k != best_n and o["iou_thresh"] < 1 and like > o["iou_thresh"]:
                    find(b, mask.index(k), j, i, true, label)
    if kind == "MSE":
        loss = float((d**2).sum())
    else:
        loss = float((d[:, :, 4:] ** 2).sum()) + o["iou_normalizer"] * lost / max(1, events)
    if o["use_logic_gradient"]:
        for c in (0, 1, *range(4, 5 + CLASSES)):
            d[:, :, c] *= act[:, :, c] * (1 - act[:, :, c])
    return loss / num, d.reshape(x.shape)


KINDS = ("MSE", "IOU", "GIOU", "DIOU", "CIOU")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"iou_thresh": 1, "label_smooth_eps": 0, "thresh": 0.6},
        {"mask": (0, 1), "accumulate": False, "iou_thresh": 0.2},
        {"use_focal_loss": True, "mask": (2, 3), "max_delta": 0.05},
        {"use_logic_gradient": True, "iou_thresh": 0.1},
    ],
    ids=["plain", "best anchor alone", "not accumulated", "focal", "logic gradient"],
)
def test_yolov3(kind: str, more: dict[str, Any]) -> None:
    options = YOLO3 | {"iou_loss": kind} | more
    for seed in range(5):
        x, labels = drawn(2, 1 + seed % 3, seed, most=6)
        layer = build(f'type: "Yolov3" yolov3_param {{ {said(options)} }}', x.shape, labels.shape)
        loss, gradient = run(layer, x, labels, 3)
        expected, d = slow_yolov3(x, labels, options)
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
        np.testing.assert_allclose(gradient, 3 * d / len(x), rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("text", ["RegionLoss", "Yolov3"])
def test_pictures_without_boxes(text: str) -> None:
    x, labels = drawn(2, 2, 3, most=0)
    param, slow, options = ("region_loss_param", slow_region, REGION) if text == "RegionLoss" else (
        "yolov3_param", slow_yolov3, YOLO3 | {"iou_loss": "GIOU"})  # fmt: skip
    loss, gradient = run(build(f'type: "{text}" {param} {{ {said(options)} }}', x.shape, labels.shape), x, labels)
    expected, d = slow(x, labels, options)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, d / 2, rtol=1e-4, atol=1e-6)


def test_a_box_at_the_edge_is_in_the_last_cell() -> None:
    x, labels = drawn(2, 1, 3, most=0)
    labels[0, 0, 0] = [1, 1, 1, 0.5, 0.5]
    layer = build(f'type: "Yolov3" yolov3_param {{ {said(YOLO3)} }}', x.shape, labels.shape)
    _, gradient = run(layer, x, labels)
    places = np.abs(gradient.reshape(2, 5 + CLASSES, HIGH, WIDE)[:, :4]).sum((0, 1)).nonzero()
    assert [int(each[0]) for each in places] == [HIGH - 1, WIDE - 1]


@pytest.mark.parametrize("text", ["RegionLoss", "Yolov3"])
def test_the_losses_log_what_the_forks_log(text: str) -> None:
    x, labels = drawn(2, 2, 1)
    options, every = (REGION, 10) if text == "RegionLoss" else (YOLO3, 16)
    param = "region_loss_param" if text == "RegionLoss" else "yolov3_param"
    layer = build(f'type: "{text}" {param} {{ {said(options)} }}', x.shape, labels.shape)
    stream = io.StringIO()
    handler = logs.show(stream)
    try:
        for _ in range(every - 1):
            run(layer, x, labels)
        assert not stream.getvalue()
        run(layer, x, labels)
    finally:
        logs.hide(handler)
    parts = stream.getvalue().split("] ")[1].split()
    assert parts[::2] == ["noobj:", "obj:", "iou:", "cat:", "recall:", "recall75:", "count:"]
    v = x.reshape(2, 2, 5 + CLASSES, HIGH, WIDE)
    assert abs(float(parts[1]) - sigmoid(v[:, :, 4]).mean()) < 1e-5


@pytest.mark.parametrize(
    ("text", "shapes", "words"),
    [
        ("RegionLoss", {"coords": 5}, "expected coords: 4, got 5"),
        ("RegionLoss", {"biases": (1, 1)}, "biases above 0, a width and a height for each of 2 or more anchors, got 2"),
        ("RegionLoss", {"num_class": 4}, r"expected a bottom of 18 channels, for each of 2 anchors 4 coordinates, an"),
        ("Yolov3", {"biases": (1, 1, 2)}, "biases above 0, a width and a height for each of 1 or more anchors, got 3"),
        ("Yolov3", {"mask": (1, 4)}, r"a mask of 2 or more places of the 4 anchors, each 0 to 3, got \[1, 4\]"),
        ("Yolov3", {"mask": (1,)}, r"a mask of 2 or more places of the 4 anchors, each 0 to 3, got \[1\]"),
        ("Yolov3", {"num": 3, "mask": (0, 1, 2)}, "expected a bottom of 24 channels, for each of 3 anchors"),
        ("Yolov3", {"anchors_scale": 0}, "expected an anchors_scale above 0, got 0"),
    ],
)
def test_losses_refuse_settings(text: str, shapes: dict[str, Any], words: str) -> None:
    param, options = ("region_loss_param", REGION) if text == "RegionLoss" else ("yolov3_param", YOLO3)
    with pytest.raises(CaffeError, match=words):
        build(f'type: "{text}" {param} {{ {said(options | shapes)} }}', (2, 16, HIGH, WIDE), (2, 1, 300, 5))


def test_losses_refuse_labels() -> None:
    for text, param, options in (("RegionLoss", "region_loss_param", REGION), ("Yolov3", "yolov3_param", YOLO3)):
        whole = f'type: "{text}" {param} {{ {said(options)} }}'
        x, labels = drawn(2, 2, 1)
        labels[1, 0, 0] = [3, 0.5, 0.5, 0.2, 0.2]
        with pytest.raises(LabelError, match="the label 3 of a box of item 1 is none of the 3 classes, 0 to 2"):
            build(whole, x.shape, labels.shape)(torch.tensor(x), torch.tensor(labels))
        with pytest.raises(CaffeError, match=r"labels \(num, 1, 300, 5\), as AnnotatedData .*yolo_data_type: 1 }, got"):
            build(whole, x.shape, (1, 1, 5, 8))


# -- outputs ------------------------------------------------------------------------------------------------------


def kept(found: list[list[float]], threshold: float) -> list[list[float]]:
    """Rows of label, confidence, centre, size, without those that overlap with a better one: as corners."""
    found.sort(key=lambda row: -row[1])
    gone: set[int] = set()
    for i, a in enumerate(found):
        for k in range(i + 1, len(found)):
            if i not in gone and k not in gone and overlap(a[2:], found[k][2:]) >= threshold:
                gone.add(k)
    rows = [row for i, row in enumerate(found) if i not in gone]
    return [[*row[:2], *(row[2 + i % 2] + (-1, 1)[i // 2] * row[4 + i % 2] / 2 for i in range(4))] for row in rows]


def cells(x: np.ndarray, count: int) -> Any:
    """Each prediction: place of its anchor, row, column, its values."""
    high, wide = x.shape[1:]
    v = x.reshape(count, 5 + CLASSES, high, wide).astype(np.float64)
    for j, i, n in itertools.product(range(high), range(wide), range(count)):
        yield n, j, i, v[n, :, j, i]


def placed(values: Any, j: int, i: int, size: tuple[int, int], anchor: tuple[float, float]) -> list[float]:
    centre = (i + sigmoid(values[0])) / size[1], (j + sigmoid(values[1])) / size[0]
    return [*centre, math.exp(values[2]) * anchor[0], math.exp(values[3]) * anchor[1]]


def check_output(text: str, bottoms: list[np.ndarray], expected: list[list[list[float]]]) -> None:
    """Hold a layer's rows against those of each image."""
    layer = build(text, *(bottom.shape for bottom in bottoms))
    (top,) = [layer(*map(torch.tensor, bottoms))]
    rows = np.array([[image, *row] for image, own in enumerate(expected) for row in own])
    assert top.shape == (1, 1, len(rows), 7)
    np.testing.assert_allclose(top[0, 0].numpy(), rows, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("confidence", "nms"), [(0.2, 0.45), (0.01, 0.1), (0.3, 0.0), (0.01, 2.0)])
@pytest.mark.parametrize("sizes", [[(3, 4)], [(3, 4), (6, 8)]], ids=["one bottom", "two bottoms"])
def test_yolo_detection_output(confidence: float, nms: float, sizes: list[tuple[int, int]]) -> None:
    draws = np.random.default_rng(3)
    bottoms = [draws.normal(0, 1, (2, 16, *size)).astype(np.float32) for size in sizes]
    biases = (0.8, 1.2, 2.0, 1.1)
    expected = []
    for image in range(2):
        found = []
        for x in bottoms:
            size = x.shape[2:]
            for n, j, i, values in cells(x[image], 2):
                chance = np.exp(values[5:]) / np.exp(values[5:]).sum()
                score = sigmoid(values[4]) * chance.max()
                anchor = biases[2 * n] / size[1], biases[2 * n + 1] / size[0]
                if score >= confidence:
                    found.append([1.0 + chance.argmax(), score, *placed(values, j, i, size, anchor)])
        expected.append(kept(found, nms))
    options = {"num_classes": CLASSES, "num_box": 2, "confidence_threshold": confidence, "nms_threshold": nms}
    text = f'type: "YoloDetectionOutput" yolo_detection_output_param {{ {said(options | {"biases": biases})} }}'
    check_output(text, bottoms, expected)


@pytest.mark.parametrize(("confidence", "nms"), [(0.2, 0.45), (0.05, 0.1), (0.3, 0.0), (0.1, 0.98), (0.1, 2.0)])
def test_yolov3_detection_output(confidence: float, nms: float) -> None:
    draws = np.random.default_rng(4)
    bottoms = [draws.normal(0, 1, (2, 16, *size)).astype(np.float32) for size in ((2, 3), (4, 6))]
    mask, scales = (2, 3, 0, 1), (32, 16)
    expected = []
    for image in range(2):
        found = []
        for turn, x in enumerate(bottoms):
            size = x.shape[2:]
            for n, j, i, values in cells(x[image], 2):
                bias = BIASES[2 * mask[2 * turn + n] :][:2]
                anchor = bias[0] / size[1] / scales[turn], bias[1] / size[0] / scales[turn]
                for c, score in enumerate(sigmoid(values[4]) * sigmoid(values[5:])):
                    if score > confidence:
                        found.append([1.0 + c, score, *placed(values, j, i, size, anchor)])
        expected.append(kept(found, nms))
    options = {"num_classes": CLASSES, "num_box": 2, "confidence_threshold": confidence, "nms_threshold": nms,
               "biases": BIASES, "mask": mask, "anchors_scale": scales}  # fmt: skip
    text = f'type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {said(options)} }}'
    check_output(text, bottoms, expected)


OUTPUT = {"num_classes": CLASSES, "num_box": 1, "biases": (1, 2), "mask": (0, 0), "anchors_scale": (1, 2)}


def test_outputs_without_any_box_tell_the_images() -> None:
    of_old = {key: value for key, value in OUTPUT.items() if key not in ("mask", "anchors_scale")}
    x = np.full((2, 8, 2, 3), -9, np.float32)
    for text, bottoms in (
        (f'type: "YoloDetectionOutput" yolo_detection_output_param {{ {said(of_old)} }}', [x]),
        (f'type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {said(OUTPUT)} }}', [x, x]),
    ):
        top = build(text, *(each.shape for each in bottoms))(*map(torch.tensor, bottoms))
        assert isinstance(top, Tensor) and top.tolist() == [[[[0.0] + [-1.0] * 6, [1.0] + [-1.0] * 6]]]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"num_classes": ()}, "expected num_classes, without a background, got none"),
        (
            {"num_classes": 4},
            "expected a bottom of 9 channels, for each of 1 anchors 4 coordinates, an objectness and 4",
        ),
        ({"mask_group_num": 3}, r"as many bottoms as mask_group_num, and an anchors_scale .* got 2, 3 and \[1, 2\]"),
        ({"anchors_scale": (8,)}, r"as many bottoms as mask_group_num, and an anchors_scale .* got 2, 2 and \[8\]"),
        ({"mask": (0, 1)}, r"a mask of 1 or more places of the 1 anchors, each 0 to 0, got \[1\]"),
        ({"biases": ()}, "expected biases above 0, a width and a height for each of 1 or more anchors, got 0"),
    ],
)
def test_outputs_refuse_settings(more: dict[str, Any], words: str) -> None:
    text = f'type: "Yolov3DetectionOutput" yolov3_detection_output_param {{ {said(OUTPUT | more)} }}'
    with pytest.raises(CaffeError, match=words):
        build(text, (2, 8, 2, 3), (2, 8, 4, 6))


# -- Reorg --------------------------------------------------------------------------------------------------------


def slow_reorg(x: np.ndarray, stride: int, reverse: bool) -> np.ndarray:
    num, channels, high, wide = x.shape
    few, flat, top = channels // stride**2, x.flatten(), np.empty(x.size, x.dtype)
    for n, c, h, w in itertools.product(range(num), range(channels), range(high), range(wide)):
        coarse = w + wide * (h + high * (c + channels * n))
        across, down = w * stride + c // few % stride, h * stride + c // few // stride
        fine = across + wide * stride * (down + high * stride * (c % few + few * n))
        if reverse:
            top[fine] = flat[coarse]
        else:
            top[coarse] = flat[fine]
    if reverse:
        return top.reshape(num, few, high * stride, wide * stride)
    return top.reshape(num, channels * stride**2, high // stride, wide // stride)


@pytest.mark.parametrize(("stride", "shape"), [(2, (2, 12, 4, 6)), (3, (1, 18, 3, 6)), (1, (2, 3, 4, 5))])
@pytest.mark.parametrize("reverse", [False, True])
def test_reorg(stride: int, shape: tuple[int, ...], reverse: bool) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    layer = build(f'type: "Reorg" reorg_param {{ stride: {stride} reverse: {str(reverse).lower()} }}', shape)
    bottom = torch.tensor(x, requires_grad=True)
    top = layer(bottom)
    assert isinstance(top, Tensor)
    expected = slow_reorg(x, stride, reverse)
    np.testing.assert_array_equal(top.detach().numpy(), expected)
    top.backward(top.detach())  # each value goes back to its place
    np.testing.assert_array_equal(bottom.grad, x)


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        ("", (1, 4, 4, 4), "expected reorg_param { stride }, 1 or more"),
        ("stride: 2", (1, 6, 4, 4), r"channels a multiple of 4, height and width of 2, got \(1, 6, 4, 4\)"),
        ("stride: 2", (1, 4, 5, 4), "height and width of 2, got"),
        ("stride: 2 reverse: true", (1, 2, 4, 4), r"channels a multiple of 4, got \(1, 2, 4, 4\)"),
        ("stride: 2", (1, 4), "of 4 axes"),
    ],
)
def test_reorg_refuses(text: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(CaffeError, match=words):
        build(f'type: "Reorg" reorg_param {{ {text} }}', shape)
