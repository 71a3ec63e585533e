"""HingeLoss and ContrastiveLoss against NumPy, the recorded answers, and their error texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import DataError, ShapeError
from tests.layers.oracle import build, check, distinct, run_golden

HINGE = 'type: "HingeLoss" bottom: "x" bottom: "t"'
CONTRASTIVE = 'type: "ContrastiveLoss" bottom: "a" bottom: "b" bottom: "s"'


@pytest.mark.parametrize("case", ["hinge", "contrastive"])
def test_recorded_answers(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


def hinge(x: np.ndarray, t: np.ndarray, power: int) -> np.ndarray:
    x = x.reshape(len(x), -1)
    return np.array(
        sum(
            max(0.0, 1 - (1 if c == int(t.flat[i]) else -1) * x[i, c]) ** power
            for i in range(len(x))
            for c in range(x.shape[1])
        )
        / len(x)
    )


@pytest.mark.parametrize("shape", [(5, 3), (2, 7, 3, 4)])
@pytest.mark.parametrize("label_axes", [0, 3])
@pytest.mark.parametrize(("settings", "power"), [("", 1), ("norm: L1", 1), ("norm: L2", 2)])
def test_hinge(settings: str, power: int, label_axes: int, shape: tuple[int, ...]) -> None:
    t = np.random.default_rng(0).integers(0, np.prod(shape[1:]), shape[:1] + (1,) * label_axes).astype(np.float32)
    check(
        f"{HINGE} hinge_loss_param {{ {settings} }}", shape, t.shape,
        oracle=lambda x, t: hinge(x, t, power), inputs=[distinct(*shape), t + 0.5], gradient=[0],
    )  # fmt: skip


def test_hinge_has_no_gradient_at_the_margin() -> None:
    x = torch.tensor([[1.0, -1.0, 2.0]], requires_grad=True)
    build(HINGE, (1, 3), (1,))(x, torch.zeros(1)).backward()
    assert x.grad.tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("label", [3, -1, np.nan])
def test_hinge_refuses_a_label_that_is_no_class(label: float) -> None:
    with pytest.raises(DataError, match=r"layer 'l': label .* of item 1 .*labels run from 0 to 2"):
        build(HINGE, (2, 3), (2,))(torch.zeros(2, 3), torch.tensor([0, label]))


def test_hinge_refuses_other_counts() -> None:
    with pytest.raises(ShapeError, match="expected 4 labels, one for each prediction along axis 1, got 8"):
        build(HINGE, (4, 3), (4, 2))


def contrast(a: np.ndarray, b: np.ndarray, s: np.ndarray, margin: float, legacy: bool) -> np.ndarray:
    total = 0.0
    for x, y, alike in zip(a.reshape(len(a), -1), b.reshape(len(a), -1), s.ravel(), strict=True):
        square = float(((x - y) ** 2).sum())
        if int(alike):
            total += square
        else:
            total += max(0.0, margin - square) if legacy else max(0.0, margin - square**0.5) ** 2
    return np.array(total / (2 * len(a)))


@pytest.mark.parametrize("axes", [0, 2])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("margin", [1, 4, 9])
def test_contrastive(margin: float, legacy: bool, axes: int) -> None:
    shape = (6, 3, *(1,) * axes)
    s = np.array([0, 1, 0.9, 2, -1, 0], np.float32)
    check(
        f"{CONTRASTIVE} contrastive_loss_param {{ margin: {margin} legacy_version: {str(legacy).lower()} }}",
        shape, shape, (6,), oracle=lambda a, b, s: contrast(a, b, s, margin, legacy),
        inputs=[10 * distinct(*shape), 10 * distinct(*shape, seed=1), s], gradient=[0, 1],
    )  # fmt: skip


def test_contrastive_gradient_is_that_of_caffe() -> None:
    a = torch.tensor([[3e-4, 4e-4], [0.3, 0.4], [1, 1]], requires_grad=True)
    b = torch.tensor([[0, 0], [0.0, 0.0], [1, 1]], requires_grad=True)
    build(CONTRASTIVE, (3, 2), (3, 2), (3,))(a, b, torch.zeros(3)).backward()
    d = np.array([5e-4, 0.5])
    slopes = -(1 - d) / (d + 1e-4) / 3
    np.testing.assert_allclose(a.grad[:2], slopes[:, None] * np.array([[3e-4, 4e-4], [0.3, 0.4]]), rtol=1e-4)
    assert a.grad[2].tolist() == [0, 0]
    assert torch.equal(a.grad, -b.grad)


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        (((4, 3), (4, 2), (4,)), "expected two bottoms of one shape (N, C), got 'a' (4, 3), 'b' (4, 2), 's' (4,)"),
        (((4, 3, 2), (4, 3, 2), (4,)), "expected two bottoms of one shape (N, C)"),
        (((4, 3), (4, 3), (4, 2)), "expected 4 values, one for each pair, as third bottom"),
        (((4, 3), (5, 3), (4,)), "expected bottoms with as many items"),
    ],
)
def test_contrastive_refuses_bottoms_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], words: str) -> None:
    with pytest.raises(ShapeError) as caught:
        build(CONTRASTIVE, *shapes)
    assert words in str(caught.value)
