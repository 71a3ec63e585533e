"""LMDB folders (``data.mdb``, ``lock.mdb``): see ``db``.

They are written by LMDB's library. They are read here, page by page: the library forbids a process to open a database
twice, so that a program that has it open itself could run no net that reads it; and it ends the process where a page is
damaged.

A file is pages of one size. Pages 0 and 1 say what else there is, the newer of them. The records are a tree: branches
hold numbers of pages, leaves hold keys with their values, or with the number of the page where a large value begins.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import operator
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import lmdb

from caffecli.errors import FormatError
from caffecli.formats.db import Reader, Record, Writer

#: the beginning of a page: its number, the size of its keys, its kind, the ends of its list of nodes and of free space
_PAGE = struct.Struct("<QHHHH")
#: what pages 0 and 1 hold: magic number, version, an address, the map's size; of the free pages, and of the records:
#: the page size (or nothing), flags, depth, three counts of pages, how many records, the root; last page, transaction
_META = struct.Struct("<IIQQ IHHQQQQQ IHHQQQQQ QQ")
#: the beginning of a node: the halves of the value's size, flags, the key's size; in a branch, three parts of a number
_NODE = struct.Struct("<HHHH")
_NUMBER = struct.Struct("<Q")

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE, _FIXED_KEYS = 1, 2, 4, 8, 0x20
_LARGE_VALUE, _SEVERAL_VALUES = 1, 4
_NO_PAGE = 2**64 - 1
#: how much is read at once where records are wanted in order
_AHEAD = 2**18
#: a value of fewer bytes is read together with the head of its page
_AT_ONCE = 2**16


class _Meta(NamedTuple):
    """What a database holds."""

    transaction: int
    page_size: int
    last_page: int
    root: int
    depth: int
    entries: int
    flags: int


class LmdbReader(Reader):
    """Reads without LMDB's lock file: Caffe's databases are written once, and may be on a read-only disk."""

    backend = "lmdb"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        #: for ``record``: what the database holds, its leaves' pages, and how many records come before each
        self._ahead: tuple[int, bytes] = (0, b"")  # a place in the file, and what is there
        self._index: tuple[_Meta, list[int], list[int]] | None = None
        try:
            self._handle = os.open(path / "data.mdb", os.O_RDONLY)  # still readable if it is removed during a run
        except OSError as error:
            raise self.damaged(str(error)) from error
        try:
            self._meta()
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        return self._meta().entries

    def items(self, start: int = 0) -> Iterator[Record]:
        meta = self._meta()
        count, before = 0, b""
        self._ahead = 0, b""
        for page in self._leaves(meta):
            nodes = self._nodes(page)
            count += len(nodes)
            if count > meta.entries:
                raise self.damaged(f"more than its {meta.entries} records")
            for node in nodes if count - len(nodes) >= start else nodes[max(0, len(nodes) - max(0, count - start)) :]:
                record = self._record(meta, page, node, _AHEAD)
                if record[0] <= before and not meta.flags:
                    raise self.damaged("its keys are out of order")
                before = record[0]
                yield record
                if self._handle is None:
                    raise self._closed()
        if count != meta.entries:
            raise self.damaged(f"{count} of its {meta.entries} records")

    def record(self, position: int) -> Record:
        if self._index is None:
            meta = self._meta()
            pages, ends = [], [0]
            for page in self._leaves(meta):
                pages.append(_NUMBER.unpack_from(page)[0])
                ends.append(ends[-1] + len(self._nodes(page)))
            if ends[-1] != meta.entries:
                raise self.damaged(f"{ends[-1]} of its {meta.entries} records")
            self._index = meta, pages, ends
        meta, pages, ends = self._index
        if not 0 <= position < meta.entries:
            raise IndexError(f"there is no record {position}")
        leaf = bisect.bisect_right(ends, position) - 1
        page = self._read(self._place(meta, pages[leaf]), meta.page_size)
        nodes = self._nodes(page)
        if len(nodes) != ends[leaf + 1] - ends[leaf]:
            raise self.damaged(f"page {pages[leaf]} has changed")
        return self._record(meta, page, nodes[position - ends[leaf]])

    def spread(self, count: int) -> Iterator[Record]:
        meta = self._meta()
        count = min(count, meta.entries)
        for i in range(count):
            number, share = meta.root, (i + 0.5) / count
            for depth in range(1, meta.depth + 1):
                page = self._page(meta, number, depth)
                nodes = self._nodes(page)
                if not nodes:
                    raise self.damaged(f"page {number} is empty")
                place, share = divmod(share * len(nodes), 1)
                if depth < meta.depth:
                    number = self._below(page)[int(place)]
            yield self._record(meta, page, nodes[int(place)])

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
        self._handle = None

    # -- pages -----------------------------------------------------------------------------------------------------

    def _meta(self) -> _Meta:
        """What the database holds now. Raises FormatError for a file that is no LMDB, or was cut short."""
        first = self._meta_of(self._read(0, _PAGE.size + _META.size), 0)
        second = self._meta_of(self._read(first.page_size, _PAGE.size + _META.size), 1)
        meta = max(first, second)
        expected, present = (meta.last_page + 1) * meta.page_size, self._size()
        if present < expected:
            raise self._cut_short(present, expected)
        return meta

    def _meta_of(self, page: bytes, number: int) -> _Meta:
        kind = _PAGE.unpack_from(page)[2]
        magic, version, *fields, last, transaction = _META.unpack_from(page, _PAGE.size)
        if magic != _MAGIC or not kind & _META_PAGE:
            raise self.damaged(f"data.mdb is not an LMDB file, by its page {number}")
        if version != _VERSION:
            raise self.damaged(f"LMDB's format {version}, not {_VERSION}")
        size, (_, flags, depth, *_, entries, root) = fields[2], fields[10:]
        if not 256 <= size <= 65536 or size & (size - 1):
            raise self.damaged(f"pages of {size} bytes")
        if flags & _SEVERAL_VALUES:
            raise self.damaged("several values for a key, which Caffe's databases have not")
        return _Meta(transaction, size, last, root, depth, entries, flags)

    def _leaves(self, meta: _Meta) -> Iterator[bytes]:
        """The pages that hold the records, in the order of the keys."""
        pending = [] if meta.root == _NO_PAGE else [(meta.root, 1)]
        seen = 0
        while pending:
            number, depth = pending.pop()
            seen += 1
            if seen > meta.last_page:
                raise self.damaged("its pages form a circle")
            page = self._page(meta, number, depth)
            if depth == meta.depth:
                yield page
            else:
                pending += [(child, depth + 1) for child in reversed(self._below(page))]

    def _page(self, meta: _Meta, number: int, depth: int) -> bytes:
        """A page of the tree of records, ``depth`` levels down; 1 is the root's."""
        page = self._read(self._place(meta, number), meta.page_size)
        own, _, kind, *_ = _PAGE.unpack_from(page)
        wanted = _LEAF if depth == meta.depth else _BRANCH
        if own != number or kind & (_OVERFLOW | _META_PAGE | _FIXED_KEYS) or not kind & wanted:
            raise self.damaged(f"page {number} is not of the tree of records")
        return page

    def _below(self, page: bytes) -> list[int]:
        """The pages that a branch's nodes lead to."""
        parts = (_NODE.unpack_from(page, node) for node in self._nodes(page))
        return [low | middle << 16 | high << 32 for low, middle, high, _ in parts]

    def _nodes(self, page: bytes) -> tuple[int, ...]:
        """Where in the page its nodes begin."""
        number, *_, lower, upper = _PAGE.unpack_from(page)
        if not _PAGE.size <= lower <= upper <= len(page):
            raise self.damaged(f"page {number}")
        nodes: tuple[int, ...] = struct.unpack_from(f"<{(lower - _PAGE.size) // 2}H", page, _PAGE.size)
        if nodes and not upper <= min(nodes) <= max(nodes) <= len(page) - _NODE.size:
            raise self.damaged(f"page {number}")
        return nodes

    def _record(self, meta: _Meta, page: bytes, node: int, ahead: int = 0) -> Record:
        """The record of a leaf's node; ``ahead``: how much of the file is read at once for it and the next ones."""
        low, high, flags, key_size = _NODE.unpack_from(page, node)
        at = node + _NODE.size + key_size
        size = low | high << 16
        value = self._large(meta, page, at, size, ahead) if flags & _LARGE_VALUE else page[at : at + size]
        if len(value) < size:
            raise self.damaged(f"record {page[node + _NODE.size : at]!r}")
        return page[node + _NODE.size : at], value

    def _large(self, meta: _Meta, page: bytes, at: int, size: int, ahead: int) -> bytes:
        """A value with pages of its own; less than it where they are not there."""
        if at + _NUMBER.size > len(page):
            return b""
        (number,) = _NUMBER.unpack_from(page, at)
        place = self._place(meta, number)
        if place + _PAGE.size + size > (meta.last_page + 1) * meta.page_size:
            return b""
        data = self._read(place, _PAGE.size + (size if size < _AT_ONCE else 0), ahead if size < _AT_ONCE else 0)
        own, _, kind, *_ = _PAGE.unpack_from(data)
        if own != number or not kind & _OVERFLOW:
            return b""
        return data[_PAGE.size :] if size < _AT_ONCE else self._read(place + _PAGE.size, size)

    def _place(self, meta: _Meta, number: int) -> int:
        """Where in the file a page begins."""
        if not 2 <= number <= meta.last_page:
            raise self.damaged(f"a page {number}, of {meta.last_page}")
        return int(number) * meta.page_size

    def _read(self, place: int, size: int, ahead: int = 0) -> bytes:
        if self._handle is None:
            raise self._closed()
        if ahead:
            start, found = self._ahead
            if start <= place <= start + len(found) - size:
                return found[place - start : place - start + size]
        try:
            found = os.pread(self._handle, max(size, ahead), place)
        except OSError as error:
            raise self.damaged(str(error)) from error
        if len(found) < size:
            raise self._cut_short(self._size(), place + size)
        if ahead:
            self._ahead = place, found
        return found[:size]

    def _size(self) -> int:
        return os.fstat(self._handle).st_size if self._handle is not None else 0

    def _closed(self) -> FormatError:
        return FormatError(f"{str(self.path)!r} has been closed")

    def _cut_short(self, present: int, expected: int) -> FormatError:
        if not present:
            return self.damaged("data.mdb is empty")
        what = f"data.mdb has {present} of at least {expected} bytes"
        return FormatError(f"{str(self.path)!r}: the LMDB is cut short, {what}; copy it again")


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
