"""LMDB folders (``data.mdb``, ``lock.mdb``): see ``db``."""

from __future__ import annotations

import contextlib
import errno
import itertools
import operator
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb

from caffecli.errors import FormatError
from caffecli.formats.db import Reader, Record, Writer

# LMDB must not be opened twice in one process (train and test nets often read the same data): readers share the
# environment
_shared: dict[tuple[int, ...], tuple[Any, int]] = {}
_shared_lock = threading.Lock()


class LmdbReader(Reader):
    """Reads without LMDB's lock file: Caffe's databases are written once, and may be on a read-only disk."""

    backend = "lmdb"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path / "data.mdb"
        self._key, self._env = self._acquire()
        try:
            self._check_length()
        except BaseException:
            self.close()
            raise

    def _acquire(self) -> tuple[tuple[int, ...], Any]:
        try:
            self._handle = os.open(self._file, os.O_RDONLY)  # still readable if the file is removed during a run
        except OSError as error:
            raise self.damaged(str(error)) from error
        try:
            stat = os.fstat(self._handle)
            if not stat.st_size:
                os.close(self._handle)
                raise self.damaged("data.mdb is empty")
            key = (os.getpid(), stat.st_dev, stat.st_ino)  # a forked child needs an environment of its own
            with _shared_lock:
                env, users = _shared.get(key, (None, 0))
                if env is None:
                    env = lmdb.open(str(self.path), readonly=True, lock=False, max_dbs=0)
                _shared[key] = (env, users + 1)
        except lmdb.Error as error:
            os.close(self._handle)
            raise self.damaged(str(error)) from error
        return key, env

    def _check_length(self) -> None:
        """Raise FormatError for a file that was cut short: reading past its end would kill the process with SIGBUS."""
        self._expected = (self._env.info()["last_pgno"] + 1) * self._env.stat()["psize"]
        present = self._file.stat().st_size
        if present < self._expected:
            raise self._cut_short(present)

    def _cut_short(self, present: int) -> FormatError:
        what = f"data.mdb has {present} of at least {self._expected} bytes"
        return FormatError(f"{str(self.path)!r}: the LMDB is cut short, {what}; copy it again")

    def __len__(self) -> int:
        return int(self._environment().stat()["entries"])

    def items(self, start: int = 0) -> Iterator[Record]:
        env = self._environment()
        try:
            transaction = env.begin(buffers=True)
            try:
                cursor = transaction.cursor()
                if start and next(itertools.islice(cursor.iternext(values=False), start, None), None) is None:
                    return
                yield from self._copied(cursor)
            finally:
                if self._env is not None:  # closing the environment has ended the transaction
                    transaction.abort()
        except lmdb.Error as error:
            if self._env is None:
                raise FormatError(f"{str(self.path)!r} has been closed") from error
            raise self.damaged(str(error)) from error

    def _copied(self, cursor: Any) -> Iterator[Record]:
        """The records from the cursor on, as bytes.

        The file is checked again after each pause: it may have been cut short.
        """
        checked = time.monotonic()
        for key, value in cursor.iternext():
            if len(value) > self._expected:
                raise self.damaged(f"a record of {len(value)} bytes")
            yield bytes(key), bytes(value)
            if (
                self._env is not None and time.monotonic() - checked > 1e-3
            ):  # not for each record: the check costs more than the reading
                present = os.fstat(self._handle).st_size
                if present < self._expected:
                    raise self._cut_short(present)
                checked = time.monotonic()

    def _environment(self) -> Any:
        if self._env is None:
            raise FormatError(f"{str(self.path)!r} has been closed")
        return self._env

    def close(self) -> None:
        if self._env is None:
            return
        self._env = None
        os.close(self._handle)
        with _shared_lock:
            env, users = _shared.pop(self._key)
            if users > 1:
                _shared[self._key] = (env, users - 1)
            else:
                env.close()


class LmdbWriter(Writer):
    """Writes each batch in one transaction; doubles the map size when it is full."""

    def __init__(self, path: Path, env: Any) -> None:
        super().__init__(path)
        self._env = env
        self._last = b""

    def _write(self, records: list[Record]) -> None:
        keys = [key for key, _ in records]
        # keys in rising order, the usual case, are appended: faster, and the pages are filled
        append = keys[0] > self._last and all(map(operator.lt, keys, keys[1:]))
        while True:
            try:
                with _write_errors(self.path), self._env.begin(write=True) as transaction:
                    transaction.cursor().putmulti(records, append=append)
                break
            except lmdb.MapFullError:
                self._env.set_mapsize(self._env.info()["map_size"] * 2)
        self._last = max(self._last, max(keys))


@contextlib.contextmanager
def writing(path: Path, folder: Path) -> Iterator[LmdbWriter]:
    """A writer into the empty ``folder``, which is to become ``path``. Synced once, at the end."""
    with _write_errors(path):
        env = lmdb.open(str(folder), map_size=2**26, mode=0o664, sync=False, metasync=False)
    with contextlib.closing(env):
        yield LmdbWriter(path, env)
        with _write_errors(path):
            env.sync(True)


@contextlib.contextmanager
def _write_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except lmdb.MapFullError:
        raise
    except lmdb.BadValsizeError as error:
        raise FormatError(
            f"cannot write {str(path)!r}: LMDB's keys have 1 to 511 bytes; shorten the names, or use leveldb"
        ) from error
    except lmdb.Error as error:
        why = str(error).rpartition(": ")[2]
        if why == os.strerror(errno.EIO):
            why += " (LMDB says so of a full disk, too)"
        raise FormatError(f"cannot write {str(path)!r}: {why}; free some space, or write to another disk") from error
