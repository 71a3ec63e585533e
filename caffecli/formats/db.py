"""Databases of (key, value) records in LMDB or LevelDB folders: one small interface over both.

::

    with open_reader("mnist_train_lmdb") as db:
        for key, value in db.items(start=100): ...

    with open_writer("out_lmdb", "lmdb") as db:      # under its name only when the block ends well
        db.put(b"00000000", datum.SerializeToString())
"""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Literal

from caffecli import logs
from caffecli.errors import FormatError
from caffecli.formats.atomic import new_folder

Backend = Literal["lmdb", "leveldb"]
Record = tuple[bytes, bytes]

#: records a transaction of the writers, as in Caffe's tools
BATCH = 1000
#: bytes a transaction, so that a thousand large pictures do not fill the memory
BATCH_BYTES = 2**28


class Reader(ABC):
    """A database opened for reading, its records in the order of their keys.

    Nothing in the folder is changed or locked; it may lie on a read-only disk and be open several times at once.
    """

    backend: Backend
    path: Path
    #: whether ``len`` needs not read all records
    counts_quickly = True

    @abstractmethod
    def __len__(self) -> int:
        """How many records there are."""

    @abstractmethod
    def items(self, start: int = 0) -> Iterator[Record]:
        """The (key, value) records from position ``start`` (0 is the first) to the end.

        Raises FormatError on damage.
        """

    @abstractmethod
    def record(self, position: int) -> Record:
        """The record at a position, 0 for the first. The first call takes the time of a look at all keys.

        Raises FormatError on damage.
        """

    def spread(self, count: int) -> Iterator[Record]:
        """Up to ``count`` records at about even distances, in their order; none where that takes a look at all keys."""
        return iter(())

    @abstractmethod
    def close(self) -> None:
        """Give back files and memory; iterators end with it. Closing twice is fine."""

    def __iter__(self) -> Iterator[Record]:
        return self.items()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def damaged(self, text: str) -> FormatError:
        """The error for a database that its library cannot read, saying ``text``."""
        name = _NAMES[self.backend]
        return FormatError(
            f"{str(self.path)!r}: the {name} is damaged or incomplete ({' '.join(text.split())}); "
            "copy or convert it again"
        )


class Writer(ABC):
    """A database under construction, from ``open_writer``. Records go to disk in batches of ``BATCH``."""

    path: Path

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: list[Record] = []
        self._bytes = 0

    def put(self, key: bytes, value: bytes) -> None:
        """Add a record; a key that is there already gets the new value. Raises FormatError when the disk is full."""
        self._records.append((key, value))
        self._bytes += len(value)
        if len(self._records) >= BATCH or self._bytes >= BATCH_BYTES:
            self.commit()

    def commit(self) -> None:
        """Write the records put so far. Raises FormatError."""
        if self._records:
            self._write(self._records)
            self._records.clear()
            self._bytes = 0

    @abstractmethod
    def _write(self, records: list[Record]) -> None:
        """Write a batch of records."""


def is_database(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds an LMDB or LevelDB."""
    return any((Path(path) / name).is_file() for name in ("data.mdb", "CURRENT"))


def detect(path: str | os.PathLike[str]) -> Backend:
    """Which kind of database the folder holds. Raises FormatError when it is none."""
    folder = Path(path)
    if (folder / "data.mdb").is_file():
        return "lmdb"
    if (folder / "CURRENT").is_file():
        return "leveldb"
    quoted = repr(str(path))
    if not folder.exists():
        raise FormatError(f"{quoted}: no such database; check the path, or make it with convert_imageset")
    if not folder.is_dir():
        hint = f"; give its folder, {str(folder.parent)!r}" if folder.name in ("data.mdb", "CURRENT") else ""
        raise FormatError(f"{quoted} is a file; an LMDB or LevelDB is a folder{hint}")
    raise FormatError(
        f"{quoted} is no database: it holds neither data.mdb (LMDB) nor CURRENT (LevelDB); check the path"
    )


def open_reader(path: str | os.PathLike[str], backend: Backend | None = None) -> Reader:
    """Open a database for reading; its kind is found out when ``backend`` is None.

    Raises FormatError when there is none, when it is of the other kind, or damaged.
    """
    found = detect(path)
    if backend is not None and found != _known(backend):
        raise FormatError(
            f"{str(path)!r} holds {_NAMES[found]} data, not {_NAMES[backend]}; "
            f"set --backend={found}, or backend: {found.upper()} in data_param"
        )
    reader: Reader
    if found == "lmdb":
        from caffecli.formats.lmdb_db import LmdbReader

        reader = LmdbReader(Path(path))
    else:
        from caffecli.formats.leveldb_db import LevelDbReader

        reader = LevelDbReader(Path(path))
    _log_opened(found, path)
    return reader


@contextlib.contextmanager
def open_writer(path: str | os.PathLike[str], backend: Backend = "lmdb") -> Iterator[Writer]:
    """A new database at ``path``, to be filled in a ``with`` block.

    It appears under its name when the block ends without an error; after an error nothing is left.
    Raises FormatError when ``path`` exists, when its folder does not, or when the disk is full.
    """
    writing: Callable[[Path, Path], AbstractContextManager[Writer]]
    if _known(backend) == "lmdb":
        from caffecli.formats.lmdb_db import writing
    else:
        from caffecli.formats.leveldb_db import writing

    with new_folder(path) as folder, writing(Path(path), folder) as writer:
        _log_opened(backend, path)
        yield writer
        writer.commit()


_NAMES = {"lmdb": "LMDB", "leveldb": "LevelDB"}


def _log_opened(backend: Backend, path: str | os.PathLike[str]) -> None:
    source = "db_lmdb.cpp:35" if backend == "lmdb" else "db_leveldb.cpp:18"
    logs.info(source, f"Opened {backend} {os.fspath(path)}")


def _known(backend: str) -> str:
    if backend not in _NAMES:
        raise FormatError(f"unknown database backend {backend!r}; expected 'lmdb' or 'leveldb'")
    return backend
