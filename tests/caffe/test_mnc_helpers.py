"""The voting of masks beside MNC's loops."""

from __future__ import annotations

import numpy as np

from caffe.mnc_helpers import mv

F = np.float32


def read(plane: np.ndarray, y: float, x: float) -> float:
    top, left = int(y), int(x)
    if top == plane.shape[0] - 1 or left == plane.shape[1] - 1:
        return float(plane[top, left])
    dy, dx = y - top, x - left
    upper = plane[top, left] * (1 - dx) + plane[top, left + 1] * dx
    lower = plane[top + 1, left] * (1 - dx) + plane[top + 1, left + 1] * dx
    return float(upper * (1 - dy) + lower * dy)


def voted(
    boxes: np.ndarray, masks: np.ndarray, members: list[tuple[int, float]], height: int, width: int
) -> tuple[np.ndarray, list[int]]:
    size = masks.shape[-1]
    whole = np.zeros((height, width), F)
    for index, weight in members:
        x1, y1, x2, y2 = boxes[index]
        for y, x in np.ndindex(height, width):
            if x1 <= x <= x2 and y1 <= y <= y2:
                at = (F(y) - y1) * (size / (y2 - y1 + 1)), (F(x) - x1) * (size / (x2 - x1 + 1))
                whole[y, x] += F(weight) * read(masks[index, 0], *at)
    inside = np.argwhere(whole > 0.4)
    top, left = inside.min(0) if len(inside) else (height // 2, width // 2)
    bottom, right = inside.max(0) if len(inside) else (height // 2, width // 2)
    mask = np.zeros((size, size))
    for i, j in np.ndindex(size, size):
        mask[i, j] = read(whole, top + i * ((bottom - top + 1) / size), left + j * ((right - left + 1) / size))
    return mask, [left, top, right, bottom]


def test_masks_are_voted_as_mnc_does() -> None:
    draws = np.random.default_rng(0)
    boxes = np.array([[1.3, 2, 14, 12.6], [0, 0, 19, 15], [-3, 4, 9, 21], [5, 5, 5, 5], [2.5, 1, 12, 15]], F)
    masks = draws.uniform(0, 1, (5, 1, 4, 4)).astype(F)
    groups = [[(0, 0.5), (1, 0.5)], [(2, 1.0)], [(3, 0.1)], [(4, 0.2), (0, 0.3), (1, 0.5)]]
    inds = np.array([index for group in groups for index, _ in group], np.int32)
    weights = np.array([weight for group in groups for _, weight in group], F)
    starts = np.cumsum([len(group) for group in groups]).astype(np.int32)
    found_masks, found_boxes = mv(boxes, masks, inds, starts, weights, 16, 20)
    assert found_masks.shape == (4, 1, 4, 4) and found_masks.dtype == F
    assert found_boxes.shape == (4, 4) and found_boxes.dtype == np.int32
    for r, group in enumerate(groups):
        mask, box = voted(boxes, masks, group, 16, 20)
        assert found_boxes[r].tolist() == box
        np.testing.assert_allclose(found_masks[r, 0], mask, atol=1e-5)
    assert found_boxes[2].tolist() == [10, 8, 10, 8]  # nothing is above 0.4: the middle


def test_nothing_to_vote_on() -> None:
    masks, boxes = mv(np.zeros((0, 4)), np.zeros((0, 1, 4, 4)), *(np.zeros(0, int),) * 3, 16, 20)
    assert masks.shape == (0, 1, 4, 4) and boxes.shape == (0, 4)
