"""Image lists: a line for each picture, its path, a space, its label."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import NamedTuple

from caffecli.errors import DataError
from caffecli.formats.atomic import read_bytes
from caffecli.formats.foreign import describe


class Entry(NamedTuple):
    """A line of an image list. ``line`` counts from 1."""

    name: str
    label: int
    line: int


def read(path: str | os.PathLike[str]) -> list[Entry]:
    """The entries of a list file. Names may hold spaces: the last one parts name and label. A blank line keeps its place (keys
    count lines) as an entry without a name.

    Raises FormatError when the file cannot be read, DataError for an empty list and for lines without a label.
    """
    data = read_bytes(path)
    if b"\0" in data:
        raise describe(path, data, "an image list")
    text = os.fsdecode(data)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    entries = [_entry(path, number, line.rstrip("\r \t")) for number, line in enumerate(lines, 1)]
    if not any(entry.name for entry in entries):
        raise DataError(f"{str(path)!r} lists no pictures; expected lines of 'path label'")
    return entries


def _entry(path: str | os.PathLike[str], number: int, line: str) -> Entry:
    if not line:
        return Entry("", 0, number)
    name, space, label = line.rpartition(" ")
    try:
        value = int(label)
        if not space or not -(2**31) <= value < 2**31:
            raise ValueError
    except ValueError:
        expected = "expected 'path label', parted by a space, the label a whole number"
        raise DataError(f"{path}:{number}: {expected}; the line is {line[:200]!r}") from None
    return Entry(name, value, number)


def shuffled(entries: list[Entry], seed: int | None = None) -> list[Entry]:
    """The entries in a random order, a new one each time unless ``seed`` is given."""
    return random.Random(seed).sample(entries, len(entries))


def prefix(root: str, entries: list[Entry]) -> str:
    """What to put before each name. Caffe joins root and name as they stand, so the root must end in a slash (or be the
    beginning of the names); here a root that is a folder gets the slash it lacks."""
    if not root or root.endswith("/") or entries[0].name.startswith("/") or not Path(root).is_dir():
        return root
    return root + "/"
