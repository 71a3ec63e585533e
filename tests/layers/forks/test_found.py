"""DetectionLayer by hand: what is found in regions, and what is there, as parts of the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.layers.forks.rpn import changes
from tests.layers.oracle import build

#: a picture of 40 x 20 pixels, seen twice as large
INFO = torch.tensor([[40.0, 80.0, 2.0]])
TRUE = torch.tensor([[8.0, 4, 38, 18, 2], [0, 0, 20, 20, 1]])


def found(param: str, regions: torch.Tensor, scores: torch.Tensor, change: torch.Tensor) -> tuple[torch.Tensor, ...]:
    bottoms = (regions, scores, change, INFO, TRUE)
    names = " ".join(f'bottom: "{i}"' for i in range(5))
    python = f'module: "fast_rcnn.detection_layer" layer: "DetectionLayer" param_str: "{param}"'
    made = build(
        f'type: "Python" {names} top: "found" top: "truth" python_param {{ {python} }}',
        *(tuple(each.shape) for each in bottoms),
    )
    rows, truth = made(*bottoms)
    return rows, truth


def test_by_hand() -> None:
    """Two regions of which the second overlaps by more than NMS with the first where they find the same class."""
    regions = torch.tensor([[0.0, 8, 4, 38, 18], [0, 8, 4, 38, 16], [0, 60, 20, 90, 50]])
    scores = torch.tensor([[0.1, 0.03, 0.87], [0.2, 0.3, 0.5], [0.4, 0.6, 0.0]])
    change = torch.zeros(3, 12)
    rows, truth = found("'NMS': 0.3", regions, scores, change)
    # corners over 2, both ends in the box, whose far ones changes, here none, take one pixel on; within the picture
    first, second, third = [4, 2, 21, 11], [4, 2, 21, 10], [30, 10, 40, 20]
    expected = [[0, 2, 0.87, *first], [0, 1, 0.6, *third], [0, 1, 0.3, *second]]
    parts = np.array([1, 1, 1, 40, 20, 40, 20], np.float32)
    np.testing.assert_allclose(rows[0, 0].numpy() * parts, expected, atol=1e-5)
    there = truth[0, 0].numpy() * np.array([1, 1, 1, 40, 20, 40, 20, 1], np.float32)
    np.testing.assert_allclose(there, [[0, 2, 0, 4, 2, 20, 10, 0], [0, 1, 0, 0, 0, 11, 11, 0]], atol=1e-5)
    best, _ = found("'max_per_image': 1", regions, scores, change)
    np.testing.assert_array_equal(best, rows[:, :, :1])
    none, _ = found("'thresh': 0.9", regions, scores, change)
    assert none.shape == (1, 1, 1, 7) and bool((none == -1).all())


@pytest.mark.parametrize("values", [12, 8])
def test_changes_take_regions_to_their_objects(values: int) -> None:
    """Those that were learned normalized, of each class and of all together."""
    regions, scores = torch.tensor([[0.0, 10, 6, 30, 30]]), torch.tensor([[0.1, 0.1, 0.8]])
    change = torch.full((1, values // 4, 4), 9.0)
    wanted = changes(regions[:, 1:] / 2, TRUE[:1, :4] / 2)
    change[0, 2 if values == 12 else 1] = (wanted - 0.5) / torch.tensor([0.1, 0.1, 0.2, 0.2])
    settings = "'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True, 'BBOX_NORMALIZE_MEANS': [0.5, 0.5, 0.5, 0.5]"
    rows, truth = found(settings, regions, scores, change.reshape(1, values))
    # Fast R-CNN's change of a box gives its far ends one pixel too far
    far = torch.tensor([0, 0, 1 / 40, 1 / 20])
    np.testing.assert_allclose(rows[0, 0, 0, 3:], truth[0, 0, 0, 3:7] + far, atol=1e-5)


def test_errors() -> None:
    with pytest.raises(CaffeError, match=r"changes .R, 4 C. or .R, 8., im_info .1, 3. of one picture"):
        found("", torch.zeros(2, 5), torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(CaffeError, match="has no setting 'nms'"):
        found("'nms': 1", torch.zeros(2, 5), torch.zeros(2, 3), torch.zeros(2, 8))
