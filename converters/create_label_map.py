"""create_label_map: a list of classes -> a label map. Source: SSD's ``tools/create_label_map.cpp``."""

from __future__ import annotations

import os

from google.protobuf import text_format

from caffecli.errors import DataError, FormatError
from caffecli.formats import label_map
from caffecli.formats.atomic import replacing
from caffecli.formats.list_file import read_text


def create_label_map(
    list_file: str | os.PathLike[str], out: str | os.PathLike[str], background: bool = False, delimiter: str = " "
) -> int:
    """Write the label map of the classes of ``list_file``, ``name [number] [display name]`` a line; returns how many.

    ``background``: class 0, ``none_of_the_above``, comes first. Raises DataError, naming the line, FormatError.
    """
    lines = read_text(list_file, "a list of classes").split("\n")
    try:
        "".join(lines).encode()
        made = label_map.from_lines(lines, delimiter, background)
    except DataError as error:
        raise DataError(f"{str(list_file)!r}, {error}") from error
    except UnicodeEncodeError as error:
        raise DataError(f"{str(list_file)!r} is not UTF-8, as a label map has to be; save it so") from error
    if len(made.item) <= background:
        raise FormatError(f"{str(list_file)!r} lists no classes; expected a name on each line")
    with replacing(out, "w") as file:
        file.write(text_format.MessageToString(made))
    return len(made.item)
