"""Convolution and Deconvolution over any number of axes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError, ShapeError, SpecError
from tests.layers.oracle import build, check, distinct, run_golden

GOLDENS = ["conv", "conv_1x1", "conv_3d", "conv_dilation", "conv_group", "conv_multi_bottom", "conv_pad_stride"]
GOLDENS += ["deconv", "deconv_group"]


@pytest.mark.parametrize("case", GOLDENS)
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


EVERY: tuple[Any, ...] = (slice(None), slice(None))


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: list[int],
    pad: list[int],
    dilation: list[int],
    group: int = 1,
) -> np.ndarray:
    """The formula, a kernel place at a time; x is (N, C, spatial...)."""
    kernel = weight.shape[2:]
    x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)]
    y = np.zeros((len(x), len(weight), *sizes)) + bias.reshape(-1, *[1] * len(kernel))
    outs, ins = len(weight) // group, x.shape[1] // group
    for place in itertools.product(*map(range, kernel)):
        cut = tuple(
            slice(p * d, p * d + (n - 1) * s + 1, s) for p, d, n, s in zip(place, dilation, sizes, stride, strict=True)
        )
        for g in range(group):
            part = x[:, g * ins : (g + 1) * ins][EVERY + cut]
            w = weight[g * outs : (g + 1) * outs][EVERY + place]
            y[:, g * outs : (g + 1) * outs] += np.einsum("nc...,oc->no...", part, w)
    return y


CASES: dict[str, tuple[Any, ...]] = {
    "plain": ("num_output: 3 kernel_size: 2", (2, 7, 3, 4), [1, 1], [0, 0], [1, 1], 1),
    "sides": (
        "num_output: 3 kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 2 pad_h: 2 pad_w: 1",
        (2, 7, 3, 4), [1, 2], [2, 1], [1, 1], 1,
    ),
    "one pad": ("num_output: 3 kernel_size: 2 pad_w: 1", (2, 7, 3, 4), [1, 1], [0, 1], [1, 1], 1),
    "repeated": (
        "num_output: 2 kernel_size: 3 kernel_size: 2 stride: 2 stride: 1 pad: 1 pad: 0 dilation: 1 dilation: 3",
        (2, 7, 3, 4), [2, 1], [1, 0], [1, 3], 1,
    ),
    "group": ("num_output: 6 kernel_size: 2 group: 3", (2, 9, 3, 4), [1, 1], [0, 0], [1, 1], 3),
    "depthwise": ("num_output: 7 kernel_size: 2 group: 7", (2, 7, 3, 4), [1, 1], [0, 0], [1, 1], 7),
    "engine": ("num_output: 3 kernel_size: 2 engine: CUDNN force_nd_im2col: true",
        (2, 7, 3, 4), [1, 1], [0, 0], [1, 1], 1),
    "1 axis": ("num_output: 3 kernel_size: 2 stride: 2 pad: 1", (2, 7, 5), [2], [1], [1], 1),
    "3 axes": ("num_output: 3 kernel_size: 2 pad: 1 stride: 2", (2, 5, 3, 4, 2), [2] * 3, [1] * 3, [1] * 3, 1),
    "4 axes": ("num_output: 4 kernel_size: 2 pad: 1 stride: 2 group: 2",
        (2, 2, 3, 4, 2, 3), [2] * 4, [1] * 4, [1] * 4, 2),
    "5 axes": (
        "num_output: 2 kernel_size: 2 pad: 1 pad: 0 pad: 0 pad: 0 pad: 0 "
        "dilation: 2 dilation: 1 dilation: 1 dilation: 1 dilation: 2",
        (2, 1, 3, 2, 2, 2, 3), [1] * 5, [1, 0, 0, 0, 0], [2, 1, 1, 1, 2], 1,
    ),
    "0 axes": ("num_output: 3 kernel_size: 1", (2, 7), [], [], [], 1),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_formula(case: str) -> None:
    settings, shape, *rest = CASES[case]
    check(
        f'type: "Convolution" convolution_param {{ {settings} }}', shape,
        oracle=lambda x, w, b: convolve(x, w.reshape(w.shape[:2] + w.shape[2:] * bool(rest[0])), b, *rest),
        gradient=bool(np.prod(shape) < 400),
    )  # fmt: skip


def test_without_bias() -> None:
    layer = check(
        'type: "Convolution" convolution_param { num_output: 3 kernel_size: 2 bias_term: false }',
        oracle=lambda x, w: convolve(x, w, np.zeros(3), [1, 1], [0, 0], [1, 1]),
    )
    assert layer.blob_names == ["weight"] and layer.bias is None


@pytest.mark.parametrize("axis", [2, -3])
def test_axes_before_the_channels_are_a_batch(axis: int) -> None:
    check(
        f'type: "Convolution" convolution_param {{ num_output: 2 kernel_size: 2 axis: {axis} }}', (2, 3, 5, 3, 4),
        oracle=lambda x, w, b: convolve(x.reshape(6, 5, 3, 4), w, b, [1, 1], [0, 0], [1, 1]).reshape(2, 3, 2, 2, 3),
    )  # fmt: skip


def test_channels_first_of_all() -> None:
    check(
        'type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 axis: 0 }', (7, 3, 4),
        oracle=lambda x, w, b: convolve(x[None], w, b, [1, 1], [0, 0], [1, 1])[0],
    )  # fmt: skip


def test_one_kernel_size_over_the_spatial_axes_behind_a_later_channel_axis() -> None:
    layer = build('type: "Convolution" convolution_param { num_output: 2 kernel_size: 2 axis: 2 }', (2, 3, 5, 4))
    assert layer.weight.shape == (2, 5, 2)
    assert layer.reshape([(2, 3, 5, 4)]) == [(2, 3, 2, 3)]


def test_several_bottoms_share_the_weights() -> None:
    text = 'type: "Convolution" top: "a" top: "b" convolution_param { num_output: 2 kernel_size: 2 }'
    layer = check(
        text, (2, 3, 4, 5), (2, 3, 4, 5),
        oracle=lambda a, b, w, bias: tuple(convolve(x, w, bias, [1, 1], [0, 0], [1, 1]) for x in (a, b)),
    )  # fmt: skip
    assert len(layer.blobs) == 2


def test_blobs_and_fillers() -> None:
    torch.manual_seed(0)
    layer = build(
        'type: "Convolution" convolution_param { num_output: 6 kernel_size: 5 kernel_size: 3 group: 3 '
        'weight_filler { type: "xavier" } bias_filler { value: 0.5 } }',
        (2, 9, 8, 8),
    )
    assert [tuple(blob.shape) for blob in layer.blobs] == [(6, 3, 5, 3), (6,)]
    assert layer.blobs[0].abs().max() > 0 and (layer.blobs[1] == 0.5).all()


def test_channels_last_stays() -> None:
    layer = build('type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 }', (2, 8, 9, 9))
    layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.from_numpy(distinct(2, 8, 9, 9)).contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("kernel_size: 2", "num_output is missing"),
        ("num_output: 0 kernel_size: 2", "num_output is missing"),
        ("num_output: 3", "kernel_size is missing; give it once, or once per spatial axis (2)"),
        ("num_output: 3 kernel_size: 2 kernel_size: 2 kernel_size: 2", "expected kernel_size once or 2 times"),
        ("num_output: 3 kernel_size: 2 stride: 1 stride: 1 stride: 1", "expected stride once or 2 times"),
        ("num_output: 3 kernel_size: 2 dilation: 1 dilation: 1 dilation: 1", "expected dilation once or 2 times"),
        (
            "num_output: 3 kernel_size: 2 kernel_h: 2",
            "expected either kernel_size or kernel_h and kernel_w, got kernel_size and kernel_h",
        ),
        ("num_output: 3 kernel_h: 2", "kernel_h needs kernel_w beside it"),
        ("num_output: 3 kernel_size: 2 stride_w: 2", "stride_w needs stride_h beside it"),
        ("num_output: 3 kernel_size: 2 stride: 2 stride_w: 2", "expected either stride or stride_h and stride_w"),
        ("num_output: 3 kernel_size: 2 pad: 2 pad_w: 2", "expected either pad or pad_h and pad_w"),
        ("num_output: 3 kernel_size: 0", "expected kernel_size of at least 1, got 0"),
        ("num_output: 3 kernel_size: 2 stride: 0", "expected stride of at least 1, got 0"),
        ("num_output: 3 kernel_size: 2 dilation: 0", "expected dilation of at least 1, got 0"),
        ("num_output: 4 kernel_size: 2 group: 2", "group 2 must divide the bottom's channels (7)"),
        ("num_output: 4 kernel_size: 2 group: 7", "group 7 must divide num_output (4)"),
        ("num_output: 4 kernel_size: 2 group: 0", "expected group of at least 1"),
        ("num_output: 4 kernel_size: 2 axis: 4", "axis 4 is out of range for a blob of 4 dimensions"),
        ("num_output: 4 kernel_size: 6 pad: 1", "kernel of [6, 6] does not fit the bottom's [3, 4] with pad [1, 1]"),
        ("num_output: 4 kernel_size: 2 dilation: 4", "kernel of [5, 5] does not fit"),
        ("num_output: 4 kernel_h: 2 kernel_w: 2 axis: 0", "kernel_h is for 2 spatial axes, the bottom has 3"),
    ],
)
def test_refusals(settings: str, words: str) -> None:
    with pytest.raises(CaffeError) as caught:
        build(f'type: "Convolution" convolution_param {{ {settings} }}', (2, 7, 3, 4))
    assert words in str(caught.value)
    assert str(caught.value).startswith("layer 'l' (Convolution): ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "stride", "pad", "dilation", "more"),
    [
        ("kernel_size: 5 stride: 3", [3, 3], [0, 0], [1, 1], (2, 1)),
        ("kernel_size: 4 stride: 2", [2, 2], [0, 0], [1, 1], (1, 0)),
        ("kernel_size: 6 stride: 2 pad: 1", [2, 2], [1, 1], [1, 1], (1, 0)),
        ("kernel_size: 2 dilation: 4 stride: 7", [7, 7], [0, 0], [4, 4], (2, 1)),
    ],
)
def test_a_kernel_that_exceeds_the_bottom_by_less_than_the_stride(
    settings: str, stride: list[int], pad: list[int], dilation: list[int], more: tuple[int, int]
) -> None:
    """C++ divides towards zero: one output along that axis, with zeros beyond the end."""
    text = f'type: "Convolution" convolution_param {{ num_output: 2 {settings} weight_filler {{ type: "xavier" }} }}'

    def oracle(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        # pad counts on both sides; what is added goes behind the pad
        x = np.pad(x, [(0, 0), (0, 0), *((p, p + extra) for p, extra in zip(pad, more, strict=True))])
        return convolve(x, weight, bias, stride, [0, 0], dilation)

    layer = build(text, (2, 7, 3, 4))
    x = torch.rand(2, 7, 3, 4)
    y = oracle(x.numpy(), *(blob.detach().numpy() for blob in layer.blobs))
    assert y.shape[2:] == (1, 1)
    assert layer.reshape([(2, 7, 3, 4)]) == [torch.Size(y.shape)]
    np.testing.assert_allclose(layer(x).detach().numpy(), y, atol=1e-5)
    layer.reshape([(2, 7, 12, 12)])  # and back to bottoms that are large enough
    wide = np.random.default_rng(0).random((2, 7, 12, 12), np.float32)
    weight, bias = (blob.detach().numpy() for blob in layer.blobs)
    np.testing.assert_allclose(
        layer(torch.from_numpy(wide)).detach().numpy(),
        convolve(wide, weight, bias, stride, pad, dilation),
        atol=1e-5,
    )


def test_bottoms_and_tops_must_pair_and_match() -> None:
    settings = "convolution_param { num_output: 2 kernel_size: 2 }"
    with pytest.raises(SpecError, match=r"expected as many tops as bottoms, got 2 bottom\(s\) and 1 top\(s\)"):
        build(f'type: "Convolution" {settings}', (2, 3, 4, 5), (2, 3, 4, 5))
    with pytest.raises(ShapeError, match=r"expected bottoms of one shape, got \(2, 3, 4, 5\) and \(2, 3, 4, 6\)"):
        build(f'type: "Convolution" top: "a" top: "b" {settings}', (2, 3, 4, 5), (2, 3, 4, 6))


# -- Deconvolution -------------------------------------------------------------------------------------------------


def deconvolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    stride: list[int],
    pad: list[int],
    dilation: list[int],
    group: int = 1,
) -> np.ndarray:
    """The formula, a kernel place at a time; x is (N, C, spatial...)."""
    kernel = weight.shape[2:]
    axes = list(zip(x.shape[2:], kernel, stride, dilation, strict=True))
    y = np.zeros((len(x), weight.shape[1] * group, *(s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in axes)))
    outs, ins = weight.shape[1], x.shape[1] // group
    for place in itertools.product(*map(range, kernel)):
        cut = tuple(slice(p * d, p * d + (n - 1) * s + 1, s) for p, (n, _, s, d) in zip(place, axes, strict=True))
        for g in range(group):
            w = weight[g * ins : (g + 1) * ins][EVERY + place]
            part = x[:, g * ins : (g + 1) * ins]
            y[:, g * outs : (g + 1) * outs][EVERY + cut] += np.einsum("nc...,co->no...", part, w)
    y = y[EVERY + tuple(slice(p, n - p) for p, n in zip(pad, y.shape[2:], strict=True))]
    return y + bias.reshape(-1, *[1] * len(kernel))


@pytest.mark.parametrize("case", CASES)
def test_deconvolution_formula(case: str) -> None:
    settings, shape, stride, pad, *rest = CASES[case]
    settings = settings.replace("pad_h: 2 pad_w: 1", "pad_h: 1 pad_w: 1")
    pad = [1, 1] if pad == [2, 1] else pad
    layer = check(
        f'type: "Deconvolution" convolution_param {{ {settings} }}', shape,
        oracle=lambda x, w, b: deconvolve(
            x, w.reshape(w.shape[:2] + w.shape[2:] * bool(stride)), b, stride, pad, *rest
        ),
        gradient=bool(np.prod(shape) < 400),
    )  # fmt: skip
    outputs, group = layer.blobs[1].shape[0], rest[-1]
    assert layer.blobs[0].shape[:2] == (shape[1], outputs // group)


def test_deconvolution_is_the_transpose_of_convolution() -> None:
    settings = "kernel_size: 3 stride: 2 pad: 1 dilation: 2 bias_term: false group: 2"
    down = build(f'type: "Convolution" convolution_param {{ num_output: 6 {settings} }}', (2, 4, 9, 11))
    up = build(f'type: "Deconvolution" convolution_param {{ num_output: 4 {settings} }}', (2, 6, 3, 4))
    weight = torch.from_numpy(distinct(6, 2, 3, 3))
    for layer in (down, up):
        with torch.no_grad():
            layer.blobs[0].copy_(weight)
    x = torch.from_numpy(distinct(2, 4, 9, 11)).requires_grad_()
    y = down(x)
    assert y.shape == (2, 6, 4, 5)
    seed = torch.from_numpy(distinct(*y.shape, seed=1))
    y.backward(seed)
    torch.testing.assert_close(up(seed), x.grad)


def test_a_bilinear_deconvolution_enlarges() -> None:
    layer = build(
        'type: "Deconvolution" convolution_param { num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 bias_term: '
        'false weight_filler { type: "bilinear" } }',
        (1, 3, 4, 5),
    )
    ramp = torch.arange(5.0).expand(1, 3, 4, 5)
    y = layer(ramp)
    assert y.shape == (1, 3, 8, 10)
    torch.testing.assert_close(y[..., 1:-1, 1:-1], (torch.arange(1, 9) / 2 - 0.25).expand(1, 3, 6, 8))


def test_deconvolution_without_bias_and_with_several_bottoms() -> None:
    text = (
        'type: "Deconvolution" top: "a" top: "b" convolution_param { num_output: 2 kernel_size: 2 bias_term: false '
        "axis: -3 }"
    )
    check(
        text, (2, 3, 4, 5), (2, 3, 4, 5),
        oracle=lambda a, b, w: tuple(deconvolve(x, w, np.zeros(2), [1, 1], [0, 0], [1, 1]) for x in (a, b)),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("kernel_size: 2", "num_output is missing"),
        ("num_output: 3", "kernel_size is missing"),
        ("num_output: 4 kernel_size: 2 group: 2", "group 2 must divide the bottom's channels (7)"),
        ("num_output: 4 kernel_size: 2 group: 7", "group 7 must divide num_output (4)"),
        (
            "num_output: 4 kernel_size: 2 pad: 2",
            "pad [2, 2] leaves nothing of the top: it would be [0, 1] for a bottom of [3, 4]; use less pad",
        ),
    ],
)
def test_deconvolution_refusals(settings: str, words: str) -> None:
    with pytest.raises(CaffeError) as caught:
        build(f'type: "Deconvolution" convolution_param {{ {settings} }}', (2, 7, 3, 4))
    assert words in str(caught.value)
    assert str(caught.value).startswith("layer 'l' (Deconvolution): ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("settings", ["pad: 1", "pad: 2 dilation: 2 bias_term: false", "stride: 2 pad_h: 2 pad_w: 0"])
def test_weights_learn_the_same_where_their_gradient_is_computed_channels_first(
    settings: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'type: "Convolution" convolution_param {{ num_output: 8 kernel_size: 3 {settings} }}'
    x = torch.randn(2, 64, 9, 8).contiguous(memory_format=torch.channels_last).requires_grad_()
    gradients = []
    for capability in ("AVX512", "AVX2"):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda capability=capability: capability)
        layer = build(text, (2, 64, 9, 8))
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for blob in layer.blobs:
                blob.uniform_(-1, 1, generator=generator)
        layer.float().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        y = layer(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert ("Convolve" in y.grad_fn.name()) is (capability == "AVX2")
        gradients.append(torch.autograd.grad(y.square().sum(), [x, *layer.blobs]))
    for plain, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-4 * float(plain.abs().max()))
        assert ours.stride() == plain.stride()
