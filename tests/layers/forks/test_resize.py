"""Interp and Upsample against NumPy, and their error texts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from tests.layers.oracle import build, check, distinct

SHAPE = (2, 3, 5, 4)


def bilinear(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Corners on corners; an axis of one shows its first pixel."""
    for axis, new in zip((2, 3), size, strict=True):
        old = x.shape[axis]
        at = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0)
        low = np.minimum(at.astype(int), old - 1)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = x.take(low, axis) * (1 - part) + x.take(np.minimum(low + 1, old - 1), axis) * part
    return x


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ("zoom_factor: 2", (9, 7)),
        ("zoom_factor: 1", (5, 4)),
        ("shrink_factor: 2", (3, 2)),
        ("shrink_factor: 3", (2, 2)),
        ("shrink_factor: 2 zoom_factor: 3", (7, 4)),
        ("height: 7 width: 6", (7, 6)),
        ("height: 1 width: 2", (1, 2)),
        ("height: 9 width: 9 zoom_factor: 2", (9, 7)),
        ("height: 0 width: 0 shrink_factor: 2", (3, 2)),
        ("height: 9 width: 8 zoom_factor: 2 shrink_factor: 3", (9, 8)),
    ],
)
def test_interp(settings, size):
    check(f'type: "Interp" interp_param {{ {settings} }}', SHAPE, oracle=lambda x: bilinear(x, size))


def test_interp_cuts_off_before():
    text = 'type: "Interp" interp_param { zoom_factor: 2 pad_beg: -1 pad_end: -2 }'
    check(text, SHAPE, oracle=lambda x: bilinear(x[:, :, 1:3, 1:2], (3, 1)))


def put_back(x: np.ndarray, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    y = np.zeros((*x.shape[:2], size[0] * size[1]))
    for n, c, h, w in np.ndindex(x.shape):
        y[n, c, int(mask[n, c, h, w])] = x[n, c, h, w]
    return y.reshape(*x.shape[:2], *size)


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ("", (10, 8)),
        ("scale: 3", (15, 12)),
        ("scale_h: 2 scale_w: 3", (10, 12)),
        ("scale: 2 pad_out_h: true pad_out_w: true", (9, 7)),
        ("upsample_h: 11 upsample_w: 9", (11, 9)),
        ("scale: 7 upsample_h: 11 upsample_w: 9", (11, 9)),
        ("scale: 7 scale_h: 3 pad_out_w: true upsample_h: 11 upsample_w: 9", (11, 9)),
    ],
)
def test_upsample_by_mask(settings, size):
    random = np.random.default_rng(1)
    places = [random.permutation(size[0] * size[1])[: 5 * 4] for _ in range(6)]
    mask = np.array(places, np.float32).reshape(SHAPE)
    text = f'type: "Upsample" upsample_param {{ {settings} }}'
    x = distinct(*SHAPE)
    check(text, SHAPE, SHAPE, inputs=[x, mask], gradient=[0], oracle=lambda x, mask: put_back(x, mask, size))


def test_upsample_puts_values_back_where_pooling_found_them():
    x = torch.from_numpy(distinct(2, 3, 5, 7))
    pool = build('type: "Pooling" pooling_param { kernel_size: 2 stride: 2 } top: "y" top: "mask"', x.shape)
    y, mask = pool(x)
    upsample = build('type: "Upsample" upsample_param { upsample_h: 5 upsample_w: 7 }', y.shape, mask.shape)
    back = upsample(y, mask)
    assert ((back == 0) | (back == x)).all()
    assert (back != 0).sum() == y.numel()


@pytest.mark.parametrize(("settings", "scale"), [("", (1, 1)), ("scale: 2", (2, 2)), ("scale_h: 3 scale_w: 2", (3, 2))])
def test_upsample_of_one_bottom_repeats(settings, scale):
    text = f'type: "Upsample" upsample_param {{ {settings} }}'
    check(text, SHAPE, oracle=lambda x: x.repeat(scale[0], 2).repeat(scale[1], 3))


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        (
            'type: "Interp"',
            [SHAPE],
            "layer 'l' (Interp): expected shrink_factor, zoom_factor, or height and width, 1 or more",
        ),
        ('type: "Interp" interp_param { height: 4 }', [SHAPE], "or height and width"),
        ('type: "Interp" interp_param { zoom_factor: 0 }', [SHAPE], "or height and width, 1 or more"),
        (
            'type: "Interp" interp_param { zoom_factor: 2 pad_beg: 1 }',
            [SHAPE],
            "pad_beg and pad_end 0 or less, got 1 and 0",
        ),
        (
            'type: "Interp" interp_param { zoom_factor: 2 pad_end: -4 }',
            [SHAPE],
            "larger than the 4 cut off, got [5, 4]",
        ),
        ('type: "Interp" interp_param { zoom_factor: 2 }', [(2, 3)], "expected a bottom of 4 axes"),
        (
            'type: "Upsample"',
            [SHAPE, (2, 3, 5, 5)],
            "of one shape, of 4 axes (num, channels, height, width), got 'x' (2, 3, 5, 4)",
        ),
        ('type: "Upsample" upsample_param { upsample_h: 4 }', [SHAPE], "expected both upsample_h and upsample_w"),
        (
            'type: "Upsample" upsample_param { scale: 2 scale_h: 4 }',
            [SHAPE],
            "expected either scale or both scale_h and scale_w",
        ),
        (
            'type: "Upsample" upsample_param { scale: 3 pad_out_w: true }',
            [SHAPE] * 2,
            "expected a scale of 2 for pad_out_h and",
        ),
        ('type: "Upsample" upsample_param { scale: 0 }', [SHAPE], "expected a scale of at least 1, got [0, 0]"),
    ],
)
def test_errors(text, shapes, said):
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mask_beyond_the_top_is_refused():
    layer = build('type: "Upsample"', (1, 1, 1, 2), (1, 1, 1, 2))
    with pytest.raises(
        CaffeError, match=r"the mask has the place 8, the top 2 x 4 = 8; give the size before the pooling"
    ):
        layer(torch.ones(1, 1, 1, 2), torch.tensor([[[[3.0, 8.0]]]]))
