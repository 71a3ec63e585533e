"""R-FCN's layers, beside their definition value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from tests.layers.oracle import build, check, distinct

SETTINGS = 'type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.25 output_dim: 3 group_size: 2 }'
FEATURES = (2, 12, 7, 9)
#: whole, of one pixel, halves that are rounded, partly outside, wholly outside, inverted
REGIONS = np.array(
    [
        [0, 0, 0, 35, 27],
        [1, 8, 8, 8, 8],
        [1, 2.5, 3.5, 14.5, 9.5],
        [0, -20, 4, 10, 60],
        [1, 90, 90, 99, 99],
        [0, 20, 20, 5, 5],
    ],
    np.float32,
)


def away(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def by_definition(features: np.ndarray, regions: np.ndarray) -> np.ndarray:
    top = np.zeros((len(regions), 3, 2, 2))
    for r, (image, *corners) in enumerate(regions.reshape(-1, 5)):
        x1, y1, x2, y2 = (away(value) for value in corners)
        left, up = x1 * 0.25, y1 * 0.25
        wide, high = (max(end - begin, 0.1) / 2 for end, begin in (((x2 + 1) * 0.25, left), ((y2 + 1) * 0.25, up)))
        for c, i, j in np.ndindex(3, 2, 2):
            rows = [h for h in range(7) if math.floor(i * high + up) <= h < math.ceil((i + 1) * high + up)]
            columns = [w for w in range(9) if math.floor(j * wide + left) <= w < math.ceil((j + 1) * wide + left)]
            part = features[int(image), (c * 2 + i) * 2 + j][np.ix_(rows, columns)]
            top[r, c, i, j] = part.mean() if part.size else 0
    return top


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1)])
def test_ps_roi_pooling(shape: tuple[int, ...]) -> None:
    inputs = [distinct(*FEATURES), REGIONS.reshape(shape)]
    check(SETTINGS, FEATURES, shape, inputs=inputs, oracle=by_definition, gradient=[0])


def test_no_regions() -> None:
    check(SETTINGS, FEATURES, (0, 5), inputs=[distinct(*FEATURES), REGIONS[:0]], gradient=False)


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        (
            'type: "PSROIPooling"',
            [FEATURES, (4, 5)],
            "all above 0, got no spatial_scale and no output_dim and no group_size",
        ),
        (SETTINGS.replace("0.25", "0"), [FEATURES, (4, 5)], "all above 0, got 0, 3 and 2"),
        (
            SETTINGS,
            [(2, 11, 7, 9), (4, 5)],
            "expected features (num, 12, height, width) and regions (count, 5), got 'x' (2, 11",
        ),
    ],
)
def test_errors(text: str, shapes: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)


def test_a_region_of_no_image() -> None:
    with pytest.raises(CaffeError, match="region 1 is of image 2, the batch has images 0 to 1"):
        check(
            SETTINGS,
            FEATURES,
            (2, 5),
            inputs=[distinct(*FEATURES), np.array([[0, 1, 1, 2, 2], [2, 1, 1, 2, 2]], np.float32)],
        )


def log_softmax(scores: np.ndarray) -> np.ndarray:
    shifted = scores - scores.max(1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))


@pytest.mark.parametrize(("normalization", "divisor"), [("VALID", 16), ("FULL", 24), ("BATCH_SIZE", 2), ("NONE", 1)])
def test_softmax_loss_tells_each_part(normalization: str, divisor: int) -> None:
    shape = (2, 5, 3, 4)
    labels = np.arange(24).reshape(2, 1, 3, 4) % 5 - (np.arange(24).reshape(2, 1, 3, 4) % 3 == 0) * 10
    labels = np.where(labels < 0, -1, labels).astype(np.float32)
    assert (labels != -1).sum() == 16

    def oracle(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, ...]:
        log_p = log_softmax(scores)
        own = np.take_along_axis(log_p, np.maximum(labels, 0).astype(int), 1)
        each = np.where(labels == -1, 0, -own)
        return each.sum() / divisor, np.exp(log_p), each

    text = 'type: "SoftmaxWithLossOHEM" top: "y" top: "p" top: "e" loss_param { ignore_label: -1 normalization: '
    layer = check(
        text + normalization + " }",
        shape,
        labels.shape,
        inputs=[distinct(*shape), labels],
        oracle=oracle,
        gradient=False,
    )
    scores = torch.from_numpy(distinct(*shape)).requires_grad_()
    layer(scores, torch.from_numpy(labels))[0].backward()
    kept = labels != -1
    one_hot = np.eye(5)[np.maximum(labels[:, 0], 0).astype(int)].transpose(0, 3, 1, 2)
    expected = (np.exp(log_softmax(distinct(*shape).astype(float))) - one_hot) * kept / divisor
    np.testing.assert_allclose(scores.grad.numpy(), expected, atol=1e-6)


def test_softmax_loss_has_a_largest_part_and_names_a_wrong_label() -> None:
    layer = build('type: "SoftmaxWithLossOHEM" top: "y" top: "p" top: "e"', (2, 3), (2,))
    scores = torch.tensor([[0.0, 300, 0], [0, 0, 0]], requires_grad=True)
    loss, _, each = layer(scores, torch.tensor([0.0, 2]))
    loss.backward()
    assert each.shape == (2, 1, 1, 1) and each[0].item() == pytest.approx(126 * math.log(2))
    assert scores.grad[0].tolist() == pytest.approx([-0.5, 0.5, 0])
    with pytest.raises(CaffeError, match="3"):
        layer(scores, torch.tensor([0.0, 3]))


@pytest.mark.parametrize(
    ("loss_param", "divisor"),
    [
        ("", 24),
        ("normalization: BATCH_SIZE", 2),
        ("normalization: NONE", 1),
        ("normalization: PRE_FIXED pre_fixed_normalizer: 128", 128),
        ("normalization: PRE_FIXED pre_fixed_normalizer: 0.5", 1),
        ("normalize: false", 2),
    ],
)
def test_smooth_l1_loss_tells_each_part(loss_param: str, divisor: float) -> None:
    shape = (2, 5, 3, 4)
    a, b, weights = (distinct(*shape, seed=i) * 1.5 for i in range(3))

    def oracle(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, ...]:
        d = np.abs(weights * (a - b))
        each = np.where(d < 1, d * d / 2, d - 0.5)
        return each.sum() / divisor, each.sum(1, keepdims=True)

    text = f'type: "SmoothL1LossOHEM" top: "y" top: "e" loss_param {{ {loss_param} }}'
    layer = check(text, shape, shape, shape, inputs=[a, b, weights], oracle=oracle, gradient=False)
    bottoms = [torch.from_numpy(array).requires_grad_() for array in (a, b)]
    layer(*bottoms, torch.from_numpy(weights))[0].backward()
    expected = np.clip(weights * (a - b), -1, 1) / divisor  # without a second factor of the weights
    np.testing.assert_allclose(bottoms[0].grad.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(bottoms[1].grad.numpy(), -expected, atol=1e-6)


def test_smooth_l1_loss_of_vectors() -> None:
    layer = check('type: "SmoothL1LossOHEM" top: "y" top: "e"', (6, 8), (6, 8))
    assert layer.reshape([(6, 8)] * 2) == [(), (6, 1, 1, 1)]


def test_smooth_l1_loss_of_pooled_predictions() -> None:
    """As R-FCN's nets have it: (regions, values, 1, 1) beside targets (regions, values)."""
    a, b, w = (torch.from_numpy(distinct(6, 8, seed=i)) for i in range(3))
    text = 'type: "SmoothL1LossOHEM" top: "y" top: "e"'
    pooled = build(text, (6, 8, 1, 1), (6, 8), (6, 8))(a[..., None, None], b, w)
    plain = build(text, (6, 8), (6, 8), (6, 8))(a, b, w)
    assert all(map(torch.equal, pooled, plain))


def test_only_smooth_l1_loss_takes_a_fixed_divisor() -> None:
    with pytest.raises(CaffeError, match="only SmoothL1LossOHEM takes normalization: PRE_FIXED"):
        build('type: "SoftmaxWithLoss" loss_param { normalization: PRE_FIXED }', (2, 3), (2,))


def test_the_largest_losses_of_each_image_are_kept() -> None:
    regions = np.zeros((7, 5), np.float32)
    regions[:, 0] = [1, 0, 1, 0, 1, 0, 0]
    losses = np.array([3, 9, 5, 9, 4, 1, 9], np.float32).reshape(7, 1)
    labels = np.arange(1, 8, dtype=np.float32).reshape(7, 1)
    weights = distinct(7, 8)
    kept = np.array([0, 1, 1, 1, 1, 0, 0], bool)  # of equal losses the first

    def oracle(*bottoms: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.where(kept[:, None], labels, -1)[..., None, None], np.where(kept[:, None], weights, 0)[
            ..., None, None
        ]

    text = 'type: "BoxAnnotatorOHEM" top: "y" top: "w" box_annotator_ohem_param { roi_per_img: 2 }'
    shapes = [(7, 5), (7, 1), (7, 1), (7, 8)]
    check(text, *shapes, inputs=[regions, losses, labels, weights], oracle=oracle, gradient=False)


def test_mining_over_pixels() -> None:
    shapes = [(2, 5, 2, 3), (2, 1, 2, 3), (2, 1, 2, 3), (2, 4, 2, 3)]
    regions = np.zeros(shapes[0], np.float32)
    losses, labels, weights = (distinct(*shape, seed=i) for i, shape in enumerate(shapes[1:]))
    kept = losses >= np.sort(losses.flatten())[-5]
    text = 'type: "BoxAnnotatorOHEM" top: "y" top: "w" box_annotator_ohem_param { roi_per_img: 5 ignore_label: 255 }'
    check(
        text,
        *shapes,
        inputs=[regions, losses, labels, weights],
        oracle=lambda *_: (np.where(kept, labels, 255), weights * kept),
        gradient=False,
    )


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        ('type: "BoxAnnotatorOHEM" top: "y" top: "w"', [(7, 5), (7, 1), (7, 1), (7, 8)], "roi_per_img: N"),
        (
            'type: "BoxAnnotatorOHEM" top: "y" top: "w" box_annotator_ohem_param { roi_per_img: 2 }',
            [(7, 5), (6, 1), (7, 1), (7, 8)],
            "expected regions (count, 5, height, width), losses and labels",
        ),
        ('type: "SmoothL1LossOHEM"', [(2, 3), (2, 4)], "expected (num, channels, height, width) for all"),
        ('type: "SoftmaxWithLossOHEM"', [(2, 3), (3,)], "as many items"),
    ],
)
def test_errors_of_mining(text: str, shapes: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)
