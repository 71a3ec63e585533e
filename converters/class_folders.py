"""Folders of pictures, one for each class: which pictures there are, which can be read, which are kept for scoring."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats import picture
from caffecli.formats.atomic import cannot_read, read_file
from caffecli.logs import Bar
from converters.parallel import ordered_map
from converters.resize_images import EXTENSIONS

_LOG = "new.py"
#: what the folder beside ``train`` is called that has the pictures to score by; of several, the first
_SCORED = ("val", "valid", "validation", "test", "testing")
#: how many pictures that cannot be read are named
_NAMED = 20


@dataclass(frozen=True)
class ClassFolders:
    """``train`` and ``val``: for each class, in the order of their labels, the paths of its pictures below ``root``.

    ``grey``: all pictures are.
    """

    root: Path
    classes: tuple[str, ...]
    train: tuple[tuple[str, ...], ...]
    val: tuple[tuple[str, ...], ...]
    grey: bool = False

    def counts(self) -> list[int]:
        """How many pictures each class has."""
        return [len(train) + len(val) for train, val in zip(self.train, self.val, strict=True)]


def find(root: Path, part: float) -> ClassFolders:
    """The pictures in the class folders in ``root``, or in its folders ``train`` and ``val`` (``valid``, ``test``).

    Where there is no ``val``, ``part`` of each class's pictures, chosen by chance but the same each time, at least one
    of two, is kept to score by. Classes are in the order of their names, or of their numbers where all are numbers.
    Folders within a class's are looked through. Pictures that cannot be read are named, counted and left out; so are
    files of other endings, without their names.

    Raises DataError where that makes no two classes with pictures to train on.
    """
    if not root.is_dir():
        what = "is a file" if root.exists() else "is not there"
        raise DataError(f"{str(root)!r} {what}; give a folder that has a folder of pictures for each class")
    parts = {child.name.lower(): child.name for child in _folders(root)}
    scored = next((parts[name] for name in _SCORED if name in parts), None)
    if "train" in parts and scored is not None and _folders(root / parts["train"]):
        classes = _classes(root / parts["train"])
        strange = [child.name for child in _folders(root / scored) if child.name not in classes]
        if strange:
            raise DataError(
                f"{str(root / scored)!r} has {strange[0]!r}, {parts['train']!r} has no such class; move it away, or "
                f"make it there"
            )
        train, grey = _readable(root, [f"{parts['train']}/{name}" for name in classes])
        val, also = _readable(root, [f"{scored}/{name}" for name in classes])
        _refuse_empty(root / parts["train"], classes, train)
        return ClassFolders(root, classes, train, val, grey and also)
    classes = _classes(root)
    found, grey = _readable(root, classes)
    _refuse_empty(root, classes, found)
    chance = random.Random(0)
    kept = [set(chance.sample(paths, _share(len(paths), part))) for paths in found]
    train = tuple(tuple(p for p in paths if p not in out) for paths, out in zip(found, kept, strict=True))
    val = tuple(tuple(p for p in paths if p in out) for paths, out in zip(found, kept, strict=True))
    return ClassFolders(root, classes, train, val, grey)


def without(folders: ClassFolders, count: int) -> ClassFolders:
    """The same with ``count`` fewer pictures to score by, of the classes that have most."""
    val = [list(paths) for paths in folders.val]
    for _ in range(count):
        max(val, key=len).pop()
    return replace(folders, val=tuple(map(tuple, val)))


def _share(count: int, part: float) -> int:
    return min(count - 1, max(1, round(count * part)))


def _folders(folder: Path) -> list[Path]:
    """The folders in a folder, but for hidden ones and what macOS packs beside."""
    try:
        return sorted(
            child for child in folder.iterdir() if child.is_dir() and child.name[0] != "." and child.name != "__MACOSX"
        )
    except OSError as error:
        raise cannot_read(folder, error) from error


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of the class folders. Raises DataError where there are no two, or one has a name no list can hold."""
    names = [child.name for child in _folders(folder)]
    where = repr(str(folder))
    if not names:
        flat = any(child.suffix.lower() in EXTENSIONS for child in folder.iterdir())
        what = "its pictures lie side by side" if flat else "it has no folders"
        raise DataError(f"{where}: {what}; make a folder for each class, and move its pictures there")
    if len(names) == 1:
        within = folder / names[0]
        hint = f"; give {str(within)!r} if the classes are the folders there" if _folders(within) else ""
        raise DataError(f"{where} has one class, {names[0]!r}; a net tells two or more apart{hint}")
    odd = next((name for name in names if name != name.strip() or len(name.splitlines()) != 1), None)
    if odd is not None:
        raise DataError(f"{where}: the name {odd!r} has a blank at an end, or a line break; rename that folder")
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return tuple(names)


def _refuse_empty(folder: Path, classes: Sequence[str], found: Sequence[Sequence[str]]) -> None:
    empty = [name for name, paths in zip(classes, found, strict=True) if not paths]
    if empty:
        listed = ", ".join(map(repr, empty[:5])) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        endings = " ".join(sorted(EXTENSIONS))
        raise DataError(
            f"{str(folder)!r}: no picture that can be read in {listed}; put some there ({endings}), or move the "
            f"folder{'s' if len(empty) > 1 else ''} away"
        )


def _readable(root: Path, folders: Sequence[str]) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """For each folder the pictures that can be read, as paths below ``root``; and whether all are grey."""
    listed: list[list[str]] = []
    others: Counter[str] = Counter()
    for folder in folders:
        paths: list[str] = []
        for path in _files(root / folder):
            name = f"{folder}/{path.relative_to(root / folder).as_posix()}"
            if path.suffix.lower() not in EXTENSIONS:
                others[path.suffix or "no ending"] += 1
            elif len(name.splitlines()) != 1:
                others["line breaks in their names"] += 1
            else:
                paths.append(name)
        listed.append(paths)
    if others:
        kinds = ", ".join(f"{count} with {kind}" for kind, count in others.most_common())
        logs.warning(_LOG, f"Left out {others.total()} files that are no pictures by their names: {kinds}")
    every = [path for paths in listed for path in paths]
    broken: dict[str, str] = {}
    grey = True
    with Bar(len(every), unit="pictures") as bar:
        for name, found in zip(every, ordered_map(lambda each: _look(root / each), every, chunk=8), strict=True):
            bar.advance()
            if isinstance(found, bool):
                grey = grey and found
                continue
            broken[name] = found
            if len(broken) <= _NAMED:
                logs.warning(_LOG, f"{str(root / name)!r} {found}; left out")
    if broken:
        logs.warning(_LOG, f"Left out {len(broken)} of {len(every)} pictures, which cannot be read")
    return tuple(tuple(path for path in paths if path not in broken) for paths in listed), grey


def _files(folder: Path) -> list[Path]:
    """The files in a folder and the folders in it, but for hidden ones; none where there is no such folder."""
    found: list[Path] = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "."]
        found += [Path(place, name) for name in names if name[0] != "."]
    return sorted(found)


def _look(path: Path) -> bool | str:
    """Whether a picture is grey; where it cannot be read, what it is, to follow its name."""
    try:
        image = picture.decode(read_file(path))
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    except DataError as error:
        return str(error)
    return bool(np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 1], image[..., 2]))
