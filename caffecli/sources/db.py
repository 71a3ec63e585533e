"""The ``Data`` layer's records: datums of an LMDB or LevelDB."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from caffecli import logs
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import datum as datums
from caffecli.formats.db import Reader, Record, open_reader
from caffecli.proto.caffe_pb2 import DataParameter, Datum, LayerParameter
from caffecli.sources.base import Floats, Pixels, Shape, State
from caffecli.sources.records import RecordSource
from caffecli.wording import does_not_exist


class DbSource(RecordSource):
    """Reads ``data_param { source backend batch_size rand_skip shuffle }`` in the order of the keys, again and again.

    ``shuffle``, a field of NVIDIA's Caffe and others, puts the records in a new order each epoch.

    Raises SpecError for settings that are missing or wrong, FormatError for a database that cannot be read, DataError
    for
    a record that cannot be used.
    """

    #: pictures of at least this many bytes are transformed one by one, on several cores; smaller ones all at once
    LARGE = 2**15
    #: whether the log tells of each turn over the records
    tells_turns = True

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        data = param.data_param
        super().__init__(param, phase, data.batch_size, data.rand_skip, seed, shard)
        self._reader = self._open(data)
        self._source = data.source
        self._shuffle = data.shuffle
        self._records: Iterator[Record] | None = None
        try:
            key, value = next(self._stream())
            self._begin(key, value)
        except BaseException:
            self._reader.close()
            raise
        if self._shuffle:
            logs.info("data_layer.cpp:41", "Shuffling data")
        if data.rand_skip:
            logs.info("data_layer.cpp:41", f"Skipping first {self._skip} data points.")

    def count(self, quick: bool = False) -> int | None:
        if quick and not self._reader.counts_quickly:
            return None
        with (
            logs.quiet(),
            open_reader(self._source) as reader,
        ):  # not self's reader, which a thread may be using to read ahead
            return len(reader)

    def spread_labels(self, count: int) -> list[int]:
        if self._shuffle:
            return []
        try:
            with logs.quiet(), open_reader(self._source) as reader:
                return [self._decode(key, value).label for key, value in reader.spread(count)]
        except (FormatError, DataError):  # to be told where the record is read, if it ever is
            return []

    def label_counts(self) -> Counter[int] | None:
        with logs.quiet(), open_reader(self._source) as reader, logs.Bar(self.count(), unit="labels") as bar:
            counts: Counter[int] = Counter()
            for key, value in reader.items():
                counts[self._decode(key, value).label] += 1
                bar.advance()
            return counts

    def _open(self, data: DataParameter) -> Reader:
        if not data.source:
            raise SpecError(f'{self.where}: data_param names no database; set source: "path/to/db"')
        if not Path(data.source).exists():
            raise FormatError(does_not_exist(f"{self.where}: source", data.source, "make the database first"))
        try:
            return open_reader(data.source, "lmdb" if data.backend == DataParameter.LMDB else "leveldb")
        except FormatError as error:
            raise FormatError(f"{self.where}: {error}") from error

    def _begin(self, key: bytes, value: bytes) -> None:
        """Learn the shapes from the first record."""
        self._start(self._first_shape(self._decode(key, value), str(key, "utf-8", "replace")))

    def _first_shape(self, datum: Datum, key: str) -> Shape:
        if not datum.encoded and self._transformer.color is not None:
            logs.error("data_transformer.cpp:152", "force_color and force_gray only for encoded datum")
        return self._transformer.shape(self._load(datum, key, 0).shape, name_of(key))

    def _stream(self) -> Iterator[Record]:
        """This rank's records from the present position on, without end."""
        first = self._skip + self._position
        if self._shuffle:
            return self._shuffled(first + self._rank)
        records = self._endless(first)
        return itertools.islice(records, self._rank, None, self._ranks) if self._ranks > 1 else records

    def _endless(self, start: int) -> Iterator[Record]:
        try:
            if start:
                if not len(self._reader):
                    raise self._empty()
                yield from self._reader.items(start % len(self._reader))
                self._tell_turn()
            while True:
                any_record = False
                for record in self._reader.items():
                    any_record = True
                    yield record
                if not any_record:
                    raise self._empty()
                self._tell_turn()
        except FormatError as error:
            raise FormatError(f"{self.where}: {error}") from error

    def _tell_turn(self) -> None:
        if self.tells_turns:
            logs.info("data_layer.cpp:73", "Restarting data prefetching from start.")

    def _shuffled(self, position: int) -> Iterator[Record]:
        """The records at this position and each further one of this rank, in each epoch in a new order."""
        try:
            count = len(self._reader)
            if not count:
                raise self._empty()
            of, order = -1, None
            while True:
                epoch, index = divmod(position, count)
                if order is None or epoch != of:
                    of, order = epoch, self._draws.order(epoch, count)
                yield self._reader.record(int(order[index]))
                position += self._ranks
        except FormatError as error:
            raise FormatError(f"{self.where}: {error}") from error

    def _empty(self) -> DataError:
        return DataError(
            f"{self.where}: the database {str(self._reader.path)!r} holds no records; convert the data again"
        )

    def restore(self, state: State) -> None:
        super().restore(state)
        self._records = None

    def _read(self) -> tuple[Floats, list[int], tuple[str, ...]]:
        with self._taken() as (records, keys):
            small = len(records[0][1]) < self.LARGE and not self._augmenter
            stacked = datums.stack([value for _, value in records]) if small else None
            if stacked is None:
                read = [self._decode(key, value) for key, value in records]
                data = self._fill(lambda i: self._load(read[i], keys[i], i), lambda i: name_of(keys[i]))
                return data, [datum.label for datum in read], keys
            pixels, labels = stacked
            self._shape = self._transformer.shape(pixels.shape[1:], name_of(keys[0]))
            data = self._buffers.take((self._batch_size, *self._shape))
            self._transformer.many(pixels, self._numbers(), data)
            return data, labels, keys

    @contextlib.contextmanager
    def _taken(self) -> Iterator[tuple[list[Record], tuple[str, ...]]]:
        """The records of the batch, and their keys. After an error the next call begins with the same records."""
        if self._records is None:
            self._records = self._stream()
        try:
            records = list(itertools.islice(self._records, self._batch_size))
            yield records, tuple([str(key, "utf-8", "replace") for key, _ in records])
        except BaseException:
            self._records = None
            raise

    def _load(self, datum: Datum, key: str, index: int) -> Pixels:
        return self._augmented(self._picture(datum, key), index, name_of(key))[0]

    def _decode(self, key: bytes, value: bytes) -> Datum:
        try:
            return datums.decode(value, key)
        except DataError as error:
            raise self._located(error) from error

    def _picture(self, datum: Datum, key: str) -> Pixels:
        try:
            if datum.encoded:
                image = datums.decode_image(datum.data, self._transformer.color, key)
                return image.transpose(2, 0, 1) if image.ndim == 3 else image[None]
            return datums.to_array(datum, key=key)
        except DataError as error:
            raise self._located(error) from error

    def _located(self, error: DataError) -> DataError:
        return DataError(f"{self.where}, {str(self._reader.path)!r}: {error}")

    def close(self) -> None:
        super().close()
        self._records = None
        self._reader.close()


def name_of(key: str) -> str:
    """What to call a record in an error."""
    return f"record {key!r}"
