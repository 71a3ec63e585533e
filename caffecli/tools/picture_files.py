"""The pictures that a command is given: files, folders, lists."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from caffecli.errors import DataError
from caffecli.formats.list_file import read_lines

#: what the names of pictures end in
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")


def is_list(path: Path) -> bool:
    """Whether a file lists pictures."""
    return path.suffix.lower() == ".txt" and not path.is_dir()


def listed(path: Path) -> list[str]:
    """The paths in a list, one a line; a label, or an annotation file, may follow. Raises DataError for none."""
    names = []
    for line in filter(None, read_lines(path, "a list of pictures")):
        first, _, rest = line.rpartition("\t" if "\t" in line else " ")
        names.append(first.rstrip() if rest and not os.path.lexists(line) and os.path.lexists(first.rstrip()) else line)
    if not names:
        raise DataError(f"{str(path)!r} lists no pictures; expected a path a line")
    return names


def in_folder(path: Path, endings: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """The files of a folder whose names end so, and the others, but for hidden ones. Raises DataError for none."""
    every = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    found = [file for file in every if file.name.lower().endswith(tuple(endings))]
    if not found:
        inner = sorted(folder.name for folder in path.iterdir() if folder.is_dir())
        remedy = f"; give the folders in it, such as {str(path / inner[0])!r}" if inner else ""
        other = next((file.suffix.lower() for file in every if file.suffix.lower() in PICTURES), "")
        if other:
            remedy = f"; say --ext {other.removeprefix('.')} for other pictures"
        raise DataError(f"the folder {str(path)!r} has no {', '.join(f'*{ending}' for ending in endings)}{remedy}")
    return found, [file for file in every if file not in set(found)]


def refuse_missing(path: Path) -> None:
    """Raise FileNotFoundError where there is no such file."""
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
