"""Boxes in torch: how much they overlap, and which of those that overlap stay.

A box is (xmin, ymin, xmax, ymax). ``pixel`` is 0 for boxes between points, as parts of an image, and 1 where both ends
are pixels of the box, as in R-CNN, so that a box from 3 to 3 is 1 wide.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: how many boxes are compared with each other at once
_BLOCK = 512


def sizes(boxes: Tensor, pixel: float = 0) -> Tensor:
    """Width and height of boxes (..., 4): (..., 2)."""
    return boxes[..., 2:] - boxes[..., :2] + pixel


def overlaps(a: Tensor, b: Tensor, pixel: float = 0) -> Tensor:
    """Intersection over union of each box of ``a`` (..., n, 4) with each of ``b`` (..., m, 4): (..., n, m).

    0 where they do not meet; a box whose end is before its begin has no area.
    """
    low = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    high = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    shared = (high - low + pixel).clamp(min=0).prod(-1)
    areas = [sizes(boxes, pixel).clamp(min=0).prod(-1) for boxes in (a, b)]
    union = areas[0][..., :, None] + areas[1][..., None, :] - shared
    return torch.where(shared > 0, shared / union, shared)


def suppress(boxes: Tensor, threshold: float, pixel: float = 0, valid: Tensor | None = None) -> Tensor:
    """Which boxes (..., n, 4), the best first, stay when each that stays removes the worse ones that overlap with it
    by more than ``threshold``: a mask (..., n). Boxes that are not ``valid`` (..., n) neither stay nor remove.

    All are compared at once, and the mask is found by repetition: whatever stays in a round removes in the next, until
    nothing changes. After round k the first k are right; mostly all are after a few.
    """
    removes = (~(overlaps(boxes, boxes, pixel) <= threshold)).to(boxes.dtype).triu(1)  # a NaN removes
    alive = boxes.new_ones(boxes.shape[:-1]) if valid is None else valid.to(boxes.dtype)
    stay = alive
    while True:
        after = alive * (stay[..., None, :] @ removes == 0)[..., 0, :]
        if torch.equal(after, stay):
            return stay.bool()
        stay = after


def first_of_those_that_stay(boxes: Tensor, threshold: float, pixel: float = 0, most: int = 0) -> Tensor:
    """The indices of up to ``most`` (0: all) of many boxes (n, 4), the best first, that ``suppress`` would leave."""
    kept = torch.zeros(0, dtype=torch.long, device=boxes.device)
    for begin in range(0, len(boxes), _BLOCK):
        own = boxes[begin : begin + _BLOCK]
        free = (overlaps(boxes[kept], own, pixel) <= threshold).all(0)
        kept = torch.cat([kept, suppress(own, threshold, pixel, free).nonzero()[:, 0] + begin])
        if 0 < most <= len(kept):
            return kept[:most]
    return kept
