"""MNC's ROIWarping, MaskPooling and MaskResize beside the fork's loops, forward and backward."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from tests.layers.forks.test_rcnn import SHAPE, away, random_regions
from tests.layers.oracle import build, check, distinct

F = np.float32


def around(h: F, w: F, height: int, width: int) -> tuple[F, F] | None:
    """Where a sample is read, None for one that is not of the features."""
    if h < -0.5 or h > height - 0.5 or w < -0.5 or w > width - 0.5:
        return None
    h, w = max(h, F(0)), max(w, F(0))
    return (F(height - 1) if int(h) >= height - 1 else h), (F(width - 1) if int(w) >= width - 1 else w)


def corners(h: F, w: F, height: int, width: int) -> list[tuple[int, int, F]]:
    low, left = int(h), int(w)
    high, right = min(low + 1, height - 1), min(left + 1, width - 1)
    lh, lw = h - low, w - left
    return [
        (low, left, (1 - lh) * (1 - lw)),
        (low, right, (1 - lh) * lw),
        (high, left, lh * (1 - lw)),
        (high, right, lh * lw),
    ]


class Warping:
    """The fork's loops over regions (R, 5)."""

    def __init__(self, x: np.ndarray, regions: np.ndarray, pooled: tuple[int, int], scale: float) -> None:
        self.x, self.regions, self.pooled, self.scale = x, regions, pooled, F(scale)
        self.at: dict[tuple[int, int, int], tuple[F, F]] = {}
        self.ends = [[away(value * self.scale) for value in region[1:]] for region in regions]

    def forward(self) -> np.ndarray:
        top = np.zeros((len(self.regions), self.x.shape[1], *self.pooled))
        for r, (x1, y1, x2, y2) in enumerate(self.ends):
            bin_h, bin_w = F(max(y2 - y1, 0)) / F(self.pooled[0]), F(max(x2 - x1, 0)) / F(self.pooled[1])
            for i, j in np.ndindex(self.pooled):
                found = around(F(y1) + F(i) * bin_h, F(x1) + F(j) * bin_w, *self.x.shape[2:])
                if found is not None:
                    self.at[r, i, j] = found
                    for h, w, weight in corners(*found, *self.x.shape[2:]):
                        top[r, :, i, j] += weight * self.x[int(self.regions[r, 0]), :, h, w]
        return top

    def to_features(self, diff: np.ndarray) -> np.ndarray:
        bottom = np.zeros_like(self.x, dtype=np.float64)
        height, width = self.x.shape[2:]
        for n, h, w in np.ndindex(len(self.x), height, width):
            for r, (x1, y1, x2, y2) in enumerate(self.ends):
                if n != int(self.regions[r, 0]) or not (x1 <= w <= x2 and y1 <= h <= y2):
                    continue
                parts = []
                for place, first, last, count in ((h, y1, y2, self.pooled[0]), (w, x1, x2, self.pooled[1])):
                    step = F(max(last - first + 1, 1)) / F(count)
                    begin, end = np.floor(F(place - first - 1) / step - 1), np.ceil(F(place - first + 1) / step)
                    parts.append(range(min(max(int(begin), 0), count), min(max(int(end), 0), count)))
                for i in parts[0]:
                    for j in parts[1]:
                        if (r, i, j) in self.at:
                            at = dict.fromkeys([(h, w)], 0.0)
                            for ch, cw, weight in corners(*self.at[r, i, j], height, width):
                                if (ch, cw) == (h, w):
                                    at[h, w] += weight
                            bottom[n, :, h, w] += at[h, w] * diff[r, :, i, j]
        return bottom

    def to_regions(self, diff: np.ndarray) -> np.ndarray:
        bottom = np.zeros((len(self.regions), 5))
        height, width = self.x.shape[2:]
        for (r, i, j), (h, w) in self.at.items():
            low, left = int(h), int(w)
            if low + 1 > height - 1 or left + 1 > width - 1:
                continue
            x1, y1, x2, y2 = self.ends[r]
            m_h, m_w = (h - y1) / F(max(y2 - y1 + 1, 1)), (w - x1) / F(max(x2 - x1 + 1, 1))
            v = self.x[int(self.regions[r, 0]), :, low : low + 2, left : left + 2].astype(np.float64)
            lh, lw = h - low, w - left
            dx = (1 - lh) * (v[:, 0, 1] - v[:, 0, 0]) + lh * (v[:, 1, 1] - v[:, 1, 0])
            dy = (1 - lw) * (v[:, 1, 0] - v[:, 0, 0]) + lw * (v[:, 1, 1] - v[:, 0, 1])
            half_w, half_h = (m_w - 0.5) * dx, (m_h - 0.5) * dy
            each = [0 * dx, 0.5 * dx - half_w, 0.5 * dy - half_h, 0.5 * dx + half_w, 0.5 * dy + half_h]
            bottom[r] += [float(self.scale) * (one * diff[r, :, i, j]).sum() for one in each]
        return bottom


@pytest.mark.parametrize(("pooled", "seed"), [((1, 1), 0), ((2, 3), 1), ((7, 5), 2), ((14, 14), 3)])
def test_warping_is_the_forks_loops(pooled: tuple[int, int], seed: int) -> None:
    x, regions = distinct(*SHAPE), random_regions(seed, 9)
    regions[0] = [1, 0, 0, SHAPE[3] * 16 - 1, SHAPE[2] * 16 - 1]
    layer = build(
        f'type: "ROIWarping" roi_warping_param {{ pooled_h: {pooled[0]} pooled_w: {pooled[1]} spatial_scale: 0.0625 }}',
        SHAPE,
        (9, 5),
    )
    loops = Warping(x, regions, pooled, 0.0625)
    features, boxes = torch.from_numpy(x).requires_grad_(), torch.from_numpy(regions).requires_grad_()
    top = layer(features, boxes)
    np.testing.assert_allclose(top.detach(), loops.forward(), atol=1e-5)
    diff = distinct(*top.shape, seed=4)
    top.backward(torch.from_numpy(diff))
    assert features.grad is not None and boxes.grad is not None
    np.testing.assert_allclose(features.grad, loops.to_features(diff), atol=1e-4)
    np.testing.assert_allclose(boxes.grad, loops.to_regions(diff), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        assert torch.equal(layer(features, boxes[:, :, None, None]), top)


def test_a_region_follows_what_grows_to_the_right() -> None:
    """A slope in x: both ends want to go right, each by its share."""
    x = torch.arange(10.0).expand(1, 1, 10, 10)
    boxes = torch.tensor([[0.0, 1, 2, 5, 6]], requires_grad=True)
    layer = build('type: "ROIWarping" roi_warping_param { pooled_h: 2 pooled_w: 2 }', x.shape, (1, 5))
    layer(x, boxes).sum().backward()
    assert boxes.grad is not None
    # samples at x = 1 and 3: 0 and 2 / 5 of the way to the right end of a region that is 5 wide
    torch.testing.assert_close(boxes.grad[0], torch.tensor([0, 2 * (1 + 3 / 5), 0, 2 * 2 / 5, 0]))


def test_mask_pooling() -> None:
    check('type: "MaskPooling"', (2, 3, 4, 5), (2, 1, 4, 5), oracle=lambda x, m: x * m)


def mask_resize(x: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = x.shape[2:]
    top = np.zeros((*x.shape[:2], *size))
    for i, j in np.ndindex(size):
        found = around(F(i) * (F(height) / F(size[0])), F(j) * (F(width) / F(size[1])), height, width)
        for h, w, weight in corners(*found, height, width) if found is not None else []:
            top[:, :, i, j] += weight * x[:, :, h, w]
    return top


def mask_resize_back(diff: np.ndarray, height: int, width: int) -> np.ndarray:
    size = diff.shape[2:]
    ratio = F(height) / F(size[0]), F(width) / F(size[1])
    bottom = np.zeros((*diff.shape[:2], height, width))
    for h, w in np.ndindex(height, width):
        first = int(np.floor(F(h) / ratio[0])), int(np.floor(F(w) / ratio[1]))
        for i in (first[0], first[0] + 1):
            for j in (first[1], first[1] + 1):
                ih, iw = F(i) * ratio[0], F(j) * ratio[1]
                found = around(ih, iw, height, width)
                if abs(iw - w) >= 1 or abs(ih - h) >= 1 or found is None:
                    continue
                weight = sum(each for ch, cw, each in corners(*found, height, width) if (ch, cw) == (h, w))
                bottom[:, :, h, w] += weight * diff[:, :, i, j]
    return bottom


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (2, 2), (6, 7), (9, 20), (14, 5)])
def test_mask_resize_is_the_forks_loops(size: tuple[int, int]) -> None:
    x = distinct(2, 3, 6, 7)
    layer = build(
        f'type: "MaskResize" mask_resize_param {{ output_height: {size[0]} output_width: {size[1]} }}', x.shape
    )
    bottom = torch.from_numpy(x).requires_grad_()
    top = layer(bottom)
    np.testing.assert_allclose(top.detach(), mask_resize(x, size), atol=1e-5)
    diff = distinct(*top.shape, seed=3)
    top.backward(torch.from_numpy(diff))
    assert bottom.grad is not None
    np.testing.assert_allclose(bottom.grad, mask_resize_back(diff, 6, 7), atol=1e-5)
    with torch.no_grad():
        assert torch.equal(layer(bottom), top)


@pytest.mark.parametrize(
    ("text", "shapes", "said"),
    [
        ('type: "ROIWarping"', [SHAPE, (4, 5)], "expected pooled_h and pooled_w of at least 1, got [0, 0]"),
        (
            'type: "ROIWarping" roi_warping_param { pooled_h: 2 pooled_w: 2 }',
            [SHAPE, (4, 4)],
            "and regions (count, 5), got 'x' (2, 3, 9, 7), 'x1' (4, 4)",
        ),
        ('type: "MaskPooling"', [SHAPE, SHAPE], "masks (num, 1, height, width), got 'x' (2, 3, 9, 7), 'x1'"),
        ('type: "MaskResize"', [SHAPE], "expected output_height and output_width of at least 1, got [0, 0]"),
        (
            'type: "MaskResize" mask_resize_param { output_height: 2 output_width: 2 }',
            [(2, 3)],
            "expected (num, channels, height, width), got 'x' (2, 3)",
        ),
    ],
)
def test_errors(text: str, shapes: list[tuple[int, ...]], said: str) -> None:
    with pytest.raises(CaffeError) as error:
        build(text, *shapes)
    assert said in str(error.value)
