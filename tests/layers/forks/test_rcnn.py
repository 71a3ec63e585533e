"""ROIPooling, ROIAlign and SmoothL1Loss against NumPy, and their error texts."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from tests.layers.oracle import build, check, distinct

SHAPE = (2, 3, 9, 7)


def away(value: np.float32) -> int:
    return int(np.sign(value) * np.floor(np.abs(np.float64(value)) + 0.5))


def roi_pool(x: np.ndarray, regions: np.ndarray, pooled: tuple[int, int], scale: float) -> np.ndarray:
    top = np.zeros((len(regions), x.shape[1], *pooled))
    for r, (image, *corners) in enumerate(regions.reshape(-1, 5).astype(np.float32)):
        x1, y1, x2, y2 = (away(corner * np.float32(scale)) for corner in corners)
        size = [
            np.float32(max(y2 - y1 + 1, 1)) / np.float32(pooled[0]),
            np.float32(max(x2 - x1 + 1, 1)) / np.float32(pooled[1]),
        ]
        for i, j in np.ndindex(pooled):
            ends = []
            for k, step, start, length in ((i, size[0], y1, x.shape[2]), (j, size[1], x1, x.shape[3])):
                begin, end = int(np.floor(np.float32(k) * step)) + start, int(np.ceil(np.float32(k + 1) * step)) + start
                ends += [min(max(begin, 0), length), min(max(end, 0), length)]
            part = x[int(image), :, ends[0] : ends[1], ends[2] : ends[3]]
            if part.size:
                top[r, :, i, j] = part.max((1, 2))
    return top


def random_regions(seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    regions = np.empty((count, 5), np.float32)
    regions[:, 0] = random.integers(0, SHAPE[0], count)
    regions[:, 1:] = random.uniform(-20, 150, (count, 4))  # also turned round, and outside
    regions[::3, 1:] = np.sort(regions[::3, 1:].reshape(-1, 2, 2), 1).reshape(-1, 4)
    regions[1::5, 1:] = np.round(regions[1::5, 1:] / 8) * 8  # halves, to be rounded away from zero
    return regions


@pytest.mark.parametrize("pooled", [(1, 1), (2, 3), (6, 5), (12, 8)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_roi_pooling(pooled, seed):
    text = (
        f'type: "ROIPooling" roi_pooling_param {{ pooled_h: {pooled[0]} pooled_w: {pooled[1]} spatial_scale: 0.0625 }}'
    )
    inputs = [distinct(*SHAPE), random_regions(seed, 17)]
    oracle = lambda x, regions: roi_pool(x, regions, pooled, 0.0625)  # noqa: E731
    check(text, SHAPE, (17, 5), inputs=inputs, gradient=[0], oracle=oracle)
    check(text, SHAPE, (17, 5, 1, 1), inputs=[inputs[0], inputs[1][:, :, None, None]], gradient=False, oracle=oracle)


def test_roi_pooling_sends_the_gradient_to_the_first_of_equals():
    x = torch.ones(1, 1, 4, 4, requires_grad=True)
    layer = build('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', (1, 1, 4, 4), (1, 5))
    layer(x, torch.tensor([[0.0, 0, 0, 3, 3]])).sum().backward()
    assert x.grad is not None
    assert x.grad.nonzero()[:, 2:].tolist() == [[0, 0], [0, 2], [2, 0], [2, 2]]


@pytest.mark.parametrize("learns", [False, True])
def test_roi_pooling_beyond_the_features_is_0(learns):
    x = torch.full((1, 1, 4, 4), -3.0, requires_grad=learns)
    layer = build('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', (1, 1, 4, 4), (2, 5))
    y = layer(x, torch.tensor([[0.0, 6, 0, 9, 3], [0, 2, 0, 5, 3]]))
    assert y.flatten().tolist() == [0, 0, 0, 0, -3, 0, -3, 0]
    if learns:
        y.sum().backward()
        assert x.grad is not None and x.grad.nonzero()[:, 2:].tolist() == [[0, 2], [2, 2]]


def test_roi_pooling_rounds_just_below_a_half_down():
    layer = build('type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', (1, 1, 1, 3), (1, 5))
    below = float(np.nextafter(np.float32(0.5), np.float32(0)))
    assert layer(torch.arange(3.0).reshape(1, 1, 1, 3), torch.tensor([[0, 0, 0, below, 0]])).item() == 0
    assert layer(torch.arange(3.0).reshape(1, 1, 1, 3), torch.tensor([[0, 0, 0, 0.5, 0]])).item() == 1


def test_roi_pooling_without_regions():
    layer = build('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 3 }', SHAPE, (0, 5))
    assert layer(torch.ones(SHAPE), torch.empty(0, 5)).shape == (0, 3, 2, 3)


def test_roi_pooling_of_grown_regions():
    x, regions = distinct(*SHAPE), random_regions(1, 7)
    layer = build(
        'type: "ROIPooling" roi_pooling_param { pooled_h: 3 pooled_w: 2 spatial_scale: 0.0625 pad_ratio: 0.25 }',
        SHAPE,
        (7, 5),
    )
    more = (regions[:, 3:] - regions[:, 1:3] + 1) * np.float32(0.25)
    large = np.concatenate([regions[:, :1], regions[:, 1:3] - more, regions[:, 3:] + more], 1)
    np.testing.assert_allclose(
        layer(torch.from_numpy(x), torch.from_numpy(regions)), roi_pool(x, large, (3, 2), 0.0625)
    )


def sample(plane: np.ndarray, y: float, x: float, beyond: float) -> np.ndarray:
    """(C,) of ``plane`` (C, H, W) at a place; 0 for one that is further outside than ``beyond`` allows."""
    height, width = plane.shape[1:]
    if not (-beyond <= y <= height - 1 + beyond and -beyond <= x <= width - 1 + beyond):
        return np.zeros(len(plane))
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    low, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[:, top, left] * (1 - x + left) + plane[:, top, right] * (x - left)
    lower = plane[:, low, left] * (1 - x + left) + plane[:, low, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def roi_align(x: np.ndarray, regions: np.ndarray, parts: tuple[int, int], scale: float, samples: int) -> np.ndarray:
    top = np.zeros((len(regions), x.shape[1], *parts))
    for r, (image, *corners) in enumerate(regions.astype(np.float32)):
        x1, y1, x2, y2 = (corner * np.float32(scale) for corner in corners)
        step = [max(y2 - y1, np.float32(1)) / np.float32(parts[0]), max(x2 - x1, np.float32(1)) / np.float32(parts[1])]
        rows, columns = (samples if samples > 0 else int(np.ceil(each)) for each in step)
        for i, j in np.ndindex(parts):
            for k, m in np.ndindex(rows, columns):
                y, at = y1 + (i + (k + 0.5) / rows) * step[0], x1 + (j + (m + 0.5) / columns) * step[1]
                top[r, :, i, j] += sample(x[int(image)], y, at, 1) / (rows * columns)
    return top


@pytest.mark.parametrize(("parts", "samples"), [((1, 1), 2), ((2, 3), -1), ((7, 4), 2), ((3, 2), 1), ((2, 2), 0)])
def test_roi_align(parts, samples):
    regions = random_regions(3, 9)
    regions[:, 1:] += 0.37  # away from the kinks
    text = (
        f'type: "ROIAlign" roi_align_param {{ pooled_h: {parts[0]} pooled_w: {parts[1]} spatial_scale: 0.0625 '
        f"sampling_ratio: {samples} }}"
    )
    oracle = lambda x, regions: roi_align(x, regions, parts, 0.0625, samples)  # noqa: E731
    check(text, SHAPE, (9, 5), inputs=[distinct(*SHAPE), regions], gradient=[0], oracle=oracle, tolerance=1e-4)


@pytest.mark.parametrize(("settings", "doubtful"), [("sampling_ratio: 2", False), ("", True)])
def test_roi_align_that_may_be_another_forks_is_told(settings: str, doubtful: bool, heard: io.StringIO) -> None:
    build(f'type: "ROIAlign" roi_align_param {{ pooled_h: 2 pooled_w: 3 {settings} }}', SHAPE, (1, 5))
    assert ("it may be of a fork that computes another thing" in heard.getvalue()) is doubtful


def roi_alignment(x: np.ndarray, regions: np.ndarray, parts: tuple[int, int], scale: float) -> np.ndarray:
    """As AffordanceNet's loop has it."""
    height, width = x.shape[2:]
    top = np.zeros((len(regions), x.shape[1], *parts))
    for r, (image, x1, y1, x2, y2) in enumerate(regions * np.array([1, *[scale] * 4])):
        for i, j in np.ndindex(parts):
            centre = []
            for k, count, first, last, size in ((i, parts[0], y1, y2, height), (j, parts[1], x1, x2, width)):
                step = max(last - first + 1, 1) / count
                begin, end = (min(max(edge * step + first, 0), size - 1) for edge in (k, k + 1))
                centre.append((begin + end) / 2)
            (top_, left), (bottom, right) = np.floor(centre).astype(int), np.ceil(centre).astype(int)
            down, along = centre[0] - top_, centre[1] - left
            at = x[int(image)]
            top[r, :, i, j] = (1 - down) * ((1 - along) * at[:, top_, left] + along * at[:, top_, right])
            top[r, :, i, j] += down * ((1 - along) * at[:, bottom, left] + along * at[:, bottom, right])
    return top


@pytest.mark.parametrize("parts", [(2, 3), (4, 1)])
def test_roi_alignment(parts: tuple[int, int]) -> None:
    """Regions within, at places themselves, without extent, turned around, and beyond the features."""
    regions = np.array(
        [[0, 13, 20, 71, 90], [1, 0, 0, 95, 127], [1, 40, 50, 40, 50], [0, 60, 60, 20, 30], [0, -90, -40, 200, 300],
         [1, 300, 300, 400, 500]],
        np.float32,
    )  # fmt: skip
    settings = f"pooled_h: {parts[0]} pooled_w: {parts[1]} spatial_scale: 0.0625"
    text = f'type: "ROIAlignment" roi_alignment_param {{ {settings} }}'
    oracle = lambda x, regions: roi_alignment(x, regions, parts, 0.0625)  # noqa: E731
    check(text, SHAPE, regions.shape, inputs=[distinct(*SHAPE), regions], gradient=[0], oracle=oracle)


def test_roi_align_without_regions_and_of_wild_ones():
    layer = build('type: "ROIAlign" roi_align_param { pooled_h: 2 pooled_w: 3 }', SHAPE, (0, 5))
    assert layer(torch.ones(SHAPE), torch.empty(0, 5)).shape == (0, 3, 2, 3)
    for far in (1e6, np.inf):
        with pytest.raises(CaffeError, match=r"a region is .* places wide, the features 7; clip regions to their"):
            layer(torch.ones(SHAPE), torch.tensor([[0, 0, 0, far, 3]]))


AVERAGED = """layer {{ name: "in" type: "Input" top: "x" top: "rois"
  input_param {{ shape {{ dim: 2 dim: 3 dim: 9 dim: 7 }} shape {{ dim: 6 dim: 5 }} }} }}
layer {{ name: "align" type: "ROIAlign" bottom: "x" bottom: "rois" top: "grid"
  roi_pooling_param {{ pooled_h: 2 pooled_w: 3 spatial_scale: 0.0625 {more} }} }}
layer {{ name: "pool" type: "Pooling" bottom: "grid" top: "pool"
  pooling_param {{ pool: AVE kernel_size: {size} stride: 1 }} }}
{rest}"""


def aligned(more: str = "", size: int = 2, rest: str = "") -> Net:
    return Net(text.parse(AVERAGED.format(more=more, size=size, rest=rest), NetParameter()))


@pytest.mark.parametrize("ratio", [0, 0.25])
def test_corners_that_are_averaged_are_cascade_rcnns(ratio):
    rest = """layer { name: "pool2" type: "Pooling" bottom: "grid" top: "pool2"
      pooling_param { pool: AVE kernel_size: 2 stride: 1 } }"""
    net = aligned(f"pad_ratio: {ratio}", rest=rest)
    assert tuple(net.shape("grid")) == (6, 3, 3, 4)
    x, regions = distinct(*SHAPE), random_regions(5, 6)
    regions[0] = [1, 30, 30, 30, 60]
    layer = net.layer("align")
    expected = np.zeros((6, 3, 3, 4))
    for r, (image, *corners) in enumerate(regions):
        more = [(corners[axis + 2] - corners[axis] + 1) * ratio for axis in (0, 1)]
        x1, y1 = ((corners[axis] - more[axis]) / 16 - 0.5 for axis in (0, 1))
        x2, y2 = ((corners[axis + 2] + more[axis]) / 16 - 0.5 for axis in (0, 1))
        if x2 > x1 and y2 > y1:
            for i, j in np.ndindex(3, 4):
                y, at = y1 + i * (y2 - y1) / 2, x1 + j * (x2 - x1) / 3
                expected[r, :, i, j] = sample(x[int(image)], y, at, 0.5)
    np.testing.assert_allclose(layer(torch.from_numpy(x), torch.from_numpy(regions)), expected, atol=1e-4)


def test_which_roi_align_it_is(caplog):
    assert tuple(aligned().shape("grid")) == (6, 3, 3, 4)
    assert "computed as" not in caplog.text
    other = 'layer { name: "more" type: "ReLU" bottom: "grid" top: "more" }'
    for net in (aligned(size=1), aligned(rest=other)):
        assert tuple(net.shape("grid")) == (6, 3, 2, 3)
        assert "layer 'align' (ROIAlign): computed as in Mask R-CNN, the mean of the samples" in caplog.text
    with pytest.raises(CaffeError, match="pad_ratio is of MS-CNN's ROIAlign, whose top goes to a Pooling, AVE"):
        aligned("pad_ratio: 0.5", rest=other)


def smooth(d: np.ndarray, sigma: float) -> np.ndarray:
    return np.where(np.abs(d) < 1 / sigma**2, (sigma * d) ** 2 / 2, np.abs(d) - 0.5 / sigma**2)


@pytest.mark.parametrize("sigma", [1, 3, 0.5])
@pytest.mark.parametrize("bottoms", [2, 3, 4])
def test_smooth_l1_loss(sigma, bottoms):
    def oracle(a, b, inside=1.0, outside=1.0):
        return (outside * smooth(inside * (a - b), sigma)).sum() / 2

    text = f'type: "SmoothL1Loss" smooth_l1_loss_param {{ sigma: {sigma} }}'
    check(text, *[(2, 5, 3, 4)] * bottoms, oracle=oracle, gradient=[0, 1])


def test_smooth_l1_loss_is_a_loss_and_takes_other_shapes_of_as_many_values():
    layer = build('type: "SmoothL1Loss"', (3, 4), (3, 4, 1, 1))
    assert layer.is_loss
    assert layer(torch.full((3, 4), 2.0), torch.zeros(3, 4, 1, 1)) == 1.5 * 4


@pytest.mark.parametrize(
    ("settings", "shapes", "said"),
    [
        (
            'type: "ROIPooling"',
            [SHAPE, (4, 5)],
            "layer 'l' (ROIPooling): expected pooled_h and pooled_w of at least 1, got [0, 0]",
        ),
        (
            'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }',
            [SHAPE, (4, 4)],
            "and regions (count, 5), got 'x' (2, 3, 9, 7), 'x1' (4, 4)",
        ),
        ('type: "ROIPooling"', [SHAPE], "expected 2 bottom blob(s), got 1"),
        ('type: "ROIAlign"', [SHAPE, (4, 5)], "(ROIAlign): expected pooled_h and pooled_w of at least 1, got [0, 0]"),
        (
            'type: "SmoothL1Loss"',
            [(2, 3), (2, 3), (2, 1)],
            "expected bottoms with as many values, got 'x' (2, 3), 'x1' (2, 3), 'x2'",
        ),
        ('type: "SmoothL1Loss"', [(2, 3), (2, 4)], "expected bottoms with as many values, got 'x' (2, 3), 'x1' (2, 4)"),
        ('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 0 }', [(2, 3), (2, 3)], "expected a sigma above 0, got 0"),
    ],
)
def test_errors(settings, shapes, said):
    with pytest.raises(CaffeError) as error:
        build(settings, *shapes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_region_of_no_image_is_refused():
    layer = build('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', SHAPE, (2, 5))
    with pytest.raises(CaffeError, match="region 1 is of image 2, the batch has images 0 to 1"):
        layer(torch.ones(SHAPE), torch.tensor([[0.0, 0, 0, 3, 3], [2, 0, 0, 3, 3]]))
