"""Permute, ShuffleChannel, Axpy, ReLU6, Normalize, L2Normalization and L2Normalize against NumPy,
and their error texts.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from tests.layers.oracle import SHAPE, build, check, distinct


@pytest.mark.parametrize(
    ("order", "axes"), [([0, 2, 3, 1], (0, 2, 3, 1)), ([2], (2, 0, 1, 3)), ([], (0, 1, 2, 3)), ([3, 1], (3, 1, 0, 2))]
)
def test_permute(order, axes):
    settings = " ".join(f"order: {axis}" for axis in order)
    check(f'type: "Permute" permute_param {{ {settings} }}', oracle=lambda x: x.transpose(axes))


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (3, 6), (2, 6, 5)])
@pytest.mark.parametrize("group", [1, 2, 3, 6])
def test_shuffle_channel(group, shape):
    def oracle(x):
        y = np.empty_like(x)
        each = x.shape[1] // group
        for i in range(group):
            for j in range(each):
                y[:, j * group + i] = x[:, i * each + j]
        return y

    check(f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', shape, oracle=oracle)


@pytest.mark.parametrize("scale", [(2, 7, 1, 1), (2, 7)])
def test_axpy(scale):
    def oracle(a, x, b):
        return a.reshape(2, 7, 1, 1) * x + b

    check('type: "Axpy"', scale, SHAPE, SHAPE, oracle=oracle)


@pytest.mark.parametrize("slope", [0, 0.25])
def test_relu6(slope):
    x = distinct(*SHAPE) * 5
    x = np.where(np.abs(x - 6) < 0.02, 6.03, x).astype(np.float32)
    text = f'type: "ReLU6" relu6_param {{ negative_slope: {slope} }}'
    check(text, inputs=[x], oracle=lambda x: np.minimum(np.maximum(x, 0) + slope * np.minimum(x, 0), 6))


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (3, 5)])
def test_normalize(across, shared, shape):
    def oracle(x, s):
        axes = tuple(range(1, x.ndim)) if across else (1,)
        s = s if shared else s.reshape(1, -1, *(1,) * (x.ndim - 2))
        return s * x / np.sqrt((x**2).sum(axes, keepdims=True) + 0.125)

    text = f'type: "Normalize" norm_param {{ across_spatial: {across} channel_shared: {shared} eps: 0.125 }}'.replace(
        "T", "t", 0
    )
    layer = check(text.replace("True", "true").replace("False", "false"), shape, oracle=oracle)
    assert layer.blobs[0].shape == (() if shared else (shape[1],))


def test_normalize_starts_at_its_filler():
    assert build('type: "Normalize"', SHAPE).blobs[0] == 1
    text = 'type: "Normalize" norm_param { channel_shared: false scale_filler { type: "constant" value: 20 } }'
    assert (build(text, SHAPE).blobs[0] == 20).all()


@pytest.mark.parametrize("shape", [SHAPE, (3, 5)])
def test_l2_normalization(shape):
    check(
        'type: "L2Normalization"',
        shape,
        oracle=lambda x: x / np.sqrt((x**2).sum(tuple(range(1, x.ndim)), keepdims=True)),
    )


@pytest.mark.parametrize("shape", [SHAPE, (3, 5), (4,)])
def test_l2_normalize(shape):
    def oracle(x):
        return x / np.sqrt((x**2).reshape(len(x), -1).sum(1).reshape(-1, *(1,) * (x.ndim - 1)) + 1e-7)

    check('type: "L2Normalize"', shape, oracle=oracle)
    small = distinct(*shape) * 1e-4
    np.testing.assert_allclose(
        build('type: "L2Normalize"', shape)(torch.from_numpy(small)).numpy(), oracle(small), rtol=1e-5
    )


def test_l2_normalization_of_zeros_is_zero():
    x = torch.zeros(2, 3, requires_grad=True)
    build('type: "L2Normalization"', (2, 3))(x).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        (
            'type: "Permute" permute_param { order: 4 }',
            [SHAPE],
            "layer 'l' (Permute): order 4 is out of range for a blob of 4 dim",
        ),
        (
            'type: "Permute" permute_param { order: 1 order: 1 }',
            [SHAPE],
            "expected each axis once in order, got [1, 1]",
        ),
        (
            'type: "ShuffleChannel" shuffle_channel_param { group: 3 }',
            [SHAPE],
            "expected a group that divides the 7 channels, got 3",
        ),
        ('type: "ShuffleChannel" shuffle_channel_param { group: 0 }', [SHAPE], "divides the 7 channels, got 0"),
        ('type: "ShuffleChannel"', [(3,)], "expected a bottom of at least 2 axes"),
        ('type: "Axpy"', [SHAPE, SHAPE, SHAPE], "expected (num, channels, 1, 1), then two of one shape"),
        ('type: "Axpy"', [(2, 7), SHAPE, (2, 7, 4, 3)], "got 'x' (2, 7), 'x1' (2, 7, 3, 4), 'x2' (2, 7, 4, 3)"),
        ('type: "Axpy"', [(2, 7), SHAPE], "expected 3 bottom blob(s), got 2"),
        ('type: "Normalize"', [(3,)], "expected a bottom of at least 2 axes (num, channels, ...), got (3,)"),
        ('type: "L2Normalization"', [()], "expected a bottom of at least 1 axis"),
        ('type: "L2Normalize"', [()], "expected a bottom of at least 1 axis"),
    ],
)
def test_errors(text, shapes, said):
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
