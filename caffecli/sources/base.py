"""What every source of records is, and what they share: batches, random numbers, buffers, threads."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from caffecli.proto.caffe_pb2 import LayerParameter

Shape = tuple[int, ...]
State = dict[str, int]
Pixels = NDArray[Any]  # uint8, or float32 of float_data
Floats = NDArray[np.float32]
Numbers = NDArray[np.uint32]


@dataclass(frozen=True)
class Batch:
    """A batch of records: one float32 array for each top, each record's key, and where the source stands after them."""

    arrays: tuple[Floats, ...]
    keys: tuple[str, ...]
    state: State


class Source(ABC):
    """Gives batches without end; after the last record it starts again at the first.

    ``state`` tells, in numbers that fit into JSON, where the source stands after the last batch given. A source of the
    same settings that gets it by ``restore`` goes on with exactly the batches that would have followed.
    """

    #: the shapes of the first batch's arrays; later batches of one record may differ
    shapes: tuple[Shape, ...]

    @property
    @abstractmethod
    def state(self) -> State:
        """Where the source stands."""

    def count(self, quick: bool = False) -> int | None:
        """How many records there are, of all shards together; None where there is no last one.

        ``quick``: None too where they are counted by reading them all.
        """
        return None

    @abstractmethod
    def next(self) -> Batch:
        """The next batch. Raises DataError for a record that cannot be used, FormatError for a damaged file."""

    def spread_labels(self, count: int) -> list[int]:
        """The labels of up to ``count`` records at about even distances, in the order in which they are read; empty
        where they are shuffled, or that is not quickly found.
        """
        return []

    def label_counts(self) -> Counter[int] | None:
        """How many records have each label, found by reading them all; None where they have no such labels."""
        return None

    def read_ahead(self) -> None:
        """Called at good moments to read ahead; most sources ignore it and read a batch when it is asked for."""
        return

    def cut(self, batch: Batch, records: int) -> Batch:
        """The batch with its first ``records`` alone."""
        return replace(batch, arrays=tuple(array[:records] for array in batch.arrays), keys=batch.keys[:records])

    @abstractmethod
    def restore(self, state: State) -> None:
        """Go to where a ``state`` was taken."""

    @abstractmethod
    def close(self) -> None:
        """Give back files, threads and memory. Closing twice is fine."""


class Open(Protocol):
    """Makes a source from a data layer's parameters; a subclass of Source is such a function."""

    def __call__(
        self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1), /
    ) -> Source: ...


class Draws:
    """All random numbers of a source, as pure functions of its seed and the record's position.

    So a position is enough to resume, and a record gets the same numbers for any number of threads and ranks.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def skip(self, limit: int) -> int:
        """How many records to leave out at the start: uniform below ``limit`` (Caffe's ``rand_skip``)."""
        return int(np.random.default_rng([self.seed, 0]).integers(limit)) if limit else 0

    def transforms(self, first: int, count: int) -> Numbers:
        """Three 32-bit numbers for each of ``count`` records from position ``first``,
        to be taken modulo what is needed.
        """
        bits = np.random.PCG64([self.seed, 1])
        bits.advance(2 * first)
        return bits.random_raw(2 * count).view(np.uint32).reshape(count, 4)[:, :3]

    def generator(self, position: int) -> np.random.Generator:
        """Any number of random numbers for the record at a position."""
        return np.random.default_rng([self.seed, 3, position])

    def of_batches(self, number: int) -> np.random.Generator:
        """Any number of random numbers for a row of batches, counted from 0."""
        return np.random.default_rng([self.seed, 4, number])

    def order(self, epoch: int, count: int) -> NDArray[np.int64]:
        """The order of ``count`` records in an epoch when they are shuffled."""
        return np.random.default_rng([self.seed, 2, epoch]).permutation(count)


#: the reference count of an array that only a list refers to
_LONE = [np.empty(0)]
_UNUSED = sys.getrefcount(_LONE[0])


class Buffers:
    """Float arrays that are reused when nothing refers to them any more.

    New memory for a batch of pictures takes as long as decoding them, as the system must clear it page by page.
    An array is free when only this object refers to it: tensors made by ``torch.from_numpy`` and views hold a reference
    too.
    """

    LIMIT = 16

    def __init__(self) -> None:
        self._arrays: list[Floats] = []

    def take(self, shape: Shape) -> Floats:
        """An array of ``shape``, its values undefined."""
        if self._arrays and self._arrays[0].shape != shape:
            self._arrays.clear()
        for i in range(len(self._arrays)):
            if sys.getrefcount(self._arrays[i]) <= _UNUSED:
                return self._arrays[i]
        array = np.empty(shape, np.float32)
        if len(self._arrays) < self.LIMIT:
            self._arrays.append(array)
        return array


class Workers:
    """Runs a task for each record of a batch in as many threads as the process has cores, the calling one included."""

    def __init__(self, count: int | None = None) -> None:
        self.count = count or _cores()
        self._pool: ThreadPoolExecutor | None = None

    def run(self, task: Callable[[int], None], count: int) -> None:
        """Call ``task`` with 0 … count - 1. When some fail, the error of the first of them is raised."""
        indices = itertools.count()
        failed: dict[int, Exception] = {}
        lock = threading.Lock()

        def work() -> None:
            while not failed:
                with lock:
                    index = next(indices)
                if index >= count:
                    return
                try:
                    task(index)
                except Exception as error:
                    failed[index] = error

        helpers = min(self.count, count) - 1
        if helpers > 0 and self._pool is None:
            self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="caffecli-decode")
        running = [self._pool.submit(work) for _ in range(helpers)] if self._pool else []
        work()
        for helper in running:
            helper.result()
        if failed:  # indices are taken in order: all tasks before the first failed one have been run
            raise failed[min(failed)]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
