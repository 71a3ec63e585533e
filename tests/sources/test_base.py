"""The workers, the buffers, the random numbers, and the choice of a source by type."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from caffecli.sources.base import Buffers, Draws, Workers


@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_workers_do_each_task_once(threads: int, count: int) -> None:
    done: list[int] = []
    workers = Workers(threads)
    workers.run(done.append, count)
    workers.run(done.append, count)
    workers.close()
    assert sorted(done) == sorted([*range(count), *range(count)])


def test_workers_work_at_the_same_time() -> None:
    together = threading.Barrier(2, timeout=10)
    workers = Workers(2)

    def wait(i: int) -> None:
        together.wait()

    workers.run(wait, 2)
    workers.close()


def test_workers_raise_the_first_records_error() -> None:
    def task(i: int) -> None:
        if i >= 5:
            time.sleep(0.01 if i == 5 else 0)
            raise ValueError(i)

    for threads in (1, 3):
        workers = Workers(threads)
        with pytest.raises(ValueError, match=r"^5$"):
            workers.run(task, 40)
        workers.run(lambda i: None, 4)
        workers.close()


def test_buffers_are_used_again_only_when_nobody_holds_them() -> None:
    buffers = Buffers()
    first = buffers.take((2, 3))
    view = first[1:]
    second = buffers.take((2, 3))
    assert second is not first
    address = first.ctypes.data
    del first
    assert buffers.take((2, 3)).ctypes.data not in (address, second.ctypes.data)  # the view still needs it
    del view
    assert buffers.take((2, 3)).ctypes.data == address
    assert buffers.take((4,)).shape == (4,)


def test_draws_are_those_of_the_records_wherever_reading_starts() -> None:
    draws = Draws(2**62)
    np.testing.assert_array_equal(draws.transforms(0, 30)[7:19], draws.transforms(7, 12))
    assert draws.transforms(0, 3).dtype == np.uint32
    assert [draws.skip(0), draws.skip(1)] == [0, 0]
    assert not np.array_equal(draws.order(0, 50), draws.order(1, 50))
