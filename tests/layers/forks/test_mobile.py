"""ConvolutionDepthwise and DepthwiseConvolution against NumPy, place by place."""

from __future__ import annotations

import numpy as np
import pytest

from caffecli.errors import SpecError
from tests.layers.oracle import SHAPE, build, check


def each(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None, stride: int = 1, pad: int = 0
) -> np.ndarray:
    size = weight.shape[2]
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    y = np.zeros((*x.shape[:2], (x.shape[2] - size) // stride + 1, (x.shape[3] - size) // stride + 1))
    for n, c, h, w in np.ndindex(y.shape):
        part = x[n, c, h * stride : h * stride + size, w * stride : w * stride + size]
        y[n, c, h, w] = (part * weight[c, 0]).sum() + (0 if bias is None else bias[c])
    return y


FILLED = 'weight_filler { type: "xavier" } bias_filler { type: "uniform" }'


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ("kernel_size: 3 pad: 1", {"pad": 1}),
        ("kernel_size: 3 pad: 1 stride: 2 bias_term: false", {"pad": 1, "stride": 2}),
        ("num_output: 5 group: 3 kernel_size: 2", {}),
    ],
)
def test_convolution_depthwise_has_the_channels_for_groups(settings, options):
    text = f'type: "ConvolutionDepthwise" convolution_param {{ {settings} {FILLED} }}'
    layer = check(text, oracle=lambda *arrays: each(*arrays, **options))
    assert layer.blobs[0].shape[:2] == (7, 1)


def test_depthwise_convolution_has_the_group_that_is_written():
    text = f'type: "DepthwiseConvolution" convolution_param {{ num_output: 7 group: 7 kernel_size: 3 {FILLED} }}'
    check(text, oracle=each)
    assert (
        build('type: "DepthwiseConvolution" convolution_param { num_output: 2 kernel_size: 3 }', SHAPE)
        .blobs[0]
        .shape[1]
        == 7
    )


def test_errors():
    with pytest.raises(SpecError, match=r"layer 'l' \(ConvolutionDepthwise\): kernel_size is missing"):
        build('type: "ConvolutionDepthwise"', SHAPE)
