"""LRN and BatchNorm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from caffecli.errors import CaffeError, ShapeError, SpecError
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden

GOLDENS = ["lrn", "lrn_strong", "lrn_within", "batchnorm_train", "batchnorm_test", "inplace_batchnorm"]


@pytest.mark.parametrize("case", GOLDENS)
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


def across(x: np.ndarray, n: int, alpha: float, beta: float, k: float) -> np.ndarray:
    half = n // 2
    total = np.stack([(x[:, max(c - half, 0) : c + half + 1] ** 2).sum(1) for c in range(x.shape[1])], 1)
    return x / (k + alpha / n * total) ** beta


def within(x: np.ndarray, n: int, alpha: float, beta: float) -> np.ndarray:
    half = n // 2
    total = np.zeros_like(x)
    for h, w in np.ndindex(*x.shape[2:]):
        window = x[:, :, max(h - half, 0) : h + half + 1, max(w - half, 0) : w + half + 1]
        total[:, :, h, w] = (window**2).sum((2, 3))
    return x / (1 + alpha / n**2 * total) ** beta


@pytest.mark.parametrize(
    ("n", "alpha", "beta", "k"),
    [(5, 1, 0.75, 1), (3, 0.5, 0.5, 2), (1, 2, 1, 1), (13, 1, 0.75, 1), (15, 1, 2, 0.5), (99, 1, 0.75, 1)],
)
def test_lrn_across_channels(n: int, alpha: float, beta: float, k: float) -> None:
    text = f'type: "LRN" lrn_param {{ local_size: {n} alpha: {alpha} beta: {beta} k: {k} }}'
    check(text, oracle=lambda x: across(x, n, alpha, beta, k))


def test_lrn_has_caffes_defaults() -> None:
    check('type: "LRN"', oracle=lambda x: across(x, 5, 1, 0.75, 1))


@pytest.mark.parametrize(("n", "alpha", "beta"), [(3, 1, 0.75), (5, 0.5, 0.5), (1, 2, 1), (9, 1, 0.75)])
def test_lrn_within_channel_takes_1_for_k(n: int, alpha: float, beta: float) -> None:
    text = (
        'type: "LRN" lrn_param '
        f"{{ norm_region: WITHIN_CHANNEL local_size: {n} alpha: {alpha} beta: {beta} k: 7 engine: CAFFE }}"
    )
    check(text, oracle=lambda x: within(x, n, alpha, beta))


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_lrn_equals_torch_and_keeps_the_memory_format(memory: torch.memory_format) -> None:
    x = torch.from_numpy(distinct(2, 16, 9, 8)).contiguous(memory_format=memory)
    grad = torch.from_numpy(distinct(2, 16, 9, 8, seed=1))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    ours = build('type: "LRN" lrn_param { alpha: 0.5 }', x.shape)(a)
    theirs = F.local_response_norm(b, 5, 0.5, 0.75, 1.0)
    ours.backward(grad)
    theirs.backward(grad)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(a.grad, b.grad)
    assert ours.is_contiguous(memory_format=memory)


@pytest.mark.parametrize("size", [0, 4])
def test_lrn_refuses_an_even_size(size: int) -> None:
    with pytest.raises(SpecError, match=rf"layer 'l' \(LRN\): expected an odd local_size, got {size}"):
        build(f'type: "LRN" lrn_param {{ local_size: {size} }}', SHAPE)
    with pytest.raises(ShapeError, match=r"expected a bottom of 4 axes .*, got \(2, 7\)"):
        build('type: "LRN"', (2, 7))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Mean and variance of each channel, and a shape that spreads them."""
    axes = tuple(i for i in range(x.ndim) if i != 1)
    wide = tuple(n if i == 1 else 1 for i, n in enumerate(x.shape))
    return x.mean(axes), x.var(axes), wide


def normalise(x: np.ndarray, mean: np.ndarray, variance: np.ndarray, eps: float) -> np.ndarray:
    wide = moments(x)[2]
    return (x - mean.reshape(wide)) / np.sqrt(variance.reshape(wide) + eps)


@pytest.mark.parametrize("shape", [SHAPE, (6, 7), (2, 7, 3), (2, 3, 2, 4, 3), (1, 7, 3, 4)])
def test_batch_norm(shape: tuple[int, ...]) -> None:
    check('type: "BatchNorm"', shape, oracle=lambda x, *_: normalise(x, *moments(x)[:2], 1e-5), phase=TRAIN)
    check('type: "BatchNorm"', shape, oracle=lambda x, m, v, f: normalise(x, m / f, v / f, 1e-5), phase=TEST)


@pytest.mark.parametrize(("phase", "use"), [(TRAIN, "true"), (TEST, "false")])
def test_use_global_stats_overrides_the_phase(phase: int, use: str) -> None:
    by_sums = use == "true"
    check(
        f'type: "BatchNorm" batch_norm_param {{ use_global_stats: {use} eps: 0.1 }}', phase=phase,
        oracle=lambda x, m, v, f: normalise(x, *((m / f, v / f) if by_sums else moments(x)[:2]), eps=0.1),  # type: ignore[misc]
    )  # fmt: skip


def test_running_sums() -> None:
    layer = build('type: "BatchNorm" batch_norm_param { moving_average_fraction: 0.9 }', SHAPE)
    mean, variance, factor = np.zeros(7), np.zeros(7), 0.0
    for seed in range(3):
        x = distinct(*SHAPE, seed=seed)
        layer(torch.from_numpy(x))
        batch_mean, batch_variance, _ = moments(x.astype(np.float64))
        mean, variance, factor = 0.9 * mean + batch_mean, 0.9 * variance + batch_variance * 24 / 23, 0.9 * factor + 1
    for blob, expected in zip(layer.blobs, (mean, variance, np.array([factor])), strict=True):
        np.testing.assert_allclose(blob.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not list(layer.parameters()) and len(layer.blobs) == 3


def test_statistics_stand_still_in_test_phase() -> None:
    layer = build('type: "BatchNorm"', SHAPE, phase=TEST)
    y = layer(torch.ones(SHAPE))
    assert not any(blob.any() for blob in layer.blobs)
    torch.testing.assert_close(y, torch.full(SHAPE, 1e-5**-0.5))  # a factor of 0 makes mean and variance 0


def test_one_value_a_channel() -> None:
    layer = build('type: "BatchNorm"', (1, 3))
    x = torch.tensor([[1.0, 2, 3]], requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert not y.any() and x.grad is not None and not x.grad.any()
    assert (
        layer.blobs[0].tolist() == [1, 2, 3] and layer.blobs[1].tolist() == [0, 0, 0] and layer.blobs[2].tolist() == [1]
    )


def test_a_bottom_of_one_axis_is_one_channel() -> None:
    check('type: "BatchNorm"', (6,), oracle=lambda x, *_: (x - x.mean()) / np.sqrt(x.var() + 1e-5))


def test_lr_mult_must_be_0() -> None:
    build('type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 0 decay_mult: 0 } param { lr_mult: 0 }', SHAPE)
    for param in ("param { }", "param { lr_mult: 0 } param { lr_mult: 1 }"):
        with pytest.raises(CaffeError, match=r"layer 'l' \(BatchNorm\): param \d: expected lr_mult: 0, got 1"):
            build(f'type: "BatchNorm" {param}', SHAPE)


def test_batch_norm_needs_an_axis() -> None:
    with pytest.raises(ShapeError, match="at least one axis"):
        build('type: "BatchNorm"', ())
