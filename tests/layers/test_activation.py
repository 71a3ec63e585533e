"""The layers that map each value by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError, SpecError
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.contract import SHAPE, build, check, distinct, run_golden

GOLDENS = ["relu", "relu_leaky", "sigmoid", "tanh", "power", "power_frac", "dropout_test", "inplace_relu", "inplace_tanh",
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


@pytest.mark.parametrize("kind", ["ReLU", "Sigmoid", "TanH", "Power", "Dropout", "AbsVal", "BNLL", "ELU", "Exp", "Log", "PReLU"])
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
        ("clip_param { max: 1 }", "min missing"),
        ("clip_param { min: 0 }", "max missing"),
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


# -- exponentials and logarithms -----------------------------------------------------------------------------------

SETTINGS = [
    ("", np.e, 1, 0),
    ("base: -1 scale: -0.5 shift: 2.5", np.e, -0.5, 2.5),
    ("base: 2", 2, 1, 0),
    ("base: 0.5 scale: 2 shift: 4.5", 0.5, 2, 4.5),
    ("shift: 3", np.e, 1, 3),
    ("base: 10 scale: 0.25 shift: 1", 10, 0.25, 1),
]


@pytest.mark.parametrize(("settings", "base", "scale", "shift"), SETTINGS)
def test_exp(settings: str, base: float, scale: float, shift: float) -> None:
    check(f'type: "Exp" exp_param {{ {settings} }}', oracle=lambda x: base ** (shift + scale * x), tolerance=1e-4)


@pytest.mark.parametrize(("settings", "base", "scale", "shift"), SETTINGS)
def test_log(settings: str, base: float, scale: float, shift: float) -> None:
    inputs = [np.abs(distinct(*SHAPE)) + 0.1 if shift < 2.5 else distinct(*SHAPE)]
    check(
        f'type: "Log" log_param {{ {settings} }}', inputs=inputs,
        oracle=lambda x: np.log(shift + scale * x) / np.log(base),
    )  # fmt: skip


def test_exp_to_base_1_is_1() -> None:
    assert build('type: "Exp" exp_param { base: 1 shift: 3 }', (2,))(torch.tensor([-5.0, 5])).tolist() == [1, 1]


def test_log_at_its_border() -> None:
    assert build('type: "Log"', (2,))(torch.tensor([0.0, 1])).tolist() == [-np.inf, 0]
    assert build('type: "Log"', (1,))(torch.tensor([-1.0])).isnan().all()


@pytest.mark.parametrize("base", [0, -2, -0.5])
@pytest.mark.parametrize(("kind", "message"), [("Exp", "exp_param"), ("Log", "log_param")])
def test_a_base_needs_a_logarithm(kind: str, message: str, base: float) -> None:
    with pytest.raises(SpecError, match=rf"layer 'l' \({kind}\): expected a base above 0, or -1 for e, got {base:g}"):
        build(f'type: "{kind}" {message} {{ base: {base} }}', SHAPE)


def test_no_logarithm_to_base_1() -> None:
    with pytest.raises(SpecError, match=r"layer 'l' \(Log\): expected a base other than 1"):
        build('type: "Log" log_param { base: 1 }', SHAPE)
