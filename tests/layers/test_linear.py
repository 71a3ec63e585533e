"""InnerProduct, Scale, Bias, Embed, Parameter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import CaffeError, DataError, ShapeError
from caffecli.layers import registry
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter
from tests.layers.oracle import SHAPE, build, check, distinct, layer_param, run_golden

GOLDENS = [
    "ip",
    "ip_nobias",
    "ip_transpose",
    "scale",
    "scale_bias",
    "scale_two_bottoms",
    "bias",
    "inplace_scale",
    "embed",
]


@pytest.mark.parametrize("case", GOLDENS)
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


@pytest.mark.parametrize(("axis", "lead"), [(1, (2,)), (0, ()), (2, (2, 7)), (3, (2, 7, 3)), (-1, (2, 7, 3)), (-4, ())])
def test_inner_product(axis: int, lead: tuple[int, ...]) -> None:
    text = f'type: "InnerProduct" inner_product_param {{ num_output: 5 axis: {axis} }}'
    layer = check(text, oracle=lambda x, w, b: (x.reshape(-1, w.shape[1]) @ w.T + b).reshape(*lead, 5))
    assert layer.blobs[0].shape == (5, 168 // int(np.prod(lead, dtype=int)))


def test_inner_product_transposed_and_without_bias() -> None:
    text = 'type: "InnerProduct" inner_product_param { num_output: 5 transpose: true bias_term: false }'
    layer = check(text, oracle=lambda x, w: x.reshape(2, 84) @ w)
    assert [tuple(blob.shape) for blob in layer.blobs] == [(84, 5)]


def test_inner_product_fillers() -> None:
    text = (
        'type: "InnerProduct" inner_product_param { num_output: 5 weight_filler { type: "xavier" } bias_filler { '
        "value: 2 } }"
    )
    layer = build(text, SHAPE)
    assert layer.blobs[0].any() and (layer.blobs[1] == 2).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "num_output is missing; expected at least 1"),
        ("num_output: 2 axis: 4", "axis 4 is out of range for a blob of 4 dimensions"),
    ],
)
def test_inner_product_refuses(settings: str, words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(InnerProduct\): {words}"):
        build(f'type: "InnerProduct" inner_product_param {{ {settings} }}', SHAPE)


#: axis, num_axes -> the blob's shape, and the same broadcast by NumPy
SPANS = [
    (1, 1, (7,), (7, 1, 1)),
    (0, 1, (2,), (2, 1, 1, 1)),
    (1, 2, (7, 3), (7, 3, 1)),
    (-1, 1, (4,), (4,)),
    (1, -1, (7, 3, 4), (7, 3, 4)),
    (0, -1, SHAPE, SHAPE),
    (2, -1, (3, 4), (3, 4)),
    (1, 0, (), ()),
]


@pytest.mark.parametrize(("axis", "num_axes", "span", "wide"), SPANS)
@pytest.mark.parametrize("bias", [False, True])
def test_scale(axis: int, num_axes: int, span: tuple[int, ...], wide: tuple[int, ...], bias: bool) -> None:
    settings = f"axis: {axis} num_axes: {num_axes} bias_term: {str(bias).lower()}"
    layer = check(
        f'type: "Scale" scale_param {{ {settings} }}',
        oracle=lambda x, s, *b: x * s.reshape(wide) + (b[0].reshape(wide) if bias else 0),
    )
    assert [blob.shape for blob in layer.blobs] == [span] * (1 + bias)


@pytest.mark.parametrize(("axis", "num_axes", "span", "wide"), SPANS)
def test_scale_and_bias_of_two_bottoms(axis: int, num_axes: int, span: tuple[int, ...], wide: tuple[int, ...]) -> None:
    check(f'type: "Scale" scale_param {{ axis: {axis} }}', SHAPE, span, oracle=lambda x, s: x * s.reshape(wide))
    check(f'type: "Bias" bias_param {{ axis: {axis} }}', SHAPE, span, oracle=lambda x, s: x + s.reshape(wide))
    with_bias = check(
        f'type: "Scale" scale_param {{ axis: {axis} bias_term: true }}', SHAPE, span,
        oracle=lambda x, s, b: x * s.reshape(wide) + b.reshape(wide),
    )  # fmt: skip
    assert with_bias.blob_names == ["bias"] and with_bias.blobs[0].shape == span


@pytest.mark.parametrize(("axis", "num_axes", "span", "wide"), SPANS)
def test_bias(axis: int, num_axes: int, span: tuple[int, ...], wide: tuple[int, ...]) -> None:
    layer = check(
        f'type: "Bias" bias_param {{ axis: {axis} num_axes: {num_axes} }}', oracle=lambda x, b: x + b.reshape(wide)
    )
    assert layer.blobs[0].shape == span


def test_scale_begins_as_the_identity_and_bias_at_0() -> None:
    x = torch.randn(SHAPE)
    assert torch.equal(build('type: "Scale" scale_param { bias_term: true }', SHAPE)(x), x)
    assert torch.equal(build('type: "Bias"', SHAPE)(x), x)
    filled = build('type: "Scale" scale_param { bias_term: true filler { value: 3 } bias_filler { value: 2 } }', SHAPE)
    torch.testing.assert_close(filled(x), 3 * x + 2)
    zero = build(
        'type: "Scale" scale_param { filler { type: "constant" } }', SHAPE
    )  # a filler that is there counts, at its own default
    assert not zero(x).any()


@pytest.mark.parametrize("kind", ["Scale", "Bias"])
@pytest.mark.parametrize(
    ("settings", "second", "words"),
    [
        ("axis: 3 num_axes: 2", None, "axis 3 and num_axes 2 reach past the bottom's 4 axes"),
        ("num_axes: -2", None, "expected num_axes of at least 0, or -1"),
        ("axis: 4", None, "axis 4 is out of range"),
        ("", (3,), "second bottom (3,) does not match the first, (2, 7, 3, 4), from axis 1 on"),
        ("axis: 3", (4, 4), "second bottom (4, 4) does not match"),
    ],
)
def test_scale_and_bias_refuse(kind: str, settings: str, second: tuple[int, ...] | None, words: str) -> None:
    with pytest.raises(CaffeError) as caught:
        build(f'type: "{kind}" {kind.lower()}_param {{ {settings} }}', SHAPE, *([second] if second else []))
    assert words in str(caught.value) and str(caught.value).startswith(f"layer 'l' ({kind}): ")
    assert isinstance(caught.value, ShapeError) == (second is not None)


# -- Embed and Parameter -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (2, 3, 1, 4), ()])
def test_embed(shape: tuple[int, ...], bias: bool) -> None:
    text = f'type: "Embed" embed_param {{ num_output: 4 input_dim: 7 bias_term: {str(bias).lower()} }}'
    x = np.random.default_rng(0).integers(0, 7, shape).astype(np.float32)

    def oracle(x: np.ndarray, weight: np.ndarray, *bias: np.ndarray) -> np.ndarray:
        return weight[x.astype(int)] + sum(bias)

    layer = check(text, shape, inputs=[np.asarray(x)], oracle=oracle, gradient=[])
    assert [blob.shape for blob in layer.blobs] == [(7, 4), (4,)][: 1 + bias]


def test_embed_adds_up_the_gradients_of_an_index() -> None:
    layer = build(
        'type: "Embed" embed_param { num_output: 2 input_dim: 4 weight_filler { value: 3 } bias_filler { value: 1 } }',
        (5,),
    )
    y = layer(torch.tensor([1.0, 3, 1, 1, 3.7]))
    assert y.unique().tolist() == [4]
    y.sum().backward()
    weight, bias = layer.blobs
    assert weight.grad is not None and weight.grad.tolist() == [[0, 0], [3, 3], [0, 0], [2, 2]]
    assert bias.grad is not None and bias.grad.tolist() == [5, 5]


@pytest.mark.parametrize("index", [7, -1, float("nan"), 1e30])
def test_embed_names_an_index_out_of_range(index: float) -> None:
    layer = build('type: "Embed" embed_param { num_output: 2 input_dim: 7 }', (3, 2))
    with pytest.raises(
        DataError, match=r"layer 'l': index \S+ of item 1 of 'x' is out of range; input_dim allows 0 to 6"
    ):
        layer(torch.tensor([[0, 1], [2, index], [9, 9]]))


@pytest.mark.parametrize(("settings", "missing"), [("input_dim: 3", "num_output"), ("num_output: 3", "input_dim")])
def test_embed_needs_its_sizes(settings: str, missing: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(Embed\): {missing} is missing; expected at least 1"):
        build(f'type: "Embed" embed_param {{ {settings} }}', (3,))


PARAMETER = """
    layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 2 dim: 3 } } param { lr_mult: 2 } }
    layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "l" type: "EuclideanLoss" bottom: "w" bottom: "x" top: "loss" }
"""


def test_parameter_learns() -> None:
    net = Net(text_format.Parse(PARAMETER, NetParameter()))
    (blob,) = net.layer("w").blobs
    assert blob.shape == (2, 3) and not blob.any() and [param.lr_mult for param in net.params] == [2]
    x = torch.from_numpy(distinct(2, 3))
    whole = Whole(net).forward({"x": x})
    whole.loss.backward()
    assert blob.grad is not None
    torch.testing.assert_close(blob.grad, -x / 2)
    blob.grad = None
    steps = Stepwise(net)
    steps.backward(steps.forward({"x": x}))
    torch.testing.assert_close(blob.grad, -x / 2)


@pytest.mark.parametrize("dims", [(), (5,), (2, 1, 3, 2, 4)])
def test_parameter_has_its_shape(dims: tuple[int, ...]) -> None:
    text = " ".join(f"dim: {dim}" for dim in dims)
    layer = registry.create(layer_param(f'type: "Parameter" parameter_param {{ shape {{ {text} }} }}'))
    layer.setup([])
    assert layer.reshape([]) == [dims]
    layer.materialize()
    assert torch.equal(layer(), torch.zeros(dims))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", r"shape is missing; expected parameter_param \{ shape"),
        ("shape { dim: 2 dim: -1 }", r"expected .* got shape \(2, -1\)"),
    ],
)
def test_parameter_refuses(settings: str, words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'w' \(Parameter\): {words}"):
        Net(
            text_format.Parse(
                f'layer {{ name: "w" type: "Parameter" top: "w" parameter_param {{ {settings} }} }}', NetParameter()
            )
        )
    with pytest.raises(CaffeError, match=r"expected 0 bottom blob\(s\), got 1"):
        build('type: "Parameter" parameter_param { shape { } }', (2,))
