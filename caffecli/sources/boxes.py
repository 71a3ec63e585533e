"""What happens to boxes where pictures are cut and enlarged, and how SSD draws the part of a picture to cut.

Boxes are rows of ``formats.annotated``; a window is (xmin, ymin, xmax, ymax), as the corners of boxes parts of width
and height, and may reach beyond the picture. Source: ``bbox_util.cpp``, ``sampler.cpp``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import SpecError
from caffecli.formats.annotated import CORNERS, POLYGON, Boxes
from caffecli.proto.caffe_pb2 import AnnotatedDataParameter, BatchSampler, EmitConstraint, SampleConstraint, Sampler
from caffecli.sources import polygons
from caffecli.sources.base import Floats

#: the whole picture
WHOLE: Floats = np.array([0, 0, 1, 1], np.float32)


def project(boxes: Boxes, window: Floats, emit: EmitConstraint | None) -> Boxes:
    """The boxes as seen in the window: moved, scaled and clipped to it; those that it does not meet are left out.

    ``emit`` keeps of the boxes those whose centre lies in the window (CENTER), or of whose area more than
    ``emit_overlap`` does (MIN_OVERLAP).
    """
    if not len(boxes):
        return boxes
    corners = boxes[:, CORNERS]
    low, high = window[:2], window[2:]
    kept = np.asarray(((corners[:, :2] < high) & (corners[:, 2:] > low)).all(1))
    if emit is not None:
        kept &= _emitted(corners, window, emit)
    moved = ((corners - np.tile(low, 2)) / np.tile(high - low, 2)).clip(0, 1)
    kept &= areas(moved) > 0
    boxes = boxes[kept]
    boxes[:, CORNERS] = moved[kept]
    if boxes.shape[1] > POLYGON.start:
        boxes[:, POLYGON] = polygons.seen(boxes[:, POLYGON], low, high)
    return boxes


def _emitted(corners: Floats, window: Floats, emit: EmitConstraint) -> NDArray[np.bool_]:
    if emit.emit_type == EmitConstraint.MIN_OVERLAP:
        return coverage(corners, window) > np.float32(emit.emit_overlap)
    centres = (corners[:, :2] + corners[:, 2:]) / 2
    return np.asarray(((centres >= window[:2]) & (centres <= window[2:])).all(1))


def areas(corners: Floats) -> Floats:
    """The area of each box, 0 where a maximum lies below the minimum."""
    sizes = (corners[..., 2:] - corners[..., :2]).clip(0)
    return np.asarray(sizes[..., 0] * sizes[..., 1])


def common(a: Floats, b: Floats) -> Floats:
    """The area that boxes of ``a`` and ``b`` share."""
    return areas(np.concatenate([np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])], -1))


def coverage(boxes: Floats, by: Floats) -> Floats:
    """The part of each box that lies in ``by``."""
    return _parts(common(boxes, by), areas(boxes))


def overlap(a: Floats, b: Floats) -> Floats:
    """Intersection over union (the Jaccard overlap)."""
    shared = common(a, b)
    return _parts(shared, areas(a) + areas(b) - shared)


def _parts(of: Floats, whole: Floats) -> Floats:
    return np.divide(of, whole, out=np.zeros(np.broadcast_shapes(of.shape, whole.shape), np.float32), where=of > 0)


class CropSampler:
    """Draws a part of a picture by ``batch_sampler``s.

    Each that has ``use_original_image`` draws up to ``max_trials`` windows and keeps the first ``max_sample`` that
    satisfy its ``sample_constraint``. A window has ``scale`` and ``aspect_ratio`` evenly from the sampler's ranges, the
    ratio from scale ** 2 to its inverse at most, a width of ``scale * sqrt(ratio)``, a height of
    ``scale / sqrt(ratio)``, and any place. The constraint holds where one box satisfies all of its bounds; SSD looks,
    where bounds of several kinds are given, at the first kind alone.

    Raises SpecError, ``where`` in front, for ranges that nothing can be drawn from.
    """

    def __init__(self, samplers: Sequence[BatchSampler], where: str) -> None:
        self._samplers = [sampler for sampler in samplers if sampler.use_original_image]
        for index, sampler in enumerate(samplers):
            _check(sampler.sampler, f"{where}: batch_sampler {index}")

    def __bool__(self) -> bool:
        return bool(self._samplers)

    def draw(self, boxes: Boxes, rng: np.random.Generator) -> Floats | None:
        """One of the windows kept, each as likely as the others; None without any."""
        corners = boxes[:, CORNERS]
        found = np.concatenate([_kept(sampler, corners, rng) for sampler in self._samplers])
        return found[rng.integers(len(found))] if len(found) else None


class Jitter:
    """Draws a part of a picture by ``yolo_data_jitter`` j, of MobileNet-YOLO: with probability 0.2 the whole picture,
    with 0.2 one whose sides are parts 1 - j / 2 to 1, with 0.6 one of 1 - j to 1, at any place.

    j is 0.3 with ``yolo_data_type: 1``, unless given; it has no part where there are ``batch_sampler``s.
    Source: eric612/MobileNet-YOLO, ``sampler.cpp``. Difference: there 0.3 holds for any other yolo_data_type too.
    """

    def __init__(self, param: AnnotatedDataParameter, where: str) -> None:
        asked = (param.yolo_data_type == 1 or param.HasField("yolo_data_jitter")) and not param.batch_sampler
        self._jitter = param.yolo_data_jitter if asked else 0
        if not 0 <= self._jitter < 1:
            raise SpecError(f"{where}: expected a yolo_data_jitter of 0 to below 1, got {self._jitter:g}")

    def __bool__(self) -> bool:
        return bool(self._jitter)

    def draw(self, rng: np.random.Generator, square: bool) -> Floats | None:
        """A window, whose sides are the same parts of the picture's where it is ``square``; None for all of it."""
        kind = rng.choice(3, p=[0.2, 0.2, 0.6])
        if not kind:
            return None
        sizes = 1 - rng.random(2) * self._jitter / (2 if kind == 1 else 1)
        sizes = sizes[[0, 0]] if square else sizes
        low = (1 - sizes) * rng.random(2)
        return np.concatenate([low, low + sizes]).astype(np.float32)


def _check(sampler: Sampler, where: str) -> None:
    if not 0 < sampler.min_scale <= sampler.max_scale <= 1:
        raise SpecError(
            f"{where}: expected 0 < min_scale <= max_scale <= 1, got {sampler.min_scale:g} and {sampler.max_scale:g}"
        )
    if not 0 < sampler.min_aspect_ratio <= sampler.max_aspect_ratio < np.inf:
        raise SpecError(
            f"{where}: expected 0 < min_aspect_ratio <= max_aspect_ratio, got {sampler.min_aspect_ratio:g} and "
            f"{sampler.max_aspect_ratio:g}"
        )


def _kept(sampler: BatchSampler, corners: Floats, rng: np.random.Generator) -> Floats:
    windows = windows_of(sampler.sampler, rng.random((sampler.max_trials, 4), np.float32))
    good = windows[satisfied(windows, corners, sampler.sample_constraint)]
    return good[: sampler.max_sample] if sampler.HasField("max_sample") else good


def windows_of(sampler: Sampler, draws: Floats) -> Floats:
    """The windows (count, 4) of draws in [0, 1): each row's are for scale, aspect ratio, x and y."""
    scale = sampler.min_scale + (sampler.max_scale - sampler.min_scale) * draws[:, 0]
    ratio = sampler.min_aspect_ratio + (sampler.max_aspect_ratio - sampler.min_aspect_ratio) * draws[:, 1]
    root = np.sqrt(ratio.clip(scale**2, 1 / scale**2))
    sizes = np.minimum(np.stack([scale * root, scale / root], 1), np.float32(1))
    low = (1 - sizes) * draws[:, 2:]
    return np.concatenate([low, low + sizes], 1)


def satisfied(windows: Floats, corners: Floats, constraint: SampleConstraint) -> NDArray[np.bool_]:
    """For each window, whether one of the boxes satisfies all bounds given; each does where none is given."""
    windows, boxes = windows[:, None], corners[None]
    given = {field.name: value for field, value in constraint.ListFields()}
    good = None
    for name, measure, of, by in (
        ("jaccard_overlap", overlap, windows, boxes),
        ("sample_coverage", coverage, windows, boxes),
        ("object_coverage", coverage, boxes, windows),
    ):
        least, most = f"min_{name}", f"max_{name}"
        if least in given or most in given:
            values, low, high = measure(of, by), given.get(least, -np.inf), given.get(most, np.inf)
            holds = (values >= np.float32(low)) & (values <= np.float32(high))
            good = holds if good is None else good & holds
    return np.ones(len(windows), np.bool_) if good is None else good.any(1)
