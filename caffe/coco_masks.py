"""What COCO's Python code imports as its compiled module: masks as lengths of runs, and how much they overlap.

``import pycocotools._mask`` finds this module where nobody has compiled it (``caffecli/checkouts.py``), as within
py-faster-rcnn's folder lib. A mask's pixels are counted column by column; its runs are of 0, of 1, of 0 and so on.
An encoded mask is a dict: ``size`` [height, width], ``counts`` the runs as bytes. A box is (x, y, width, height).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Encoded = Mapping[str, Any]
Array = NDArray[Any]


def encode(mask: Array) -> list[dict[str, Any]]:
    """The masks of an array (height, width, count)."""
    flat = np.asarray(mask, bool)
    return [_encoded(flat[..., i].flatten("F"), flat.shape[:2]) for i in range(flat.shape[2])]


def decode(rleObjs: Sequence[Encoded]) -> NDArray[np.uint8]:
    """Masks of one size as an array (height, width, count)."""
    size = tuple(rleObjs[0]["size"])
    masks = [_decoded(each).reshape(size, order="F") for each in rleObjs]
    return np.asfortranarray(np.stack(masks, -1).astype(np.uint8))


def merge(rleObjs: Sequence[Encoded], intersect: bool = False) -> dict[str, Any]:
    """The pixels that are in one of the masks, or, to ``intersect``, in all of them."""
    masks = np.stack([_decoded(each) for each in rleObjs])
    together: NDArray[np.bool_] = (np.all if intersect else np.any)(masks, axis=0)
    return _encoded(together, rleObjs[0]["size"])


def area(rleObjs: Sequence[Encoded]) -> NDArray[np.uint32]:
    """How many pixels each mask has."""
    return np.array([_runs(each)[1::2].sum() for each in rleObjs], np.uint32)


def toBbox(rleObjs: Sequence[Encoded]) -> NDArray[np.float64]:
    """The box around each mask, (count, 4); zeros for one without pixels."""
    boxes = np.zeros((len(rleObjs), 4))
    for box, each in zip(boxes, rleObjs, strict=True):
        rows, columns = _decoded(each).reshape(each["size"], order="F").nonzero()
        if len(rows):
            box[:] = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
    return boxes


def iou(dt: Any, gt: Any, pyiscrowd: Any) -> Any:
    """Intersection over union of each of ``dt`` with each of ``gt``, boxes or masks both: (len(dt), len(gt)).

    Of a ``gt`` that is a crowd, over the area of ``dt``. ``[]`` where there are none of one.
    """
    if len(dt) == 0 or len(gt) == 0:
        return []
    if isinstance(dt[0], Mapping) != isinstance(gt[0], Mapping):
        raise ValueError("iou: expected boxes, or encoded masks, for both")
    if isinstance(dt[0], Mapping):
        a, b = (np.stack([_decoded(each) for each in masks]).astype(np.float64) for masks in (dt, gt))
        shared, own, other = a @ b.T, a.sum(1), b.sum(1)
    else:
        a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in (dt, gt))
        low = np.maximum(a[:, None, :2], b[:, :2])
        high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[:, :2] + b[:, 2:])
        shared, own, other = (high - low).clip(min=0).prod(-1), a[:, 2:].prod(1), b[:, 2:].prod(1)
    crowd = np.asarray(pyiscrowd, bool)
    union = np.where(crowd, own[:, None], own[:, None] + other - shared)
    result: Array = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return np.asfortranarray(result)


def frPyObjects(pyobj: Any, h: int, w: int) -> list[dict[str, Any]]:
    """Masks of ``h`` x ``w`` of boxes, of polygons (x, y, x, y, ...), or of runs (``counts`` a list)."""
    if isinstance(pyobj[0], Mapping):
        return [{"size": each["size"], "counts": _text(np.asarray(each["counts"]))} for each in pyobj]
    if len(pyobj[0]) == 4:
        pyobj = [(x, y, x, y + high, x + wide, y + high, x + wide, y) for x, y, wide, high in pyobj]
    return [_encoded(_polygon(np.asarray(each, np.float64).reshape(-1, 2), h, w), (h, w)) for each in pyobj]


def _polygon(points: NDArray[np.float64], height: int, width: int) -> NDArray[np.bool_]:
    """The pixels within a polygon: its border is walked in fifths of a pixel, and where it passes the middle of a
    column, inside turns to outside below.
    """
    corners = (5 * points + 0.5).astype(np.int64)
    border = np.concatenate([_line(*ends) for ends in zip(corners, np.roll(corners, -1, 0), strict=True)])
    before, after = border[:-1], border[1:]
    moved = before[:, 0] != after[:, 0]
    before, after = before[moved], after[moved]
    column = (np.where(after[:, 0] < before[:, 0], after[:, 0], after[:, 0] - 1) + 0.5) / 5 - 0.5
    row = np.ceil(((np.minimum(before[:, 1], after[:, 1]) + 0.5) / 5 - 0.5).clip(0, height))
    there = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    turns = (column[there] * height + row[there]).astype(np.int64)
    inside: NDArray[np.bool_] = np.bincount(turns, minlength=height * width + 1).cumsum()[: height * width] % 2 == 1
    return inside


def _line(begin: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
    """The points from ``begin`` to ``end``, (count, 2): each step is 1 along the longer axis.

    They are those of the way from the lower end up, halves towards zero cut as C does.
    """
    long = 0 if abs(end - begin)[0] >= abs(end - begin)[1] else 1
    low, high = (end, begin) if begin[long] > end[long] else (begin, end)
    steps = np.arange(high[long] - low[long] + 1)
    slope = (high - low)[1 - long] / max(1, high[long] - low[long])
    line = np.empty((len(steps), 2), np.int64)
    line[:, long] = low[long] + steps
    line[:, 1 - long] = (low[1 - long] + slope * steps + 0.5).astype(np.int64)
    return line if low is begin else line[::-1]


def _encoded(flat: NDArray[np.bool_], size: Sequence[int]) -> dict[str, Any]:
    turns = np.flatnonzero(np.diff(flat, prepend=False))
    runs = np.diff(np.concatenate([[0], turns, [len(flat)]]))
    return {"size": [int(each) for each in size], "counts": _text(runs)}


def _decoded(mask: Encoded) -> NDArray[np.bool_]:
    runs = _runs(mask)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def _text(runs: Array) -> bytes:
    """Runs as characters of 5 bits each, the lowest first; from the fourth on what a run differs from the second
    before it.
    """
    runs = runs.astype(np.int64)
    values = runs.copy()
    values[3:] -= runs[1:-2]
    characters = bytearray()
    for value in values.tolist():
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            characters.append(bits + 32 * more + 48)
    return bytes(characters)


def _runs(mask: Encoded) -> NDArray[np.int64]:
    counts = mask["counts"]
    if isinstance(counts, list):
        return np.array(counts, np.int64)
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode() if isinstance(counts, str) else counts:
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return np.array(runs, np.int64)
