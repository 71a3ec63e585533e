"""The order in which C++ sorts equal keys, which decides what SSD's Caffe takes of them.

``std::sort`` promises nothing of it; GNU's library, with which Caffe is built, always orders them alike.
"""

from __future__ import annotations

from collections.abc import Sequence

#: so many are sorted by insertion alone
_FEW = 16


def falling(keys: Sequence[float]) -> list[int]:
    """The places of the keys by falling key, equal ones as GNU's ``std::sort`` (introsort) leaves them.

    Where its partitions become too deep, it goes over to a heap; there equal keys stay in their order.
    """
    order = list(range(len(keys)))
    _partition_all(keys, order)
    _insert(keys, order, 0, min(len(order), _FEW))
    for place in range(_FEW, len(order)):
        _insert_one(keys, order, place)
    return order


def _partition_all(keys: Sequence[float], order: list[int]) -> None:
    """Sort until no part is longer than ``_FEW``."""
    parts = [(0, len(order), 2 * (len(order).bit_length() - 1))]
    while parts:
        first, last, depth = parts.pop()
        while last - first > _FEW:
            if depth == 0:
                order[first:last] = sorted(order[first:last], key=lambda place: -keys[place])
                break
            depth -= 1
            cut = _partition(keys, order, first, last)
            parts.append((cut, last, depth))
            last = cut


def _partition(keys: Sequence[float], order: list[int], first: int, last: int) -> int:
    """Put the median of three first and part the others by it; returns where the second part begins."""
    median = _median(keys, order, first + 1, first + (last - first) // 2, last - 1)
    order[first], order[median] = order[median], order[first]
    pivot, low, high = keys[order[first]], first + 1, last
    while True:
        while keys[order[low]] > pivot:
            low += 1
        high -= 1
        while pivot > keys[order[high]]:
            high -= 1
        if low >= high:
            return low
        order[low], order[high] = order[high], order[low]
        low += 1


def _median(keys: Sequence[float], order: list[int], a: int, b: int, c: int) -> int:
    """Which of three places holds the median key."""
    at_a, at_b, at_c = keys[order[a]], keys[order[b]], keys[order[c]]
    if at_a > at_b:
        return b if at_b > at_c else c if at_a > at_c else a
    return a if at_a > at_c else c if at_b > at_c else b


def _insert(keys: Sequence[float], order: list[int], first: int, last: int) -> None:
    for place in range(first + 1, last):
        if keys[order[place]] > keys[order[first]]:
            order.insert(first, order.pop(place))
        else:
            _insert_one(keys, order, place)


def _insert_one(keys: Sequence[float], order: list[int], place: int) -> None:
    """Move one back to where the key before it is not smaller."""
    one = order[place]
    while keys[one] > keys[order[place - 1]]:
        order[place] = order[place - 1]
        place -= 1
    order[place] = one
