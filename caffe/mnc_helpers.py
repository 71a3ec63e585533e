"""What MNC's Python code imports as a compiled module: ``from nms.mv import mv``, the voting of masks.

It finds this module where nobody has compiled its own (``caffecli/checkouts.py``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: the least of a voted mask that is of the object
_OBJECT = 0.4


def mv(
    all_boxes: NDArray[Any],
    all_masks: NDArray[Any],
    candidate_inds: NDArray[Any],
    candidate_start: NDArray[Any],
    candidate_weights: NDArray[Any],
    image_height: int,
    image_width: int,
    device_id: int = 0,
) -> tuple[Floats, NDArray[np.int32]]:
    """Weighted means of masks (R, 1, S, S), and the boxes around what of them is above 0.4 (R, 4).

    Mean r is over ``candidate_inds`` from ``candidate_start[r - 1]`` (0) up to ``candidate_start[r]``, each a box of
    ``all_boxes`` (N, 4) with its mask in ``all_masks`` (N, 1, S, S), by ``candidate_weights``: masks are brought to the
    size of their boxes, added up in the picture, and the box around the sum is brought to S x S. Where nothing is above
    0.4 the box is the pixel in the middle of the picture.
    """
    size, count = all_masks.shape[-1], len(candidate_start)
    masks = np.zeros((count, 1, size, size), np.float32)
    boxes = np.zeros((count, 4), np.int32)
    for r, (first, last) in enumerate(zip([0, *candidate_start], candidate_start, strict=False)):
        whole = np.zeros((image_height, image_width), np.float32)
        for index, weight in zip(candidate_inds[first:last], candidate_weights[first:last], strict=True):
            _render(all_boxes[index].astype(np.float32), all_masks[index, 0].astype(np.float32), weight, whole)
        ends = [_ends(np.asarray((whole > _OBJECT).any(axis))) for axis in (0, 1)]
        (left, right), (top, bottom) = ends
        boxes[r] = left, top, right, bottom
        steps = np.arange(size, dtype=np.float32)
        rows, columns = (
            np.float32(begin) + steps * (np.float32(end - begin + 1) / np.float32(size))
            for begin, end in ((top, bottom), (left, right))
        )
        masks[r, 0] = _interpolated(whole, rows, columns)
    return masks, boxes


def _render(box: Floats, mask: Floats, weight: float, whole: Floats) -> None:
    """Add a mask, in the size of its box, to the picture."""
    at = []
    for first, last, places in ((box[1], box[3], whole.shape[0]), (box[0], box[2], whole.shape[1])):
        pixels = np.arange(places, dtype=np.float32)
        at.append(pixels[(pixels >= first) & (pixels <= last)])
    rows, columns = (
        (pixels - first) * (np.float32(len(mask)) / (last - first + np.float32(1)))
        for pixels, first, last in zip(at, box[[1, 0]], box[[3, 2]], strict=True)
    )
    if len(rows) and len(columns):
        top, left = int(at[0][0]), int(at[1][0])
        whole[top : top + len(rows), left : left + len(columns)] += weight * _interpolated(mask, rows, columns)


def _ends(there: NDArray[np.bool_]) -> tuple[int, int]:
    """The first and the last place that is true; the middle where none is."""
    places = np.flatnonzero(there)
    return (int(places[0]), int(places[-1])) if len(places) else (len(there) // 2,) * 2


def _interpolated(plane: Floats, rows: Floats, columns: Floats) -> Floats:
    """The values at rows and columns, interpolated but in the last row and the last column of the plane."""
    top, left = (
        np.minimum(np.floor(at).astype(int), n - 1) for at, n in zip((rows, columns), plane.shape, strict=True)
    )
    low, right = np.minimum(top + 1, len(plane) - 1), np.minimum(left + 1, plane.shape[1] - 1)
    between = ((top < len(plane) - 1)[:, None] & (left < plane.shape[1] - 1)).astype(np.float32)
    y, x = (rows - top)[:, None] * between, (columns - left) * between
    upper = plane[np.ix_(top, left)] * (1 - x) + plane[np.ix_(top, right)] * x
    lower = plane[np.ix_(low, left)] * (1 - x) + plane[np.ix_(low, right)] * x
    values: Floats = upper * (1 - y) + lower * y
    return values
