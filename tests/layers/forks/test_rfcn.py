"""R-FCN's layers, beside their definition value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest

from caffecli.errors import CaffeError
from tests.layers.oracle import build, check, distinct

SETTINGS = 'type: "PSROIPooling" psroi_pooling_param { spatial_scale: 0.25 output_dim: 3 group_size: 2 }'
FEATURES = (2, 12, 7, 9)
#: whole, of one pixel, halves that are rounded, partly outside, wholly outside, inverted
REGIONS = np.array(
    [
        [0, 0, 0, 35, 27],
        [1, 8, 8, 8, 8],
        [1, 2.5, 3.5, 14.5, 9.5],
        [0, -20, 4, 10, 60],
        [1, 90, 90, 99, 99],
        [0, 20, 20, 5, 5],
    ],
    np.float32,
)


def away(value: float) -> int:
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def by_definition(features: np.ndarray, regions: np.ndarray) -> np.ndarray:
    top = np.zeros((len(regions), 3, 2, 2))
    for r, (image, *corners) in enumerate(regions.reshape(-1, 5)):
        x1, y1, x2, y2 = (away(value) for value in corners)
        left, up = x1 * 0.25, y1 * 0.25
        wide, high = (max(end - begin, 0.1) / 2 for end, begin in (((x2 + 1) * 0.25, left), ((y2 + 1) * 0.25, up)))
        for c, i, j in np.ndindex(3, 2, 2):
            rows = [h for h in range(7) if math.floor(i * high + up) <= h < math.ceil((i + 1) * high + up)]
            columns = [w for w in range(9) if math.floor(j * wide + left) <= w < math.ceil((j + 1) * wide + left)]
            part = features[int(image), (c * 2 + i) * 2 + j][np.ix_(rows, columns)]
            top[r, c, i, j] = part.mean() if part.size else 0
    return top


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1, 1)])
def test_ps_roi_pooling(shape: tuple[int, ...]) -> None:
    inputs = [distinct(*FEATURES), REGIONS.reshape(shape)]
    check(SETTINGS, FEATURES, shape, inputs=inputs, oracle=by_definition, gradient=[0])


def test_no_regions() -> None:
    check(SETTINGS, FEATURES, (0, 5), inputs=[distinct(*FEATURES), REGIONS[:0]], gradient=False)


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        (
            'type: "PSROIPooling"',
            [FEATURES, (4, 5)],
            "all above 0, got no spatial_scale and no output_dim and no group_size",
        ),
        (SETTINGS.replace("0.25", "0"), [FEATURES, (4, 5)], "all above 0, got 0, 3 and 2"),
        (
            SETTINGS,
            [(2, 11, 7, 9), (4, 5)],
            "expected features (num, 12, height, width) and regions (count, 5), got 'x' (2, 11",
        ),
    ],
)
def test_errors(text: str, shapes: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)


def test_a_region_of_no_image() -> None:
    with pytest.raises(CaffeError, match="region 1 is of image 2, the batch has images 0 to 1"):
        check(
            SETTINGS,
            FEATURES,
            (2, 5),
            inputs=[distinct(*FEATURES), np.array([[0, 1, 1, 2, 2], [2, 1, 1, 2, 2]], np.float32)],
        )
