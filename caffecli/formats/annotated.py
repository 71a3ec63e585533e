"""AnnotatedDatum <-> a Datum and its boxes: the records of SSD's databases.

Boxes are rows ``class, instance, xmin, ymin, xmax, ymax, difficult`` of float32, the coordinates as parts of the
picture's width and height. Rows of TextBoxes++'s databases go on: x1, y1, ..., x4, y4, the corners of a written word.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from caffecli.errors import DataError
from caffecli.formats.db import open_reader
from caffecli.proto.caffe_pb2 import AnnotatedDatum

Boxes = NDArray[np.float32]

#: the columns of the coordinates, and of ``difficult``
CORNERS = slice(2, 6)
DIFFICULT = 6
#: and of a word's corners, which a record has by these names
POLYGON = slice(7, 15)
POINTS = [f"{axis}{corner}" for corner in (1, 2, 3, 4) for axis in "xy"]


def decode(value: bytes, key: bytes | str = b"") -> AnnotatedDatum:
    """The annotated datum in a database's value. Raises DataError, naming ``key``, when it is none, or has a box whose
    corners are no numbers.
    """
    name = repr(key.decode("utf-8", "replace") if isinstance(key, bytes) else key)
    try:
        record = AnnotatedDatum.FromString(value)
    except DecodeError as error:
        raise DataError(
            f"record {name}: the value is not an AnnotatedDatum; the database is damaged or was not made by "
            "convert_annoset"
        ) from error
    if not record.HasField("datum"):
        raise DataError(
            f"record {name}: the value is not an AnnotatedDatum, a picture with boxes, as convert_annoset writes it; "
            "layer type Data reads databases of pictures with one label"
        )
    for group in record.annotation_group:
        for annotation in group.annotation:
            box = annotation.bbox
            if not math.isfinite(box.xmin + box.ymin + box.xmax + box.ymax):
                raise DataError(
                    f"record {name}: a box of class {group.group_label} has the corners {box.xmin:g} {box.ymin:g} "
                    f"{box.xmax:g} {box.ymax:g}, expected numbers; mend its annotation, and convert the data again"
                )
    return record


def records(path: str | os.PathLike[str]) -> Iterator[tuple[str, AnnotatedDatum]]:
    """The records of a database, each with its picture's name. Raises what ``open_reader`` raises, and DataError as
    ``decode``, naming the database too.
    """
    with open_reader(path) as reader:
        for key, value in reader:
            try:
                record = decode(value, key)
            except DataError as error:
                raise DataError(f"{os.fspath(path)!r}: {error}") from error
            yield picture_name(key.decode("utf-8", "replace")), record


def picture_name(key: str) -> str:
    """A record's key without the number that ``convert_annoset`` puts in front of the picture's name."""
    return re.sub(r"^\d{8,}_", "", key)


def has_polygons(record: AnnotatedDatum) -> bool:
    """Whether a box of the record has a word's corners."""
    return any(each.HasField("polygon") for group in record.annotation_group for each in group.annotation)


def boxes(record: AnnotatedDatum, polygons: bool = False) -> Boxes:
    """The boxes of a record (count, 7), with ``polygons`` (count, 15), in its order: group by group."""
    rows = [
        (
            group.group_label, annotation.instance_id,
            annotation.bbox.xmin, annotation.bbox.ymin, annotation.bbox.xmax, annotation.bbox.ymax,
            annotation.bbox.difficult,
            *((getattr(annotation.polygon, name) for name in POINTS) if polygons else ()),
        )
        for group in record.annotation_group
        for annotation in group.annotation
    ]  # fmt: skip
    return np.array(rows, np.float32).reshape(-1, 15 if polygons else 7)
