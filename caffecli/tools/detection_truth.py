"""The true objects of pictures, of COCO's file or of a database of ``convert_annoset``, to score detections by."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from caffecli.errors import DataError
from caffecli.formats import annotated, picture
from caffecli.formats.annotation_files import read_coco
from caffecli.proto.caffe_pb2 import LabelMap

Corners = tuple[float, float, float, float]


class Object(NamedTuple):
    """A true object, its corners as parts of the picture."""

    label: str
    corners: Corners
    difficult: bool
    area: float | None


@dataclass
class Picture:
    """A picture of the truth, and what was found in it: (label, score, corners as parts of it)."""

    name: str
    number: str
    width: int
    height: int
    objects: list[Object] = field(default_factory=list)
    found: list[tuple[str, float, Corners]] = field(default_factory=list)


@dataclass
class Truth:
    """``classes``: their names to show, by number."""

    path: str
    coco: bool
    classes: dict[str, str]
    #: the classes' numbers by name
    labels: dict[str, str]
    pictures: list[Picture]


def read(path: str, label_map: LabelMap | None) -> Truth:
    """The truth in COCO's file of all pictures, or in a database, whose classes the label map names.

    Raises DataError.
    """
    return _database(path, label_map) if Path(path).is_dir() else _coco_file(path)


def _coco_file(path: str) -> Truth:
    said = read_coco(path)
    for number, name in said.classes.items():
        if not number.isdecimal():
            raise DataError(f"{path!r}: the category {name!r} has the id {number:.40}; expected a number")
    labels = {name: number for number, name in said.classes.items()}
    pictures = []
    for name, it in said.pictures.items():
        if it.size is None or min(it.size) < 1:
            raise DataError(f"{path!r}: the image {name!r} has no width and height")
        made = Picture(name, it.number, *it.size)
        for each in it.objects:
            number = each.others[0] if each.others else str(each.name)
            if number not in said.classes:
                raise DataError(f"{path!r}: an object of {name!r} is of category {number}, which is none of its own")
            made.objects.append(Object(number, parts_of(made, each.corners), each.difficult, each.area))
        pictures.append(made)
    if not pictures:
        raise DataError(f"{path!r} has no images")
    return Truth(path, True, said.classes, labels, pictures)


def _database(path: str, label_map: LabelMap | None) -> Truth:
    items = label_map.item if label_map is not None else ()
    classes = {str(item.label): item.display_name or item.name for item in items}
    labels = {name: str(item.label) for item in items for name in (item.display_name, item.name) if name}
    pictures = []
    for name, record in annotated.records(path):
        made = Picture(name, "", record.datum.width, record.datum.height)
        if record.datum.encoded and min(made.width, made.height) < 1:
            try:
                made.height, made.width = picture.decode(record.datum.data).shape[:2]
            except DataError as error:
                raise DataError(f"{path!r}, record {name!r}: {error}") from error
        for label, _, *corners, difficult in annotated.boxes(record).tolist():
            x1, y1, x2, y2 = corners
            made.objects.append(Object(f"{label:.0f}", (x1, y1, x2, y2), bool(difficult), None))
        pictures.append(made)
    if not pictures:
        raise DataError(f"the database {path!r} is empty")
    return Truth(path, False, classes, labels, pictures)


def parts_of(of: Picture, corners: Iterable[float], size: tuple[int, int] | None = None) -> Corners:
    """Pixels as parts of a picture, whose size is its own, or the one given."""
    width, height = size or (of.width, of.height)
    x1, y1, x2, y2 = corners
    return x1 / width, y1 / height, x2 / width, y2 / height
