"""get_image_size: the sizes of a list's pictures. Source: SSD's ``tools/get_image_size.cpp``."""

from __future__ import annotations

import os
from pathlib import PurePosixPath

from caffecli import logs
from caffecli.errors import DataError, FormatError
from caffecli.formats import picture
from caffecli.formats.atomic import read_file, replacing
from caffecli.formats.list_file import read_lines, why_not_there
from caffecli.logs import Bar
from converters.parallel import ordered_map


def get_image_size(
    root: str, list_file: str | os.PathLike[str], out: str | os.PathLike[str], name_id_file: str = ""
) -> int:
    """Write ``name height width`` for each picture of ``list_file``; returns how many.

    A line is a picture below ``root`` and what belongs to it, which is not looked at. The name is the file's, without
    folder and extension, or its number in ``name_id_file``, of lines ``name number``. Raises DataError, naming the
    line, for a picture that cannot be read or has no number, FormatError.
    """
    lines = [
        (number, line.rsplit(None, 1)[0])
        for number, line in enumerate(read_lines(list_file, "a list of pictures"), 1)
        if line
    ]
    if not lines:
        raise FormatError(f"{str(list_file)!r} lists no pictures; expected a picture and its annotation file a line")
    logs.info("get_image_size.cpp:61", f"A total of {len(lines)} images.")
    names = _numbers(name_id_file) if name_id_file else None
    before = root if not root or root.endswith("/") else root + "/"

    def size(line: tuple[int, str]) -> str:
        number, path = line
        where = f"{str(list_file)!r}, line {number}: {before + path!r}"
        try:
            height, width = picture.decode(read_file(before + path)).shape[:2]
        except FileNotFoundError as error:
            raise DataError(f"{where} is not there: {why_not_there(path, before)}") from error
        except (OSError, ValueError) as error:
            raise DataError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        except DataError as error:
            raise DataError(f"{where} {error}") from error
        name = PurePosixPath(path).stem
        if names is not None and name not in names:
            raise DataError(f"{where}: {name_id_file!r} has no number of {name!r}")
        return f"{name if names is None else names[name]} {height} {width}\n"

    count = 0
    with replacing(out, "w") as file, Bar(len(lines), unit="images") as progress:
        for text in ordered_map(size, lines):
            file.write(text)
            progress.advance()
            count += 1
            if count % 1000 == 0:
                logs.info("get_image_size.cpp:100", f"Processed {count} files.")
    if count % 1000:
        logs.info("get_image_size.cpp:105", f"Processed {count} files.")
    return count


def _numbers(path: str) -> dict[str, int]:
    """Each name's number."""
    found: dict[str, int] = {}
    for number, line in enumerate(read_lines(path, "a list of names and numbers"), 1):
        words = line.rsplit(None, 1)
        if not words:
            continue
        if len(words) != 2 or not words[1].isascii() or not words[1].isdigit():
            raise DataError(f"{path!r}, line {number}: expected a name and its number, got {line!r:.80}")
        if words[0] in found:
            raise DataError(f"{path!r}, line {number}: {words[0]!r} is there twice")
        found[words[0]] = int(words[1])
    return found
