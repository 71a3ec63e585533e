"""Prefetch: order, depth, errors, positions, and the end of its thread."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from caffecli.errors import DataError
from caffecli.sources import Batch, Prefetch, Source
from caffecli.sources.base import State


class Counter(Source):
    """Batches that count from 0; the one numbered ``bad`` fails."""

    def __init__(self, bad: int = -1, seconds: float = 0.0) -> None:
        self.shapes = ((1,),)
        self.at, self.bad, self.seconds = 0, bad, seconds
        self.threads: set[int] = set()
        self.closed = False

    @property
    def state(self) -> State:
        return {"at": self.at}

    def next(self) -> Batch:
        self.threads.add(threading.get_ident())
        time.sleep(self.seconds)
        if self.at == self.bad:
            raise DataError(f"record {self.at}")
        self.at += 1
        return Batch((np.array([self.at - 1], np.float32),), (str(self.at - 1),), self.state)

    def restore(self, state: State) -> None:
        self.at = state["at"]

    def close(self) -> None:
        self.closed = True


def wait_until(what: object) -> None:
    end = time.monotonic() + 10
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.001)


def values(source: Source, count: int) -> list[int]:
    return [int(source.next().arrays[0][0]) for _ in range(count)]


@pytest.mark.parametrize("depth", [1, 4])
def test_reads_ahead_in_order_as_far_as_it_may(depth: int) -> None:
    counter = Counter()
    source = Prefetch(counter, depth)
    assert source.shapes == ((1,),)
    assert not counter.threads  # nothing is read before it is asked for
    assert values(source, 3) == [0, 1, 2]
    wait_until(lambda: counter.at > 3)
    time.sleep(0.02)
    assert 3 < counter.at <= 3 + depth  # how far depends on when the thread got its turns: it rests when it was full
    assert source.state == {"at": 3}
    assert threading.get_ident() not in counter.threads
    source.close()
    assert counter.closed


def test_rests_until_half_is_used_up_and_the_moment_is_good() -> None:
    source = Counter()
    with contextlib.closing(Prefetch(source, 4)) as ahead:
        values(ahead, 1)
        wait_until(lambda: source.at >= 4)
        time.sleep(0.1)  # until the thread has filled the queue and rests
        start = source.at
        values(ahead, start - 4)  # three are left
        ahead.read_ahead()
        values(ahead, 1)
        time.sleep(0.1)
        assert source.at == start
        ahead.read_ahead()
        wait_until(lambda: source.at == start + 2)


def test_reads_on_by_itself_when_one_batch_is_left() -> None:
    source = Counter()
    with contextlib.closing(Prefetch(source, 4)) as ahead:
        values(ahead, 1)
        wait_until(lambda: source.at >= 4)
        time.sleep(0.1)
        start = source.at
        values(ahead, start - 2)  # one is left
        wait_until(lambda: source.at == start + 3)


def test_restore_drops_what_was_read_ahead() -> None:
    source = Prefetch(Counter(), 3)
    values(source, 5)
    source.restore({"at": 2})
    assert source.state == {"at": 2}
    assert values(source, 2) == [2, 3]
    source.close()


def test_an_error_comes_in_its_place_and_stays_until_restored() -> None:
    source = Prefetch(Counter(bad=3), 4)
    assert values(source, 3) == [0, 1, 2]
    for _ in range(2):
        with pytest.raises(DataError, match="record 3"):
            source.next()
    assert source.state == {"at": 3}
    source.restore({"at": 4})
    assert values(source, 2) == [4, 5]
    source.close()


def test_close_ends_the_thread_promptly_whatever_it_does() -> None:
    before = threading.active_count()
    for counter, taken in ((Counter(), 1), (Counter(seconds=0.02), 1), (Counter(bad=1), 1), (Counter(), 0)):
        source = Prefetch(counter, 2)
        values(source, taken)
        start = time.monotonic()
        source.close()
        source.close()
        assert time.monotonic() - start < 1
        assert counter.closed
        with pytest.raises(RuntimeError, match="has been closed"):
            source.next()
    assert threading.active_count() == before


def test_a_forgotten_source_ends_its_thread() -> None:
    source = Prefetch(Counter(), 2)
    source.next()
    thread = source._ahead.thread
    del source
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_the_interpreter_ends_without_close() -> None:
    program = """
import numpy as np, os
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import TRAIN, DataParameter, Datum, LayerParameter
from caffecli.sources import DbSource, create
import cv2
picture = cv2.imencode(".jpg", np.zeros((99, 99, 3), np.uint8))[1].tobytes()
with open_writer("db") as db:
    for i in range(50):
        db.put(b"%d" % i, Datum(data=picture, encoded=True).SerializeToString())
param = LayerParameter(name="data", type="Data", top=["data"])
param.data_param.MergeFrom(DataParameter(source="db", batch_size=400, backend=DataParameter.LMDB))
source = create(DbSource, param, TRAIN, 0)
source.next()
print("end")
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "end\n", "")
