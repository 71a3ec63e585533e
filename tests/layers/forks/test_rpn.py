"""Faster R-CNN's region proposal layers, beside their definitions."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.layers import registry
from caffecli.layers.base import Context, Layer
from caffecli.layers.forks import rpn
from caffecli.layers.python import Python
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.oracle import build, layer_param
from tests.layers.test_boxes import one_by_one, overlap

HEIGHT, WIDTH = 5, 7
INFO = np.array([[80, 112, 1.5]], np.float32)
OBJECTS = np.array([[10, 12, 50, 60, 3], [60, 5, 100, 70, 1], [70, 40, 78, 47, 2]], np.float32)


def layer(kind: str, param_str: str, *shapes: tuple[int, ...], phase: int = TRAIN) -> Layer:
    names = " ".join(f'bottom: "{i}"' for i in range(len(shapes)))
    tops = " ".join(f'top: "{i}"' for i in range({"AnchorTargetLayer": 4, "ProposalLayer": 2}.get(kind, 5)))
    module = {"AnchorTargetLayer": "anchor_target_layer", "ProposalLayer": "proposal_layer"}
    python = f'module: "rpn.{module.get(kind, "proposal_target_layer")}" layer: "{kind}" param_str: "{param_str}"'
    return build(f'type: "Python" {names} {tops} python_param {{ {python} }}', *shapes, phase=phase)


def tensors(*arrays: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def all_anchors(scales: list[float]) -> np.ndarray:
    """By place, row by row, then by anchor."""
    base = rpn.anchors(16, (0.5, 1, 2), scales).numpy()
    return np.array([one + 16 * np.array([x, y, x, y]) for y in range(HEIGHT) for x in range(WIDTH) for one in base])


def by_anchor(blob: torch.Tensor, width: int) -> np.ndarray:
    """Rows of ``width`` values in the order of ``all_anchors``."""
    return blob[0].numpy().reshape(-1, width, HEIGHT, WIDTH).transpose(2, 3, 0, 1).reshape(-1, width)


def move(box: np.ndarray, target: np.ndarray) -> list[float]:
    (w, h), (tw, th) = ((b[2] - b[0] + 1, b[3] - b[1] + 1) for b in (box, target))
    x, y = target[0] + tw / 2 - box[0] - w / 2, target[1] + th / 2 - box[1] - h / 2
    return [x / w, y / h, math.log(tw / w), math.log(th / h)]


def test_the_anchors_of_the_paper() -> None:
    expected = [
        [-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200],
        [-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264],
        [-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360],
    ]  # fmt: skip
    np.testing.assert_array_equal(
        rpn.anchors(16, (0.5, 1, 2), (8, 16, 32)), np.array(expected) - 1
    )  # MATLAB's begin at 1


def test_what_each_anchor_should_become() -> None:
    made = layer("AnchorTargetLayer", "'feat_stride': 16, 'scales': [1, 2]", (1, 12, HEIGHT, WIDTH), (3, 5), (1, 3))
    tops = made(torch.zeros(1, 12, HEIGHT, WIDTH), *tensors(OBJECTS, INFO))
    assert [tuple(top.shape) for top in tops] == [(1, 1, 6 * HEIGHT, WIDTH), *[(1, 24, HEIGHT, WIDTH)] * 3]
    labels = by_anchor(tops[0].reshape(1, 6, HEIGHT, WIDTH), 1)[:, 0]
    change, inside, outside = (by_anchor(top, 4) for top in tops[1:])
    every = all_anchors([1, 2])
    within = (every[:, :2] >= 0).all(1) & (every[:, 2] < 112) & (every[:, 3] < 80)
    shared = np.array([[overlap(one, other, 1) for other in OBJECTS[:, :4]] for one in every])
    best = (shared == shared[within].max(0)).any(1)
    expected = np.where((shared.max(1) >= 0.7) | best, 1, np.where(shared.max(1) < 0.3, 0, -1))
    np.testing.assert_array_equal(labels, np.where(within, expected, -1))
    assert {-1, 0, 1} == set(labels)
    moves = np.array([move(one, OBJECTS[nearest]) for one, nearest in zip(every, shared.argmax(1), strict=True)])
    np.testing.assert_allclose(change, moves * within[:, None], atol=1e-5)
    np.testing.assert_array_equal(inside, np.repeat((labels == 1)[:, None], 4, 1))
    np.testing.assert_allclose(outside, np.repeat((labels >= 0)[:, None] / (labels >= 0).sum(), 4, 1), rtol=1e-6)


def test_a_sample_of_the_anchors() -> None:
    text = (
        "'feat_stride': 16, 'scales': [1], 'RPN_BATCHSIZE': 8, 'RPN_POSITIVE_OVERLAP': 0.1, 'RPN_POSITIVE_WEIGHT': 0.25"
    )
    made = layer("AnchorTargetLayer", text, (1, 6, HEIGHT, WIDTH), (3, 5), (1, 3))
    torch.manual_seed(1)
    samples = [made(torch.zeros(1, 6, HEIGHT, WIDTH), *tensors(OBJECTS, INFO)) for _ in range(5)]
    for labels, _, _, outside in samples:
        assert [(labels == value).sum() for value in (1, 0)] == [4, 4]
        assert sorted(outside.unique().tolist()) == pytest.approx([0, 0.25 / 4, 0.75 / 4])
    assert len({tuple(each[0].flatten().tolist()) for each in samples}) == 5
    assert made.random


def test_positives_are_clobbered_where_asked() -> None:
    text = "'feat_stride': 16, 'scales': [1], 'RPN_CLOBBER_POSITIVES': True"
    made = layer("AnchorTargetLayer", text, (1, 6, HEIGHT, WIDTH), (3, 5), (1, 3))
    small = OBJECTS[2:].copy()  # no anchor has an overlap of 0.3 with it
    assert (made(torch.zeros(1, 6, HEIGHT, WIDTH), *tensors(small, INFO))[0] <= 0).all()


def test_a_picture_without_objects() -> None:
    made = layer("AnchorTargetLayer", "'feat_stride': 16, 'scales': [1]", (1, 6, HEIGHT, WIDTH), (0, 5), (1, 3))
    labels, *rest = made(torch.zeros(1, 6, HEIGHT, WIDTH), torch.zeros(0, 5), torch.from_numpy(INFO))
    assert set(labels.flatten().tolist()) == {0, -1} and not rest[0].any() and not rest[1].any()
    regions = torch.tensor([[0.0, 1, 1, 30, 30], [0, 5, 5, 9, 9]])
    made = layer("ProposalTargetLayer", "'num_classes': 4", (2, 5), (0, 5))
    sample, classes, *rest = made(regions, torch.zeros(0, 5))
    assert sorted(sample.tolist()) == sorted(regions.tolist())
    assert not classes.any() and not any(top.any() for top in rest)


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("native", [False, True])
def test_proposals(phase: int, native: bool) -> None:
    draws = np.random.default_rng(0)
    scores = draws.permutation(np.linspace(0, 1, 12 * HEIGHT * WIDTH)).reshape(1, 12, HEIGHT, WIDTH).astype(np.float32)
    change = draws.normal(0, 0.2, (1, 24, HEIGHT, WIDTH)).astype(np.float32)
    shapes = scores.shape, change.shape, INFO.shape
    if native:
        setting = "feat_stride: 16 scale: 1 scale: 2 min_size: 12 nms_thresh: 0.5 pre_nms_topn: 100 post_nms_topn: 20"
        bottoms = 'bottom: "s" bottom: "c" bottom: "i" top: "r" top: "p"'
        made = build(f'type: "Proposal" {bottoms} proposal_param {{ {setting} }}', *shapes, phase=phase)
    else:
        setting = "'feat_stride': 16, 'scales': [1, 2], 'RPN_MIN_SIZE': 12, 'RPN_NMS_THRESH': 0.5"
        setting += ", 'RPN_PRE_NMS_TOP_N': 100, 'RPN_POST_NMS_TOP_N': 20"
        made = layer("ProposalLayer", setting, *shapes, phase=phase)
    regions, probabilities = made(*tensors(scores, change, INFO))
    rows = []
    moves = by_anchor(torch.from_numpy(change), 4)
    for one, moved, score in zip(
        all_anchors([1, 2]), moves, by_anchor(torch.from_numpy(scores[:, 6:]), 1)[:, 0], strict=True
    ):
        w, h = one[2] - one[0] + 1, one[3] - one[1] + 1
        x, y = one[0] + w / 2 + moved[0] * w, one[1] + h / 2 + moved[1] * h
        w, h = w * math.exp(moved[2]), h * math.exp(moved[3])
        box = np.clip([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 0, [111, 79, 111, 79])
        if min(box[2] - box[0], box[3] - box[1]) + 1 >= 12 * 1.5:
            rows.append((score, *box))
    found = np.array(sorted(rows, reverse=True)[:100])
    kept = one_by_one(found[:, 1:], 0.5, 1)[:20]
    np.testing.assert_allclose(regions[:, 1:], found[kept, 1:], atol=1e-3)
    np.testing.assert_allclose(probabilities[:, 0], found[kept, 0])
    assert not regions[:, 0].any()


def test_normalized_changes() -> None:
    """As py-R-FCN teaches them; in phase TEST its weights have them no more."""
    normalized = ", 'RPN_NORMALIZE_TARGETS': True, 'RPN_NORMALIZE_MEANS': [0.5, 0, 0, -1]"
    mean, deviation = np.array([0.5, 0, 0, -1]), np.array([0.1, 0.1, 0.2, 0.2])
    taught = []
    for extra in ("", normalized):
        made = layer(
            "AnchorTargetLayer", "'feat_stride': 16, 'scales': [1]" + extra, (1, 6, HEIGHT, WIDTH), (3, 5), (1, 3)
        )
        tops = made(torch.zeros(1, 6, HEIGHT, WIDTH), *tensors(OBJECTS, INFO))
        taught.append(by_anchor(tops[1], 4)[by_anchor(tops[0].reshape(1, 3, HEIGHT, WIDTH), 1)[:, 0] > 0])
    assert len(taught[0])
    np.testing.assert_allclose(taught[1], (taught[0] - mean) / deviation, atol=1e-5)
    scores = torch.rand(1, 6, HEIGHT, WIDTH)
    change = torch.randn(1, 12, HEIGHT, WIDTH) * 0.2
    small = (change - torch.tensor(np.tile(mean, 3)).reshape(1, 12, 1, 1)) / torch.tensor(deviation).repeat(3).reshape(
        1, 12, 1, 1
    )
    for phase, given in ((TRAIN, small.float()), (TEST, change)):
        regions = []
        for extra, bottom in (("", change), (normalized, given)):
            setting = "'feat_stride': 16, 'scales': [1], 'RPN_MIN_SIZE': 2" + extra
            made = layer("ProposalLayer", setting, (1, 6, HEIGHT, WIDTH), (1, 12, HEIGHT, WIDTH), (1, 3), phase=phase)
            regions.append(made(scores, bottom, torch.from_numpy(INFO))[0])
        np.testing.assert_allclose(regions[0], regions[1], atol=1e-2)


def test_how_many_are_proposed_by_phase() -> None:
    shapes = (1, 18, HEIGHT, WIDTH), (1, 36, HEIGHT, WIDTH), (1, 3)
    for phase, counts in ((TRAIN, (12000, 2000)), (TEST, (6000, 300))):
        made = layer("ProposalLayer", "'feat_stride': 16", *shapes, phase=phase)
        assert isinstance(made, rpn.ProposalLayer) and (made.before, made.after) == counts


def test_a_sample_of_the_regions() -> None:
    draws = np.random.default_rng(0)
    corner = draws.uniform(0, 70, (60, 2))
    regions = np.concatenate([np.zeros((60, 1)), corner, corner + draws.uniform(10, 40, (60, 2))], 1).astype(np.float32)
    regions[:9, 1:] = np.repeat(OBJECTS[:, :4], 3, 0) + draws.uniform(-2, 2, (9, 4))
    setting = (
        "'num_classes': 4, 'BATCH_SIZE': 16, 'BBOX_INSIDE_WEIGHTS': [1, 2, 3, 4], 'FG_THRESH': 0.4, 'BG_THRESH_HI': 0.4"
    )
    made = layer("ProposalTargetLayer", setting, (60, 5), (3, 5))
    sample, classes, change, inside, outside = made(*tensors(regions, OBJECTS))
    every = np.concatenate([regions, np.concatenate([np.zeros((3, 1)), OBJECTS[:, :4]], 1)]).astype(np.float32)
    assert len(sample) == 16 and (classes[:4] > 0).all() and not classes[4:].any()
    for row, kind, moved, weight in zip(sample, classes, change, inside, strict=True):
        assert (every == row.numpy()).all(1).any()
        shared = [overlap(row.numpy()[1:], one[:4], 1) for one in OBJECTS]
        expected = np.zeros((2, 4, 4))
        if kind:
            nearest = OBJECTS[int(np.argmax(shared))]
            assert max(shared) >= 0.4 and kind == nearest[4]
            expected[:, int(kind)] = move(row.numpy()[1:], nearest[:4]), [1, 2, 3, 4]
        else:
            assert 0.1 <= max(shared) < 0.4
        np.testing.assert_allclose(moved.reshape(4, 4), expected[0], atol=1e-5)
        np.testing.assert_array_equal(weight.reshape(4, 4), expected[1])
    np.testing.assert_array_equal(outside, inside > 0)


def test_all_regions_without_a_class_of_their_own_and_normalized() -> None:
    """As py-R-FCN trains with mining of the largest losses."""
    regions = np.array([[0, 12, 10, 52, 58], [0, 0, 30, 60, 70]], np.float32)
    setting = "'num_classes': 2, 'BATCH_SIZE': -1, 'AGNOSTIC': True, 'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True"
    setting += ", 'BBOX_NORMALIZE_MEANS': [0.5, 0, 0, 0]"
    made = layer("ProposalTargetLayer", setting, (2, 5), (1, 5))
    sample, classes, change, *_ = made(*tensors(regions, OBJECTS[:1]))
    assert sorted(classes.tolist()) == [0, 3, 3]  # the two that overlap, one of them the object itself
    for row, kind, moved in zip(sample.numpy(), classes, change, strict=True):
        expected = (np.array(move(row[1:], OBJECTS[0])) - [0.5, 0, 0, 0]) / [0.1, 0.1, 0.2, 0.2]
        np.testing.assert_allclose(moved, [0] * 4 + list(expected if kind else [0] * 4), atol=1e-5)


@pytest.mark.parametrize(
    "text",
    [
        "'feat_stride': 16, 'scales': [8, 16]",
        "{'feat_stride': 16, 'scales': (8, 16)}",
        "'feat_stride': 16 \\n'scales': !!python/tuple [8, 16]",
        "feat_stride: 16\\nscales: [8, 16]\\n",
    ],
)
def test_ways_to_write_the_settings(text: str) -> None:
    """As published nets do."""
    made = layer("ProposalLayer", text, (1, 12, HEIGHT, WIDTH), (1, 24, HEIGHT, WIDTH), (1, 3))
    assert isinstance(made, rpn.ProposalLayer)
    assert made.stride == 16 and len(made.base) == 6


def test_pictures_need_a_database() -> None:
    python = """python_param { module: "roi_data_layer.layer" layer: "RoIDataLayer" param_str: "'num_classes': 21" }"""
    made = registry.create(layer_param(f'type: "Python" top: "a" top: "b" top: "c" {python}'))
    with pytest.raises(
        CaffeError, match="gives it pictures, is not here; name a database of convert_annoset: param_str"
    ):
        made.setup([])


@pytest.mark.parametrize(
    ("kind", "setting", "said"),
    [
        ("ProposalLayer", "", "its param_str needs the setting 'feat_stride'; its settings: feat_stride, scales"),
        ("ProposalLayer", "'feat_strid': 16", "its param_str has no setting 'feat_strid'; its settings: feat_stride"),
        ("ProposalLayer", "feat_stride 16", "expected a param_str such as"),
        ("ProposalLayer", "'feat_stride': '16'", "expected a number for 'feat_stride', got '16'"),
        ("ProposalLayer", "'feat_stride': 16, 'scales': 8", "expected a number for 'scales', got 8"),
        ("ProposalLayer", "'feat_stride': 0", "above 0"),
        ("ProposalLayer", "'feat_stride': 16, 'scales': [8]", "of 3 anchors, got"),
        ("AnchorTargetLayer", "'feat_stride': __import__('os')", "expected a param_str such as"),
    ],
)
def test_errors(kind: str, setting: str, said: str) -> None:
    with pytest.raises(CaffeError) as error:
        layer(kind, setting, (1, 18, HEIGHT, WIDTH), (1, 36, HEIGHT, WIDTH), (1, 3))
    assert said in str(error.value)


def test_several_pictures_and_a_class_too_many() -> None:
    with pytest.raises(CaffeError, match="expected one picture"):
        layer("ProposalLayer", "'feat_stride': 16", (2, 18, HEIGHT, WIDTH), (2, 36, HEIGHT, WIDTH), (2, 3))
    made = layer("ProposalTargetLayer", "'num_classes': 3", (1, 5), (3, 5))
    with pytest.raises(
        CaffeError, match="an object is of class 3, none of the 3 classes, 0 to 2; mend the data, or set"
    ):
        made(torch.zeros(1, 5), torch.from_numpy(OBJECTS))
    with pytest.raises(CaffeError, match="expected the regions of one picture"):
        made(torch.ones(1, 5), torch.from_numpy(OBJECTS))


def test_the_users_own_module_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rpn", "rpn.proposal_layer"):  # not to stay
        monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.delitem(sys.modules, name)
    param = layer_param('type: "Python" python_param { module: "rpn.proposal_layer" layer: "ProposalLayer" }')
    context = Context(folders=(tmp_path,))
    assert type(registry.create(param, TRAIN, context)) is rpn.ProposalLayer
    (tmp_path / "rpn").mkdir()
    assert type(registry.create(param, TRAIN, context)) is rpn.ProposalLayer
    (tmp_path / "rpn/proposal_layer.py").write_text("")
    assert type(registry.create(param, TRAIN, context)) is Python
