"""Concat, Eltwise, Flatten, Reshape, Split, Silence against NumPy, their gradients, and their error texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError, SpecError
from caffecli.layers import registry, shape
from caffecli.proto.caffe_pb2 import LayerParameter
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden


def random(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]


CONCAT = 'type: "Concat" bottom: "a" bottom: "b" bottom: "c" top: "y"'
ELTWISE = 'type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y"'
FLATTEN = 'type: "Flatten" bottom: "x" top: "y"'
RESHAPE = 'type: "Reshape" bottom: "x" top: "y"'


def test_the_layers_are_registered() -> None:
    assert registry.layer_class("Concat") is shape.Concat
    assert {"Eltwise", "Flatten", "Reshape", "Split", "Silence"} <= set(registry.types())


@pytest.mark.parametrize(
    "case",
    [
        "concat",
        "eltwise_max",
        "eltwise_prod",
        "eltwise_sum",
        "eltwise_sum_coeff",
        "flatten",
        "reshape",
        "split_implicit",
    ],
)
def test_recorded_answers(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


# -- Concat --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting, axis", [("", 1), ("axis: 1", 1), ("axis: -3", 1), ("concat_dim: 1", 1)])
def test_concat_joins_along_the_axis(setting: str, axis: int) -> None:
    shapes = (2, 3, 1, 4), (2, 1, 1, 4), (2, 5, 1, 4)
    check(f"{CONCAT} concat_param {{ {setting} }}", *shapes, oracle=lambda *xs: np.concatenate(xs, axis))


def test_concat_along_the_first_axis() -> None:
    xs = random((2, 3), (5, 3), (1, 3))
    assert build(f"{CONCAT} concat_param {{ concat_dim: 0 }}", (2, 3), (5, 3), (1, 3))(*xs).shape == (8, 3)


def test_concat_of_one_bottom_passes_it_on() -> None:
    (x,) = random((2, 7))
    assert build('type: "Concat" bottom: "a" top: "y"', (2, 7))(x) is x


def test_concat_names_the_bottoms_that_do_not_fit() -> None:
    with pytest.raises(
        ShapeError, match=r"'l' \(Concat\): .*agree in every dimension but axis 1, got 'a' \(2, 3\), 'b' \(4, 3\)"
    ):
        build(CONCAT, (2, 3), (4, 3), (2, 3))
    with pytest.raises(ShapeError, match=r"'c' \(2, 3, 1\)"):
        build(CONCAT, (2, 3), (2, 3), (2, 3, 1))


@pytest.mark.parametrize(
    "setting, words",
    [
        ("axis: 1 concat_dim: 1", "keep axis, drop concat_dim"),
        ("axis: 2", "axis 2 is out of range for a blob of 2 dimensions"),
        ("axis: -3", "axis -3 is out of range"),
        ("concat_dim: 4294967295", "concat_dim 4294967295 is out of range"),
    ],
)
def test_concat_refuses_wrong_settings(setting: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build(f"{CONCAT} concat_param {{ {setting} }}", (2, 3), (2, 3), (2, 3))


# -- Eltwise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, oracle",
    [
        ("operation: PROD", lambda a, b, c: a * b * c),
        ("operation: PROD stable_prod_grad: false", lambda a, b, c: a * b * c),
        ("", lambda a, b, c: a + b + c),
        ("operation: SUM coeff: -1 coeff: 0.5 coeff: 3", lambda a, b, c: -a + 0.5 * b + 3 * c),
        ("operation: SUM coeff: 1 coeff: 1 coeff: 0", lambda a, b, c: a + b),
        ("operation: MAX", lambda a, b, c: np.maximum(np.maximum(a, b), c)),
    ],
)
def test_eltwise(setting: str, oracle: Callable[..., np.ndarray]) -> None:
    inputs = list(distinct(3, 2, 5, 3, 1))  # no ties between the bottoms
    check(f"{ELTWISE} eltwise_param {{ {setting} }}", *(x.shape for x in inputs), oracle=oracle, inputs=inputs)


def test_eltwise_max_sends_the_gradient_of_a_tie_to_one_bottom() -> None:
    a = torch.tensor([1.0, 2.0, 1.0, 3.0, 3.0], requires_grad=True)
    b = torch.tensor([1.0, 1.0, 2.0, 3.0, 1.0], requires_grad=True)
    c = torch.tensor([1.0, 2.0, 2.0, 4.0, 3.0], requires_grad=True)
    y = build(f"{ELTWISE} eltwise_param {{ operation: MAX }}", (5,), (5,), (5,))(a, b, c)
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    assert y.tolist() == [1, 2, 2, 4, 3]
    assert a.grad is not None and a.grad.tolist() == [0, 10, 0, 0, 10000]
    assert b.grad is not None and b.grad.tolist() == [1, 0, 100, 0, 0]
    assert c.grad is not None and c.grad.tolist() == [0, 0, 0, 1000, 0]


def test_eltwise_prod_has_a_gradient_at_zero() -> None:
    a, b, c = (torch.tensor([v], requires_grad=True) for v in (0.0, 2.0, 3.0))
    build(f"{ELTWISE} eltwise_param {{ operation: PROD }}", (1,), (1,), (1,))(a, b, c).backward()
    assert (a.grad, b.grad, c.grad) == (torch.tensor([6.0]), torch.tensor([0.0]), torch.tensor([0.0]))


def test_eltwise_refuses_wrong_settings() -> None:
    with pytest.raises(ShapeError, match=r"one shape, got 'a' \(2, 3\), 'b' \(2, 3\), 'c' \(3, 2\)"):
        build(ELTWISE, (2, 3), (2, 3), (3, 2))
    with pytest.raises(SpecError, match="one coeff for each of the 3 bottoms, got 2"):
        build(f"{ELTWISE} eltwise_param {{ coeff: 1 coeff: 2 }}", (2,), (2,), (2,))
    with pytest.raises(SpecError, match="coeff goes with operation SUM, not PROD"):
        build(f"{ELTWISE} eltwise_param {{ operation: PROD coeff: 1 coeff: 2 coeff: 3 }}", (2,), (2,), (2,))
    with pytest.raises(SpecError, match=r"expected at least 2 bottom blob\(s\), got 1"):
        build('type: "Eltwise" bottom: "a"', (2,))


# -- Flatten and Reshape -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("", (2, 84)),
        ("axis: 0", (168,)),
        ("axis: 2", (2, 7, 12)),
        ("axis: -2 end_axis: -1", (2, 7, 12)),
        ("axis: 1 end_axis: 2", (2, 21, 4)),
        ("axis: 0 end_axis: 1", (14, 3, 4)),
        ("axis: 3 end_axis: 3", (2, 7, 3, 4)),
        ("axis: 2 end_axis: 1", (2, 7, 1, 3, 4)),
    ],
)
def test_flatten(setting: str, expected: tuple[int, ...]) -> None:
    check(f"{FLATTEN} flatten_param {{ {setting} }}", SHAPE, oracle=lambda x: x.reshape(expected))


def test_flatten_keeps_the_order_of_values_in_any_memory_format() -> None:
    (x,) = random((2, 7, 3, 4))
    y = build(FLATTEN, (2, 7, 3, 4))(x.to(memory_format=torch.channels_last))
    assert torch.equal(y, x.reshape(2, -1))


def test_flatten_refuses_wrong_axes() -> None:
    with pytest.raises(SpecError, match="axis 4 is out of range for a blob of 4 dimensions"):
        build(f"{FLATTEN} flatten_param {{ axis: 4 }}", (2, 7, 3, 4))
    with pytest.raises(SpecError, match="end_axis -5 is out of range"):
        build(f"{FLATTEN} flatten_param {{ end_axis: -5 }}", (2, 7, 3, 4))
    with pytest.raises(SpecError, match="axis 3 comes after end_axis 1"):
        build(f"{FLATTEN} flatten_param {{ axis: 3 end_axis: 1 }}", (2, 7, 3, 4))
    with pytest.raises(SpecError, match="axis 1 is out of range for a blob of 1 dim"):
        build(FLATTEN, (5,))


@pytest.mark.parametrize(
    "setting, expected",
    [
        ("shape { dim: 0 dim: -1 }", (2, 84)),
        ("shape { dim: 0 dim: 0 dim: 12 }", (2, 7, 12)),
        ("shape { dim: -1 dim: 0 dim: 0 dim: 2 }", (4, 7, 3, 2)),
        ("shape { dim: 168 }", (168,)),
        ("shape { dim: 2 dim: -1 } axis: 1", (2, 2, 42)),
        ("shape { dim: 0 dim: -1 } axis: 1 num_axes: 2", (2, 7, 3, 4)),
        ("shape { dim: 21 } axis: 1 num_axes: 2", (2, 21, 4)),
        ("shape { dim: -1 } axis: -3 num_axes: 2", (2, 7, 12)),
        ("shape { dim: 1 } axis: 0 num_axes: 0", (1, 2, 7, 3, 4)),
        ("shape { dim: 1 dim: 1 } axis: -1", (2, 7, 3, 4, 1, 1)),
        ("shape { dim: 1 dim: -1 } axis: -1 num_axes: 0", (2, 7, 3, 4, 1, 1)),
        ("axis: 4", (2, 7, 3, 4)),
    ],
)
def test_reshape(setting: str, expected: tuple[int, ...]) -> None:
    layer = check(f"{RESHAPE} reshape_param {{ {setting} }}", SHAPE, oracle=lambda x: x.reshape(expected))
    assert layer.reshape([SHAPE]) == [expected]


@pytest.mark.parametrize(
    "setting, words",
    [
        ("shape { dim: -1 dim: -1 }", "more than one -1"),
        ("shape { dim: -2 }", "got -2"),
        ("shape { dim: 1 dim: 1 dim: 1 dim: 1 dim: 0 }", "dim 4 is 0, but 'x' .* has no axis 4 to copy"),
        ("axis: 5", "axis 5 is out of range for a blob of 4 dimensions"),
        ("axis: -6", "axis -6 is out of range"),
        ("num_axes: -2", "expected num_axes 0 or more, or -1 for all, got -2"),
        ("axis: 2 num_axes: 3", "axis 2 and num_axes 3 reach past the 4 dimensions"),
    ],
)
def test_reshape_refuses_wrong_settings(setting: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        build(f"{RESHAPE} reshape_param {{ {setting} }}", (2, 7, 3, 4))


def test_reshape_refuses_counts_that_do_not_agree() -> None:
    with pytest.raises(
        ShapeError, match=r"shape \(2, 5\) takes 10 values, 'x' \(2, 7, 3, 4\) has 168; mend reshape_param"
    ):
        build(f"{RESHAPE} reshape_param {{ shape {{ dim: 0 dim: 5 }} }}", (2, 7, 3, 4))
    with pytest.raises(ShapeError, match=r"takes a multiple of 10 values"):
        build(f"{RESHAPE} reshape_param {{ shape {{ dim: 0 dim: 5 dim: -1 }} }}", (2, 7, 3, 4))


@pytest.mark.parametrize("kind", ["Flatten", "Reshape", "Split"])
def test_no_view_works_in_place(kind: str) -> None:
    with pytest.raises(SpecError, match="cannot work in place on 'x'; give the top another name"):
        build(f'type: "{kind}" bottom: "x" top: "x"', (2, 3))


@pytest.mark.parametrize("text", [FLATTEN, f"{RESHAPE} reshape_param {{ shape {{ dim: 0 dim: -1 }} }}"])
def test_views_follow_a_bottom_that_changes_its_batch(text: str) -> None:
    layer = build(text, (2, 7, 3))
    assert [layer(torch.zeros(n, 7, 3)).shape for n in (2, 5, 1)] == [(2, 21), (5, 21), (1, 21)]


# -- Split and Silence ---------------------------------------------------------------------------------------------


def test_split_hands_on_the_bottom_and_adds_the_gradients() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    layer = build('type: "Split" bottom: "x" top: "x_0" top: "x_1" top: "x_2"', (2,))
    a, b, c = layer(x)
    assert layer.reshape([(2,)]) == [(2,)] * 3
    (a + 2 * b + 4 * c * c).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [11, 19]


def test_silence_makes_nothing() -> None:
    layer = registry.create(LayerParameter(name="l", type="Silence", bottom=["a", "b"]))
    layer.check_wiring(["a", "b"], [])
    layer.setup([(2,), (3, 4)])
    assert layer(*random((2,), (3, 4))) == ()
    assert layer.reshape([(2,), (3, 4)]) == []
    with pytest.raises(SpecError, match=r"expected 0 top blob\(s\), got 1"):
        layer.check_wiring(["a"], ["b"])
