"""MultinomialLogisticLoss and InfogainLoss against NumPy, the recorded answers, and their error texts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import DataError, FormatError, ShapeError, SpecError
from caffecli.formats import blob
from tests.layers.oracle import build, check, distinct, run_golden

MULTINOMIAL = 'type: "MultinomialLogisticLoss" bottom: "p" bottom: "t"'
INFOGAIN = 'type: "InfogainLoss" bottom: "x" bottom: "t"'
THREE = INFOGAIN + ' bottom: "h"'


@pytest.mark.parametrize("case", ["multinomial", "infogain"])
def test_recorded_answers(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


def labels(classes: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, classes, shape).astype(np.float32)


@pytest.mark.parametrize(("shape", "label_shape"), [((5, 3), (5,)), ((2, 7, 3, 4), (2, 1, 1, 1))])
def test_multinomial(shape: tuple[int, ...], label_shape: tuple[int, ...]) -> None:
    p = (distinct(*shape) + 2.1) / 5
    t = labels(math.prod(shape[1:]), *label_shape)

    def oracle(p: np.ndarray, t: np.ndarray) -> np.ndarray:
        rows = p.reshape(len(p), -1)
        return np.array(-sum(math.log(row[int(label)]) for row, label in zip(rows, t.ravel(), strict=True)) / len(p))

    check(MULTINOMIAL, shape, label_shape, inputs=[p, t], gradient=[0], oracle=oracle)


def test_multinomial_caps_small_probabilities_and_their_gradient() -> None:
    p = torch.tensor([[0.0, 1], [-0.5, 1]], requires_grad=True)
    loss = build(MULTINOMIAL, (2, 2), (2,))(p, torch.zeros(2))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-20))
    np.testing.assert_allclose(p.grad, [[-5e19, 0], [-5e19, 0]], rtol=1e-5)


def test_multinomial_refuses_labels_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match="expected 2 labels"):
        build(MULTINOMIAL, (2, 3), (2, 2))
    with pytest.raises(DataError, match="label 3 of item 1 is past the 3 classes of 'p'"):
        build(MULTINOMIAL, (2, 3), (2,))(torch.ones(2, 3), torch.tensor([0.0, 3.0]))


def infogain(
    x: np.ndarray, t: np.ndarray, h: np.ndarray, divisor: str, axis: int = 1, ignore: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The loss and the probabilities, one prediction after the other."""
    e = np.exp(x - x.max(axis, keepdims=True))
    prob = e / e.sum(axis, keepdims=True)
    p, t = np.moveaxis(prob, axis, -1).reshape(-1, x.shape[axis]), t.astype(int).ravel()
    kept = [i for i in range(len(t)) if t[i] != ignore]
    h = h.reshape(x.shape[axis], -1)
    by = {"FULL": len(t), "VALID": len(kept), "BATCH_SIZE": math.prod(x.shape[:axis]), "NONE": 1}[divisor]
    return np.array(-sum((h[t[i]] * np.log(np.maximum(p[i], 1e-20))).sum() for i in kept) / max(1, by)), prob


@pytest.mark.parametrize("ignore", [None, -1, 2])
@pytest.mark.parametrize("normalization", ["", "FULL", "VALID", "BATCH_SIZE", "NONE"])
def test_infogain(normalization: str, ignore: int | None) -> None:
    t = labels(7, 2, 3, 4)
    if ignore is not None:
        t[0, :2] = ignore
    setting = f"normalization: {normalization} " * bool(normalization) + f"ignore_label: {ignore}" * (
        ignore is not None
    )
    check(
        f'{THREE} top: "loss" top: "p" loss_param {{ {setting} }}', (2, 7, 3, 4), t.shape, (1, 1, 7, 7),
        inputs=[distinct(2, 7, 3, 4), t, distinct(1, 1, 7, 7, seed=4)], gradient=[0],
        oracle=lambda x, t, h: infogain(x, t, h, normalization or "VALID", ignore=ignore),
    )  # fmt: skip


@pytest.mark.parametrize(("axis", "label_shape"), [(3, (2, 7, 3)), (-2, (2, 7, 4))])
def test_infogain_along_another_axis(axis: int, label_shape: tuple[int, ...]) -> None:
    shape = (2, 7, 3, 4)
    classes = shape[axis]
    check(
        f"{THREE} infogain_loss_param {{ axis: {axis} }}", shape, label_shape, (classes**2,),
        inputs=[distinct(*shape), labels(classes, *label_shape), distinct(classes**2, seed=4)], gradient=[0],
        oracle=lambda x, t, h: infogain(x, t, h, "VALID", axis % 4)[0],
    )  # fmt: skip


@pytest.mark.parametrize("shape", [(3, 3), (1, 1, 3, 3)])
def test_infogain_reads_its_matrix(tmp_path: Path, shape: tuple[int, ...]) -> None:
    h = distinct(*shape, seed=4)
    path = tmp_path / "h.binaryproto"
    path.write_bytes(blob.from_array(h).SerializeToString())
    layer = check(
        f'{INFOGAIN} infogain_loss_param {{ source: "{path}" }}', (5, 3), (5,),
        inputs=[distinct(5, 3), labels(3, 5)], gradient=[0],
        oracle=lambda x, t: infogain(x, t, h.astype(np.float64), "VALID")[0],
    )  # fmt: skip
    assert not layer.blobs and not layer.state_dict()


def test_infogain_with_the_unit_matrix_is_the_softmax_loss() -> None:
    x, t = torch.from_numpy(distinct(4, 3)), torch.from_numpy(labels(3, 4))
    expected = build('type: "SoftmaxWithLoss" bottom: "x" bottom: "t"', (4, 3), (4,))(x, t)
    torch.testing.assert_close(build(THREE, (4, 3), (4,), (3, 3))(x, t, torch.eye(3)), expected)


def test_infogain_caps_the_loss_and_not_the_gradient() -> None:
    x = torch.tensor([[0.0, 100]], requires_grad=True)
    loss = build(THREE, (1, 2), (1,), (2, 2))(x, torch.zeros(1), torch.eye(2))
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(1e-20))
    assert x.grad.tolist() == [[-1, 1]]


def test_infogain_refusals(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"the infogain matrix is missing; name its file in infogain_loss_param { source }"
    ):
        build(INFOGAIN, (4, 3), (4,))
    with pytest.raises(SpecError, match="normalize is too old for this layer; use normalization"):
        build(f"{THREE} loss_param {{ normalize: true }}", (4, 3), (4,), (3, 3))
    with pytest.raises(
        ShapeError, match=r"expected an infogain matrix of 3 x 3 values for 3 classes, got .*'h' \(2, 3\)"
    ):
        build(THREE, (4, 3), (4,), (2, 3))
    with pytest.raises(ShapeError, match="expected 4 labels"):
        build(THREE, (4, 3), (4, 2), (3, 3))
    with pytest.raises(FormatError, match=r"nowhere.binaryproto"):
        build(f'{INFOGAIN} infogain_loss_param {{ source: "nowhere.binaryproto" }}', (4, 3), (4,))
    wrong = tmp_path / "h.binaryproto"
    wrong.write_bytes(blob.from_array(np.zeros((2, 2), np.float32)).SerializeToString())
    with pytest.raises(ShapeError, match=r"3 x 3 values for 3 classes, got '.*h.binaryproto' \(2, 2\)"):
        build(f'{INFOGAIN} infogain_loss_param {{ source: "{wrong}" }}', (4, 3), (4,))
    wrong.write_bytes(b"\xff\xff not a blob")
    with pytest.raises(FormatError, match="an infogain matrix"):
        build(f'{INFOGAIN} infogain_loss_param {{ source: "{wrong}" }}', (4, 3), (4,))
    with pytest.raises(DataError, match="label 3 of item 0 is past the 3 classes"):
        build(THREE, (1, 3), (1,), (3, 3))(torch.zeros(1, 3), torch.tensor([3.0]), torch.eye(3))
