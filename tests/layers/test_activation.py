"""The layers that map each value by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import ShapeError, SpecError
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden

GOLDENS = ["relu", "relu_leaky", "sigmoid", "tanh", "power", "power_frac", "dropout_test", "inplace_relu",
    "inplace_tanh",
           "absval", "bnll", "clip", "elu", "exp", "exp_base2", "log", "swish", "threshold", "prelu"]  # fmt: skip


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
    assert layer.reshape([(2, 3)]) == [(2, 3)]


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


def test_dropout_of_bayesian_segnet_drops_in_the_test_phase_too():
    y = build('type: "Dropout" dropout_param { sample_weights_test: true }', (4000,), phase=TEST)(torch.ones(4000))
    assert set(y.tolist()) == {0, 2}


def test_dropout_that_scales_in_the_test_phase():
    """scale_train: false, of the Faster R-CNN nets for ZF."""
    text = 'type: "Dropout" dropout_param { dropout_ratio: 0.75 scale_train: false }'
    check(text, oracle=lambda x: x * 0.25, phase=TEST)
    x = torch.ones(4000)
    y = build(text, (4000,), phase=TRAIN)(x)
    assert set(y.tolist()) == {0, 1}
    assert 0.2 < y.mean() < 0.3


@pytest.mark.parametrize(
    "kind", ["ReLU", "Sigmoid", "TanH", "Power", "Dropout", "AbsVal", "BNLL", "ELU", "Exp", "Log", "PReLU"]
)
def test_they_take_one_bottom(kind: str) -> None:
    with pytest.raises(SpecError, match=r"expected 1 bottom blob\(s\), got 2"):
        build(f'type: "{kind}"', SHAPE, SHAPE)
    assert distinct(*SHAPE).min() < 0 < distinct(*SHAPE).max()


# -- the kin of ReLU -----------------------------------------------------------------------------------------------


def slope_at(text: str, *points: float) -> list[float]:
    """The gradient of a layer at these points."""
    x = torch.tensor(points, dtype=torch.float32, requires_grad=True)
    build(text, x.shape)(x).sum().backward()
    assert x.grad is not None
    return x.grad.tolist()


@pytest.mark.parametrize("shape", [SHAPE, (6, 7), (2, 5, 3), (2, 3, 2, 4, 3)])
def test_prelu_has_a_slope_for_each_channel(shape: tuple[int, ...]) -> None:
    def oracle(x: np.ndarray, slope: np.ndarray) -> np.ndarray:
        return np.maximum(x, 0) + slope.reshape(-1, *[1] * (x.ndim - 2)) * np.minimum(x, 0)

    layer = check('type: "PReLU"', shape, oracle=oracle)
    assert layer.blobs[0].shape == (shape[1],)


def test_prelu_with_one_slope_for_all() -> None:
    layer = check('type: "PReLU" prelu_param { channel_shared: true }', oracle=lambda x, s: np.where(x > 0, x, s * x))
    assert layer.blobs[0].shape == ()


def test_prelu_begins_with_its_filler() -> None:
    assert build('type: "PReLU"', SHAPE).blobs[0].tolist() == [0.25] * 7
    assert build('type: "PReLU" prelu_param { channel_shared: true }', SHAPE).blobs[0].item() == 0.25
    assert build('type: "PReLU" prelu_param { filler { value: -2 } }', (2, 1)).blobs[0].tolist() == [-2]
    assert build('type: "PReLU" prelu_param { filler { } }', (2, 1)).blobs[0].tolist() == [0]


def test_prelu_gradients_at_0() -> None:
    layer = build('type: "PReLU"', (2, 3))
    x = torch.zeros(2, 3, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None and x.grad.unique().tolist() == [0.25] and not layer.blobs[0].grad.any()


def test_prelu_needs_channels() -> None:
    with pytest.raises(ShapeError, match=r"layer 'l' \(PReLU\): expected a bottom of at least 2 axes.*, got \(5,\)"):
        build('type: "PReLU"', (5,))


@pytest.mark.parametrize("alpha", [1, 0.5, 0, 3])
def test_elu(alpha: float) -> None:
    text = f'type: "ELU" elu_param {{ alpha: {alpha} }}'
    check(text, oracle=lambda x: np.where(x > 0, x, alpha * (np.exp(x) - 1)))
    assert slope_at(text, 0) == [alpha]


def test_elu_has_alpha_1() -> None:
    check('type: "ELU"', (5, 3), oracle=lambda x: np.where(x > 0, x, np.exp(x) - 1))


def test_bnll() -> None:
    check('type: "BNLL"', oracle=lambda x: np.log(1 + np.exp(x)))


def test_bnll_far_from_0() -> None:
    x = torch.tensor([-1000.0, -80, 40, 60, 1000])
    y = build('type: "BNLL"', x.shape)(x)
    torch.testing.assert_close(y, torch.tensor([0, np.exp(-80.0), 40, 60, 1000], dtype=torch.float32))
    assert slope_at('type: "BNLL"', -1000, 40, 60, 1000) == [0, 1, 1, 1]


@pytest.mark.parametrize("beta", [1, 0, 0.3, -2, 4])
def test_swish(beta: float) -> None:
    check(f'type: "Swish" swish_param {{ beta: {beta} }}', oracle=lambda x: x / (1 + np.exp(-beta * x)))


def test_swish_has_beta_1() -> None:
    check('type: "Swish"', (5, 3), oracle=lambda x: x / (1 + np.exp(-x)))


def test_absval() -> None:
    check('type: "AbsVal"', oracle=np.abs)
    assert slope_at('type: "AbsVal"', -2, 0, 3) == [-1, 0, 1]
    with pytest.raises(SpecError, match=r"layer 'l' \(AbsVal\): cannot work in place on 'x'"):
        build('type: "AbsVal" bottom: "x" top: "x"', SHAPE)


@pytest.mark.parametrize(("least", "most"), [(-1, 1.5), (0, 0.3), (-5, 5), (0.7, 0.7)])
def test_clip(least: float, most: float) -> None:
    check(f'type: "Clip" clip_param {{ min: {least} max: {most} }}', oracle=lambda x: np.clip(x, least, most))


def test_clip_passes_the_gradient_at_both_ends() -> None:
    assert slope_at('type: "Clip" clip_param { min: -1 max: 2 }', -1.5, -1, 0, 2, 2.5) == [0, 1, 1, 1, 0]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", r"min and max missing; expected clip_param \{ min"),
        ("clip_param { min: 2 max: 1 }", "expected min <= max, got min: 2 and max: 1"),
    ],
)
def test_clip_needs_two_ends_in_order(settings: str, words: str) -> None:
    with pytest.raises(SpecError, match=rf"layer 'l' \(Clip\): {words}"):
        build(f'type: "Clip" {settings}', SHAPE)


@pytest.mark.parametrize("threshold", [0, 0.3, -1])
def test_threshold(threshold: float) -> None:
    text = f'type: "Threshold" threshold_param {{ threshold: {threshold} }}'
    layer = check(text, oracle=lambda x: (x > threshold).astype(float), gradient=False)
    x = torch.tensor([threshold - 1.0, threshold, threshold + 1], requires_grad=True)
    y = layer(x)
    assert y.tolist() == [0, 0, 1] and not y.requires_grad and y.dtype == x.dtype


@pytest.mark.parametrize("kind", ["ELU", "BNLL", "Swish", "PReLU", "Exp", "Clip", "Log"])
def test_in_place_has_the_same_gradient(kind: str) -> None:
    """In the reference Clip, BNLL and Log, run in place, look for their bottom where their top is by now."""
    grads = []
    for top in ("h", "y"):
        settings = "clip_param { min: 0.5 max: 1 }" if kind == "Clip" else ""
        text = f"""
            force_backward: true
            layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 5 }} }} }}
            layer {{ name: "p" type: "Power" bottom: "x" top: "h" power_param {{ scale: 2 shift: 5 }} }}
            layer {{ name: "l" type: "{kind}" bottom: "h" top: "{top}" {settings} }}
            layer {{ name: "s" type: "Power" bottom: "{top}" top: "loss" loss_weight: 1 power_param {{ power: 2 }} }}
        """
        x = torch.from_numpy(distinct(2, 5)).requires_grad_()
        Whole(Net(text_format.Parse(text, NetParameter()))).forward({"x": x}).loss.backward()
        grads.append(x.grad)
    assert torch.equal(*grads)
