"""Window files: the pictures of a detection set, each with its windows and how much these overlap an object.

::

    # 0                            a new picture, and its number
    pictures/cat.jpg
    3                              channels
    375                            height
    500                            width
    2                              how many windows follow
    8 1.0 23 40 210 300            class, overlap, x1, y1, x2, y2: the last column and row belong to the window
    8 0.31 0 0 99 120
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import DataError, FormatError
from caffecli.formats.atomic import cannot_read, read_bytes
from caffecli.formats.foreign import describe

Table = NDArray[np.float64]

_ROW = re.compile(r"[+-]?\d+\s+[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?(\s+[+-]?\d+){4}")


class Picture(NamedTuple):
    """A picture of a window file; ``windows`` has a row (class, overlap, x1, y1, x2, y2) for each, ``lines`` their lines."""

    path: str
    channels: int
    height: int
    width: int
    windows: Table
    lines: list[int]


def read_pictures(path: str) -> Iterator[Picture]:
    """The pictures of a window file, one by one. Empty lines are left out, the pictures' numbers not looked at.

    Raises FormatError for a file that cannot be read, is empty or something else, DataError, naming the line, for a mistake.
    """
    head = read_bytes(path, 4096)
    if not head.strip():
        raise FormatError(f"{path!r} names no pictures; expected '# 0', a path, channels, height, width, the count of windows")
    if b"\0" in head:
        raise describe(path, head, "a window file")
    try:
        with Path(path).open(encoding="utf-8", errors="surrogateescape") as file:
            yield from _Parser(path, file).pictures()
    except OSError as error:
        raise cannot_read(path, error) from error


class _Parser:
    def __init__(self, path: str, file: Iterator[str]) -> None:
        self._path = path
        self._line = 0
        self._lines = ((number, line.strip()) for number, line in enumerate(file, 1) if line.strip())

    def pictures(self) -> Iterator[Picture]:
        for line, text in self._lines:
            self._line = line
            if not re.fullmatch(r"#\s*\d+", text):
                raise self._error("'#' and a picture's number", text)
            path = self._next("the path of a picture")
            channels = self._number("the picture's channels")
            if channels != 3:
                raise self._error("3 channels, for pictures are read in color", str(channels))
            height, width, count = map(self._number, ("the picture's height", "the picture's width", "the count of its windows"))
            lines, rows = [], []
            for number, row in islice(self._lines, count):
                lines.append(number)
                rows.append(row)
            if len(rows) < count:
                raise DataError(f"{self._path!r}: expected {count} windows for {path!r}, the file ends after {len(rows)}")
            yield Picture(path, channels, height, width, self._table(lines, rows), lines)

    def _next(self, wanted: str) -> str:
        self._line, text = next(self._lines, (0, ""))
        if not self._line:
            raise DataError(f"{self._path!r}: expected {wanted}, the file ends; it may be cut off")
        return text

    def _number(self, wanted: str) -> int:
        text = self._next(wanted)
        if not re.fullmatch(r"\d+", text):
            raise self._error(wanted, text)
        return int(text)

    def _table(self, lines: list[int], rows: list[str]) -> Table:
        if not rows:
            return np.empty((0, 6))
        try:
            table = np.loadtxt(rows, comments=None, ndmin=2)
            if table.shape == (len(rows), 6) and np.isfinite(table).all() and not (np.delete(table, 1, 1) % 1).any():
                return table
        except ValueError:
            pass
        for line, row in zip(lines, rows, strict=True):
            self._line = line
            if not _ROW.fullmatch(row):
                raise self._error("a window (class overlap x1 y1 x2 y2, '8 0.71 23 40 210 300')", row)
        raise self._error("windows of a class, an overlap and four coordinates", rows[0])

    def _error(self, wanted: str, got: str) -> DataError:
        return DataError(f"{self._path!r}, line {self._line}: expected {wanted}, got {got[:80]!r}")
