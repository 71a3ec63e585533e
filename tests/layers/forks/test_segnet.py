"""BN of SegNet and of PSPNet against NumPy, and its error texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from tests.layers.oracle import SHAPE, build, check, distinct


def wide(blob: np.ndarray, x: np.ndarray) -> np.ndarray:
    return blob.reshape(1, -1, *(1,) * (x.ndim - 2))


def by_batch(x: np.ndarray, scale: np.ndarray, shift: np.ndarray, eps: float) -> np.ndarray:
    axes = tuple(axis for axis in range(x.ndim) if axis != 1)
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    return wide(scale, x) * y + wide(shift, x)


FILLED = 'scale_filler { type: "uniform" min: 0.5 max: 2 } shift_filler { type: "uniform" }'
PSPNET = FILLED.replace("scale", "slope").replace("shift", "bias")
SHAPES = [SHAPE, (5, 4)]


@pytest.mark.parametrize("phase", [TRAIN, TEST])
@pytest.mark.parametrize("shape", SHAPES)
def test_segnets_learns_by_the_batch_in_both_phases(shape, phase):
    oracle = lambda x, scale, shift: by_batch(x, scale, shift, 1e-9)  # noqa: E731
    layer = check(f'type: "BN" bn_param {{ {FILLED} }}', shape, oracle=oracle, phase=phase)
    assert [tuple(blob.shape) for blob in layer.blobs] == [(1, shape[1], 1, 1)] * 2


@pytest.mark.parametrize("shape", SHAPES)
def test_segnets_inference_scales_and_shifts(shape):
    text = f'type: "BN" bn_param {{ bn_mode: INFERENCE {FILLED} }}'
    check(text, shape, oracle=lambda x, scale, shift: wide(scale, x) * x + wide(shift, x))


@pytest.mark.parametrize("shape", SHAPES)
def test_pspnets_is_by_the_batch_in_train(shape):
    oracle = lambda x, scale, shift, *_: by_batch(x, scale, shift, 0.125)  # noqa: E731
    check(f'type: "BN" bn_param {{ {PSPNET} eps: 0.125 }}', shape, oracle=oracle, phase=TRAIN)


def test_pspnets_keeps_the_mean_and_the_variance():
    layer = build(f'type: "BN" bn_param {{ {PSPNET} momentum: 0.75 }}', SHAPE)
    mean, variance = np.zeros(7), np.zeros(7)
    for seed in range(3):
        x = distinct(*SHAPE, seed=seed) + seed
        layer(torch.from_numpy(x))
        mean, variance = 0.75 * mean + 0.25 * x.mean((0, 2, 3)), 0.75 * variance + 0.25 * x.var((0, 2, 3))
    np.testing.assert_allclose(layer.blobs[2].flatten(), mean, rtol=1e-5)
    np.testing.assert_allclose(layer.blobs[3].flatten(), variance, rtol=1e-5)
    layer.eval()
    y = layer(torch.from_numpy(x)).detach().numpy()
    scale, shift = (blob.detach().numpy() for blob in layer.blobs[:2])
    np.testing.assert_allclose(
        y, wide(scale, x) * (x - wide(mean, x)) / np.sqrt(wide(variance, x) + 1e-5) + shift, atol=1e-4
    )


@pytest.mark.parametrize("phase", [TRAIN, TEST])
def test_pspnets_frozen_is_by_what_was_kept(phase):
    text = f'type: "BN" bn_param {{ {PSPNET} frozen: true eps: 0.5 }}'

    def oracle(x, scale, shift, mean, variance):
        return wide(scale, x) * (x - wide(mean, x)) / np.sqrt(wide(variance, x) + 0.5) + wide(shift, x)

    check(text, oracle=oracle, phase=phase)
    layer = build(text, SHAPE, phase=phase)
    assert not list(layer.parameters())
    assert [blob.unique().tolist() for blob in layer.blobs[2:]] == [[0], [1]]


@pytest.mark.parametrize("settings", [FILLED, PSPNET])
def test_one_value_a_channel_is_its_shift(settings):
    layer = build(f'type: "BN" bn_param {{ {settings} }}', (1, 4))
    assert torch.equal(layer(torch.ones(1, 4)), layer.blobs[1].reshape(1, 4))


@pytest.mark.parametrize(
    ("settings", "shape", "said"),
    [
        (
            "",
            SHAPE,
            "layer 'l' (BN): expected a bn_param of SegNet (scale_filler, shift_filler, bn_mode) or of PSPNet "
            "(slope_filler,",
        ),
        ("bn_mode: LEARN eps: 0.1", SHAPE, "momentum, eps, frozen, engine), got bn_mode, eps"),
        ("frozen: true", (3,), "expected a bottom of at least 2 axes (num, channels, ...), got (3,)"),
    ],
)
def test_errors(settings, shape, said):
    with pytest.raises(CaffeError) as error:
        build(f'type: "BN" bn_param {{ {settings} }}', shape)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("setting", ["bn_mode: INFERENCE", "slope_filler { value: 1 }"])
def test_only_segnets_batches_have_statistics_as_tops(setting: str) -> None:
    with pytest.raises(CaffeError, match="has tops for the batch's mean and variance"):
        build(f'type: "BN" top: "y" top: "mean" top: "variance" bn_param {{ {setting} }}', (2, 3))
