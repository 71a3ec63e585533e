"""A source's records, each once: for scores that count no record twice."""

from __future__ import annotations

from caffecli.sources.base import Batch, Source, State


class Once(Source):
    """``source`` for a single turn of ``records``: the batch in which they end is cut there.

    Later batches are those of ``source``, whole. ``again`` gives the last batch once more, whole.
    """

    def __init__(self, source: Source, records: int) -> None:
        self._source = source
        self._left = records
        self._last: Batch | None = None
        self._again = False
        self.shapes = source.shapes

    @property
    def state(self) -> State:
        return self._source.state

    def count(self, quick: bool = False) -> int | None:
        return self._source.count(quick)

    def next(self) -> Batch:
        if self._again and self._last is not None:
            self._again = False
            return self._last
        batch = self._last = self._source.next()
        size, left = len(batch.arrays[0]), self._left
        self._left = max(0, left - size)
        if not 0 < left < size:
            return batch
        return self._source.cut(batch, left)

    def again(self) -> None:
        """Let ``next`` give the last batch once more, whole."""
        self._again = True

    def read_ahead(self) -> None:
        self._source.read_ahead()

    def restore(self, state: State) -> None:
        self._last = None
        self._source.restore(state)

    def close(self) -> None:
        self._last = None
        self._source.close()
