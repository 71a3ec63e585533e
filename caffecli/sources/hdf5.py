"""The ``HDF5Data`` layer's records: rows of the datasets in HDF5 files that a text file names."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import hdf5
from caffecli.formats.atomic import cannot_read, read_bytes
from caffecli.formats.foreign import describe
from caffecli.formats.list_file import read_text, why_not_there
from caffecli.host import check_file
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.sources.base import Buffers, Floats, Shape, State
from caffecli.sources.records import NumberedSource
from caffecli.wording import does_not_exist

Order = NDArray[np.int64]


class Hdf5Source(NumberedSource):
    """Reads ``hdf5_data_param { source batch_size shuffle }``:
    each top is the dataset of its name, its first axis the record.

    One file is in memory at a time. ``shuffle`` puts the files, and the rows within each, in a new order each epoch.

    Raises SpecError for settings that are missing or wrong, FormatError for files and datasets that cannot be used: all
    are checked before the first batch.
    """

    def __init__(self, param: LayerParameter, phase: int, seed: int = 0, shard: tuple[int, int] = (0, 1)) -> None:
        settings = param.hdf5_data_param
        super().__init__(param, settings.batch_size, seed, shard)
        if param.HasField("transform_param"):
            raise SpecError(f"{self.where}: HDF5Data does not transform its data; remove transform_param")
        if not settings.source:
            raise SpecError(f'{self.where}: hdf5_data_param names no list of files; set source: "files.txt"')
        self._source = settings.source
        self._tops = list(param.top)
        self._shuffle = settings.shuffle
        self._files = self._read_list()
        #: the shapes of each file's datasets, one a top
        self._file_shapes: list[list[Shape]] = []
        for file in self._files:
            self._file_shapes.append(self._checked_shapes(file))
        self._lengths = np.array([shapes[0][0] for shapes in self._file_shapes])
        self.shapes = tuple([(self._batch_size, *shape[1:]) for shape in self._file_shapes[0]])
        self._shape = self.shapes[0][1:]
        self._buffers = [Buffers() for _ in self._tops]
        self._loaded: tuple[int, list[Floats]] | None = None
        self._orders: dict[tuple[int, int], Order] = {}

    def count(self, quick: bool = False) -> int:
        return int(self._lengths.sum())

    # -- before the first batch ------------------------------------------------------------------------------------

    def _read_list(self) -> list[str]:
        if not Path(self._source).exists():
            remedy = "make a text file that names the HDF5 files"
            raise FormatError(does_not_exist(f"{self.where}: source", self._source, remedy))
        logs.info("hdf5_data_layer.cpp:81", f"Loading list of HDF5 filenames from: {self._source}")
        try:
            if hdf5.starts_hdf5(read_bytes(self._source, 8)):
                raise FormatError(
                    f"source {self._source!r} is itself an HDF5 file; put its name into a text file and name that"
                )
            files = read_text(self._source, "a list of HDF5 files").split()
        except FormatError as error:
            raise FormatError(f"{self.where}: {error}") from error
        logs.info("hdf5_data_layer.cpp:95", f"Number of HDF5 files: {len(files)}")
        if not files:
            raise FormatError(
                f"{self.where}: source {self._source!r} names no files; write the path of one on each line"
            )
        return files

    def _checked_shapes(self, file: str) -> list[Shape]:
        """The shapes of the file's datasets, checked."""
        import h5py

        if not Path(file).exists():
            why = why_not_there(file)
            remedy = "mend the list" if why.startswith("check") else why
            raise FormatError(does_not_exist(f"{self.where}: in {self._source!r},", file, remedy))
        try:
            check_file(file)
        except OSError as error:
            raise FormatError(f"{self.where}: {cannot_read(file, error)}") from error
        if not h5py.is_hdf5(file):
            raise self._located(file, describe(file, read_bytes(file, 4096), "an HDF5 file"))
        try:
            with hdf5.reading(file) as opened:
                shapes = [self._check(opened, file, top) for top in self._tops]
        except FormatError as error:
            raise self._located(file, error) from error
        for top, shape in zip(self._tops, shapes, strict=True):
            if shape[0] != shapes[0][0]:
                raise self._error(
                    file,
                    top,
                    f"has {shape[0]} rows, {self._tops[0]!r} has {shapes[0][0]}; give both one for each record",
                )
        if self._file_shapes:
            self._compare(file, shapes)
        return shapes

    def _check(self, opened: Any, file: str, top: str) -> Shape:
        import h5py

        dataset = opened.get(top)
        if not isinstance(dataset, h5py.Dataset):
            raise self._error(
                file, top, f"is not there, the file has {', '.join(map(repr, opened)) or 'none'}; name the tops so"
            )
        if dataset.dtype.kind not in "iuf":
            raise self._error(file, top, f"expected integers or floats, it holds {dataset.dtype}; convert it")
        kind = "FLOAT" if dataset.dtype.kind == "f" else "INTEGER"
        logs.info_once(f"hdf5.cpp:{33 if kind == 'FLOAT' else 36}", f"Datatype class: H5T_{kind}")
        if not dataset.shape:
            raise self._error(file, top, "expected at least one axis, that of the records, it has none; store an array")
        if 0 in dataset.shape:
            raise self._error(
                file, top, f"is empty, its shape is {dataset.shape}; take the file out of {self._source!r}"
            )
        return tuple(map(int, dataset.shape))

    def _compare(self, file: str, shapes: list[Shape]) -> None:
        """As in Caffe, records may be of another shape than the first file's, (5, 1) for (5,),
        but not of another size.
        """
        for top, shape, first in zip(self._tops, shapes, self._file_shapes[0], strict=True):
            if math.prod(shape[1:]) != math.prod(first[1:]):
                raise self._error(
                    file, top, f"has records of {shape[1:]}, those of {self._files[0]!r} are {first[1:]}; use one shape"
                )

    def _error(self, file: str, dataset: str, text: str) -> FormatError:
        return FormatError(f"{self.where}: {file!r}, dataset {dataset!r}: {text}")

    def _located(self, file: str, error: FormatError) -> FormatError:
        return error if str(error).startswith(self.where) else FormatError(f"{self.where}: {error}")

    # -- batches ---------------------------------------------------------------------------------------------------

    def restore(self, state: State) -> None:
        super().restore(state)
        self._orders.clear()

    def _batch(self) -> tuple[tuple[Floats, ...], tuple[str, ...]]:
        tops = tuple([buffers.take(shape) for buffers, shape in zip(self._buffers, self.shapes, strict=True)])
        keys: list[str] = []
        for file, rows in self._parts():
            here = slice(len(keys), len(keys) + len(rows))
            for top, dataset in zip(tops, self._load(file), strict=True):
                np.take(dataset, rows, axis=0, out=top[here], mode="clip")
            keys += [f"{self._files[file]}:{row}" for row in rows.tolist()]
        return tops, tuple(keys)

    def _parts(self) -> Iterator[tuple[int, Order]]:
        """The batch's records: a file and rows of it, file after file."""
        position, wanted = self._position + self._rank, self._batch_size
        while wanted:
            epoch, index = divmod(position, int(self._lengths.sum()))
            files = self._order(epoch, 0, len(self._files)) if self._shuffle else np.arange(len(self._files))
            ends = np.cumsum(self._lengths[files])
            place = int(np.searchsorted(ends, index, side="right"))
            file = int(files[place])
            length = int(self._lengths[file])
            start = index - int(ends[place]) + length
            rows = np.arange(start, min(length, start + wanted * self._ranks), self._ranks)
            yield file, self._order(epoch, 1 + place, length)[rows] if self._shuffle else rows
            position += len(rows) * self._ranks
            wanted -= len(rows)

    def _order(self, epoch: int, which: int, count: int) -> Order:
        """An epoch's order of the files (0), or of the rows of its n-th file (n)."""
        order = self._orders.get((epoch, which))
        if order is None:
            # keep the two in use: the order of the epoch's files, and of the present file's rows
            self._orders = {key: kept for key, kept in self._orders.items() if key == (epoch, 0)}
            order = self._orders[epoch, which] = self._draws.order(epoch * (len(self._files) + 1) + which, count)
        return order

    def _load(self, file: int) -> list[Floats]:
        if self._loaded is None or self._loaded[0] != file:
            self._loaded = None  # free its memory before the next file is read
            name = self._files[file]
            arrays = []
            try:
                with hdf5.reading(name) as opened:
                    for top, shape, first in zip(
                        self._tops, self._file_shapes[file], self._file_shapes[0], strict=True
                    ):
                        array = np.empty(shape, np.float32)
                        opened[top].read_direct(array)
                        arrays.append(array.reshape(-1, *first[1:]))
            except FormatError as error:
                raise self._located(name, error) from error
            except MemoryError as error:
                raise DataError(
                    f"{self.where}: out of memory for the rows of {name!r}; split it into several files"
                ) from error
            self._loaded = (file, arrays)
        return self._loaded[1]

    def close(self) -> None:
        self._loaded = None
