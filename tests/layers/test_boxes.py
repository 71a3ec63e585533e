"""Overlaps and suppression of boxes, beside loops over them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.layers import boxes


def drawn(count: int, seed: int = 0, spread: float = 20) -> np.ndarray:
    draws = np.random.default_rng(seed)
    corner = draws.uniform(0, spread, (count, 2))
    return np.concatenate([corner, corner + draws.uniform(1, 12, (count, 2))], 1).astype(np.float32)


def overlap(a: np.ndarray, b: np.ndarray, pixel: float) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0]) + pixel
    high = min(a[3], b[3]) - max(a[1], b[1]) + pixel
    if wide <= 0 or high <= 0:
        return 0.0
    areas = [(box[2] - box[0] + pixel) * (box[3] - box[1] + pixel) for box in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def one_by_one(rows: np.ndarray, threshold: float, pixel: float) -> list[int]:
    kept: list[int] = []
    for i, row in enumerate(rows):
        if all(overlap(rows[j], row, pixel) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("pixel", [0, 1])
def test_overlaps(pixel: float) -> None:
    a, b = drawn(5), drawn(7, 1)
    expected = [[overlap(one, other, pixel) for other in b] for one in a]
    np.testing.assert_allclose(boxes.overlaps(torch.from_numpy(a), torch.from_numpy(b), pixel), expected, rtol=1e-5)


def test_boxes_without_area_overlap_with_nothing() -> None:
    flat = torch.tensor([[1.0, 1, 1, 5], [3, 3, 2, 2]])
    assert not boxes.overlaps(flat, flat).any()
    assert boxes.overlaps(flat[:1], flat[:1], 1).item() == 1  # one pixel wide


@pytest.mark.parametrize("threshold", [0, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("pixel", [0, 1])
def test_those_that_stay(threshold: float, pixel: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "_BLOCK", 32)
    rows = [drawn(150, seed) for seed in range(3)]
    expected = [one_by_one(each, threshold, pixel) for each in rows]
    masks = boxes.suppress(torch.from_numpy(np.stack(rows)), threshold, pixel)
    for each, mask, kept in zip(rows, masks, expected, strict=True):
        assert mask.nonzero()[:, 0].tolist() == kept
        for most in (0, 1, 5):
            first = boxes.first_of_those_that_stay(torch.from_numpy(each), threshold, pixel, most)
            assert first.tolist() == kept[: most or None]


def test_what_is_not_valid_neither_stays_nor_removes() -> None:
    rows = torch.from_numpy(drawn(1)).repeat(4, 1)
    assert boxes.suppress(rows, 0.5, valid=torch.tensor([False, True, True, False])).tolist() == [
        False,
        True,
        False,
        False,
    ]


def test_no_boxes() -> None:
    assert boxes.suppress(torch.zeros(0, 4), 0.5).shape == (0,)
    assert boxes.first_of_those_that_stay(torch.zeros(0, 4), 0.5).shape == (0,)


def test_a_box_that_is_no_number_removes_those_after_it() -> None:
    rows = torch.tensor([[0.0, 0, 1, 1], [float("nan")] * 4, [5, 5, 6, 6]])
    assert boxes.suppress(rows, 0.5).tolist()[0] is True


@pytest.mark.parametrize("code", [1, 2, 3], ids=["CORNER", "CENTER_SIZE", "CORNER_SIZE"])
@pytest.mark.parametrize("scaled", [True, False])
def test_what_is_encoded_is_decoded(code: int, scaled: bool) -> None:
    priors, true = (torch.from_numpy(drawn(9, seed)).double() for seed in (0, 1))
    variances = torch.tensor([0.1, 0.2, 0.3, 0.4]).double().expand(9, 4) if scaled else None
    change = boxes.encode(true, priors, variances, code)
    torch.testing.assert_close(boxes.decode(change, priors, variances, code), true)


def test_matching_takes_pair_by_pair() -> None:
    table = torch.tensor([[0.6, 0.7, 0], [0.5, 0.9, 0], [0.5, 0.5, 0], [0, 0, 0]])
    assert boxes.match(table).tolist() == [0, 1, -1, -1]
    assert boxes.match(table, 0.5).tolist() == [0, 1, 0, -1]
    assert boxes.match(torch.stack([table, table.flip(0)]), 0.5).tolist() == [[0, 1, 0, -1], [-1, 0, 1, 0]]
    assert boxes.match(table[:, :0], 0.5).tolist() == [-1] * 4


def test_all_ways_to_suppress_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boxes, "_ROWS", 7)
    table = torch.from_numpy(np.stack([drawn(60, seed) for seed in range(3)]))
    valid = torch.ones(3, 60, dtype=torch.bool)
    valid[1, 40:] = False
    together = boxes.suppress(table, 0.3, valid=valid)
    for each, own, mask in zip(table, valid, together, strict=True):
        assert torch.equal(boxes.suppress(each, 0.3, valid=own), mask)
    assert torch.equal(boxes.suppress_in_turn(table, 0.3, valid, 0.9), together)  # eta is for thresholds above 0.5
    assert not torch.equal(boxes.suppress_in_turn(table, 0.9, valid, 0.5), boxes.suppress(table, 0.9, valid=valid))
