"""The mistakes of detectors, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from caffecli.tools.report.objects import KEPT, FalseBox, Found, Missed, Mistakes, Object, Pixels, compare

PIXELS = np.zeros((4, 4, 3), np.uint8)
LEFT, RIGHT, MIDDLE = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.25, 0.0, 0.75, 1.0)
THIRD = float(np.float32(1 / 3))


def _pixels() -> Pixels:
    return PIXELS


def test_reasons() -> None:
    """MIDDLE overlaps with LEFT by 0.25 of 0.75."""
    true = [Object(1, LEFT), Object(2, RIGHT)]
    hit, twice, other = Found(1, 0.9, LEFT), Found(1, 0.8, LEFT), Found(1, 0.7, RIGHT)
    place, nothing = Found(1, 0.6, MIDDLE), Found(3, 0.5, (0.0, 0.0, 0.1, 0.1))
    false, missed = compare([nothing, place, other, twice, hit], true)
    assert false == [
        FalseBox(twice, "twice", 1.0),
        FalseBox(other, "class", 1.0, 2),
        FalseBox(place, "place", THIRD),
        FalseBox(nothing, "nothing", 0.0),
    ]
    assert missed == [Missed(true[1], None)]


def test_near_an_object_of_another_class() -> None:
    assert compare([box := Found(2, 0.9, MIDDLE)], [Object(1, LEFT)])[0] == [FalseBox(box, "both", THIRD, 1)]


def test_the_threshold_of_overlaps() -> None:
    true, found = [Object(1, LEFT)], [Found(1, 0.9, MIDDLE)]
    assert compare(found, true, threshold=0.3) == ([], [])
    assert compare(found, true, threshold=0.4)[1] == [Missed(true[0], None)]


def test_what_is_difficult_is_no_mistake() -> None:
    true = [Object(1, LEFT, skipped=True)]
    assert compare([], true) == ([], [])
    assert compare([Found(1, 0.9, LEFT)] * 2, true) == ([], [])


def test_an_object_that_is_found_with_little_score_is_missed() -> None:
    true, found = [Object(1, LEFT)], [Found(1, 0.25, LEFT)]
    assert compare(found, true, least=0.3) == ([], [Missed(true[0], 0.25)])
    assert compare(found, true, least=0.25) == ([], [])


@pytest.mark.parametrize("found", [[], [Found(1, 0.5, LEFT)]])
def test_a_picture_without_objects(found: list[Found]) -> None:
    assert compare(found, []) == ([FalseBox(one, "nothing", 0.0) for one in found], [])


def test_the_worst_of_all_pictures() -> None:
    mistakes = Mistakes()
    for i in range(30):
        true = [Object(1, RIGHT)] if i % 2 else []
        mistakes.take(f"{i}", _pixels, [Found(1, i / 30, LEFT)], true)
    assert (mistakes.false_count, mistakes.missed_count) == (21, 15)  # scores from 0.3 on
    assert mistakes.reasons == {"nothing": 21}
    assert [one.key for one in mistakes.false] == [f"{i}" for i in range(29, 29 - KEPT, -1)]
    assert [one.key for one in mistakes.missed] == [f"{i}" for i in range(1, 2 * KEPT, 2)]  # of equal ones the first


def test_missed_ones_that_nothing_hits_come_first() -> None:
    mistakes = Mistakes(least=0.9)
    small = (0.5, 0.0, 0.75, 0.5)
    mistakes.take("a", _pixels, [Found(1, 0.8, LEFT)], [Object(1, LEFT)])
    mistakes.take("b", _pixels, [], [Object(1, small)])
    mistakes.take("c", _pixels, [Found(1, 0.2, LEFT)], [Object(1, LEFT), Object(2, RIGHT)])
    assert [(one.key, one.what.score) for one in mistakes.missed if isinstance(one.what, Missed)] == [
        ("c", None), ("b", None), ("c", 0.2), ("a", 0.8),
    ]  # fmt: skip
