"""MultiBoxLoss against NumPy written prior by prior, its corner cases, gradients and error texts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.errors import CaffeError
from caffecli.layers.base import Layer
from caffecli.layers.labels import LabelError
from tests.layers.forks.test_detection import decode, overlap
from tests.layers.oracle import build

PLAIN: dict[str, Any] = {
    "num_classes": 3,
    "background_label_id": 0,
    "share_location": True,
    "loc_loss_type": "SMOOTH_L1",
    "conf_loss_type": "SOFTMAX",
    "loc_weight": 1,
    "match_type": "PER_PREDICTION",
    "overlap_threshold": 0.5,
    "use_prior_for_matching": True,
    "use_difficult_gt": True,
    "neg_pos_ratio": 3,
    "neg_overlap": 0.5,
    "code_type": "CENTER_SIZE",
    "encode_variance_in_target": False,
    "map_object_to_agnostic": False,
    "ignore_cross_boundary_bbox": False,
    "bp_inside": False,
    "mining_type": "MAX_NEGATIVE",
    "sample_size": 64,
    "use_prior_for_nms": False,
}


def text_of(options: dict[str, Any], nms: tuple[float, int] | None = None, more: str = "") -> str:
    said = " ".join(f"{key}: {str(value).lower() if value in (True, False) and isinstance(value, bool) else value}"
                    for key, value in options.items())  # fmt: skip
    nms_param = "" if nms is None else f" nms_param {{ nms_threshold: {nms[0]} top_k: {nms[1]} }}"
    return f'type: "MultiBoxLoss" multibox_loss_param {{ {said}{nms_param} }} {more}'


def made(options: dict[str, Any], bottoms: list[Tensor], nms: tuple[float, int] | None = None, more: str = "") -> Layer:
    return build(text_of(options, nms, more), *(tuple(bottom.shape) for bottom in bottoms))


def encode(prior, variance, box, code):
    if code == "CORNER":
        return (box - prior) / variance
    wide, high = prior[2:] - prior[:2]
    if code == "CORNER_SIZE":
        return (box - prior) / np.array([wide, high, wide, high]) / variance
    centre = ((box[:2] + box[2:]) / 2 - (prior[:2] + prior[2:]) / 2) / [wide, high]
    return np.concatenate([centre, np.log((box[2:] - box[:2]) / [wide, high])]) / variance


def match(boxes, truth, options):
    """index and greatest overlap of each box; -2 for boxes that take no part."""
    table = np.array([[overlap(box, row[3:7]) for row in truth] for box in boxes]).reshape(len(boxes), len(truth))
    found = np.full(len(boxes), -1)
    if options["ignore_cross_boundary_bbox"] and truth:
        found[((boxes < 0) | (boxes > 1)).any(1)] = -2
    free = set(range(len(truth)))
    while free:
        pairs = [(-table[i, j], i, j) for i in range(len(boxes)) if found[i] == -1 for j in free if table[i, j] > 1e-6]
        if not pairs:
            break
        _, i, j = min(pairs)
        found[i] = j
        free.remove(j)
    for i in range(len(boxes)):
        if options["match_type"] == "PER_PREDICTION" and found[i] == -1 and truth:
            best = int(table[i].argmax())
            if table[i, best] >= options["overlap_threshold"] and table[i, best] > 1e-6:
                found[i] = best
    return found, table.max(1, initial=0)


def cross_entropy(scores, label, target):
    if target is None:
        return -math.log(max(np.exp(scores - scores.max())[label] / np.exp(scores - scores.max()).sum(), 2.0**-126))
    return float(np.sum(np.logaddexp(0, scores) - target * scores))


def multibox(loc, conf, priors, truth, options, nms=None, normalization="VALID", down=(True, True), objects=None):
    """The loss of arrays in float64; ``objects`` (num, priors): which priors can be mined."""
    count, classes, back = priors.shape[2] // 4, options["num_classes"], options["background_label_id"]
    prior, variance = priors.reshape(2, count, 4)
    code, num = options["code_type"], len(loc)
    loc = loc.reshape(num, count, -1, 4)
    conf = conf.reshape(num, count, classes)
    mining, logistic = options["mining_type"], options["conf_loss_type"] == "LOGISTIC"
    scale = np.ones_like(variance) if options["encode_variance_in_target"] else variance
    loc_sum, conf_sum, matches = 0.0, 0.0, 0
    for image in range(num):
        rows = [r for r in truth.reshape(-1, 8) if r[0] == image and (options["use_difficult_gt"] or not r[7])]
        all_found, label, multi = [], np.full(count, back), np.full((count, classes), float(back))
        overlaps = np.zeros(count)
        if rows:
            for c in range(loc.shape[2]):
                boxes = np.array([decode(prior[p], scale[p], loc[image, p, c], code) for p in range(count)])
                shared = options["share_location"]
                own = [r for r in rows if shared or options["use_prior_for_matching"] or r[1] == c]
                found, overlaps = match(prior if options["use_prior_for_matching"] else boxes, own, options)
                if not shared:
                    found = np.array([j if j >= 0 and own[j][1] == c else -1 for j in found])
                all_found.append((c, boxes, found, own))
        for _, _, found, own in all_found:
            for p in np.flatnonzero(found >= 0):
                label[p] = back + 1 if options["map_object_to_agnostic"] else int(own[found[p]][1])
                multi[p, label[p]] = 1
        each_loc = np.zeros((max(1, len(all_found)), count))
        for i, (c, boxes, found, own) in enumerate(all_found):
            for p in np.flatnonzero(found >= 0):
                target = encode(prior[p], variance[p], own[found[p]][3:7], code)
                value = loc[image, p, c] / (variance[p] if options["encode_variance_in_target"] else 1)
                d = value - target
                at = prior[p] if options["use_prior_for_matching"] else boxes[p]
                if options["bp_inside"]:
                    d = np.where((at < 0) | (at > 1), 0, d)
                l2 = options["loc_loss_type"] == "L2"
                each_loc[i, p] = np.where((abs(d) < 1) | l2, d * d / 2, abs(d) - 0.5).sum()
        onehot = np.eye(max(classes, back + 2))[label][:, :classes]
        wrong = [cross_entropy(conf[image, p], label[p], onehot[p] if logistic else None) for p in range(count)]
        chosen = np.arange(count) if mining == "NONE" else np.array([], int)
        if mining != "NONE" and rows:
            _, boxes, found, _ = all_found[0]
            hard = mining == "HARD_EXAMPLE"
            ranked = np.array(wrong) + (each_loc[0] if hard else 0)
            can = [p for p in range(count) if hard or (found[p] == -1 and overlaps[p] < options["neg_overlap"])]
            can = [p for p in can if objects is None or objects[image, p]]
            most = options["sample_size"] if hard else int((found >= 0).sum() * options["neg_pos_ratio"])
            can.sort(key=lambda p: -ranked[p])
            if nms:
                kept: list[int] = []
                at = prior if options["use_prior_for_nms"] else boxes
                for n in can[: nms[1] if nms[1] > -1 else None]:
                    wide, high = np.maximum(at[n][2:] - at[n][:2], 0)
                    if wide * high >= 1e-5 and all(overlap(at[n], at[q]) <= nms[0] for q in kept):
                        kept.append(n)
                can = kept
            picked = set(can[:most])
            if hard:
                found[[p for p in range(count) if found[p] >= 0 and p not in picked]] = -1
            chosen = np.array([p for p in range(count) if found[p] >= 0 or (found[p] == -1 and p in picked)], int)
            for p in chosen:
                multi[p, :] = np.where(onehot[p] > 0, 1, back)
        matches += sum(int((found >= 0).sum()) for _, _, found, _ in all_found)
        loc_sum += sum(each_loc[i][found >= 0].sum() for i, (_, _, found, _) in enumerate(all_found))
        conf_sum += sum(cross_entropy(conf[image, p], label[p], multi[p] if logistic else None) for p in chosen)
    total = down[0] * options["loc_weight"] * loc_sum + down[1] * conf_sum
    return total / max(1, {"VALID": matches, "FULL": num * count, "BATCH_SIZE": num, "NONE": 1}[normalization])


def arrays(bottoms: list[Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    loc, conf, priors, truth = (bottom.numpy() for bottom in bottoms)
    return loc, conf, priors, truth


def drawn(options: dict[str, Any], seed: int, num: int = 3, count: int = 24) -> list[Tensor]:
    """Predictions, priors and true boxes near some of them; an image without boxes, labels but the background's."""
    random = np.random.default_rng(seed)
    corner, size = random.uniform(-0.1, 0.7, (count, 2)), random.uniform(0.1, 0.4, (count, 2))
    prior = np.concatenate([corner, corner + size], 1)
    variance = np.tile([0.1, 0.1, 0.2, 0.2], (count, 1))
    classes = options["num_classes"]
    labels = [c for c in range(classes) if c != options["background_label_id"]]
    rows = []
    for item in range(num - 1):
        for instance in range(random.integers(1, 5)):
            box = prior[random.integers(count)] + random.normal(0, 0.03, 4)
            rows.append([item, random.choice(labels), instance, *box, random.integers(2)])
    random.shuffle(rows)
    truth = np.array([*rows, [-1.0] * 8])
    given = (
        random.normal(0, 0.7, (num, count * (1 if options["share_location"] else classes) * 4)),
        random.permutation(np.linspace(-3, 3, num * count * classes)).reshape(num, -1),
        np.stack([prior, variance]).reshape(1, 2, -1),
        truth[None, None],
    )
    return [torch.from_numpy(array) for array in given]


UNSHARED = {"share_location": False, "mining_type": "NONE"}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"match_type": "BIPARTITE", "loc_loss_type": "L2", "loc_weight": 0.5},
    {"code_type": "CORNER", "overlap_threshold": 0.2, "neg_overlap": 0.2},
    {"code_type": "CORNER_SIZE", "encode_variance_in_target": True, "use_difficult_gt": False},
    {"background_label_id": 2, "bp_inside": True},
    {"ignore_cross_boundary_bbox": True, "neg_pos_ratio": 0.7},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 7},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 5, "ignore_cross_boundary_bbox": True, "bp_inside": True},
    {"mining_type": "HARD_EXAMPLE", "conf_loss_type": "LOGISTIC", "background_label_id": 1, "sample_size": 6},
    {"mining_type": "NONE"},
    {"mining_type": "NONE", "conf_loss_type": "LOGISTIC"},
    {"conf_loss_type": "LOGISTIC"},
    {"conf_loss_type": "LOGISTIC", "background_label_id": 7},
    {"use_prior_for_matching": False, "bp_inside": True, "overlap_threshold": 0.3},
    {"use_prior_for_matching": False, "mining_type": "HARD_EXAMPLE", "sample_size": 9, "code_type": "CORNER"},
    {"map_object_to_agnostic": True, "num_classes": 2},
    UNSHARED,
    {**UNSHARED, "use_prior_for_matching": False, "background_label_id": 1, "overlap_threshold": 0.2},
    {**UNSHARED, "use_prior_for_matching": False, "conf_loss_type": "LOGISTIC", "overlap_threshold": 0.1},
    {**UNSHARED, "conf_loss_type": "LOGISTIC", "ignore_cross_boundary_bbox": True},
]


@pytest.mark.parametrize("changed", SETTINGS, ids=str)
def test_the_loss_is_that_of_a_loop(changed: dict[str, Any]) -> None:
    options = {**PLAIN, **changed}
    for seed in range(4):
        bottoms = drawn(options, seed)
        for normalization in ("VALID", "FULL", "BATCH_SIZE", "NONE"):
            layer = made(options, bottoms, more=f"loss_param {{ normalization: {normalization} }}")
            expected = multibox(*arrays(bottoms), options, normalization=normalization)
            assert float(layer(*bottoms)) == pytest.approx(expected, rel=1e-9), (seed, normalization)


@pytest.mark.parametrize("changed", SETTINGS[:9], ids=str)
@pytest.mark.parametrize("nms", [(0.3, 100), (0.6, 6), (0.2, -1), (0.3, 0)])
def test_what_is_mined_is_suppressed_first(changed: dict[str, Any], nms: tuple[float, int]) -> None:
    for own in (True, False):
        options = {**PLAIN, **changed, "use_prior_for_nms": own}
        bottoms = drawn(options, 5)
        expected = multibox(*arrays(bottoms), options, nms)
        assert float(made(options, bottoms, nms)(*bottoms)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("changed", [each for each in SETTINGS if not each.get("encode_variance_in_target")], ids=str)
def test_the_gradient_is_the_derivative(changed: dict[str, Any]) -> None:
    options = {**PLAIN, **changed, "loc_weight": 0.5}
    bottoms = drawn(options, 3, num=2, count=6)
    layer = made(options, bottoms)
    given = [bottom.requires_grad_() for bottom in bottoms[:2]]
    assert torch.autograd.gradcheck(lambda loc, conf: layer(loc, conf, *bottoms[2:]), given, atol=1e-6, fast_mode=True)


def test_with_encode_variance_in_target_the_gradient_is_not_divided() -> None:
    """As SSD's, which copies the diff of the divided locations back as it is."""
    options = {**PLAIN, "encode_variance_in_target": True, "loc_loss_type": "L2", "code_type": "CORNER"}
    prior = torch.tensor([[[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.2, 0.2]]]).double()
    truth = torch.tensor([[[[0, 1, 0, 0.2, 0.1, 0.6, 0.5, 0]]]]).double()
    loc = torch.zeros(1, 4).double().requires_grad_()
    bottoms = [loc, torch.zeros(1, 3).double(), prior, truth]
    made(options, bottoms)(*bottoms).backward()
    assert loc.grad is not None
    assert loc.grad[0].tolist() == pytest.approx([-1, 0, -0.5, 0])


def first_stage(bottoms: list[Tensor], seed: int) -> list[Tensor]:
    """Objectness around 0.3, and small changes of the priors."""
    random = np.random.default_rng(seed)
    num, count = len(bottoms[0]), bottoms[2].shape[2] // 4
    return [
        torch.from_numpy(random.random((num, 2 * count))),
        torch.from_numpy(random.normal(0, 0.5, (num, 4 * count))),
    ]


REFINED: list[dict[str, Any]] = [
    {},
    {"mining_type": "NONE", "code_type": "CORNER"},
    {"encode_variance_in_target": True, "bp_inside": True, "ignore_cross_boundary_bbox": True},
    {"mining_type": "HARD_EXAMPLE", "sample_size": 9, "use_prior_for_matching": False},
]


@pytest.mark.parametrize("changed", REFINED, ids=str)
def test_only_priors_with_objectness_are_mined(changed: dict[str, Any]) -> None:
    options = {**PLAIN, **changed}
    bottoms = drawn(options, 4)
    objectness = first_stage(bottoms, 1)[0]
    objects = (objectness.reshape(3, -1, 2)[..., 1] >= 0.3).numpy()
    layer = made({**options, "objectness_score": 0.3}, [*bottoms, objectness])
    expected = multibox(*arrays(bottoms), options, objects=objects)
    assert float(layer(*bottoms, objectness)) == pytest.approx(expected, rel=1e-9)
    assert changed.get("mining_type") == "NONE" or expected != multibox(*arrays(bottoms), options)


@pytest.mark.parametrize("changed", REFINED[:3], ids=str)
def test_the_first_stage_moves_the_priors_of_each_image(changed: dict[str, Any]) -> None:
    options = {**PLAIN, **changed}
    bottoms = drawn(options, 4)
    first = first_stage(bottoms, 1)
    loc, conf, priors, truth = arrays(bottoms)
    prior, variance = priors.reshape(2, -1, 4)
    scale = np.ones_like(variance) if options["encode_variance_in_target"] else variance
    expected = 0.0
    for image in range(3):
        change = first[1][image].reshape(-1, 4).numpy()
        moved = [decode(*each, options["code_type"]) for each in zip(prior, scale, change, strict=True)]
        own = truth.reshape(-1, 8)[truth.reshape(-1, 8)[:, 0] == image].copy()
        own[:, 0] = 0
        objects = first[0][image].reshape(1, -1, 2)[..., 1].numpy() >= 0.3
        expected += multibox(loc[image : image + 1], conf[image : image + 1], np.stack([moved, variance])[None].reshape(
            1, 2, -1), own, options, normalization="NONE", objects=objects)  # fmt: skip
    said = {**options, "objectness_score": 0.3}
    layer = made(said, [*bottoms, *first], more="loss_param { normalization: NONE }")
    assert float(layer(*bottoms, *first)) == pytest.approx(expected, rel=1e-9)
    if not changed.get("encode_variance_in_target"):
        given = [bottom.requires_grad_() for bottom in bottoms[:2]]
        assert torch.autograd.gradcheck(lambda loc, conf: layer(loc, conf, *bottoms[2:], *first), given, fast_mode=True)


def test_hard_examples_are_ranked_by_the_priors_themselves() -> None:
    """As in RefineDet: to the first prior the box is far, to the place where the first stage moved it near."""
    options = {**PLAIN, "num_classes": 2, "code_type": "CORNER", "mining_type": "HARD_EXAMPLE", "sample_size": 1}
    box = [0.3, 0.3, 0.5, 0.5]
    bottoms = simple([[0, 1, 0, *box, 0]], [[0.0, 0.0, 0.2, 0.2], [0.3, 0.3, 0.5, 0.52]])
    first = [torch.ones(1, 4), torch.tensor([[3.0, 3.0, 3.0, 3.0, 0.0, 0.0, 0.0, 0.0]])]
    conf = bottoms[1].requires_grad_()
    made(options, [*bottoms, *first])(*bottoms, *first).backward()
    assert conf.grad is not None
    assert conf.grad.reshape(2, 2).ne(0).any(1).tolist() == [True, False]


def test_in_refinedets_first_stage_every_class_is_an_object() -> None:
    rows = [[0, 7, 0, *SQUARE, 0]]
    bottoms = simple(rows, [SQUARE, FAR])
    options = {**PLAIN, "num_classes": 2, "code_type": "CORNER"}
    with pytest.raises(LabelError):
        made(options, bottoms)(*bottoms)
    assert float(made({**options, "objectness_score": 0.01}, bottoms)(*bottoms)) == pytest.approx(2 * math.log(2))


@pytest.mark.parametrize("shapes", [[(1, 3)], [(1, 4), (1, 4)], [(2, 4), (1, 8)]], ids=str)
def test_what_does_not_come_from_a_first_stage_is_refused(shapes: list[tuple[int, int]]) -> None:
    with pytest.raises(
        CaffeError, match=r"expected objectness \(num, priors \* 2\) and, with share_location: true, loc"
    ):
        build('type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 }', (1, 8), (1, 4), (1, 2, 8), (1, 1, 1, 8),
              *shapes)  # fmt: skip


@pytest.mark.parametrize(("down", "parts"), [("true false", (1, 0)), ("false true", (0, 1))])
def test_propagate_down_takes_a_part_out(down: str, parts: tuple[int, int]) -> None:
    bottoms = drawn(PLAIN, 1)
    more = " ".join(f"propagate_down: {each}" for each in [*down.split(), "false", "false"])
    layer = made(PLAIN, bottoms, more=more)
    given = [bottom.clone().requires_grad_() for bottom in bottoms[:2]]
    loss = layer(*given, *bottoms[2:])
    expected = multibox(*arrays(bottoms), PLAIN, down=parts)
    assert loss.item() == pytest.approx(expected, rel=1e-9)
    loss.backward()
    for each, counts in zip(given, parts, strict=True):
        assert (each.grad is not None and bool(each.grad.any())) == bool(counts)


def simple(rows: list[list[float]], priors: list[list[float]], num: int = 1) -> list[Tensor]:
    """All predictions 0: then c is log 2 of two classes."""
    count = len(priors)
    table = torch.tensor([[each for prior in priors for each in prior], [0.1] * 4 * count])[None]
    return [torch.zeros(num, 4 * count), torch.zeros(num, 2 * count), table, torch.tensor(rows)[None, None]]


SQUARE, SHIFTED, FAR = [0.0, 0.0, 0.2, 0.2], [0.1, 0.0, 0.3, 0.2], [0.7, 0.7, 0.9, 0.9]
HALF = [0.0, 0.0, 0.25, 0.5]  # overlaps with [0, 0, 0.5, 0.5] by exactly a half
NONE_ROW = [-1.0] * 8


@pytest.mark.parametrize(
    ("what", "rows", "priors", "chosen", "matched"),
    [
        ("no boxes", [NONE_ROW], [SQUARE, FAR], 0, 0),
        ("a box of another item", [[3, 1, 0, *SQUARE, 0]], [SQUARE, FAR], 0, 0),
        ("a box", [[0, 1, 0, *SQUARE, 0]], [SQUARE, FAR], 2, 1),
        ("a box without width", [[0, 1, 0, 0.1, 0, 0.1, 0.2, 0]], [SQUARE, FAR], 0, 0),
        ("two boxes with one best prior", [[0, 1, 0, *SQUARE, 0], [0, 1, 1, *SQUARE, 0]], [SQUARE, FAR], 2, 1),
        ("and another prior", [[0, 1, 0, *SQUARE, 0], [0, 1, 1, *SQUARE, 0]], [SQUARE, SHIFTED, FAR], 3, 2),
        ("an overlap of a half", [[0, 1, 0, 0, 0, 0.5, 0.5, 0]], [[0, 0, 0.5, 0.5], HALF, FAR], 3, 2),
        ("difficult", [[0, 1, 0, *SQUARE, 1]], [SQUARE, FAR], 0, 0),
        ("neither positive nor negative", [[0, 1, 0, *SQUARE, 0]], [SQUARE, SHIFTED, FAR], 2, 1),
    ],
)
def test_corner_cases(what: str, rows: list[list[float]], priors: list[list[float]], chosen: int, matched: int) -> None:
    options = {**PLAIN, "num_classes": 2, "code_type": "CORNER", "use_difficult_gt": False, "neg_overlap": 0.3}
    bottoms = simple(rows, priors)
    layer = made(options, bottoms, more="loss_param { normalization: NONE } propagate_down: false "
                 "propagate_down: true propagate_down: false propagate_down: false")  # fmt: skip
    assert float(layer(*bottoms)) == pytest.approx(chosen * math.log(2)), what
    by_matches = made(options, bottoms)(*bottoms)
    assert bool(by_matches.isfinite())
    alone = made({**options, "loc_weight": 0}, bottoms)(*bottoms)
    assert float(alone) == pytest.approx(chosen * math.log(2) / max(1, matched)), what


def test_images_without_boxes_have_no_negatives() -> None:
    bottoms = simple([[1, 1, 0, *SQUARE, 0]], [SQUARE, FAR], num=3)
    conf = bottoms[1].requires_grad_()
    made({**PLAIN, "num_classes": 2}, bottoms)(*bottoms).backward()
    assert conf.grad is not None
    assert conf.grad.abs().sum(1).gt(0).tolist() == [False, True, False]


def test_of_equal_overlaps_the_first_prior_and_the_first_box_count() -> None:
    rows = [[0, 1, 0, *SQUARE, 0], [0, 2, 1, *SQUARE, 0]]
    bottoms = simple(rows, [SQUARE, SQUARE, SQUARE])
    bottoms[1] = torch.zeros(1, 9)
    conf = bottoms[1].requires_grad_()
    made({**PLAIN, "code_type": "CORNER"}, bottoms)(*bottoms).backward()
    assert conf.grad is not None
    assert conf.grad.reshape(3, 3).argmin(1).tolist() == [1, 2, 1]  # the third prior takes the first box


def test_a_hopeless_prediction_counts_for_no_more_than_87() -> None:
    bottoms = simple([[0, 1, 0, *SQUARE, 0]], [SQUARE])
    bottoms[1] = torch.tensor([[1e4, 0.0]]).requires_grad_()
    loss = made({**PLAIN, "num_classes": 2, "code_type": "CORNER"}, bottoms)(*bottoms)
    assert loss.item() == pytest.approx(126 * math.log(2))
    loss.backward()
    assert bottoms[1].grad is not None
    assert bottoms[1].grad[0].tolist() == [1, -1]


def test_predictions_that_are_no_numbers_do_not_stop_matching() -> None:
    options = {**PLAIN, "use_prior_for_matching": False}
    bottoms = drawn(options, 2)
    bottoms[0][0, :4] = math.nan
    assert not bool(made(options, bottoms)(*bottoms).isinf())


@pytest.mark.parametrize("label", [0.0, 2.0, -1.0, math.nan])
def test_labels_that_are_no_class(label: float) -> None:
    bottoms = simple([[0, 1, 0, *SQUARE, 0], [1, label, 0, *SQUARE, 0]], [SQUARE], num=2)
    layer = made({**PLAIN, "num_classes": 2}, bottoms)
    with pytest.raises(LabelError) as error:
        layer(*bottoms)
    what = "is the background's" if label == 0 else "is none of the 2 classes"
    assert f"layer 'l': the label {label:g} of a box of item 1 {what}; mend the data, or set" in str(error.value)
    assert error.value.item == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("", "layer 'l' (MultiBoxLoss): expected num_classes, with the background's, got none"),
        ("num_classes: 2 do_neg_mining: false", "do_neg_mining: false and mining_type: MAX_NEGATIVE contradict"),
        (
            "num_classes: 2 share_location: false",
            "mining needs share_location: true; otherwise write mining_type: NONE",
        ),
        (
            "num_classes: 2 background_label_id: 2",
            "expected a background_label_id of 0 to 1, got 2; without a background",
        ),
        ("num_classes: 3 map_object_to_agnostic: true", "map_object_to_agnostic needs num_classes: 2, got 3"),
        (
            "num_classes: 2 map_object_to_agnostic: true background_label_id: 1",
            "map_object_to_agnostic needs background_label_id: 0, got 1",
        ),
        ("num_classes: 2 mining_type: HARD_EXAMPLE sample_size: 0", "expected a sample_size above 0, got 0"),
        ("num_classes: 3", "confidences (num, priors * 3) and priors (1, 2, priors * 4), got 'x' (1, 8), 'x1' (1, 4)"),
    ],
)
def test_errors(settings: str, said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(f'type: "MultiBoxLoss" multibox_loss_param {{ {settings} }}', (1, 8), (1, 4), (1, 2, 8), (1, 1, 1, 8))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_true_boxes_of_another_width_are_refused() -> None:
    with pytest.raises(CaffeError, match=r"expected true boxes \(1, 1, count, 8\), got"):
        build('type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 }', (1, 8), (1, 4), (1, 2, 8), (1, 1, 3, 7))


def test_what_is_said_of_old_and_of_missing_settings(caplog: pytest.LogCaptureFixture) -> None:
    shapes = (1, 8), (1, 4), (1, 2, 8), (1, 1, 1, 8)
    with caplog.at_level("WARNING"):
        build('type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 do_neg_mining: true nms_param { } }', *shapes)
    assert [record.message for record in caplog.records] == [
        "do_neg_mining is deprecated, use mining_type instead.",
        "Layer 'l': nms_param has no top_k, which counts as 0 here: nothing is mined. Write top_k: -1 for all.",
    ]
    caplog.clear()
    build('type: "MultiBoxLoss" multibox_loss_param { num_classes: 2 nms_param { top_k: -1 } }', *shapes)
    assert not caplog.records
