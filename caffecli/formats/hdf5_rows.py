"""HDF5 files that grow row by row, and are complete under their name or not there."""

from __future__ import annotations

import atexit
import gc
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from caffecli import logs
from caffecli.errors import FormatError
from caffecli.formats.atomic import cannot_write, replacing
from caffecli.formats.blob import Array


class RowWriter:
    """Adds rows to the datasets of a new HDF5 file, which takes the place of ``path`` when closed with rows in it.

    Left open, it is closed when the interpreter exits. Raises FormatError when the file cannot be written, or is being
    written by another RowWriter of this process.
    """

    #: the largest size of a dataset's chunk, in bytes
    CHUNK = 2**26

    _paths: set[Path] = set()  # noqa: RUF012 - those of all that are open, shared on purpose

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import h5py

        self.path = path
        self._real = Path(path).resolve()
        if self._real in self._paths:
            gc.collect()  # closes a writer of this file that nobody refers to any more
        if self._real in self._paths:
            raise FormatError(f"{str(path)!r} is being written by another layer of this process; name another file")
        self._replacing = replacing(path, "w+b")
        file: Any = self._replacing.__enter__()
        self._out = _Out(file.raw)
        self._file = h5py.File(self._out, "w")
        self.rows = 0
        self.closed = False
        self._paths.add(self._real)
        atexit.register(self.close_quietly)

    def append(self, rows: Mapping[str, Array]) -> None:
        """Add the rows of each dataset, float32, along its first axis."""
        for name, array in rows.items():
            count, *shape = array.shape
            if name not in self._file:
                chunk = max(1, min(count, self.CHUNK // max(1, 4 * math.prod(shape))))
                self._file.create_dataset(
                    name, (0, *shape), np.float32, maxshape=(None, *shape), chunks=(chunk, *shape)
                )
            dataset: Any = self._file[name]
            if dataset.shape[1:] != tuple(shape):
                raise FormatError(
                    f"{str(self.path)!r}, dataset {name!r}: expected rows of shape {dataset.shape[1:]}, got "
                    f"{tuple(shape)}"
                )
            dataset.resize(self.rows + count, 0)
            dataset[self.rows :] = array
        self._file.flush()
        self._check()
        self.rows += count

    def close(self) -> None:
        """Put the file under its name; without rows, leave nothing. Closing twice is fine."""
        if self.closed:
            return
        self._file.close()
        self._check()
        self._end(None if self.rows else FormatError("no rows"))

    def _check(self) -> None:
        """Raise the error of an earlier write."""
        if self._out.error is not None:
            error = cannot_write(self.path, self._out.error)
            self._file.close()
            self._end(error)
            raise error

    def _end(self, error: FormatError | None) -> None:
        self.closed = True
        self._paths.discard(self._real)
        atexit.unregister(self.close_quietly)
        self._replacing.__exit__(type(error) if error else None, error, None)

    def close_quietly(self) -> None:
        """``close`` without raising, for the end of the program."""
        try:
            self.close()
        except FormatError as error:
            logs.error("hdf5_output_layer.cpp:16", str(error))


class _Out:
    """A file that keeps the first error in writing for later:
    the HDF5 library cannot close a file that fails to be written.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self.error: OSError | None = None
        self.read, self.readinto, self.seek, self.tell, self.flush = (
            file.read,
            file.readinto,
            file.seek,
            file.tell,
            file.flush,
        )

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        try:
            while rest and self.error is None:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int) -> int:
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size
