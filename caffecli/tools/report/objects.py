"""What a detector takes for objects and is none, and what it misses: the mistakes behind its average precision."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from caffecli.layers import boxes
from caffecli.layers.forks.ssd.evaluate import judged

Pixels = NDArray[np.uint8]
Corners = tuple[float, float, float, float]
Reason = Literal["twice", "class", "place", "both", "nothing"]

#: so many mistakes of each kind are kept
KEPT = 12
#: a box that overlaps less with an object of its class is not about it
_NEAR = 0.1


class Found(NamedTuple):
    """A box that was found; corners as parts of the picture."""

    label: int
    score: float
    corners: Corners


class Object(NamedTuple):
    """A true box; ``skipped``: it counts neither as found nor as missed."""

    label: int
    corners: Corners
    skipped: bool = False


class FalseBox(NamedTuple):
    """A box that is wrong, and why: its object was found by a surer box (twice), the object is of ``other`` class
    (class), the overlap with one of its class is too small (place), that with one of another too (both), or there is
    nothing.

    ``overlap``: with the true box that the reason speaks of; 0 for nothing.
    """

    box: Found
    reason: Reason
    overlap: float
    other: int | None = None


class Missed(NamedTuple):
    """An object that no box hits with the wanted score; ``score``: of the box that hits it, None where none does."""

    object: Object
    score: float | None


def compare(
    found: list[Found], true: list[Object], threshold: float = 0.5, least: float = 0.0
) -> tuple[list[FalseBox], list[Missed]]:
    """The mistakes in a picture, as DetectionEvaluate judges boxes: at the overlap ``threshold``. An object counts as
    missed unless a box with the score ``least`` or more hits it.
    """
    false: list[FalseBox] = []
    missed: list[Missed] = []
    for label in sorted({one.label for one in found} | {one.label for one in true}):
        own = sorted((one for one in found if one.label == label), key=lambda one: -one.score)
        objects = [one for one in true if one.label == label]
        overlap = boxes.overlaps(_corners(own), _corners(objects))
        skipped = torch.tensor([one.skipped for one in objects])
        hits: dict[int, float] = {}
        for i, (hit, miss) in enumerate(judged(_corners(own), _corners(objects), skipped, threshold).tolist()):
            if hit:
                hits[int(overlap[i].argmax())] = own[i].score
            elif miss:
                most = float(overlap[i].max()) if objects else 0.0
                false.append(_reason(own[i], most, [one for one in true if one.label != label], threshold))
        missed += [
            Missed(one, hits.get(place))
            for place, one in enumerate(objects)
            if not one.skipped and hits.get(place, -1.0) < least
        ]
    return false, missed


def _reason(box: Found, most: float, others: list[Object], threshold: float) -> FalseBox:
    """``most``: the overlap with the object of its class that it overlaps with most."""
    if most >= threshold:
        return FalseBox(box, "twice", most)
    overlap = boxes.overlaps(_corners([box]), _corners(others))[0]
    nearest = int(overlap.argmax()) if others else None
    other, label = (float(overlap[nearest]), others[nearest].label) if nearest is not None else (0.0, None)
    if other >= threshold:
        return FalseBox(box, "class", other, label)
    if most >= _NEAR:
        return FalseBox(box, "place", most)
    return FalseBox(box, "both", other, label) if other >= _NEAR else FalseBox(box, "nothing", 0.0)


def _corners(ones: list[Found] | list[Object]) -> torch.Tensor:
    return torch.tensor([one.corners for one in ones], dtype=torch.float32).reshape(-1, 4)


@dataclass(frozen=True)
class Mistake:
    """A mistake in a picture, with the true boxes around it."""

    key: str
    pixels: Pixels
    what: FalseBox | Missed
    true: list[Object]


@dataclass
class Mistakes:
    """Of all pictures the surest false boxes, and the missed objects: first those that no box hits, the largest first,
    then by the score of the box that does. At most ``KEPT`` of each; ``false_count`` and ``missed_count`` of all.
    """

    threshold: float = 0.5
    least: float = 0.3
    #: false boxes of this score and more
    false_count: int = 0
    missed_count: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    _false: list[tuple[float, int, Mistake]] = field(default_factory=list)
    _missed: list[tuple[float, int, Mistake]] = field(default_factory=list)
    _number: int = 0

    def take(self, key: str, pixels: Callable[[], Pixels], found: list[Found], true: list[Object]) -> None:
        """Add a picture; ``pixels`` makes it, where it is needed."""
        false, missed = compare(found, true, self.threshold, self.least)
        sure = [one for one in false if one.box.score >= self.least]
        self.false_count += len(sure)
        self.missed_count += len(missed)
        for one in sure:
            self.reasons[one.reason] = self.reasons.get(one.reason, 0) + 1
            self._keep(self._false, one.box.score, partial(_mistake, key, pixels, one, true))
        for lost in missed:
            rank = 1 + _area(lost.object) if lost.score is None else -lost.score
            self._keep(self._missed, rank, partial(_mistake, key, pixels, lost, true))

    def _keep(self, heap: list[tuple[float, int, Mistake]], rank: float, make: Callable[[], Mistake]) -> None:
        """Of equal ranks the first stays."""
        self._number -= 1
        if len(heap) < KEPT:
            heapq.heappush(heap, (rank, self._number, make()))
        elif rank > heap[0][0]:
            heapq.heapreplace(heap, (rank, self._number, make()))

    @property
    def false(self) -> list[Mistake]:
        """The surest first."""
        return list(_falling(self._false))

    @property
    def missed(self) -> list[Mistake]:
        return list(_falling(self._missed))


def _mistake(key: str, pixels: Callable[[], Pixels], what: FalseBox | Missed, true: list[Object]) -> Mistake:
    return Mistake(key, pixels(), what, true)


def _falling(heap: list[tuple[float, int, Mistake]]) -> Iterator[Mistake]:
    return (one[2] for one in sorted(heap, key=lambda one: (-one[0], -one[1])))


def _area(one: Object) -> float:
    x1, y1, x2, y2 = one.corners
    return max(0.0, x2 - x1) * max(0.0, y2 - y1)
