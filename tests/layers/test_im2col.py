"""Im2col."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from tests.layers.oracle import SHAPE, build, check, run_golden

Ints = tuple[int, ...]


def test_golden(golden: Path) -> None:
    run_golden(golden / "layers", "im2col")


def columns(x: np.ndarray, axis: int, kernel: Ints, stride: Ints, pad: Ints, dilation: Ints) -> np.ndarray:
    """The windows, gathered one place of the kernel at a time."""
    x = np.pad(x, [(0, 0)] * (axis + 1) + [(p, p) for p in pad])
    sizes = x.shape[axis + 1 :]
    tops = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)]
    parts = []
    for place in itertools.product(*map(range, kernel)):
        begins = [d * p for d, p in zip(dilation, place, strict=True)]
        cuts = [slice(b, b + s * (m - 1) + 1, s) for b, s, m in zip(begins, stride, tops, strict=True)]
        parts.append(x[(slice(None),) * (axis + 1) + tuple(cuts)])
    y = np.stack(parts, axis + 1)
    return y.reshape(*x.shape[:axis], -1, *tops)


@pytest.mark.parametrize(
    ("settings", "kernel", "stride", "pad", "dilation"),
    [
        ("kernel_size: 2", (2, 2), (1, 1), (0, 0), (1, 1)),
        ("kernel_size: 3 kernel_size: 2 stride: 2 pad: 1", (3, 2), (2, 2), (1, 1), (1, 1)),
        ("kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 2 pad_w: 0", (1, 3), (1, 2), (2, 0), (1, 1)),
        ("kernel_size: 2 dilation: 1 dilation: 3 pad: 0 pad: 1 stride: 2 stride: 1", (2, 2), (2, 1), (0, 1), (1, 3)),
        (
            "kernel_size: 2 force_nd_im2col: true num_output: 5 group: 3 bias_term: false",
            (2, 2),
            (1, 1),
            (0, 0),
            (1, 1),
        ),
        ("kernel_size: 3 kernel_size: 4", (3, 4), (1, 1), (0, 0), (1, 1)),
    ],
)
def test_two_axes(settings: str, kernel: Ints, stride: Ints, pad: Ints, dilation: Ints) -> None:
    text = f'type: "Im2col" convolution_param {{ {settings} }}'
    check(text, oracle=lambda x: columns(x, 1, kernel, stride, pad, dilation))


@pytest.mark.parametrize(
    ("shape", "axis"), [((2, 3, 7), 1), ((3, 7), 0), ((2, 3, 4, 5, 6), 1), ((2, 3, 4, 5, 6), -3), ((2, 3, 4, 5, 6), 3)]
)
def test_other_numbers_of_axes(shape: Ints, axis: int) -> None:
    first = axis % len(shape)
    axes = len(shape) - first - 1
    settings = f"kernel_size: 2 stride: 2 pad: 1 dilation: 3 axis: {axis}"
    want = [(value,) * axes for value in (2, 2, 1, 3)]
    check(f'type: "Im2col" convolution_param {{ {settings} }}', shape, oracle=lambda x: columns(x, first, *want))


def test_a_kernel_that_exceeds_the_bottom_by_less_than_the_stride() -> None:
    layer = build('type: "Im2col" convolution_param { kernel_size: 5 stride: 3 }', SHAPE)
    x = torch.rand(*SHAPE)
    y = layer(x)
    assert isinstance(y, torch.Tensor) and layer.reshape([SHAPE]) == [y.shape] == [torch.Size((2, 7 * 25, 1, 1))]
    filled = torch.zeros(2, 7, 5, 5)
    filled[:, :, : x.shape[2], : x.shape[3]] = x
    assert torch.equal(y.reshape(filled.shape), filled)


def test_other_sizes_than_planned() -> None:
    layer = build('type: "Im2col" convolution_param { kernel_size: 2 }', SHAPE)
    assert layer(torch.rand(5, 7, 6, 9)).shape == (5, 28, 5, 8)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", r"kernel_size is missing; give it once, or once per spatial axis \(2\)"),
        ("kernel_size: 0", "expected kernel_size of at least 1, got 0"),
        ("kernel_size: 4", r"kernel of \[4, 4\] does not fit the bottom's \[3, 4\] with pad \[0, 0\]; use a smaller"),
        ("kernel_size: 2 dilation: 3", r"kernel of \[4, 4\] does not fit"),
        ("kernel_size: 1 axis: 3", r"expected a spatial axis behind the channels, axis 3, got \(2, 7, 3, 4\)"),
        ("kernel_size: 1 axis: 4", "axis 4 is out of range"),
        ("kernel_size: 1 kernel_h: 1 kernel_w: 1", "expected either kernel_size or kernel_h and kernel_w"),
        ("kernel_size: 1 stride: 0", "expected stride of at least 1, got 0"),
        ("kernel_size: 1 pad: 1 pad: 1 pad: 1", "expected pad once or 2 times"),
    ],
)
def test_refuses(settings: str, words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(Im2col\): {words}"):
        build(f'type: "Im2col" convolution_param {{ {settings} }}', SHAPE)
