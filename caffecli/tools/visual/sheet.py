"""Sheets: pictures side by side, under a title, each with its caption and scale.

Pixels are as OpenCV has them, blue first.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

#: smaller pictures are enlarged to about this width, each value a square
WIDTH = 600
_GAP = 12
_LINE = 22
_FONT = cv2.FONT_HERSHEY_SIMPLEX


def pixels(array: NDArray[Any], factor: int = 1, colours: int | None = None) -> Pixels:
    """Numbers from 0 to 1, (height, width) or (height, width, 1 or 3), each a square of side ``factor``.

    ``colours``: one of OpenCV's colour maps, for numbers that are not brightness.
    """
    picture = (array * 255 + 0.5).astype(np.uint8)
    large = picture.repeat(factor, 0).repeat(factor, 1)
    large = large[..., None] if large.ndim == 2 else large
    if colours is not None:
        large = np.asarray(cv2.applyColorMap(large, colours), np.uint8)
    return np.ascontiguousarray(large.repeat(3, 2) if large.shape[2] == 1 else large)


def factor_for(width: int) -> int:
    """How much a picture that wide is enlarged."""
    return max(1, round(WIDTH / width))


def line(words: str, width: int, size: float = 0.45) -> Pixels:
    """A strip of ``width`` with the text: in a smaller size where it would not fit,
    and cut off if that is not enough.
    """
    strip = np.full((_LINE, width, 3), 255, np.uint8)
    while _width(words, size) > width - 4 and size > 0.35:
        size -= 0.05
    whole = words
    while _width(words, size) > width - 4 and whole:
        whole = whole[:-1]
        words = whole + "..."
    cv2.putText(strip, words, (2, 15), _FONT, size, (0, 0, 0), 1, cv2.LINE_AA)
    return strip


def _width(words: str, size: float) -> int:
    return int(cv2.getTextSize(words, _FONT, size, 1)[0][0])


def with_scale(picture: Pixels, low: float, high: float, colours: int | None = None) -> Pixels:
    """The picture with a scale to its right: a bar of its shades, labelled with the highest value, the lowest,
    and 0.
    """
    height = max(len(picture), 3 * _LINE)
    shades = pixels(np.linspace(1, 0, height).repeat(14).reshape(height, 14), 1, colours)
    return beside(picture, np.concatenate([shades, _marks(height, low, high)], 1))


def bars(values: NDArray[Any], height: int = 240) -> Pixels:
    """A bar from 0 for each of the values, and right of them the scale."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    span = (height - 1) / (high - low if high > low else 1)
    ends, zero, rows = np.round((high - values) * span), round(high * span), np.arange(height)[:, None]
    within = (np.minimum(ends, zero) <= rows) & (rows <= np.maximum(ends, zero))
    drawn = np.where(within, np.where(rows == zero, 0.7, 0.2), 1.0)
    wide = drawn.repeat(factor_for(len(values)), 1)
    if factor_for(len(values)) > 3:
        wide[:, factor_for(len(values)) - 1 :: factor_for(len(values))] = 1  # a gap between bars
    return beside(pixels(wide), _marks(height, low, high))


def _marks(height: int, low: float, high: float) -> Pixels:
    """A strip for the right of a scale that falls from ``high`` to ``low``."""
    marks = {0: high, height - 1: low}
    if low < 0 < high:
        zero = round((height - 1) * high / (high - low))
        if _LINE < zero < height - _LINE:
            marks[zero] = 0.0
    names = np.full((height, 6 + max(_width(f"{value:.3g}", 0.4) for value in marks.values()), 3), 255, np.uint8)
    for row, value in marks.items():
        baseline = min(max(row + 5, 11), height - 3)
        cv2.putText(names, f"{value:.3g}", (4, baseline), _FONT, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return names


def captioned(picture: Pixels, words: str) -> Pixels:
    """The picture, and a line under it."""
    return np.concatenate([picture, line(words, picture.shape[1])])


def beside(*pictures: Pixels) -> Pixels:
    """Pictures side by side, their upper edges at one height, white between them."""
    height = max(map(len, pictures))
    parts = []
    for one in pictures:
        parts += [np.pad(one, [(0, height - len(one)), (0, 0), (0, 0)], constant_values=255)]
        parts += [np.full((height, _GAP, 3), 255, np.uint8)]
    return np.concatenate(parts[:-1], 1)


def sheet(title: str, picture: Pixels) -> Pixels:
    """The picture on white, under its title."""
    rest = max(0, WIDTH - picture.shape[1])
    wide = np.pad(picture, [(0, 0), (0, rest), (0, 0)], constant_values=255)
    whole = np.concatenate([line(title, wide.shape[1], 0.5), wide])
    return np.pad(whole, [(_GAP // 2, _GAP), (_GAP, _GAP), (0, 0)], constant_values=255)
