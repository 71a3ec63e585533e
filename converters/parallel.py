"""A map over threads, with its results in order."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(function: Callable[[T], R], items: Iterable[T], chunk: int = 64) -> Iterator[R]:
    """``map(function, items)`` on a thread per core, for functions that release the GIL (reading files, OpenCV).

    Items go to the threads in chunks, a few chunks ahead of the results: handing over costs little, and so does memory.
    The first error stops the work and is raised here.
    """
    workers = os.cpu_count() or 1
    rest = iter(items)

    def work(part: list[T]) -> list[R]:
        return [function(item) for item in part]

    pool = ThreadPoolExecutor(workers, thread_name_prefix="convert")
    ahead: deque[Future[list[R]]] = deque()
    try:
        while True:
            while len(ahead) <= 2 * workers and (part := list(itertools.islice(rest, chunk))):
                ahead.append(pool.submit(work, part))
            if not ahead:
                return
            yield from ahead.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
