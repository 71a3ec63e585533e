"""Lists of files, a line each: of pictures with their labels, of HDF5 files. What is wrong with one is told here."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from caffecli.errors import DataError, FormatError
from caffecli.formats.atomic import read_bytes
from caffecli.formats.foreign import describe

_SEVERAL = "HDF5Data takes several labels, and labels that are no whole numbers"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"


class Entry(NamedTuple):
    """A line of an image list; lines count from 1. A blank one has no path."""

    line: int
    path: str
    label: int


def read_text(path: str | os.PathLike[str], what: str) -> str:
    """The text of a list, without the mark that some editors of Windows put before it; bytes that are not UTF-8 stay.

    ``what`` is what it should be, "an image list". Raises FormatError for what is no such text.
    """
    data = read_bytes(path)
    refuse_utf16(path, data)
    if b"\0" in data:
        raise describe(path, data, what)
    return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")


def read_lines(path: str | os.PathLike[str], what: str) -> list[str]:
    """The lines of ``read_text``, without blanks at their ends, whatever system's ends of lines they have."""
    lines = re.split(r"\r\n|\n|\r", read_text(path, what))
    if not lines[-1]:
        lines.pop()
    return [line.strip(" \t") for line in lines]


def refuse_utf16(path: str | os.PathLike[str], data: bytes) -> None:
    """Raise FormatError where the bytes begin with the mark of UTF-16."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise FormatError(f"{str(path)!r} is written in UTF-16, as Windows' PowerShell does; save it as UTF-8")


def read_list(path: str | os.PathLike[str]) -> list[Entry]:
    """The entries of an image list: a path, which may hold spaces, and after a space or tab a whole number, its label.

    Raises FormatError when the file cannot be read or lists nothing, DataError, naming the line, for one that is
    something else.
    """
    entries = [_entry(path, number, line) for number, line in enumerate(read_lines(path, "an image list"), 1)]
    if not any(entry.path for entry in entries):
        raise FormatError(f"{str(path)!r} lists no pictures; expected a path and its label on each line")
    return entries


def _entry(path: str | os.PathLike[str], number: int, line: str) -> Entry:
    if not line:
        return Entry(number, "", 0)
    match = re.fullmatch(r"(.*\S)\s+([+-]?\d+)", line)
    if match is None or not -(2**31) <= int(match[2]) < 2**31:
        raise DataError(f"{str(path)!r}, line {number}: {_fault(line)}; the line is {line[:200]!r}")
    return Entry(number, match[1], int(match[2]))


def _fault(line: str) -> str:
    """What is wrong with a line that does not end with a label."""
    expected = "expected a path and its label ('images/cat.jpg 3')"
    first, last = line.split()[0], line.split()[-1]
    if first == last and not re.search(rf"[,;]{_NUMBER}$", last):
        return f"{expected}: there is no {'path' if re.fullmatch(_NUMBER, line) else 'label'}"
    if re.fullmatch(r"[+-]?\d+", last):
        return f"the label {last} does not fit into 32 bits"
    if re.fullmatch(_NUMBER, last) or re.fullmatch(rf"{_NUMBER}([,;]{_NUMBER})+", last):
        return f"expected one whole number as the label, got {last!r}; {_SEVERAL}"
    if re.search(rf"[,;]{_NUMBER}$", last):
        return f"{expected}: put a space in place of the {re.findall('[,;]', last)[-1]!r}"
    if re.fullmatch(_NUMBER, first):
        return f"{expected}: the label comes last"
    return f"{expected}: {last!r} is no whole number"


def why_not_there(name: str, root: str = "") -> str:
    """Why there is no file ``root`` + ``name``, which a list names, and what to do: to follow "...: "."""
    path = Path(root + name)
    labels = re.fullmatch(rf"(.*?\S)(?:[\s,;]+{_NUMBER})+", name)
    if labels and (Path(root + labels[1]).exists() or re.search(r"\.\w{2,5}$", labels[1])):
        return f"the line has more than one label; {_SEVERAL}"
    if name[:1] in "\"'" and name[:1]:
        return "take the quotes out of the list; a path may hold spaces without them"
    if "\\" in name:
        return "write / in place of \\ in the list"
    if (root + name).startswith(("~", "$")):
        return f"write the whole path; {(root + name)[0]!r} means something to a shell only"
    if root and name.startswith("/") and Path(name).exists():
        return f"{name!r} is there: the list has whole paths, so give the root folder as '/'"
    if root and Path(name).exists():
        return f"{name!r} is there, without the root folder {root!r}"
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}; check the root folder and the list"
    beside = sorted(other.name for other in path.parent.iterdir())
    longer = next((other for other in beside if other.startswith(f"{path.name}.")), None)
    if longer is not None:
        return f"there is {longer!r}: write the extension too"
    other = next((other for other in beside if other.casefold() == path.name.casefold()), None)
    if other is not None:
        return f"there is {other!r}: capitals count"
    return "check the root folder and the list"
