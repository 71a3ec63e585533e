"""SSD's label maps: the classes' names, numbers and names to show, as text."""

from __future__ import annotations

import re

from caffecli.errors import DataError
from caffecli.proto.caffe_pb2 import LabelMap

#: the item of the class that is no object
BACKGROUND = {"name": "none_of_the_above", "label": 0, "display_name": "background"}


def from_lines(lines: list[str], delimiter: str, background: bool) -> LabelMap:
    """The map of lines ``name [number] [display name]``; ``delimiter``: characters, each of which parts two fields.

    Without numbers they count up from 0, or from 1 after the ``background``. Blank lines are left out. Raises
    DataError, naming the line.
    """
    made = LabelMap()
    if background:
        made.item.add(**BACKGROUND)
    first = 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = re.split(f"[{re.escape(delimiter)}]", line.rstrip("\r"))
        first = first or len(fields)
        if not 1 <= len(fields) <= 3 or len(fields) != first:
            expected = "1 to 3 fields" if len(fields) == first else f"{first} field{'s' if first > 1 else ''} as before"
            spaces = " " in delimiter and len(fields) > 1
            hint = (
                "; for names of several words let another character part the fields (--delimiter ,)" if spaces else ""
            )
            raise DataError(f"line {number}: expected {expected}, got {len(fields)}: {line!r:.80}{hint}")
        label = fields[1].strip() if first > 1 else str(len(made.item))
        if not re.fullmatch(r"[+-]?\d{1,9}", label):
            hint = "; --delimiter , leaves names of several words whole" if " " in delimiter else ""
            raise DataError(f"line {number}: expected a number after the name, got {label!r:.40}: {line!r:.80}{hint}")
        made.item.add(name=fields[0], label=int(label), display_name=fields[2] if first == 3 else fields[0])
    return made


def numbers(labels: LabelMap, check: bool = False) -> dict[str, int]:
    """Each name's number; ``check``: raises DataError for a name that stands there twice, else the last one counts."""
    found: dict[str, int] = {}
    for item in labels.item:
        if check and item.name in found:
            raise DataError(f"the name {item.name!r} is there twice, as {found[item.name]} and as {item.label}")
        found[item.name] = item.label
    return found
