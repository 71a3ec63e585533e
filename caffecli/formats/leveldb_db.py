"""LevelDB folders: see ``db``."""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffecli import logs
from caffecli.errors import FormatError
from caffecli.formats.atomic import cannot_read
from caffecli.formats.db import Reader, Record, Writer

_OWN_FILES = ("LOCK", "LOG", "LOG.old")  # what each opener of a LevelDB makes for itself


def _plyvel() -> Any:
    try:
        import plyvel
    except ImportError as error:
        raise FormatError(
            "LevelDB needs the package plyvel: pip install plyvel (Python 3.13 and later: with LevelDB's headers installed); "
            "or use LMDB"
        ) from error
    return plyvel


class LevelDbReader(Reader):
    """Reads from a temporary folder of links to the database's files.

    LevelDB locks what it opens, and on opening turns its log into tables and drops files no longer needed. In a folder of links
    all that happens beside the database, which is left untouched, may be read-only, and may be open several times.
    """

    backend = "leveldb"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plyvel = _plyvel()
        self._count: int | None = None
        folder = Path(tempfile.mkdtemp(prefix="caffecli-leveldb-"))
        self._remove = weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        try:
            _link(path, folder)
            self._db = self._plyvel.DB(str(folder), create_if_missing=False, paranoid_checks=True)
        except (self._plyvel.Error, OSError) as error:
            self._remove()
            raise (cannot_read(path, error) if isinstance(error, OSError) else self.damaged(error)) from error
        logs.info("db_leveldb.cpp:18", f"Opened leveldb {path}")

    def __len__(self) -> int:
        if self._count is None:  # LevelDB keeps no count
            with self._errors():
                self._count = sum(1 for _ in self._db.iterator(include_value=False))
        return self._count

    def items(self, start: int = 0) -> Iterator[Record]:
        with self._errors():
            first: bytes | None = None
            if start:
                keys = self._db.iterator(include_value=False)
                first = next(itertools.islice(keys, start, None), None)
                if first is None:
                    return
            with self._db.iterator(start=first, verify_checksums=True, fill_cache=False) as records:
                yield from records

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        if self._db.closed:
            raise FormatError(f"{str(self.path)!r} has been closed")
        try:
            yield
        except self._plyvel.Error as error:
            raise self.damaged(error) from error

    def close(self) -> None:
        self._db.close()
        self._remove()


def _link(path: Path, folder: Path) -> None:
    for file in path.resolve().iterdir():
        if file.name == "CURRENT":
            shutil.copyfile(file, folder / file.name)
        elif file.name not in _OWN_FILES:
            (folder / file.name).symlink_to(file)


class LevelDbWriter(Writer):
    """Writes each batch at once."""

    def __init__(self, path: Path, db: Any) -> None:
        super().__init__(path)
        self._db = db

    def _write(self, records: list[Record]) -> None:
        with _write_errors(self.path), self._db.write_batch() as batch:
            for key, value in records:
                batch.put(key, value)


@contextlib.contextmanager
def writing(path: Path, folder: Path) -> Iterator[LevelDbWriter]:
    """A writer into the empty ``folder``, which is to become ``path``; in blocks of 64 KB, as Caffe's tools write them."""
    with _write_errors(path):
        db = _plyvel().DB(
            str(folder),
            create_if_missing=True,
            error_if_exists=True,
            write_buffer_size=2**26,
            block_size=2**16,
            max_open_files=100,
        )
    with contextlib.closing(db):
        logs.info("db_leveldb.cpp:18", f"Opened leveldb {path}")
        yield LevelDbWriter(path, db)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except _plyvel().Error as error:
        why = str(error).rpartition(": ")[2]
        raise FormatError(f"cannot write {str(path)!r}: {why}; free some space, or write to another disk") from error
