"""Accuracy against a loop in Python, the recorded answers, and its error texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import DataError, ShapeError, SpecError
from caffecli.layers import metric
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden

ACCURACY = 'type: "Accuracy" bottom: "ip2" bottom: "label"'


def accuracy(
    x: np.ndarray, t: np.ndarray, top_k: int = 1, axis: int = 1, ignore: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The accuracy and that of each class, one prediction after the other."""
    classes = x.shape[axis]
    rows, hits, counts = np.moveaxis(x, axis, -1).reshape(-1, classes), np.zeros(classes), np.zeros(classes)
    for row, label in zip(rows, np.trunc(t).astype(int).ravel(), strict=True):
        if label == ignore:
            continue
        above = sum(score >= row[label] for score in row) - 1
        counts[label] += 1
        hits[label] += above < top_k
    return np.array(hits.sum() / max(1, counts.sum())), hits / np.maximum(1, counts)


@pytest.mark.parametrize("case", ["accuracy", "accuracy_top3", "accuracy_per_class"])
def test_recorded_answers(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


@pytest.mark.parametrize("ignore", [None, 1, 255, -1])
@pytest.mark.parametrize("top_k", [1, 2, 3, 7])
def test_accuracy_of_a_map_and_of_each_class(top_k: int, ignore: int | None) -> None:
    rng = np.random.default_rng(top_k)
    x, t = (
        rng.integers(-3, 3, SHAPE).astype(np.float32),
        rng.integers(0, 6, (2, 1, 3, 4)).astype(np.float32),
    )  # many ties, no class 6
    setting = f"top_k: {top_k}"
    if ignore is not None:
        setting += f" ignore_label: {ignore}"
        t[0, 0, 1, 1:] = ignore
    text = f'{ACCURACY} top: "acc" top: "classes" accuracy_param {{ {setting} }}'
    check(text, SHAPE, t.shape, inputs=[x, t], oracle=lambda x, t: accuracy(x, t, top_k, 1, ignore), gradient=False)


@pytest.mark.parametrize("axis, label_shape", [(0, (7, 12)), (1, (2, 3, 4)), (2, (56,)), (-1, (2, 7, 3))])
def test_accuracy_along_any_axis(axis: int, label_shape: tuple[int, ...]) -> None:
    t = np.random.default_rng(1).integers(0, SHAPE[axis], label_shape).astype(np.float32)
    check(
        f"{ACCURACY} accuracy_param {{ axis: {axis} }}",
        SHAPE,
        label_shape,
        inputs=[distinct(*SHAPE), t],
        oracle=lambda x, t: accuracy(x, t, 1, axis)[0],
        gradient=False,
    )


def test_a_tie_with_the_true_class_counts_against_it() -> None:
    x = torch.tensor([[1.0, 1.0, 0.0], [2.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
    t = torch.tensor([0.0, 2.0, 1.0])
    assert [build(f"{ACCURACY} accuracy_param {{ top_k: {k} }}", (3, 3), (3,))(x, t).item() for k in (1, 2, 3)] == [
        0,
        pytest.approx(1 / 3),
        1,
    ]


def test_scores_that_are_not_numbers_are_never_right() -> None:
    assert build(ACCURACY, (2, 3), (2,))(torch.full((2, 3), math.nan), torch.zeros(2)) == 0


def test_accuracy_where_every_label_is_ignored_is_zero() -> None:
    layer = build(f'{ACCURACY} top: "a" top: "c" accuracy_param {{ ignore_label: -1 }}', (2, 3), (2,))
    value, classes = layer(torch.eye(2, 3), torch.full((2,), -1.0))
    assert value == 0 and classes.tolist() == [0, 0, 0]


def test_accuracy_has_no_gradient_and_is_no_loss() -> None:
    x = torch.randn(2, 3, requires_grad=True)
    assert not build(ACCURACY, (2, 3), (2,))(x, torch.zeros(2)).requires_grad
    assert metric.Accuracy.no_gradient == (0, 1) and not metric.Accuracy.is_loss


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_accuracy_in_every_precision(dtype: torch.dtype) -> None:
    value = build(ACCURACY, (3, 2), (3,))(torch.tensor([[0, 1], [1, 0], [1, 0]], dtype=dtype), torch.tensor([1, 0, 1]))
    assert value.item() == pytest.approx(2 / 3)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize(
    "label, setting, words",
    [
        (3, "", "label 3 of item 4 is past the 3 classes of 'ip2'; labels run from 0 to 2"),
        (-1, "", "label -1 of item 4 is negative; .* set ignore_label: -1"),
        (-1, "ignore_label: 1", "label -1 of item 4 is negative"),
        (math.nan, "ignore_label: 1", "label nan of item 4 is not a number"),
    ],
)
def test_accuracy_names_the_label_past_the_classes(label: float, setting: str, words: str) -> None:
    layer = build(f'name: "acc" {ACCURACY} accuracy_param {{ {setting} }}', (6, 3, 2), (6, 2))
    t = torch.zeros(6, 2)
    t[4, 1] = label
    with pytest.raises(DataError, match=f"^layer 'acc': {words}") as caught:
        layer(torch.randn(6, 3, 2), t)
    assert caught.value.item == 4  # type: ignore[attr-defined]


def test_accuracy_on_an_accelerator_is_nan_for_labels_past_the_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = build(f"{ACCURACY} accuracy_param {{ ignore_label: 255 }}", (4, 3), (4,))
    x, good = torch.from_numpy(distinct(4, 3)), torch.tensor([0.0, 1.0, 255.0, 0.0])
    expected = layer(x, good)
    monkeypatch.setattr(metric, "torch_checks", lambda x: False)
    assert layer(x, good) == expected
    for bad in (3.0, -1.0, math.nan):
        assert layer(x, torch.tensor([0.0, 1.0, bad, 0.0])).isnan()


def test_accuracy_refuses_wrong_settings() -> None:
    with pytest.raises(SpecError, match=r"'l' \(Accuracy\): top_k 4 is past the 3 classes of 'ip2' \(2, 3\)"):
        build(f"{ACCURACY} accuracy_param {{ top_k: 4 }}", (2, 3), (2,))
    with pytest.raises(SpecError, match="axis 2 is out of range for a blob of 2 dimensions"):
        build(f"{ACCURACY} accuracy_param {{ axis: 2 }}", (2, 3), (2,))
    with pytest.raises(
        ShapeError,
        match=r"expected 2 labels, one for each prediction along axis 1, got 4: 'ip2' \(2, 3\), 'label' \(4,\)",
    ):
        build(ACCURACY, (2, 3), (4,))
