"""convert_annoset: pictures and annotation files -> a database of annotated datums. Source: SSD's
``tools/convert_annoset.cpp``.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, FormatError
from caffecli.formats import label_map
from caffecli.formats.annotated import POINTS
from caffecli.formats.annotation_files import AnnotationReader, Annotations, Object
from caffecli.formats.list_file import read_lines, read_list
from caffecli.proto.caffe_pb2 import AnnotatedDatum, LabelMap
from caffecli.spec import text
from caffecli.wording import did_you_mean
from converters import convert_imageset as pictures
from converters.convert_imageset import Places, Record

_PLACES = Places("convert_annoset.cpp", 119, 122, 125, 153, 195, 201)


@dataclass(frozen=True)
class Options(pictures.Options):
    """The flags of SSD's tool: those of convert_imageset, and its own.

    ``min_dim``, ``max_dim``: what the shorter side is at least, the longer one at most, in the picture's form; they go
    before ``resize_width`` and ``resize_height``. 0: no bound.
    """

    anno_type: Literal["classification", "detection"] = "classification"
    label_type: Literal["xml", "json", "txt"] = "xml"
    label_map_file: str = ""
    check_label: bool = False
    min_dim: int = 0
    max_dim: int = 0


class Pair(NamedTuple):
    """A line of a list of pictures and annotation files; a blank one has no path."""

    line: int
    path: str
    annotation: str


def convert_annoset(
    root: str, list_file: str | os.PathLike[str], db: str | os.PathLike[str], options: Options | None = None
) -> int:
    """Write the pictures of ``list_file`` with their boxes, or labels, to the new database ``db``; returns how many.

    A line is a picture and its annotation file, or with ``anno_type`` "classification" its label, below ``root``. Keys
    are ``%08d_name``. A picture without an annotation file, or without an object, is one without boxes. Pictures that
    cannot be read are logged and left out; boxes that reach beyond the picture are logged and kept.

    Raises what convert_imageset raises, and DataError, naming the file, for an annotation file that is none, and for
    classes that the label map does not have.
    """
    options = options or Options()
    if options.anno_type == "classification":
        try:
            entries = read_list(list_file)
        except (DataError, FormatError) as error:
            if any(line.endswith((".xml", ".json", ".txt")) for line in read_lines(list_file, "a list")):
                raise type(error)(f"{error}; for annotation files give --anno_type=detection") from error
            raise
        before = pictures.prefix(root, entries)
        read = functools.partial(_labelled, options=options, before=before)
        return pictures.write_records(entries, read, before, list_file, db, options, _PLACES)
    labels = _labels(options)
    pairs = _pairs(list_file)
    before = pictures.prefix(root, pairs)
    reader = AnnotationReader(options.label_type)
    missing: list[str] = []
    ends: list[float] = []
    count = pictures.write_records(
        pairs,
        functools.partial(
            _boxed, options=options, before=before, reader=reader, labels=labels, missing=missing, ends=ends
        ),
        before,
        list_file,
        db,
        options,
        _PLACES,
    )
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        logs.warning(
            "io.cpp:211",
            f"there is no {min(missing)!r}{more}: their pictures have no boxes; check the list if it is meant",
        )
    if ends and max(ends) <= 1:
        logs.warning(
            "io.cpp:326",
            f"no box of {str(list_file)!r} reaches beyond pixel 1: the numbers may be parts of the picture, and are "
            "taken for pixels; multiply them by its width and height",
        )
    return count


def _labels(options: Options) -> dict[str, int]:
    """Each class's number by name."""
    path = options.label_map_file
    if not path:
        if options.label_type == "txt":
            return {}
        raise DataError("--label_map_file is missing: the file that create_label_map makes of the classes' names")
    try:
        return label_map.numbers(text.read(Path(path), LabelMap), options.check_label)
    except DataError as error:
        raise DataError(f"{path!r}: {error}") from error


def _pairs(list_file: str | os.PathLike[str]) -> list[Pair]:
    pairs = []
    for number, line in enumerate(read_lines(list_file, "a list of pictures and annotation files"), 1):
        words = line.rsplit("\t", 1) if "\t" in line else line.rsplit(None, 1)
        if len(words) == 1:
            raise DataError(
                f"{str(list_file)!r}, line {number}: expected a picture and its annotation file "
                f"('images/cat.jpg labels/cat.xml'), got {line!r:.80}"
            )
        pairs.append(Pair(number, words[0].rstrip(), words[1]) if words else Pair(number, "", ""))
    if not any(pair.path for pair in pairs):
        raise FormatError(f"{str(list_file)!r} lists no pictures; expected a picture and its annotation file a line")
    return pairs


def _labelled(entry: Any, options: Options, before: str) -> Record | str:
    made = pictures.read_picture(entry, options, before)
    if isinstance(made, str):
        return made
    record = AnnotatedDatum()
    return _finished(record, entry, options, *made, entry.label)


def _boxed(
    pair: Pair,
    options: Options,
    before: str,
    reader: AnnotationReader,
    labels: Mapping[str, int],
    missing: list[str],
    ends: list[float],
) -> Record | str:
    """``missing`` and ``ends`` take the file that is not there, and the largest numbers of boxes."""
    made = pictures.read_picture(pair, options, before)
    if isinstance(made, str):
        return made
    record = AnnotatedDatum(type=AnnotatedDatum.BBOX)
    path = before + pair.annotation
    found = reader.read(path, pair.path) if Path(path).is_file() else None
    if found is None:
        missing.append(path)
    else:
        height, width = made[1].shape[:2]
        add_boxes(record, found, (width, height), labels, path)
        ends.extend(max(item.corners) for item in found.objects)
    return _finished(record, pair, options, *made, -1)


def _finished(
    record: AnnotatedDatum, entry: pictures.Listed, options: Options, data: bytes, image: NDArray[Any], label: int
) -> Record:
    """The record with its picture, in the size asked for."""
    image = _sized(image, options, entry)
    changed = any(
        side > 0 for side in (options.min_dim, options.max_dim, options.resize_width, options.resize_height)
    )  # as SSD has it: also where the size then stays
    record.datum.CopyFrom(pictures.datum_of(entry, options, image, data, label, changed))
    record.datum.height, record.datum.width = image.shape[:2]
    record.datum.channels = image.shape[2] if image.ndim == 3 else 1
    return Record(record.SerializeToString(), image.shape)


def _sized(image: NDArray[Any], options: Options, entry: pictures.Listed) -> NDArray[Any]:
    if options.min_dim > 0 or options.max_dim > 0:
        factor = scale_factor(image.shape[:2], options.min_dim, options.max_dim)
        if factor == 1:
            return image
        height, width = (round(side * factor) for side in image.shape[:2])
        if min(height, width) < 1:
            return pictures.resized(image, (max(1, width), max(1, height)), entry)
        try:
            return cv2.resize(image, None, fx=factor, fy=factor)
        except cv2.error as error:
            raise DataError(
                f"{entry.path!r} (line {entry.line}): no memory for {height} × {width} pixels; lower --min_dim"
            ) from error
    if options.resize_width > 0 and options.resize_height > 0:
        return pictures.resized(image, (options.resize_width, options.resize_height), entry)
    return image


def scale_factor(size: tuple[int, ...], least: int, most: int) -> float:
    """By what a picture of that size grows so that its shorter side is ``least``, or shrinks so that its longer one is
    ``most`` (0: no bound), which goes first.
    """
    short, long = min(size), max(size)
    factor = np.float32(1)
    if 0 < short < least:
        factor = np.float32(least) / np.float32(short)
    if most > 0 and int(factor * np.float32(long)) > most:
        factor = np.float32(most) / np.float32(long)
    return float(factor)


# -- boxes ---------------------------------------------------------------------------------------------------------


def add_boxes(
    record: AnnotatedDatum, found: Annotations, size: tuple[int, int], labels: Mapping[str, int], path: str
) -> None:
    """Add the objects of an annotation file to a record: a group for each class, in the order that they come in.

    ``size`` is the picture's width and height; the file's own, where it has one, is what pixels are parts of.
    """
    width, height = found.size if found.size and min(found.size) > 0 else size
    if (width, height) != size:
        logs.warning(
            "io.cpp:274",
            f"{path}: it says that the picture is {width} × {height} (width × height), which is {size[0]} × {size[1]}; "
            "boxes are taken as parts of what it says: is it another picture's?",
        )
    groups: dict[int, Any] = {group.group_label: group for group in record.annotation_group}
    sides = np.array([width, height] * 2, np.float32)
    for item in found.objects:
        x1, y1, x2, y2 = item.corners
        if min(item.corners) < 0 or max(x1, x2) > width or max(y1, y2) > height:
            logs.warning(
                "io.cpp:326",
                f"{path}: bounding box exceeds image boundary: {_said(item)}; it is kept as it is: cut it at "
                f"{width} × {height}, if it is of this picture",
            )
        if x1 > x2 or y1 > y2:
            logs.warning(
                "io.cpp:342",
                f"{path}: bounding box irregular: {_said(item)}; it is kept, and nothing can meet it: write "
                "its smaller x and y first",
            )
        label = _label(item, labels, path)
        if label not in groups:
            groups[label] = record.annotation_group.add(group_label=label)
        made = groups[label].annotation.add(instance_id=len(groups[label].annotation))
        corners = (np.array(item.corners, np.float32) / sides).tolist()
        made.bbox.xmin, made.bbox.ymin, made.bbox.xmax, made.bbox.ymax = corners
        made.bbox.difficult = item.difficult
        for name, point, side in zip(POINTS, item.polygon, np.tile(sides, 2), strict=False):
            setattr(made.polygon, name, float(np.float32(point) / side))


def _said(item: Object) -> str:
    return f"{item.name} {' '.join(f'{side:g}' for side in item.corners)}"


def _label(item: Object, labels: Mapping[str, int], path: str) -> int:
    if isinstance(item.name, int):
        return item.name
    for name in (item.name, *item.others):
        if name in labels:
            return labels[name]
    hint = did_you_mean(item.name, labels, "add it, or take it out of the annotations")
    raise DataError(f"{path!r}: the label map has no class {item.name!r:.80}{hint}")
