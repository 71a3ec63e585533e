"""LevelDB folders: see ``db``."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import mmap
import shutil
import struct
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from caffecli.errors import FormatError
from caffecli.formats.atomic import cannot_read
from caffecli.formats.db import Reader, Record, Writer

_BLOCK = 2**15
_OWN_FILES = ("LOCK", "LOG", "LOG.old")  # files that each process that opens a LevelDB writes anew


def plyvel() -> Any:
    """The module plyvel, or plyvel_next, which has the same functions and wheels for later Pythons.

    Raises FormatError where there is neither, or where it does not load.
    """
    for name in ("plyvel", "plyvel_next"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
        except ImportError as error:
            raise FormatError(
                f"LevelDB's package {name} does not load ({error}); install it anew, or use LMDB"
            ) from error
    package = "plyvel" if sys.version_info < (3, 13) else "plyvel-next"
    raise FormatError(f"LevelDB needs the package {package}: pip install {package}; or use LMDB")


class LevelDbReader(Reader):
    """Reads from a temporary folder of links to the database's files.

    LevelDB locks what it opens, and on opening turns its log into tables and drops files no longer needed. In a folder
    of links all that happens beside the database, which is left untouched, may be read-only, and may be open several
    times.
    """

    backend = "leveldb"
    counts_quickly = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plyvel = plyvel()
        self._count: int | None = None  # LevelDB does not store it
        self._keys: list[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="caffecli-leveldb-"))
        self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        with self._errors():
            _check_logs(path)
            _link(path, self._folder)
            self._db = self._plyvel.DB(str(self._folder), create_if_missing=False, paranoid_checks=True)

    def __len__(self) -> int:
        if self._count is None:
            with self._errors():
                self._count = sum(1 for _ in self._each_key())
        return self._count

    def items(self, start: int = 0) -> Iterator[Record]:
        with self._errors():
            first: bytes | None = None
            if start:
                first = next(itertools.islice(self._each_key(), start, None), None)
                if first is None:
                    return
            with self._db.iterator(start=first, verify_checksums=True, fill_cache=False) as records:
                yield from records

    def record(self, position: int) -> Record:
        with self._errors():
            if self._keys is None:
                self._keys = list(self._each_key())
            key = self._keys[position]
            value = self._db.get(key, verify_checksums=True, fill_cache=False)
            if value is None:
                raise self.damaged(f"it has no record {key!r}")
            return key, value

    def _each_key(self) -> Iterator[bytes]:
        # closed in any case: one that is collected together with its database, as when both are held by a traceback,
        # outlives it, and ends the process
        with self._db.iterator(include_value=False) as keys:
            yield from keys

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._plyvel.Error as error:
            raise self.damaged(_text(error).replace(f"{self._folder}/", "")) from error
        except OSError as error:
            raise cannot_read(self.path, error) from error
        except RuntimeError as error:
            raise FormatError(f"{str(self.path)!r} has been closed") from error

    def close(self) -> None:
        self._db.close()
        self._remove()


def _link(path: Path, folder: Path) -> None:
    for file in path.resolve().iterdir():
        if file.name == "CURRENT":
            shutil.copyfile(file, folder / file.name)
        elif file.name not in _OWN_FILES:
            (folder / file.name).symlink_to(file)


def _check_logs(path: Path) -> None:
    """Raise FormatError for a log that is missing or cut short, whose records LevelDB silently drops."""
    found = list(path.glob("*.log"))
    if not found or not all(map(_is_whole, found)):
        raise FormatError(f"{str(path)!r}: the LevelDB's log is missing or cut short; copy or convert it again")


def _is_whole(path: Path) -> bool:
    """Whether a log ends with the end of a record. It is made of blocks of 32 KB, which hold fragments: checksum
    (4 bytes), length (2), kind (whole 1, first 2, middle 3, last 4), content. Fewer than 7 bytes at a block's end are
    padding.
    """
    size = path.stat().st_size
    if not size:
        return True
    at, kind = 0, 1
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as log:
        while at < size:
            left = _BLOCK - at % _BLOCK
            if left < 7:
                at += left
                continue
            if at + 7 > size:
                return False
            length, kind = struct.unpack_from("<HB", log, at + 4)
            at = at + 7 + length if kind else min(at + left, size)  # kind 0: padding of a block allocated in advance
    return at == size and kind not in (2, 3)


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
    """A writer into the empty ``folder``, which is to become ``path``;
    in blocks of 64 KB, as Caffe's tools write them.
    """
    with _write_errors(path):
        db = plyvel().DB(
            str(folder),
            create_if_missing=True,
            error_if_exists=True,
            write_buffer_size=2**26,
            block_size=2**16,
            max_open_files=100,
        )
    with contextlib.closing(db):
        yield LevelDbWriter(path, db)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except plyvel().Error as error:
        why = _text(error).rpartition(": ")[2]
        raise FormatError(f"cannot write {str(path)!r}: {why}; free some space, or write to another disk") from error


def _text(error: Exception) -> str:
    """The text of one of plyvel's errors, which may hold bytes."""
    return " ".join(part.decode(errors="replace") if isinstance(part, bytes) else str(part) for part in error.args)
