"""ReLU, Sigmoid, TanH, Power, Dropout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.contract import SHAPE, build, check, distinct, run_golden

GOLDENS = ["relu", "relu_leaky", "sigmoid", "tanh", "power", "power_frac", "dropout_test", "inplace_relu", "inplace_tanh"]


@pytest.mark.parametrize("case", GOLDENS)
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


@pytest.mark.parametrize("shape", [SHAPE, (5,), (2, 3, 4, 5, 2)])
@pytest.mark.parametrize("slope", [0, 0.1, -0.5])
def test_relu(slope: float, shape: tuple[int, ...]) -> None:
    text = f'type: "ReLU" relu_param {{ negative_slope: {slope} engine: CUDNN }}'
    check(text, shape, oracle=lambda x: np.where(x > 0, x, slope * x))


@pytest.mark.parametrize("slope", [0, 0.25])
def test_relu_gradient_at_0_is_the_slope(slope: float) -> None:
    x = torch.zeros(3, requires_grad=True)
    build(f'type: "ReLU" relu_param {{ negative_slope: {slope} }}', (3,))(x).sum().backward()
    assert x.grad is not None and torch.equal(x.grad, torch.full((3,), slope))


def test_sigmoid() -> None:
    check('type: "Sigmoid"', oracle=lambda x: 1 / (1 + np.exp(-x)))


def test_tanh() -> None:
    check('type: "TanH"', oracle=np.tanh)


@pytest.mark.parametrize(
    ("power", "scale", "shift"),
    [
        (1, 1, 0),
        (1, 2, 0),
        (1, -0.5, 3),
        (2, 1, 0),
        (2, 0.5, -1),
        (3, 1, 0),
        (-1, 1, 3),
        (0.5, 1, 2.5),
        (0.75, -0.5, 2.5),
        (-0.75, 1, 3),
    ],
)
def test_power(power: float, scale: float, shift: float) -> None:
    text = f'type: "Power" power_param {{ power: {power} scale: {scale} shift: {shift} }}'
    check(text, oracle=lambda x: (shift + scale * x) ** power)


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ("power: 0", 1),
        ("power: 0 shift: -2", 1),
        ("scale: 0 shift: 3 power: 2", 9),
        ("scale: 0", 0),
        ("scale: 0 shift: -2 power: 0.5", np.nan),
    ],
)
def test_power_that_ignores_its_bottom(settings: str, value: float) -> None:
    layer = build(f'type: "Power" power_param {{ {settings} }}', (2, 3))
    y = layer(torch.tensor([[np.inf, np.nan, 0.0], [1, 2, 3]]))
    np.testing.assert_array_equal(y.numpy(), np.full((2, 3), value))
    assert layer.infer([(2, 3)]) == [(2, 3)]


@pytest.mark.parametrize(("power", "slope"), [(1, 1), (2, 0), (3, 0)])
def test_power_has_the_true_gradient_at_0(power: int, slope: float) -> None:
    x = torch.zeros(2, requires_grad=True)
    build(f'type: "Power" power_param {{ power: {power} }}', (2,))(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [slope, slope]


def test_dropout_keeps_its_share_and_scales_it() -> None:
    layer = check('type: "Dropout" dropout_param { dropout_ratio: 0.75 }', random=True)
    torch.manual_seed(0)
    x = torch.ones(100, 100, requires_grad=True)
    y = layer(x)
    assert set(y.detach().unique().tolist()) == {0, 4}
    assert abs((y != 0).float().mean() - 0.25) < 0.02
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y)
    assert not torch.equal(layer(x), y)


def test_dropout_passes_all_in_test_phase() -> None:
    check('type: "Dropout"', oracle=lambda x: x, phase=TEST)
    assert build('type: "Dropout"', (2,)).ratio == 0.5


def test_dropout_of_ratio_0_passes_all() -> None:
    check('type: "Dropout" dropout_param { dropout_ratio: 0 }', oracle=lambda x: x, phase=TRAIN)


@pytest.mark.parametrize("ratio", [1, -0.1, 50])
def test_dropout_refuses_other_ratios(ratio: float) -> None:
    with pytest.raises(SpecError, match=rf"layer 'l' \(Dropout\): expected 0 <= dropout_ratio < 1, got {ratio:g}"):
        build(f'type: "Dropout" dropout_param {{ dropout_ratio: {ratio} }}', SHAPE)


@pytest.mark.parametrize("kind", ["ReLU", "Sigmoid", "TanH", "Power", "Dropout"])
def test_they_take_one_bottom(kind: str) -> None:
    with pytest.raises(SpecError, match=r"expected 1 bottom blob\(s\), got 2"):
        build(f'type: "{kind}"', SHAPE, SHAPE)
    assert distinct(*SHAPE).min() < 0 < distinct(*SHAPE).max()
