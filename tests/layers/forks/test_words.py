"""TextBoxes++'s words in MultiBoxLoss, DetectionOutput and DetectionEvaluate, against NumPy written value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.errors import CaffeError
from caffecli.layers.base import Layer
from tests.layers.oracle import build, tops_of

#: three priors far from each other, and their variances
PRIORS = np.array([[0.1, 0.1, 0.3, 0.2], [0.4, 0.5, 0.7, 0.6], [0.6, 0.1, 0.95, 0.25]])
VARIANCES = np.array([0.1, 0.1, 0.2, 0.2])
PRIOR_BLOB = torch.tensor(np.stack([PRIORS, np.tile(VARIANCES, (3, 1))])).reshape(1, 2, 12)
#: which of the prior's sides each corner is told from
SIDES = [(0, 1), (2, 1), (2, 3), (0, 3)]
LOSS = 'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: 2 code_type: CENTER_SIZE mining_type: NONE {} }}'
FOUND = (
    'type: "DetectionOutput" detection_output_param {{ num_classes: 2 code_type: CENTER_SIZE confidence_threshold: 0.1 '
    "nms_param {{ nms_threshold: 0.3 }} {} }}"
)


def top_of(layer: Layer, *bottoms: Tensor) -> Tensor:
    return tops_of(layer, bottoms)[0]


def encoded(word: np.ndarray, prior: np.ndarray) -> list[float]:
    wide, high = prior[2] - prior[0], prior[3] - prior[1]
    if len(word) == 8:
        places = [(word[2 * i], prior[x], word[2 * i + 1], prior[y]) for i, (x, y) in enumerate(SIDES)]
        return [v for a, x, b, y in places for v in ((a - x) / wide / VARIANCES[0], (b - y) / high / VARIANCES[1])]
    x, y = (prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2
    ends = [(word[0] - x) / wide / VARIANCES[0], (word[1] - y) / high / VARIANCES[1]]
    ends += [(word[2] - x) / wide / VARIANCES[0], (word[3] - y) / high / VARIANCES[1]]
    return [*ends, math.log(word[4] / high) / VARIANCES[3]]


def smooth_l1(value: float) -> float:
    return value * value / 2 if abs(value) < 1 else abs(value) - 0.5


def truth(values: int, rng: np.random.Generator) -> np.ndarray:
    """One word in each of the two images, where the second and the third prior is."""
    rows = []
    for item, prior in enumerate(PRIORS[1:]):
        box = prior + rng.uniform(-0.01, 0.01, 4)
        word = box[[0, 1, 2, 1, 2, 3, 0, 3]] + rng.uniform(-0.02, 0.02, 8)
        rows.append([item, 1, 0, *box, 0, *(word if values == 8 else [*word[:4], 0.12])])
    return np.array(rows)


@pytest.mark.parametrize(("said", "values"), [("use_polygon: true", 8), ("use_polygon: false", 5)])
def test_words_count_in_the_loss(said: str, values: int) -> None:
    rng = np.random.default_rng(values)
    true, width = truth(values, rng), 4 + values
    bottoms = [
        torch.tensor(rng.normal(size=(2, 3 * width)) * 0.5, requires_grad=True),
        torch.tensor(rng.normal(size=(2, 6)), requires_grad=True),
        PRIOR_BLOB,
        torch.tensor(true)[None, None],
    ]
    layer = build(LOSS.format(said), *(tuple(each.shape) for each in bottoms))
    boxes_alone = [bottoms[0].detach().reshape(2, 3, width)[..., :4].reshape(2, 12), *bottoms[1:3], bottoms[3]]
    plain = build(LOSS.format(""), *(tuple(each.shape) for each in boxes_alone))
    differences = [
        [
            float(bottoms[0].detach()[item, (item + 1) * width + 4 + i]) - target
            for i, target in enumerate(encoded(true[item, 8:], PRIORS[item + 1]))
        ]
        for item in range(2)
    ]
    words = sum(smooth_l1(each) for row in differences for each in row) / 2  # by the two matches
    loss, without = top_of(layer, *bottoms), top_of(plain, *boxes_alone)
    assert words > 0.5 and float(loss.detach()) == pytest.approx(float(without.detach()) + words, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, bottoms[:1])
    expected = np.clip(differences, -1, 1) / 2
    found = gradient.reshape(2, 3, width)[[0, 1], [1, 2], 4:]
    assert np.allclose(found, expected, rtol=1e-6) and not gradient.reshape(2, 3, width)[0, 0].any()


def test_the_locations_part_ends_at_20_but_not_its_gradient() -> None:
    true = truth(8, np.random.default_rng(1))
    locations = torch.full((2, 36), 9.0, dtype=torch.float64, requires_grad=True)
    bottoms = [locations, torch.zeros(2, 6, dtype=torch.float64), PRIOR_BLOB, torch.tensor(true)[None, None]]
    layer = build(LOSS.format("use_polygon: true"), *(tuple(each.shape) for each in bottoms))
    loss = top_of(layer, *bottoms)
    assert float(loss.detach()) == pytest.approx(20 + 3 * math.log(2) * 2 / 2)
    (gradient,) = torch.autograd.grad(loss, [locations])
    assert gradient.abs().sum() == pytest.approx(12)


def test_words_outside_of_the_image_do_not_count_with_bp_inside() -> None:
    prior = PRIOR_BLOB.clone()
    prior[0, 0, 8:] = torch.tensor([-0.1, 0.1, 0.2, 0.2])  # the third: xmin is outside, of the first corner's x alone
    true = np.array([[0, 1, 0, -0.1, 0.1, 0.2, 0.2, 0, *[0.5] * 8]])
    locations = torch.zeros(1, 36, dtype=torch.float64, requires_grad=True)
    bottoms = [locations, torch.zeros(1, 6, dtype=torch.float64), prior, torch.tensor(true)[None, None]]
    layer = build(LOSS.format("use_polygon: true bp_inside: true"), *(tuple(each.shape) for each in bottoms))
    (gradient,) = torch.autograd.grad(top_of(layer, *bottoms), [locations])
    assert (gradient.reshape(3, 12)[2, 4:] != 0).tolist() == [False, *[True] * 7]


@pytest.mark.parametrize(("said", "values"), [("use_polygon: true", 8), ("use_polygon: false", 5)])
def test_words_are_found_behind_their_boxes(said: str, values: int) -> None:
    rng = np.random.default_rng(values)
    true, width = truth(values, rng), 4 + values
    locations = np.zeros((2, 3, width))
    for item in range(2):
        locations[item, item + 1, 4:] = encoded(true[item, 8:], PRIORS[item + 1])
    scores = np.array([[[1, 0], [0.2, 0.8], [1, 0]], [[1, 0], [1, 0], [0.4, 0.6]]])
    bottoms = [torch.tensor(locations).reshape(2, -1), torch.tensor(scores).reshape(2, -1), PRIOR_BLOB]
    layer = build(FOUND.format(said), *(tuple(each.shape) for each in bottoms))
    rows = top_of(layer, *bottoms)
    expected = [[i, 1, score, *PRIORS[i + 1], *true[i, 8:]] for i, score in enumerate((0.8, 0.6))]
    assert np.allclose(rows[0, 0], expected)
    nothing = top_of(layer, bottoms[0], torch.zeros_like(bottoms[1]), PRIOR_BLOB)
    assert nothing.tolist() == [[[[0, *[-1] * (6 + values)], [1, *[-1] * (6 + values)]]]]
    judge = build('type: "DetectionEvaluate" detection_evaluate_param { num_classes: 2 }', rows.shape, (1, 1, 2, 16))
    hits = top_of(judge, rows, torch.tensor(np.pad(true, ((0, 0), (0, 8 - values))))[None, None])
    assert hits[0, 0].tolist() == [
        [-1, 1, 2, -1, -1],
        [0, 1, pytest.approx(0.8), 1, 0],
        [1, 1, pytest.approx(0.6), 1, 0],
    ]


def test_what_does_not_fit() -> None:
    shapes = [(1, 36), (1, 6), (1, 2, 12)]
    with pytest.raises(CaffeError, match=r"use_polygon needs code_type: CENTER_SIZE"):
        build('type: "DetectionOutput" detection_output_param { num_classes: 2 use_polygon: true }', *shapes)
    with pytest.raises(CaffeError, match=r"expected locations \(num, priors \* 9\), confidences"):
        build(FOUND.format("use_polygon: false"), *shapes)
    with pytest.raises(CaffeError, match=r"expected true boxes \(1, 1, count, 16\)"):
        build(LOSS.format("use_polygon: true"), *shapes, (1, 1, 1, 13))
    layer = build(LOSS.format("use_polygon: true"), *shapes, (1, 1, 1, 8))
    bottoms = torch.zeros(1, 36), torch.zeros(1, 6), PRIOR_BLOB.float()
    assert float(top_of(layer, *bottoms, torch.full((1, 1, 1, 8), -1.0))) == pytest.approx(3 * math.log(2)), "no box"
    row = torch.tensor([[[[0, 1, 0, 0.1, 0.1, 0.3, 0.2, 0]]]])
    with pytest.raises(
        CaffeError, match=r"with use_polygon, got \(1, 1, 1, 8\); convert the data from annotations that"
    ):
        top_of(layer, *bottoms, row)
