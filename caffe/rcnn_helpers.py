"""What the Python code of Fast and Faster R-CNN, and of those that build on it, imports as compiled modules.

``from utils.cython_bbox import bbox_overlaps``, ``from nms.cpu_nms import cpu_nms`` and their kin find this module
where nobody has compiled theirs (``caffecli/checkouts.py``). Boxes are rows (xmin, ymin, xmax, ymax), both ends in
them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from caffecli.layers import boxes as box

Array = NDArray[Any]


def bbox_overlaps(boxes: Array, query_boxes: Array) -> NDArray[np.float64]:
    """Intersection over union of each of ``boxes`` (N, 4) with each of ``query_boxes`` (K, 4): (N, K)."""
    a, b = (torch.from_numpy(np.array(each, np.float64)[:, :4]) for each in (boxes, query_boxes))
    shared: NDArray[np.float64] = box.overlaps(a, b, 1).numpy()
    return shared


def cpu_nms(dets: Array, thresh: float) -> list[int]:
    """Which of the boxes with scores (N, 5) stay, by falling score.

    Those that overlap by ``thresh`` or more with one of a higher score that stays, go.
    """
    return _kept(dets, box.just_below(thresh))


def gpu_nms(dets: Array, thresh: float, device_id: int = 0) -> list[int]:
    """As ``cpu_nms``, but boxes that overlap by ``thresh`` exactly stay. Computed on the CPU all the same."""
    return _kept(dets, float(np.float32(thresh)))


nms = cpu_nms


def _kept(dets: Array, threshold: float) -> list[int]:
    rows = torch.from_numpy(np.array(dets, np.float32).reshape(-1, 5))
    order = rows[:, 4].argsort(descending=True, stable=True)
    kept: list[int] = order[box.first_of_those_that_stay(rows[order, :4], threshold, 1)].tolist()
    return kept
