"""What happens to the four corners of written words where pictures are cut and turned into others, as in TextBoxes++.

Corners are (count, 8): x1, y1, ..., x4, y4, clockwise from the word's top left, as parts of the picture's width and
height.
Source: Liao et al., TIP 2018 (TextBoxes++); ``bbox_util.cpp`` and ``im_transforms.cpp`` of MhLiao/TextBoxes_plusplus.
"""

from __future__ import annotations

import numpy as np

from caffecli.sources.base import Floats

#: the order of the corners' numbers in a mirrored picture
_MIRRORED = [2, 3, 0, 1, 6, 7, 4, 5]


def seen(corners: Floats, low: Floats, high: Floats) -> Floats:
    """The corners in the window from ``low`` to ``high`` (x, y): moved, scaled, made a rectangle and cut short."""
    points = (corners.reshape(-1, 4, 2) - low) / (high - low)
    return _cut(points.astype(np.float32)).reshape(-1, 8)


def _cut(points: Floats) -> Floats:
    """The turned rectangles that stand for the corners (count, 4, 2), as wide along the word as lies in the picture.

    A rectangle has their centre, the mean length and angle of the upper and lower side, and as height the distances of
    the centre from both. It is cut where its centre lies in the picture; its height stays.
    """
    centre = points.mean(1)
    upper, lower = points[:, 1] - points[:, 0], points[:, 2] - points[:, 3]
    lengths = np.hypot(upper[:, 0], upper[:, 1]), np.hypot(lower[:, 0], lower[:, 1])
    width = (lengths[0] + lengths[1]) / 2
    height = _distance(centre, points[:, 0], points[:, 1]) + _distance(centre, points[:, 3], points[:, 2])
    angle = (np.arctan2(upper[:, 1], upper[:, 0]) + np.arctan2(lower[:, 1], lower[:, 0])) / 2
    along = np.stack([np.cos(angle), np.sin(angle)], 1)
    across = np.stack([np.cos(angle + np.pi / 2), np.sin(angle + np.pi / 2)], 1) * height[:, None] / 2
    after, before = (np.minimum(width / 2, _way_out(centre, each)) for each in (along, -along))
    begin, end = centre - along * before[:, None], centre + along * after[:, None]
    return np.stack([begin - across, end - across, end + across, begin + across], 1).astype(np.float32)


def _distance(point: Floats, a: Floats, b: Floats) -> Floats:
    """Of each point from the line through a and b."""
    side = b - a
    length = np.hypot(side[:, 0], side[:, 1]) + np.float32(1e-6)
    return np.asarray(
        np.abs(point[:, 0] * side[:, 1] - point[:, 1] * side[:, 0] + b[:, 0] * a[:, 1] - b[:, 1] * a[:, 0]) / length
    )


def _way_out(centre: Floats, along: Floats) -> Floats:
    """How far it is from each centre to the picture's edge; infinite where the centre is outside."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ways = np.concatenate([-centre / along, (1 - centre) / along], 1)
    inside = np.asarray(((centre >= 0) & (centre <= 1)).all(1))
    return np.asarray(np.where((ways >= 0) & inside[:, None], ways, np.inf).min(1))


def from_the_top_left(corners: Floats, size: Floats) -> Floats:
    """The corners from that one on by which they lie nearest to those of the box around them, in a picture of that size
    (width, height), beginning with its top left; of several as near, the first.
    """
    points = corners.reshape(-1, 4, 2) * size
    low, high = points.min(1), points.max(1)
    box = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
    turned = np.stack([np.roll(points, -first, 1) for first in range(4)], 1)
    first = np.linalg.norm(turned - box[:, None], axis=-1).sum(-1).argmin(1)
    order = (first[:, None] + np.arange(4)) % 4
    return np.take_along_axis(corners.reshape(-1, 4, 2), order[..., None], 1).reshape(-1, 8)


def mirrored(corners: Floats) -> Floats:
    """The corners in the mirrored picture, again from the top left."""
    turned = corners[:, _MIRRORED]
    turned[:, ::2] = 1 - turned[:, ::2]
    return turned
