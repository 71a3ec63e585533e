"""Boxes in torch: how much they overlap, which of those that overlap stay, which belong together, and SSD's codes.

A box is (xmin, ymin, xmax, ymax). ``pixel`` is 0 for boxes between points, as parts of an image, and 1 where both ends
are pixels of the box, as in R-CNN, so that a box from 3 to 3 is 1 wide.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from caffecli.proto.caffe_pb2 import PriorBoxParameter

#: how many boxes are compared with each other at once
_BLOCK = 512
#: and how many of those with all of them, on a processor
_ROWS = 128


def sizes(boxes: Tensor, pixel: float = 0) -> Tensor:
    """Width and height of boxes (..., 4): (..., 2)."""
    return boxes[..., 2:] - boxes[..., :2] + pixel


def overlaps(a: Tensor, b: Tensor, pixel: float = 0) -> Tensor:
    """Intersection over union of each box of ``a`` (..., n, 4) with each of ``b`` (..., m, 4): (..., n, m).

    0 where they do not meet; a box whose end is before its begin has no area.
    """
    areas = _areas(a, pixel)[..., :, None], _areas(b, pixel)[..., None, :]
    return _overlap(a[..., :, None, :], b[..., None, :, :], *areas, pixel)


def overlap(a: Tensor, b: Tensor, pixel: float = 0) -> Tensor:
    """As ``overlaps``, of each box of ``a`` (..., 4) with its own of ``b`` (..., 4): (...)."""
    return _overlap(a, b, _areas(a, pixel), _areas(b, pixel), pixel)


def _areas(boxes: Tensor, pixel: float) -> Tensor:
    return sizes(boxes, pixel).clamp(min=0).prod(-1)


def _overlap(a: Tensor, b: Tensor, area_a: Tensor, area_b: Tensor, pixel: float) -> Tensor:
    ours, theirs = a.unbind(-1), b.unbind(-1)
    wide, high = (  # one after the other, and in place, which takes a third of the time
        torch.minimum(ours[i + 2], theirs[i + 2]).sub_(torch.maximum(ours[i], theirs[i])).add_(pixel).clamp_(min=0)
        for i in (0, 1)
    )
    shared = wide.mul_(high)
    parts = shared / (area_a + area_b).sub_(shared)
    return parts.masked_fill_(shared == 0, 0)  # without an area, 0 / 0


def just_below(threshold: float) -> float:
    """The number below in float32: boxes overlap by the threshold or more where they do by more than this."""
    return float(np.nextafter(np.float32(threshold), np.float32(-math.inf)))


def suppress(boxes: Tensor, threshold: float, pixel: float = 0, valid: Tensor | None = None) -> Tensor:
    """Which boxes (..., n, 4), the best first, stay when each that stays removes the worse ones that overlap with it
    by more than ``threshold``: a mask (..., n). Boxes that are not ``valid`` (..., n) neither stay nor remove.

    All are compared at once, and the mask is found by repetition: whatever stays in a round removes in the next, until
    nothing changes. After round k the first k are right; mostly all are after a few.
    """
    if boxes.dim() == 2 and boxes.device.type == "cpu":
        return _suppress_by_pairs(boxes, threshold, pixel, valid)
    removes = (~(overlaps(boxes, boxes, pixel) <= threshold)).to(boxes.dtype).triu(1)  # a NaN removes
    alive = boxes.new_ones(boxes.shape[:-1]) if valid is None else valid.to(boxes.dtype)
    stay = alive
    while True:
        after = alive * (stay[..., None, :] @ removes == 0)[..., 0, :]
        if torch.equal(after, stay):
            return stay.bool()
        stay = after


def _suppress_by_pairs(boxes: Tensor, threshold: float, pixel: float, valid: Tensor | None) -> Tensor:
    """``suppress`` for a processor: what its cache holds at once, and then only the pairs that overlap."""
    boxes = boxes.t().contiguous().t()  # all of one coordinate side by side
    areas = _areas(boxes, pixel)
    pairs = []
    for begin in range(0, len(boxes), _ROWS):
        own = slice(begin, begin + _ROWS)
        overlap = _overlap(boxes[own, None], boxes[None, begin:], areas[own, None], areas[None, begin:], pixel)
        pairs.append((~(overlap <= threshold)).triu_(1).nonzero() + begin)
    better, worse = torch.cat(pairs).unbind(1) if pairs else (areas.long(), areas.long())
    alive = torch.ones_like(areas, dtype=torch.bool) if valid is None else valid
    stay = alive
    while True:
        after = alive.clone()
        after[worse[stay[better]]] = False
        if torch.equal(after, stay):
            return stay
        stay = after


def suppress_in_turn(boxes: Tensor, threshold: float, valid: Tensor, eta: float) -> Tensor:
    """As ``suppress`` for boxes (groups, n, 4), where each box that stays multiplies the threshold of its group by
    ``eta`` while that is above 0.5. In as many steps as boxes stay in a group.
    """
    boxes = boxes.transpose(1, 2).contiguous().transpose(1, 2)  # all of one coordinate side by side
    areas, rows = _areas(boxes, 0), torch.arange(len(boxes), device=boxes.device)
    worst = torch.zeros_like(areas)
    limit = worst.new_full((len(boxes), 1), threshold)
    undecided, stay = valid.clone(), torch.zeros_like(valid)
    for _ in range(boxes.shape[1]):
        some, first = undecided.byte().max(1)
        if not some.any():
            break
        stay[rows, first] |= some.bool()
        overlap = _overlap(boxes[rows, first][:, None], boxes, areas[rows, first][:, None], areas, 0)
        limit = torch.where(some.bool()[:, None] & (limit > 0.5), limit * eta, limit)
        worst = torch.maximum(worst, overlap)
        undecided &= worst <= limit
        undecided[rows, first] = False
    return stay


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


def match(overlap: Tensor, threshold: float | None = None) -> Tensor:
    """Which of m true boxes each of n boxes belongs to, by their overlaps (..., n, m): indices (..., n), -1 for none.

    First the pair that overlaps most, then the next of what is left over, each box and each true box once. Then, where
    a threshold is given, each other box belongs to the true one that it overlaps with most, if by the threshold or
    more. Of equals the first counts; boxes that do not overlap do not belong together.
    """
    n, m = overlap.shape[-2:]
    left = overlap.reshape(overlap.shape[:-2].numel(), n, m).clone()
    found = left.new_full((len(left), n), -1, dtype=torch.long)
    rows = torch.arange(len(left), device=left.device)
    for _ in range(min(n, m)):
        best, at = left.flatten(1).max(1)
        box, true = at // m, at % m
        found[rows, box] = torch.where(best > 0, true, found[rows, box])
        left[rows, box], left[rows, :, true] = 0, 0
    found = found.reshape(overlap.shape[:-1])
    if threshold is not None and n and m:
        best, true = overlap.max(-1)
        found = torch.where((found < 0) & (best > 0) & (best >= threshold), true, found)
    return found


def decode(change: Tensor, priors: Tensor, variances: Tensor | None, code: int) -> Tensor:
    """The boxes that ``change`` makes of ``priors``, both (..., 4), as a ``PriorBoxParameter.CodeType`` says:

    CORNER p + v c; CORNER_SIZE p + v c (width, height); CENTER_SIZE centre + v c (width, height), and sizes exp(v c).
    ``variances`` v (..., 4); None: 1.
    """
    change = change if variances is None else change * variances
    if code == PriorBoxParameter.CORNER:
        return priors + change
    size = sizes(priors)
    if code == PriorBoxParameter.CORNER_SIZE:
        return priors + change * torch.cat([size, size], -1)
    centre = (priors[..., :2] + priors[..., 2:]) / 2 + change[..., :2] * size
    half = change[..., 2:].exp() * size / 2
    return torch.cat([centre - half, centre + half], -1)


def encode(boxes: Tensor, priors: Tensor, variances: Tensor | None, code: int) -> Tensor:
    """The change (..., 4) of ``priors`` that ``decode`` makes ``boxes`` of; of boxes without area it is not finite."""
    if code == PriorBoxParameter.CORNER:
        change = boxes - priors
    else:
        size = sizes(priors)
        if code == PriorBoxParameter.CORNER_SIZE:
            change = (boxes - priors) / torch.cat([size, size], -1)
        else:
            between = (boxes[..., :2] + boxes[..., 2:]) / 2 - (priors[..., :2] + priors[..., 2:]) / 2
            change = torch.cat([between / size, (sizes(boxes) / size).log()], -1)
    return change if variances is None else change / variances
