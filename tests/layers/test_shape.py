"""Concat, Eltwise, Flatten, Reshape, Split, Silence against NumPy, their gradients, and their error texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import ShapeError, SpecError
from caffecli.layers import registry, shape
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import LayerParameter


def make(text: str, *shapes: tuple[int, ...]) -> Layer:
    """The layer of a prototxt, set up; shapes are checked on the meta device too."""
    layer = registry.create(text_format.Parse(f'name: "l" {text}', LayerParameter()))
    layer.check_counts(len(shapes), len(layer.param.top))
    layer.setup(list(shapes))
    layer.infer(list(shapes))
    return layer


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


# -- Concat --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setting, axis", [("", 1), ("axis: 1", 1), ("axis: -3", 1), ("concat_dim: 1", 1)])
def test_concat_joins_along_the_axis(setting: str, axis: int) -> None:
    xs = random((2, 3, 4, 5), (2, 1, 4, 5), (2, 6, 4, 5))
    layer = make(f"{CONCAT} concat_param {{ {setting} }}", *(tuple(x.shape) for x in xs))
    np.testing.assert_array_equal(layer(*xs).detach(), np.concatenate([x.detach() for x in xs], axis))
    assert torch.autograd.gradcheck(layer, xs)


def test_concat_along_the_first_axis() -> None:
    xs = random((2, 3), (5, 3), (1, 3))
    assert make(f"{CONCAT} concat_param {{ concat_dim: 0 }}", (2, 3), (5, 3), (1, 3))(*xs).shape == (8, 3)


def test_concat_of_one_bottom_passes_it_on() -> None:
    (x,) = random((2, 7))
    assert make('type: "Concat" bottom: "a" top: "y"', (2, 7))(x) is x


def test_concat_names_the_bottoms_that_do_not_fit() -> None:
    with pytest.raises(
        ShapeError, match=r"'l' \(Concat\): .*agree in every dimension but axis 1, got 'a' \(2, 3\), 'b' \(4, 3\)"
    ):
        make(CONCAT, (2, 3), (4, 3), (2, 3))
    with pytest.raises(ShapeError, match=r"'c' \(2, 3, 1\)"):
        make(CONCAT, (2, 3), (2, 3), (2, 3, 1))


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
        make(f"{CONCAT} concat_param {{ {setting} }}", (2, 3), (2, 3), (2, 3))


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
def test_eltwise(setting: str, oracle: object) -> None:
    xs = random((2, 7, 3, 4), (2, 7, 3, 4), (2, 7, 3, 4))
    layer = make(f"{ELTWISE} eltwise_param {{ {setting} }}", *[(2, 7, 3, 4)] * 3)
    np.testing.assert_allclose(layer(*xs).detach(), oracle(*(x.detach().numpy() for x in xs)), rtol=1e-12)  # type: ignore[operator]
    assert torch.autograd.gradcheck(layer, xs)


def test_eltwise_max_sends_the_gradient_of_a_tie_to_one_bottom() -> None:
    a = torch.tensor([1.0, 2.0, 1.0, 3.0, 3.0], requires_grad=True)
    b = torch.tensor([1.0, 1.0, 2.0, 3.0, 1.0], requires_grad=True)
    c = torch.tensor([1.0, 2.0, 2.0, 4.0, 3.0], requires_grad=True)
    y = make(f"{ELTWISE} eltwise_param {{ operation: MAX }}", (5,), (5,), (5,))(a, b, c)
    y.backward(torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0]))
    assert y.tolist() == [1, 2, 2, 4, 3]
    assert a.grad is not None and a.grad.tolist() == [0, 10, 0, 0, 10000]
    assert b.grad is not None and b.grad.tolist() == [1, 0, 100, 0, 0]
    assert c.grad is not None and c.grad.tolist() == [0, 0, 0, 1000, 0]


def test_eltwise_prod_has_a_gradient_at_zero() -> None:
    a, b, c = (torch.tensor([v], requires_grad=True) for v in (0.0, 2.0, 3.0))
    make(f"{ELTWISE} eltwise_param {{ operation: PROD }}", (1,), (1,), (1,))(a, b, c).backward()
    assert (a.grad, b.grad, c.grad) == (torch.tensor([6.0]), torch.tensor([0.0]), torch.tensor([0.0]))


def test_eltwise_refuses_wrong_settings() -> None:
    with pytest.raises(ShapeError, match=r"one shape, got 'a' \(2, 3\), 'b' \(2, 3\), 'c' \(3, 2\)"):
        make(ELTWISE, (2, 3), (2, 3), (3, 2))
    with pytest.raises(SpecError, match="one coeff for each of the 3 bottoms, got 2"):
        make(f"{ELTWISE} eltwise_param {{ coeff: 1 coeff: 2 }}", (2,), (2,), (2,))
    with pytest.raises(SpecError, match="coeff goes with operation SUM, not PROD"):
        make(f"{ELTWISE} eltwise_param {{ operation: PROD coeff: 1 coeff: 2 coeff: 3 }}", (2,), (2,), (2,))
    with pytest.raises(SpecError, match=r"expected at least 2 bottom blob\(s\), got 1"):
        make(ELTWISE, (2,))


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
    (x,) = random((2, 7, 3, 4))
    layer = make(f"{FLATTEN} flatten_param {{ {setting} }}", (2, 7, 3, 4))
    assert layer.infer([(2, 7, 3, 4)]) == [expected]
    np.testing.assert_array_equal(layer(x).detach(), x.detach().numpy().reshape(expected))
    assert torch.autograd.gradcheck(layer, x)


def test_flatten_keeps_the_order_of_values_in_any_memory_format() -> None:
    (x,) = random((2, 7, 3, 4))
    y = make(FLATTEN, (2, 7, 3, 4))(x.to(memory_format=torch.channels_last))
    assert torch.equal(y, x.reshape(2, -1))


def test_flatten_refuses_wrong_axes() -> None:
    with pytest.raises(SpecError, match="axis 4 is out of range for a blob of 4 dimensions"):
        make(f"{FLATTEN} flatten_param {{ axis: 4 }}", (2, 7, 3, 4))
    with pytest.raises(SpecError, match="end_axis -5 is out of range"):
        make(f"{FLATTEN} flatten_param {{ end_axis: -5 }}", (2, 7, 3, 4))
    with pytest.raises(SpecError, match="axis 3 comes after end_axis 1"):
        make(f"{FLATTEN} flatten_param {{ axis: 3 end_axis: 1 }}", (2, 7, 3, 4))
    with pytest.raises(SpecError, match="axis 1 is out of range for a blob of 1 dim"):
        make(FLATTEN, (5,))


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
    (x,) = random((2, 7, 3, 4))
    layer = make(f"{RESHAPE} reshape_param {{ {setting} }}", (2, 7, 3, 4))
    np.testing.assert_array_equal(layer(x).detach(), x.detach().numpy().reshape(expected))
    assert layer(x).shape == expected
    assert torch.autograd.gradcheck(layer, x)


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
        make(f"{RESHAPE} reshape_param {{ {setting} }}", (2, 7, 3, 4))


def test_reshape_refuses_counts_that_do_not_agree() -> None:
    with pytest.raises(ShapeError, match=r"shape \(2, 5\) takes 10 values, 'x' \(2, 7, 3, 4\) has 168; mend reshape_param"):
        make(f"{RESHAPE} reshape_param {{ shape {{ dim: 0 dim: 5 }} }}", (2, 7, 3, 4))
    with pytest.raises(ShapeError, match=r"takes a multiple of 10 values"):
        make(f"{RESHAPE} reshape_param {{ shape {{ dim: 0 dim: 5 dim: -1 }} }}", (2, 7, 3, 4))


@pytest.mark.parametrize("kind", ["Flatten", "Reshape", "Split"])
def test_no_view_works_in_place(kind: str) -> None:
    with pytest.raises(SpecError, match="cannot work in place on 'x'; give the top another name"):
        make(f'type: "{kind}" bottom: "x" top: "x"', (2, 3))


# -- Split and Silence ---------------------------------------------------------------------------------------------


def test_split_hands_on_the_bottom_and_adds_the_gradients() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    layer = make('type: "Split" bottom: "x" top: "x_0" top: "x_1" top: "x_2"', (2,))
    a, b, c = layer(x)
    assert layer.infer([(2,)]) == [(2,)] * 3
    (a + 2 * b + 4 * c * c).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [11, 19]


def test_silence_makes_nothing() -> None:
    layer = make('type: "Silence" bottom: "a" bottom: "b"', (2,), (3, 4))
    assert layer(*random((2,), (3, 4))) == ()
    assert layer.infer([(2,), (3, 4)]) == []
    with pytest.raises(SpecError, match=r"expected 0 top blob\(s\), got 1"):
        make('type: "Silence" bottom: "a" top: "y"', (2,))
