"""Softmax and the loss layers against NumPy, the recorded answers, and their error texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import DataError, ShapeError, SpecError
from caffecli.layers import loss
from caffecli.layers.base import Layer
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden

SOFTMAX_LOSS = 'name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label"'
SIGMOID_LOSS = 'type: "SigmoidCrossEntropyLoss" bottom: "x" bottom: "t"'
EUCLIDEAN_LOSS = 'type: "EuclideanLoss" bottom: "x" bottom: "t"'


def labels(classes: int, *shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, classes, shape).astype(np.float32)


def softmax(x: np.ndarray, axis: int = 1) -> np.ndarray:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@pytest.mark.parametrize(
    "case",
    [
        *(
            "softmax",
            "softmaxloss",
            "softmaxloss_ignore",
            "softmaxloss_ignore_full",
            "softmaxloss_map",
            "softmaxloss_weight",
        ),
        *("sigmoid_ce", "sigmoid_ce_ignore", "euclidean"),
    ],
)
def test_recorded_answers(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


# -- Softmax -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2, 3, -1, -3])
def test_softmax(axis: int) -> None:
    check(f'type: "Softmax" softmax_param {{ axis: {axis} }}', SHAPE, oracle=lambda x: softmax(x, axis))


def test_softmax_of_large_scores_stays_finite() -> None:
    y = build('type: "Softmax"', (1, 3))(torch.tensor([[1e30, 0.0, -1e30]]))
    assert y.tolist() == [[1, 0, 0]]


def test_softmax_refuses_an_axis_that_is_not_there() -> None:
    with pytest.raises(SpecError, match=r"'l' \(Softmax\): axis 2 is out of range for a blob of 2 dimensions"):
        build('type: "Softmax" softmax_param { axis: 2 }', (2, 3))


# -- SoftmaxWithLoss -----------------------------------------------------------------------------------------------


def softmax_loss(x: np.ndarray, t: np.ndarray, divisor: str, axis: int = 1, ignore: int | None = None) -> np.ndarray:
    """-sum log p[label] / divisor in float64, one prediction after the other."""
    x = np.moveaxis(x, axis, -1)
    p, t = softmax(x, -1).reshape(-1, x.shape[-1]), np.trunc(t).astype(int).ravel()
    kept = [i for i in range(len(t)) if t[i] != ignore]
    by = {"all": len(t), "kept": len(kept), "items": math.prod(x.shape[:axis]), "one": 1}[divisor]
    return np.array(-sum(math.log(p[i, t[i]]) for i in kept) / max(1, by))


NORMALIZATIONS = [
    ("", "kept"),
    ("normalization: VALID", "kept"),
    ("normalization: FULL", "all"),
    ("normalization: BATCH_SIZE", "items"),
    ("normalization: NONE", "one"),
    ("normalize: true", "kept"),
    ("normalize: false", "items"),
    ("normalize: false normalization: FULL", "all"),
]


@pytest.mark.parametrize("ignore", [None, 2, 255, -1])
@pytest.mark.parametrize("setting, divisor", NORMALIZATIONS)
def test_softmax_loss_of_a_map(setting: str, divisor: str, ignore: int | None) -> None:
    t = labels(4, 2, 1, 3, 2)
    if ignore is not None:
        setting += f" ignore_label: {ignore}"
        t[0, 0, 1, 1:] = t[1, 0, 0, 0] = ignore
    check(
        f"{SOFTMAX_LOSS} loss_param {{ {setting} }}",
        (2, 4, 3, 2),
        t.shape,
        inputs=[distinct(2, 4, 3, 2), t],
        oracle=lambda x, t: softmax_loss(x, t, divisor, ignore=ignore),
        gradient=[0],
    )


@pytest.mark.parametrize(
    "axis, shape, label_shape",
    [
        (1, (6, 5), (6,)),
        (1, (6, 5), (6, 1, 1, 1)),
        (1, (6, 5, 1, 1), (6, 1)),
        (1, SHAPE, (2, 3, 4)),
        (-1, SHAPE, (2, 7, 3)),
        (2, SHAPE, (2, 7, 4)),
        (0, (3, 4), (3, 4)),
        (0, (4, 3, 2), (4, 6)),
    ],
)
def test_softmax_loss_along_any_axis(axis: int, shape: tuple[int, ...], label_shape: tuple[int, ...]) -> None:
    t = labels(shape[axis], *label_shape)
    if axis == 0:  # the reference wants the first dimensions to agree, and a label for each prediction: both cannot be
        with pytest.raises(ShapeError, match="labels, one for each prediction along axis 0"):
            build(f"{SOFTMAX_LOSS} softmax_param {{ axis: 0 }}", shape, label_shape)
        return
    check(
        f"{SOFTMAX_LOSS} softmax_param {{ axis: {axis} }}",
        shape,
        label_shape,
        inputs=[distinct(*shape), t],
        oracle=lambda x, t: softmax_loss(x, t, "all", axis),
        gradient=[0],
    )


@pytest.mark.parametrize("setting, divisor", NORMALIZATIONS)
@pytest.mark.parametrize("shape", [(2,), (2, 1, 3, 2), (2, 3, 2)], ids=["items", "predictions", "flat"])
def test_softmax_loss_of_weighted_predictions(setting: str, divisor: str, shape: tuple[int, ...]) -> None:
    """Each counts by its class's weight times its own; the divisor is that of predictions without weights."""
    t = labels(4, 2, 1, 3, 2)
    t[0, 0, 1, 1:] = 255
    by_class, own = [0.5, 2, 0, 3], np.abs(distinct(*shape, seed=5))

    def oracle(x: np.ndarray, t: np.ndarray, own: np.ndarray) -> np.ndarray:
        p, flat = softmax(np.moveaxis(x, 1, -1), -1).reshape(-1, 4), t.astype(int).ravel()
        each = np.repeat(own.ravel(), 12 // own.size)
        total = -sum(
            by_class[k] * w * math.log(p[i, k]) for i, (k, w) in enumerate(zip(flat, each, strict=True)) if k != 255
        )
        return np.array(total / {"all": 12, "kept": (flat != 255).sum(), "items": 2, "one": 1}[divisor])

    weights = " ".join(f"class_weighting: {weight}" for weight in by_class)
    check(
        f"{SOFTMAX_LOSS} loss_param {{ weight_by_label_freqs: true {weights} ignore_label: 255 {setting} }}",
        (2, 4, 3, 2),
        t.shape,
        shape,
        inputs=[distinct(2, 4, 3, 2), t, own],
        oracle=oracle,
        gradient=[0],
    )


def test_softmax_loss_takes_class_weights_only_where_it_is_told_to() -> None:
    """As caffe-segnet does."""
    check(
        f"{SOFTMAX_LOSS} loss_param {{ class_weighting: 3 class_weighting: 4 }}",
        (6, 5),
        (6,),
        inputs=[distinct(6, 5), labels(5, 6)],
        oracle=lambda x, t: softmax_loss(x, t, "all"),
        gradient=[0],
    )


@pytest.mark.parametrize(
    "text, weights, said",
    [
        (
            "weight_by_label_freqs: true class_weighting: 2",
            [],
            "expected a class_weighting for each of 5 classes, got 1",
        ),
        ("weight_by_label_freqs: true", [], "expected a class_weighting for each of 5 classes, got 0"),
        ("", [(5,)], "expected 12 or 3 weights, one for each prediction or for each item, got"),
    ],
)
def test_softmax_loss_refuses_another_count_of_weights(text: str, weights: list[tuple[int]], said: str) -> None:
    with pytest.raises(ShapeError, match=said):
        build(f"{SOFTMAX_LOSS} loss_param {{ {text} }}", (3, 5, 4), (3, 4), *weights)


def test_softmax_loss_gives_the_probabilities_as_second_top() -> None:
    check(
        f'{SOFTMAX_LOSS} top: "loss" top: "prob"',
        SHAPE,
        (2, 3, 4),
        inputs=[distinct(*SHAPE), labels(7, 2, 3, 4)],
        oracle=lambda x, t: (softmax_loss(x, t, "all"), softmax(x)),
        gradient=[0],
    )


def test_softmax_loss_where_every_label_is_ignored_is_zero() -> None:
    x = torch.randn(3, 5, requires_grad=True)
    value = build(f"{SOFTMAX_LOSS} loss_param {{ ignore_label: 1 }}", (3, 5), (3,))(x, torch.ones(3))
    value.backward()
    assert value == 0 and x.grad is not None and not x.grad.any()


def test_softmax_loss_of_one_prediction_is_capped_as_in_the_reference_but_its_gradient_is_not() -> None:
    x = torch.tensor([[0.0, 500.0, 0.0], [-math.inf, 0.0, 0.0]], requires_grad=True)
    value = build(f"{SOFTMAX_LOSS} loss_param {{ normalization: NONE }}", (2, 3), (2,))(x, torch.zeros(2))
    value.backward()
    assert value.item() == pytest.approx(2 * 87.33654)
    assert x.grad is not None and x.grad.flatten().tolist() == pytest.approx([-1, 1, 0, -1, 0.5, 0.5], abs=2e-38)


def test_softmax_loss_is_nan_where_a_score_is() -> None:
    assert build(SOFTMAX_LOSS, (1, 3), (1,))(torch.tensor([[0.0, math.nan, 0.0]]), torch.zeros(1)).isnan()


def test_softmax_loss_truncates_fractional_labels() -> None:
    x = torch.from_numpy(distinct(4, 3))
    layer = build(SOFTMAX_LOSS, (4, 3), (4,))
    assert layer(x, torch.tensor([0.9, 1.99, -0.9, 2.5])) == layer(x, torch.tensor([0, 1, 0, 2]))


@pytest.mark.parametrize("shape, label_shape", [((6, 5), (6,)), ((6, 5, 2, 3), (6, 1, 2, 3))])
@pytest.mark.parametrize(
    "label, setting, words",
    [
        (
            5,
            "",
            "label 5 of item 4 is past the 5 classes of 'ip2'; labels run from 0 to 4: mend the data, or let the layer "
            "before",
        ),
        (2**31, "", "label 2147483648 of item 4 is past"),
        (math.inf, "", "label inf of item 4 is past"),
        (
            -1,
            "",
            "label -1 of item 4 is negative; labels run from 0 to 4: mend the data, or set ignore_label: -1 to leave",
        ),
        (-100, "", "label -100 of item 4 is negative"),
        (-100, "ignore_label: -1", "label -100 of item 4 is negative"),
        (255, "ignore_label: 2", "label 255 of item 4 is past"),
        (-math.inf, "", "label -inf of item 4 is negative"),
        (math.nan, "", "label nan of item 4 is not a number; labels run from 0 to 4: mend the data$"),
    ],
)
def test_softmax_loss_names_the_label_past_the_classes(
    label: float, setting: str, words: str, shape: tuple[int, ...], label_shape: tuple[int, ...]
) -> None:
    layer = build(f"{SOFTMAX_LOSS} loss_param {{ {setting} }}", shape, label_shape)
    t = torch.ones(label_shape)
    t[4].fill_(label)
    t[5].fill_(label)
    with pytest.raises(DataError, match=f"^layer 'loss': {words}") as caught:
        layer(torch.randn(shape), t)
    assert caught.value.item == 4  # type: ignore[attr-defined]
    assert caught.value.__suppress_context__


def _wrong_on_an_accelerator(layer: Layer, monkeypatch: pytest.MonkeyPatch, *bottoms: torch.Tensor) -> torch.Tensor:
    monkeypatch.setattr(f"{type(layer).__module__}.torch_checks", lambda x: False)
    return layer(*bottoms)


@pytest.mark.parametrize("setting", ["", "ignore_label: 0", "ignore_label: 255 normalization: FULL"])
def test_softmax_loss_on_an_accelerator_is_nan_for_labels_past_the_classes(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = build(f"{SOFTMAX_LOSS} loss_param {{ {setting} }}", (4, 3), (4,))
    x, good = torch.from_numpy(distinct(4, 3)), torch.tensor([0.0, 1.0, 2.0, 0.0])
    expected = layer(x, good)
    assert _wrong_on_an_accelerator(layer, monkeypatch, x, good) == expected
    for bad in (3.0, -1.0, -100.0, math.nan, 1e20):
        assert _wrong_on_an_accelerator(layer, monkeypatch, x, torch.tensor([0.0, 1.0, bad, 0.0])).isnan()


@pytest.mark.parametrize("label_shape", [(6, 2), (6, 5)])
def test_softmax_loss_refuses_another_count_of_labels(label_shape: tuple[int, ...]) -> None:
    words = (
        rf"'loss' \(SoftmaxWithLoss\): expected 6 labels, one for each prediction along axis 1, got "
        rf"{math.prod(label_shape)}: "
    )
    words += r"'ip2' \(6, 5\)"
    with pytest.raises(ShapeError, match=words):
        build(SOFTMAX_LOSS, (6, 5), label_shape)


@pytest.mark.parametrize("text", [SOFTMAX_LOSS, SIGMOID_LOSS, EUCLIDEAN_LOSS])
def test_losses_refuse_bottoms_of_other_counts(text: str) -> None:
    with pytest.raises(
        ShapeError, match=r"expected bottoms with as many items \(the first dimension\), got .*\(4, 3\).*\(3, 4\)"
    ):
        build(text, (4, 3), (3, 4))
    with pytest.raises(ShapeError, match=r"expected .* got .*\(4, 3\), .*\(4, 2\)"):
        build(text, (4, 3), (4, 2))
    too_many = 'bottom: "c"' if text == EUCLIDEAN_LOSS else 'bottom: "c" bottom: "d"'
    with pytest.raises(SpecError, match=r"expected 2( to 3)? bottom blob\(s\), got"):
        build(f"{text} {too_many}", (4, 3), (4,) if text == SOFTMAX_LOSS else (4, 3))


# -- SigmoidCrossEntropyLoss ---------------------------------------------------------------------------------------


def sigmoid_loss(x: np.ndarray, t: np.ndarray, divisor: str, ignore: int | None = None) -> np.ndarray:
    t = t.reshape(x.shape)
    kept = np.trunc(t) != (math.inf if ignore is None else ignore)
    each = -(t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 / (1 + np.exp(x))))
    by = {"all": x.size, "kept": kept.sum(), "items": len(x), "one": 1}[divisor]
    return np.array(each[kept].sum() / max(1, by))


@pytest.mark.parametrize("ignore", [None, -1, 1])
@pytest.mark.parametrize("setting, divisor", [("", "items"), *NORMALIZATIONS[1:]])
def test_sigmoid_loss(setting: str, divisor: str, ignore: int | None) -> None:
    t = np.array([0, 1, 0.25, -1 if ignore == -1 else 0.75] * 6, np.float32).reshape(2, 12)
    setting += "" if ignore is None else f" ignore_label: {ignore}"
    check(
        f"{SIGMOID_LOSS} loss_param {{ {setting} }}",
        (2, 4, 3),
        t.shape,
        inputs=[distinct(2, 4, 3), t],
        oracle=lambda x, t: sigmoid_loss(x, t, divisor, ignore),
        gradient=[0],
    )


def test_sigmoid_loss_ignores_by_the_whole_part_of_the_target() -> None:
    x, t = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, -0.5, 1.0]])
    value = build(f"{SIGMOID_LOSS} loss_param {{ ignore_label: 0 }}", (1, 3), (1, 3))(x, t)
    assert value.item() == pytest.approx(math.log1p(math.exp(-3)))


def test_sigmoid_loss_of_large_scores_stays_finite_and_gives_the_targets_no_gradient() -> None:
    x, t = torch.tensor([[200.0, -300.0]], requires_grad=True), torch.tensor([[0.0, 1.0]], requires_grad=True)
    value = build(SIGMOID_LOSS, (1, 2), (1, 2))(x, t)
    value.backward()
    assert value == 500 and t.grad is None
    assert x.grad is not None and x.grad.tolist() == [[1, -1]]


def test_weighted_sigmoid_loss_is_mncs() -> None:
    """It is divided by the sum of the weights, whatever the settings say."""

    def oracle(x: np.ndarray, t: np.ndarray, w: np.ndarray) -> np.ndarray:
        each = -(t * np.log(1 / (1 + np.exp(-x))) + (1 - t) * np.log(1 / (1 + np.exp(x))))
        return np.array((w * each).sum() / w.sum())

    w = np.array([0, 1, 0.5, 2] * 6, np.float32).reshape(2, 12)
    check(
        f'{SIGMOID_LOSS} bottom: "w" loss_param {{ normalization: NONE ignore_label: 1 }}',
        (2, 4, 3),
        (2, 4, 3),
        w.shape,
        inputs=[distinct(2, 4, 3), np.array([0, 1, 0.25] * 8, np.float32).reshape(2, 4, 3), w],
        oracle=lambda x, t, w: oracle(x, t, w.reshape(x.shape)),
        gradient=[0],
    )
    x = torch.ones(2, 3, requires_grad=True)
    value = build(f'{SIGMOID_LOSS} bottom: "w"', (2, 3), (2, 3), (2, 3))(x, torch.zeros(2, 3), torch.zeros(2, 3))
    value.backward()
    assert value == 0 and x.grad is not None and not x.grad.any()
    with pytest.raises(ShapeError, match="expected as many weights as scores, got"):
        build(f'{SIGMOID_LOSS} bottom: "w"', (2, 3), (2, 3), (2,))


# -- EuclideanLoss -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [SHAPE, (2, 84), (2, 4, 21)])
def test_euclidean_loss_and_its_gradient_to_both(other: tuple[int, ...]) -> None:
    check(EUCLIDEAN_LOSS, SHAPE, other, oracle=lambda a, b: np.array(((a - b.reshape(a.shape)) ** 2).sum() / 4))


# -- all -----------------------------------------------------------------------------------------------------------


def test_labels_of_losses_get_no_gradient() -> None:
    assert [loss.SoftmaxWithLoss.no_gradient, loss.SigmoidCrossEntropyLoss.no_gradient] == [(1, 2)] * 2
    assert loss.EuclideanLoss.no_gradient == ()
    assert all(cls.is_loss for cls in (loss.SoftmaxWithLoss, loss.SigmoidCrossEntropyLoss, loss.EuclideanLoss))


@pytest.mark.parametrize("text", [SOFTMAX_LOSS, SIGMOID_LOSS, EUCLIDEAN_LOSS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_losses_run_in_every_precision_and_under_autocast(text: str, dtype: torch.dtype) -> None:
    shape = (4, 3) if text != SOFTMAX_LOSS else (4,)
    layer = build(text, (4, 3), shape)
    x = torch.from_numpy(distinct(4, 3)).to(dtype).requires_grad_()
    t = torch.from_numpy(labels(2, *shape))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float64):
        value = layer(x, t)
    value.backward()
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert x.grad is not None and x.grad.dtype == dtype
    assert value.item() == pytest.approx(layer(x.detach().float(), t).item(), rel=1e-5)


def test_losses_run_compiled() -> None:
    layer = build(SOFTMAX_LOSS, (4, 3), (4,))
    x, t = torch.from_numpy(distinct(4, 3) * 300).requires_grad_(), torch.tensor([0.0, 1.0, 2.0, 0.0])
    plain = layer(x, t)
    (expected,) = torch.autograd.grad(plain, x)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)(x, t)
    (got,) = torch.autograd.grad(compiled, x)
    assert compiled.item() == pytest.approx(plain.item())
    torch.testing.assert_close(got, expected)
