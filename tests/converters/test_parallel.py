"""Work on threads."""

from __future__ import annotations

import threading

import pytest

from converters.parallel import ordered_map


def test_results_come_in_order() -> None:
    assert list(ordered_map(lambda x: x * 2, range(1000), chunk=7)) == [x * 2 for x in range(1000)]
    assert list(ordered_map(str, [])) == []


def test_only_a_few_chunks_run_ahead() -> None:
    seen: list[int] = []
    items = (seen.append(x) or x for x in range(10**6))  # type: ignore[func-returns-value]
    results = ordered_map(lambda x: x, items, chunk=2)
    assert next(results) == 0
    assert len(seen) < 10**4
    results.close()  # type: ignore[attr-defined]


def test_the_first_error_ends_the_work() -> None:
    def fail(x: int) -> int:
        if x == 50:
            raise ValueError("mine")
        return x

    before = threading.active_count()
    with pytest.raises(ValueError, match="mine"):
        list(ordered_map(fail, range(10**5)))
    assert threading.active_count() == before
