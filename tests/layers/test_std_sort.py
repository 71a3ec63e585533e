"""The order of equal keys, as GNU's std::sort leaves it: recorded from a program of C++."""

from __future__ import annotations

import random

import pytest

from caffecli.layers.std_sort import falling

#: by keys: the places that sort(begin, end, greater) of (key, place) by key leaves, with g++ 12
RECORDED = {
    "11101": [0, 1, 2, 4, 3],
    "10000101101100000": [0, 5, 7, 8, 11, 10, 16, 15, 14, 13, 12, 9, 6, 4, 3, 2, 1],
    "0" * 40: [
        30, 21, 22, 23, 24, 25, 26, 27, 28, 29, 20, 31, 32, 33, 34, 35, 36, 37, 38, 39, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9,
        0, 11, 12, 13, 14, 15, 16, 17, 18, 19,
    ],
    "0200102122020020112102202001202121112122": [
        1, 39, 38, 36, 32, 30, 28, 24, 22, 21, 18, 14, 11, 6, 9, 8, 31, 4, 27, 33, 34, 7, 35, 19, 37, 17, 16, 3, 2, 0,
        26, 5, 29, 12, 25, 23, 20, 10, 15, 13,
    ],
}  # fmt: skip


@pytest.mark.parametrize("keys", RECORDED)
def test_as_recorded(keys: str) -> None:
    assert falling([float(key) for key in keys]) == RECORDED[keys]


@pytest.mark.parametrize("kinds", [1, 2, 50, 10**9])
def test_it_sorts(kinds: int) -> None:
    draws = random.Random(kinds)
    for count in (0, 1, 2, 16, 17, 300):
        keys = [float(draws.randrange(kinds)) for _ in range(count)]
        order = falling(keys)
        assert sorted(order) == list(range(count))
        assert [keys[place] for place in order] == sorted(keys, reverse=True)


def test_partitions_that_become_too_deep() -> None:
    """Keys made so that each median of three is nearly the least."""
    keys = [0.0] * 2000
    places, low, high = list(range(2000)), 0, 2000
    while high - low > 3:
        for place in (low + 1, low + (high - low) // 2):
            keys[places[place]] = float(low)
        low += 2
    assert [keys[place] for place in falling(keys)] == sorted(keys, reverse=True)
