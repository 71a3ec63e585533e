"""InnerProduct, Scale, Bias."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError, ShapeError
from tests.layers.contract import SHAPE, build, check, run_golden

GOLDENS = ["ip", "ip_nobias", "ip_transpose", "scale", "scale_bias", "scale_two_bottoms", "bias", "inplace_scale"]


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
    text = 'type: "InnerProduct" inner_product_param { num_output: 5 weight_filler { type: "xavier" } bias_filler { value: 2 } }'
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
    layer = check(f'type: "Bias" bias_param {{ axis: {axis} num_axes: {num_axes} }}', oracle=lambda x, b: x + b.reshape(wide))
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
