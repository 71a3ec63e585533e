"""resize_images: pictures of one size. Source: Caffe's ``tools/extra/resize_and_crop_images.py``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats import atomic, picture
from caffecli.formats.list_file import read_text
from caffecli.logs import Bar
from converters.parallel import ordered_map

#: the extensions of pictures in a folder
EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
_INTERPOLATIONS = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA, "cubic": cv2.INTER_CUBIC}

Interpolation = Literal["linear", "area", "cubic"]


@dataclass(frozen=True)
class Options:
    """How to resize. ``crop``: keep the proportions and cut the middle out; else the picture is stretched.

    ``interpolation`` is OpenCV's; Caffe's tools use linear. ``quality``: of JPEGs. ``force``: make pictures that are
    there anew.
    """

    width: int = 256
    height: int = 256
    crop: bool = False
    interpolation: Interpolation = "linear"
    quality: int = 95
    force: bool = False


@dataclass
class Report:
    """How many pictures were made, were there already, and, by name, why others could not be."""

    made: int = 0
    there: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def resize(image: NDArray[Any], options: Options) -> NDArray[Any]:
    """A (rows, columns, channels) picture in the size of ``options``.

    With ``crop`` the picture is first made as small as covers that size: W × H pixels become w × floor(w H / W) where
    that is high enough, else floor(h W / H) × h; then the middle of it is cut out.
    """
    rows, columns = image.shape[:2]
    width, height = options.width, options.height
    if options.crop:
        taller = rows * width > columns * height
        width, height = (width, width * rows // columns) if taller else (height * columns // rows, height)
    resized = cv2.resize(image, (width, height), interpolation=_INTERPOLATIONS[options.interpolation])
    top, left = (height - options.height) // 2, (width - options.width) // 2
    return resized[top : top + options.height, left : left + options.width]


def names(folder: Path, list_file: str | os.PathLike[str] | None = None) -> list[str]:
    """The pictures below ``folder``, sorted; or those of a list, with or without labels after them, in its order.

    Raises FormatError when the list cannot be read; DataError when there is none, or a name leads out of the folder.
    """
    if not folder.is_dir():
        raise DataError(f"{str(folder)!r} is no folder; give the one that the pictures are in")
    if list_file is None:
        files = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
        found = sorted(str(path.relative_to(folder)) for path in files)
        if not found:
            raise DataError(f"there are no pictures ({', '.join(sorted(EXTENSIONS))}) in {str(folder)!r}")
        return found
    lines = [line.strip() for line in read_text(list_file, "an image list").splitlines()]
    found = list(dict.fromkeys(_name(folder, line) for line in lines if line))
    if not found:
        raise DataError(f"{os.fspath(list_file)!r} lists no pictures; expected a path in each line")
    for name in found:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(
                f"{os.fspath(list_file)!r}: {name!r} leads out of the folder; give paths within {str(folder)!r}"
            )
    return found


def _name(folder: Path, line: str) -> str:
    labelled = re.fullmatch(r"(.*\S)\s+[+-]?\d+", line)
    return labelled[1] if labelled and not (folder / line).exists() else line


def resize_images(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    options: Options | None = None,
    list_file: str | os.PathLike[str] | None = None,
) -> Report:
    """Write the pictures of ``folder`` (see ``names``), resized, to ``out``, names and encodings unchanged.

    Each file is complete under its name or not there. Pictures that cannot be read are logged and left out; those that
    are there already stay as they are, so that a run that was stopped goes on where it was, unless ``force``.

    Raises as ``names``; DataError when not one picture could be read, or ``out`` is in ``folder``; FormatError when a
    file cannot be written.
    """
    options = options or Options()
    source, target = Path(folder), Path(out)
    if target.resolve() == source.resolve() or source.resolve() in target.resolve().parents:
        raise DataError(f"{str(target)!r} is in {str(source)!r}, the folder of the pictures; choose another")
    listed = names(source, list_file)
    report = Report()
    with Bar(len(listed), unit="images") as progress:
        outcomes = ordered_map(_worker(source, target, options), listed, chunk=4)
        for name, outcome in zip(listed, outcomes, strict=True):
            progress.advance()
            if outcome == "made":
                report.made += 1
            elif outcome == "there":
                report.there += 1
            else:
                report.failed[name] = outcome
                logs.error("io.cpp:80", f"{source / name}: {outcome}")
    if not report.made and not report.there:
        raise DataError(f"none of the {len(listed)} pictures in {str(source)!r} could be read; see the lines above")
    return report


def _worker(source: Path, target: Path, options: Options) -> Callable[[str], str]:
    """What makes one picture; returns "made", "there", or what is wrong with the picture."""

    def work(name: str) -> str:
        path = target / name
        if path.exists() and not options.force:
            return "there"
        try:
            image = picture.decode(atomic.read_file(source / name))
        except OSError as error:
            return error.strerror or str(error)
        except DataError as error:
            return str(error)
        try:
            quality = [cv2.IMWRITE_JPEG_QUALITY, options.quality]
            done, encoded = cv2.imencode(path.suffix, resize(image, options), quality)
        except cv2.error:
            done = False
        if not done:
            return f"cannot be written as {path.suffix or 'a file without an extension'!r}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise atomic.cannot_write(path, error) from error
        with atomic.replacing(path) as file:
            file.write(encoded.tobytes())
        return "made"

    return work
