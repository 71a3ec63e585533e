"""Reading ahead, so that the training loop does not wait for its data."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections import Counter, deque

from caffecli.sources.base import Batch, Source, State


class Prefetch(Source):
    """``source``, read up to ``depth`` batches ahead by a background thread, which starts with the first ``next``.

    An error in the thread is raised by the ``next`` that would have given the batch, and by each after it until
    ``restore``. The thread ends on ``close``, and also when the object is forgotten or the interpreter exits.

    The thread slows down computing on the same cores, more by each wake-up than by its work, and reading needs Python's
    lock. So it sleeps until half of what it has read is used up, and from then until ``read_ahead`` is called or only
    one batch is left.
    """

    def __init__(self, source: Source, depth: int) -> None:
        self._source = source
        self._depth = depth
        self._state = source.state
        self.shapes = source.shapes
        self._ahead: _Ahead | None = None
        self._closed = False

    @property
    def state(self) -> State:
        return self._state

    def next(self) -> Batch:
        if self._closed:
            raise RuntimeError("the source has been closed")
        if self._ahead is None:
            self._ahead = _Ahead(self._source, self._depth)
            weakref.finalize(self, self._ahead.stop)
        batch = self._ahead.get()
        self._state = batch.state
        return batch

    def count(self, quick: bool = False) -> int | None:
        return self._source.count(quick)

    def spread_labels(self, count: int) -> list[int]:
        return self._source.spread_labels(count)

    def label_counts(self) -> Counter[int] | None:
        return self._source.label_counts()

    def cut(self, batch: Batch, records: int) -> Batch:
        return self._source.cut(batch, records)

    def read_ahead(self) -> None:
        if self._ahead is not None:
            self._ahead.ask(self._depth // 2)

    def restore(self, state: State) -> None:
        self._end()
        self._source.restore(state)
        self._state = self._source.state

    def close(self) -> None:
        self._closed = True
        self._end()
        self._source.close()

    def _end(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead.thread.join()
            self._ahead = None


class _Ahead:
    """The thread and its queue. It does not know the Prefetch, which may thus be forgotten while the thread runs."""

    def __init__(self, source: Source, depth: int) -> None:
        self._source = source
        self._depth = depth
        self._batches: deque[Batch] = deque()
        self._error: BaseException | None = None
        self._stopped = False
        self._asked = True
        self._changed = threading.Condition()
        self.thread = threading.Thread(target=self._read, name="caffecli-prefetch", daemon=True)
        self.thread.start()
        _running.add(self)

    def _read(self) -> None:
        while True:
            with self._changed:
                while not (self._stopped or self._may_read()):
                    self._changed.wait()
                if self._stopped:
                    return
            try:
                batch = self._source.next()
            except BaseException as error:
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._batches.append(batch)
                self._changed.notify_all()
            del batch  # else Buffers would take its arrays for used

    def _may_read(self) -> bool:
        if len(self._batches) >= self._depth:
            self._asked = False
        return self._asked

    def ask(self, left: int) -> None:
        """Wake the thread to fill the queue if it holds at most ``left`` batches."""
        with self._changed:
            if len(self._batches) <= left:
                self._asked = True
                self._changed.notify_all()

    def get(self) -> Batch:
        with self._changed:
            while not self._batches and self._error is None:
                self._changed.wait()
            if not self._batches:
                raise self._error  # type: ignore[misc]
            batch = self._batches.popleft()
        self.ask(1)
        return batch

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._batches.clear()
            self._changed.notify_all()


#: the readers whose threads may be running
_running: weakref.WeakSet[_Ahead] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End all threads at exit: one that is decoding in OpenCV while the
    interpreter shuts down would abort the program.
    """
    ending = list(_running)
    for ahead in ending:
        ahead.stop()
    for ahead in ending:
        ahead.thread.join()
