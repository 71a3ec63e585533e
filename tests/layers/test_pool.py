"""Pooling: windows, MAX with ties and mask, AVE with its divisor, STOCHASTIC."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError, SpecError
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden

GOLDENS = [
    "pool_max",
    "pool_max_ceil",
    "pool_max_floor",
    "pool_max_global",
    "pool_max_mask",
    "pool_ave",
    "pool_ave_pad",
]


@pytest.mark.parametrize("case", GOLDENS)
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


def count(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    room = (size + 2 * pad - kernel) / stride
    n = (math.ceil(room) if ceil else math.floor(room)) + 1
    return n - 1 if (n - 1) * stride >= size + pad else n


def pool(
    x: np.ndarray, how: str, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], ceil: bool = True
) -> np.ndarray:
    """Window by window, as the reference walks them."""
    high, wide = x.shape[2:]
    y = np.zeros(
        (*x.shape[:2], count(high, kernel[0], stride[0], pad[0], ceil), count(wide, kernel[1], stride[1], pad[1], ceil))
    )
    for i, j in itertools.product(range(y.shape[2]), range(y.shape[3])):
        top, left = i * stride[0] - pad[0], j * stride[1] - pad[1]
        area = (min(top + kernel[0], high + pad[0]) - top) * (min(left + kernel[1], wide + pad[1]) - left)
        window = x[:, :, max(top, 0) : top + kernel[0], max(left, 0) : left + kernel[1]]
        y[:, :, i, j] = window.max((2, 3)) if how == "MAX" else window.sum((2, 3)) / area
    return y


CASES = {
    "kernel_size: 2": ((2, 2), (1, 1), (0, 0), True),
    "kernel_size: 2 stride: 2": ((2, 2), (2, 2), (0, 0), True),
    "kernel_size: 2 stride: 2 round_mode: FLOOR": ((2, 2), (2, 2), (0, 0), False),
    "kernel_size: 3 stride: 2 pad: 1": ((3, 3), (2, 2), (1, 1), True),
    "kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR": ((3, 3), (2, 2), (1, 1), False),
    "kernel_size: 3 stride: 2 pad: 1 ceil_mode: false": ((3, 3), (2, 2), (1, 1), False),
    "kernel_size: 3 stride: 2 ceil_mode: true": ((3, 3), (2, 2), (0, 0), True),
    "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 3 pad_h: 1 pad_w: 0": ((3, 2), (1, 3), (1, 0), True),
    "kernel_size: 2 stride: 2 pad: 1": ((2, 2), (2, 2), (1, 1), True),
    "kernel_size: 3 stride: 2 pad: 2": ((3, 3), (2, 2), (2, 2), True),  # deeper than half the kernel
    "kernel_size: 4 stride: 3 pad: 3": ((4, 4), (3, 3), (3, 3), True),
    "kernel_size: 4 stride: 3 pad: 3 round_mode: FLOOR": ((4, 4), (3, 3), (3, 3), False),
    "kernel_h: 5 kernel_w: 2 stride: 1 pad_h: 4 pad_w: 1": ((5, 2), (1, 1), (4, 1), True),
    "kernel_size: 1 stride: 2": ((1, 1), (2, 2), (0, 0), True),  # the width's third window would start behind the image
    "kernel_size: 2 stride: 5": ((2, 2), (5, 5), (0, 0), True),
    "kernel_size: 1 stride: 9": ((1, 1), (9, 9), (0, 0), True),
    "kernel_size: 5 stride: 3": ((5, 5), (3, 3), (0, 0), True),  # a window larger than the image
    "kernel_size: 5 stride: 4 pad: 1": ((5, 5), (4, 4), (1, 1), True),
    "global_pooling: true": ((3, 4), (1, 1), (0, 0), True),
    "global_pooling: true pad: 0 stride: 1 engine: CUDNN": ((3, 4), (1, 1), (0, 0), True),
}


@pytest.mark.parametrize("how", ["MAX", "AVE"])
@pytest.mark.parametrize("settings", CASES)
def test_formula(settings: str, how: str) -> None:
    text = f'type: "Pooling" pooling_param {{ pool: {how} {settings} }}'
    check(text, oracle=lambda x: pool(x, how, *CASES[settings]))


def test_windows_over_many_sizes() -> None:
    for kernel, stride, pad, size, how in itertools.product(
        (1, 2, 3, 5), (1, 2, 3), (0, 1, 2), (5, 6, 7, 11), ("MAX", "AVE")
    ):
        if pad >= kernel:
            continue
        layer = build(
            f'type: "Pooling" pooling_param {{ pool: {how} kernel_size: {kernel} stride: {stride} pad: {pad} }}',
            (1, 1, size, 8),
        )
        x = distinct(1, 1, size, 8)
        expected = pool(x.astype(np.float64), how, (kernel,) * 2, (stride,) * 2, (pad,) * 2)
        np.testing.assert_allclose(
            layer(torch.from_numpy(x)).numpy(), expected, atol=1e-6, err_msg=f"{kernel} {stride} {pad} {size}"
        )


def test_max_is_the_default() -> None:
    check('type: "Pooling" pooling_param { kernel_size: 2 }', oracle=lambda x: pool(x, "MAX", (2, 2), (1, 1), (0, 0)))


@pytest.mark.parametrize(
    "settings",
    [
        "kernel_size: 2 stride: 2",
        "kernel_size: 3 stride: 2 pad: 1",
        "kernel_size: 3 stride: 2 pad: 2",
        "global_pooling: true",
    ],
)
@pytest.mark.parametrize("tops", ["", 'top: "y" top: "mask"'])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_the_gradient_goes_to_the_first_of_equals(settings: str, tops: str, memory: torch.memory_format) -> None:
    layer = build(f'type: "Pooling" {tops} pooling_param {{ {settings} }}', (2, 16, 7, 6))
    values = np.random.default_rng(0).integers(0, 2, (2, 16, 7, 6)).astype(np.float32)
    x = torch.from_numpy(values).contiguous(memory_format=memory).requires_grad_()
    tops_ = layer(x)
    y = tops_[0] if tops else tops_
    weights = torch.from_numpy(distinct(*y.shape))
    (y * weights).sum().backward()
    kernel, stride, pad, _ = layer.windows  # type: ignore[misc]
    expected = np.zeros_like(values)
    for n, c, i, j in np.ndindex(*y.shape):
        top, left = i * stride[0] - pad[0], j * stride[1] - pad[1]
        rows, columns = range(max(top, 0), min(top + kernel[0], 7)), range(max(left, 0), min(left + kernel[1], 6))
        places = list(itertools.product(rows, columns))
        best = max(places, key=lambda place: values[n, c, place[0], place[1]])  # the first of equals
        expected[n, c, best[0], best[1]] += weights[n, c, i, j].item()
        if tops:
            assert tops_[1][n, c, i, j] == best[0] * 6 + best[1]
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("settings", ["kernel_size: 2", "kernel_size: 3 stride: 2 pad: 2"])
def test_mask(settings: str) -> None:
    def oracle(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y = pool(x, "MAX", *CASES[settings][:3])
        flat = x.reshape(*x.shape[:2], -1)
        return y, np.array([(flat[n, c] == v).argmax() for (n, c, _, _), v in np.ndenumerate(y)]).reshape(y.shape)

    CASES.setdefault("kernel_size: 3 stride: 2 pad: 2", ((3, 3), (2, 2), (2, 2), True))
    layer = check(f'type: "Pooling" top: "y" top: "mask" pooling_param {{ {settings} }}', oracle=oracle)
    assert not layer(torch.zeros(SHAPE, requires_grad=True))[1].requires_grad


def test_stochastic_draws_in_proportion() -> None:
    layer = build(
        'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }', (1, 1, 2, 3), phase=TRAIN
    )
    torch.manual_seed(0)
    x = torch.tensor([[1.0, 3, 0], [0, 4, 0]]).expand(5000, 1, 2, 3).clone().requires_grad_()
    y = layer(x)
    assert y.shape == (5000, 1, 1, 2)
    for value in (1, 3, 4):
        assert abs((y[:, 0, 0, 0] == value).float().mean() - value / 8) < 0.03
    assert not y[:, 0, 0, 1].any()
    y[:, 0, 0, 0].sum().backward()
    assert x.grad is not None and x.grad.sum() == 5000 and torch.equal((x.grad * x).sum((1, 2, 3)), y[:, 0, 0, 0])


def test_stochastic_in_test_phase_is_the_expectation() -> None:
    inputs = [np.abs(distinct(*SHAPE))]
    inputs[0][0, 0] = 0

    def oracle(x: np.ndarray) -> np.ndarray:
        total = pool(x, "AVE", (2, 2), (2, 2), (0, 0))
        return np.divide(pool(x * x, "AVE", (2, 2), (2, 2), (0, 0)), total, out=np.zeros_like(total), where=total > 0)

    text = 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }'
    check(text, inputs=inputs, oracle=oracle, phase=TEST, gradient=False)
    check(text, inputs=[np.abs(distinct(*SHAPE))], phase=TEST)
    check(text, inputs=[np.abs(distinct(*SHAPE))], phase=TRAIN, random=True)


def test_global_pooling_follows_the_bottom() -> None:
    layer = build('type: "Pooling" pooling_param { pool: AVE global_pooling: true }', SHAPE)
    assert layer(torch.ones(2, 7, 9, 5)).shape == (2, 7, 1, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("", "expected either kernel_size or kernel_h and kernel_w, got neither"),
        ("kernel_h: 2", "got only one of kernel_h and kernel_w"),
        ("kernel_size: 2 kernel_h: 2 kernel_w: 2", "expected either kernel_size or kernel_h and kernel_w, got both"),
        ("kernel_size: 0", "expected a kernel of at least 1, got [0, 0]"),
        ("kernel_size: 2 stride: 0", "expected a stride of at least 1"),
        ("kernel_size: 2 stride_h: 1", "expected either stride or both stride_h and stride_w"),
        ("kernel_size: 2 stride: 1 stride_h: 1 stride_w: 1", "expected either stride or both stride_h and stride_w"),
        ("kernel_size: 2 pad_w: 1", "expected either pad or both pad_h and pad_w"),
        ("kernel_size: 2 pad: 2", "expected pad less than the kernel, got pad [2, 2] and kernel [2, 2]"),
        ("kernel_size: 2 pad_h: 2 pad_w: 0", "expected pad less than the kernel"),
        ("global_pooling: true kernel_size: 2", "global_pooling takes the whole image; remove the kernel size"),
        ("global_pooling: true stride: 2", "global_pooling needs stride 1 and pad 0, got stride [2, 2]"),
        ("global_pooling: true pad: 1", "global_pooling needs stride 1 and pad 0"),
        ("pool: STOCHASTIC kernel_size: 2 pad: 1", "pad is for MAX and AVE pooling only"),
        ("kernel_size: 6", "kernel of [6, 6] does not fit the bottom's [3, 4] with pad [0, 0]"),
        ("kernel_size: 4 stride: 2 round_mode: FLOOR", "does not fit"),
    ],
)
def test_refusals(settings: str, words: str) -> None:
    with pytest.raises(CaffeError) as caught:
        build(f'type: "Pooling" pooling_param {{ {settings} }}', SHAPE)
    assert words in str(caught.value)
    assert str(caught.value).startswith("layer 'l' (Pooling): ") and "\n" not in str(caught.value)


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_a_kernel_that_exceeds_the_bottom_by_less_than_the_stride(pool: str) -> None:
    """Rounded up, there is one window; its mean is over the part in the image, as it is not padded."""
    layer = build(f'type: "Pooling" pooling_param {{ pool: {pool} kernel_size: 5 stride: 3 }}', SHAPE)
    x = torch.rand(*SHAPE)
    y = layer(x)
    assert isinstance(y, torch.Tensor) and layer.reshape([SHAPE]) == [y.shape] == [torch.Size((2, 7, 1, 1))]
    torch.testing.assert_close(y[..., 0, 0], x.amax((2, 3)) if pool == "MAX" else x.mean((2, 3)))


def test_the_bottom_has_4_axes_and_the_mask_is_for_max() -> None:
    with pytest.raises(CaffeError, match=r"expected a bottom of 4 axes .*, got \(2, 7, 3\)"):
        build('type: "Pooling" pooling_param { kernel_size: 2 }', (2, 7, 3))
    with pytest.raises(SpecError, match="a second top, the mask, is for MAX pooling only"):
        build('type: "Pooling" top: "y" top: "m" pooling_param { pool: AVE kernel_size: 2 }', SHAPE)
