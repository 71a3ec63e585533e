"""Pictures under the colours of their points' classes."""

from __future__ import annotations

import numpy as np

from caffecli.tools.report.findings import blended
from caffecli.tools.report.sections.overlays import palette


def test_colours_are_those_of_voc() -> None:
    """Red, green, blue of background, aeroplane, bicycle, bird, boat, ..., tv monitor, and of 255, the border."""
    rgb = palette(256)[:, ::-1].tolist()
    assert rgb[:5] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
    assert rgb[20] == [0, 64, 128]
    assert rgb[255] == [224, 224, 192]


def test_a_picture_is_grey_under_colours_and_as_it_was_where_nothing_is_known() -> None:
    pixels = np.array([[[0, 0, 90], [30, 60, 90], [30, 60, 90]]], np.uint8)
    made = blended(pixels, np.array([[0, 1, -1]]), palette(2))
    assert made.tolist() == [[[13, 13, 13], [27, 27, 97], [30, 60, 90]]]  # 0.45 * 30; 0.45 * 60, and 0.55 * 128 of red


def test_sizes_and_channels_may_differ() -> None:
    made = blended(np.full((4, 4, 1), 100, np.uint8), np.full((2, 2), 1), palette(2))
    assert made.tolist() == [[[45, 45, 115]] * 2] * 2
