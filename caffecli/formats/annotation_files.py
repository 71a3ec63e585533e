"""Annotation files: which objects are where in a picture.

============  =====================================================================================================
xml           PASCAL VOC's, also ImageNet's and labelImg's: ``object`` with ``name``, ``difficult`` and ``bndbox``;
              TextBoxes++'s, whose ``bndbox`` has the corners ``x1``, ``y1``, ..., ``x4``, ``y4`` of a written word too
json          the file of one picture that SSD's scripts make of COCO: ``image`` and ``annotation``; COCO's own file of
              all pictures: ``images``, ``annotations``, ``categories``; LabelMe's: ``shapes``
txt           a line for each object: class as a number, xmin, ymin, xmax, ymax
============  =====================================================================================================

Boxes are in pixels, as the files have them.
"""

from __future__ import annotations

import math
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from caffecli.errors import DataError, in_a_line
from caffecli.formats.annotated import POINTS
from caffecli.formats.atomic import read_bytes
from caffecli.formats.form import read_json

Corners = tuple[float, float, float, float]
#: beyond all pixels, and what can be counted of them
_MOST = 2.0**40


@dataclass(frozen=True)
class Object:
    """An object: its class by name, or by number; its corners in pixels; whether it is one of those that are hard."""

    name: str | int
    corners: Corners
    difficult: bool = False
    #: other names of its class
    others: tuple[str, ...] = ()
    #: what COCO says that it covers, in pixels
    area: float | None = None
    #: of a written word x1, y1, ..., x4, y4 in pixels, clockwise from its top left, as TextBoxes++ has it
    polygon: tuple[float, ...] = ()


@dataclass(frozen=True)
class Annotations:
    """The objects in a picture; ``size``: its width and height, ``number``: COCO's id; where the file has them."""

    size: tuple[int, int] | None = None
    objects: tuple[Object, ...] = ()
    number: str = ""


@dataclass(frozen=True)
class Coco:
    """COCO's file of all pictures: the classes' names by their id, and what it says of each picture by its name."""

    classes: dict[str, str]
    pictures: dict[str, Annotations]


def read_coco(path: str | os.PathLike[str]) -> Coco:
    """COCO's file of all pictures. Raises DataError, naming the file, for another one, FormatError."""
    try:
        found = _json(read_bytes(path))
        if not isinstance(found, Coco):
            raise ValueError("expected COCO's file of all pictures, with lists 'images', 'annotations', 'categories'")
        return found
    except ValueError as error:
        raise DataError(f"{str(path)!r}: {in_a_line(error)}") from error


@dataclass
class AnnotationReader:
    """Reads annotation files of a ``kind``: xml, json or txt. A file of all pictures is read once."""

    kind: str
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _shared: dict[str, Mapping[str, Annotations]] = field(default_factory=dict)

    def read(self, path: str, picture: str) -> Annotations | None:
        """What the file says of ``picture``; None where it is a file of many pictures without this one.

        Raises DataError, naming the file, for one that is something else, FormatError where it cannot be read.
        """
        try:
            if self.kind == "xml":
                return _voc(_tree(read_bytes(path)))
            if self.kind == "txt":
                return _lines(read_bytes(path))
            with self._lock:  # Python reads one at a time in any case
                if path not in self._shared:
                    found = _json(read_bytes(path))
                    if isinstance(found, Annotations):
                        return found
                    self._shared[path] = found.pictures
                pictures = self._shared[path]
            return pictures.get(picture) or pictures.get(PurePosixPath(picture).name)
        except ValueError as error:
            raise DataError(f"{path!r}: {in_a_line(error)}") from error


# -- XML -----------------------------------------------------------------------------------------------------------


def _tree(data: bytes) -> Element:
    """The root of an XML text. One with a document type, by which it could name files or grow without end, is refused.

    Raises ValueError.
    """
    builder = TreeBuilder()
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise ValueError("it has a DOCTYPE, which annotations do without; take it out")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError) as error:  # the latter for an encoding that there is not
        raise ValueError(f"it is no XML ({error}); give --label_type if it is json or txt") from error
    return builder.close()


def _voc(root: Element) -> Annotations:
    if root.tag != "annotation":
        raise ValueError(f"it begins with <{root.tag}>, expected <annotation> as PASCAL VOC's files have it")
    try:
        size = _sides(_text(root, "size/width"), _text(root, "size/height"))
    except ValueError:
        size = None
    objects = [_voc_object(element, number) for number, element in enumerate(root.findall("object"), 1)]
    return Annotations(size, tuple(objects))


def _voc_object(element: Element, number: int) -> Object:
    name = _text(element, "name")
    what = f"object {number}" + (f" ({name})" if name else "")
    box = element.find("bndbox")
    if not name or box is None:
        raise ValueError(f"{what} has no <{'bndbox' if name else 'name'}>")
    corners = [_number(_text(box, side), f"{what}: <{side}>") for side in ("xmin", "ymin", "xmax", "ymax")]
    points = [_text(box, side) for side in POINTS]
    polygon = [_number(text or "0", f"{what}: <{side}>") for text, side in zip(points, POINTS, strict=True)]
    difficult = _text(element, "difficult") == "1"
    return Object(name, _four(corners), difficult, polygon=tuple(polygon) if any(points) else ())


def _text(element: Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


# -- text ----------------------------------------------------------------------------------------------------------


def _lines(data: bytes) -> Annotations:
    objects = []
    for number, line in enumerate(data.decode("utf-8-sig").splitlines(), 1):
        words = line.split()
        if not words:
            continue
        label = int(words[0]) if re.fullmatch(r"[+-]?[0-9]{1,9}", words[0]) else None
        if label is None or len(words) != 5:
            raise ValueError(
                f"line {number}: expected a class's number, xmin, ymin, xmax, ymax ('3 48 240 195 371'), "
                f"got {line!r:.80}"
            )
        objects.append(Object(label, _four([_number(word, f"line {number}") for word in words[1:]])))
    return Annotations(None, tuple(objects))


# -- JSON ----------------------------------------------------------------------------------------------------------


def _json(data: bytes) -> Annotations | Coco:
    """What a file says of its picture, or of all of its pictures."""
    said = read_json(data, "give --label_type if it is xml or txt")
    forms: dict[tuple[str, ...], Callable[[Any], Annotations | Coco]] = {
        ("annotation",): _ssd,
        ("shapes",): _labelme,
        ("images", "annotations", "categories"): _coco,
    }
    for keys, read in forms.items():
        if isinstance(said, dict) and all(isinstance(said.get(key), list) for key in keys):
            return read(said)
    raise ValueError("expected lists 'annotation' (SSD's), 'shapes' (LabelMe's), or COCO's 'images' and its kin")


def _ssd(said: Any) -> Annotations:
    image = said.get("image")
    size = _size(image, "width", "height") if isinstance(image, dict) else None
    return Annotations(size, tuple(_boxed(item, {}) for item in said["annotation"]))


def _coco(said: Any) -> Coco:
    names = {str(item.get("id")): str(item.get("name")) for item in _objects(said["categories"], "categories")}
    boxes: dict[str, list[Object]] = {}
    for item in _objects(said["annotations"], "annotations"):
        boxes.setdefault(str(item.get("image_id")), []).append(_boxed(item, names))
    pictures: dict[str, Annotations] = {}
    numbers = set()
    for image in _objects(said["images"], "images"):
        name, number = image.get("file_name"), str(image.get("id"))
        if not isinstance(name, str) or "id" not in image:
            raise ValueError(f"expected images of an id and a file_name, got {image!r:.80}")
        if name in pictures or number in numbers:
            raise ValueError(f"the image {name!r} of id {number}, or its id, is there twice")
        numbers.add(number)
        pictures[name] = Annotations(_size(image, "width", "height"), tuple(boxes.get(number, ())), number)
    return Coco(names, pictures)


def _objects(items: list[Any], where: str) -> Iterable[dict[str, Any]]:
    for number, item in enumerate(items):
        if not isinstance(item, dict):
            raise ValueError(f"{where}[{number}]: expected an object, got {item!r:.40}")
        yield item


def _boxed(item: Any, names: Mapping[str, str]) -> Object:
    """An annotation of COCO's: its class's name is by ``names``, else its number as text, as SSD's label map has it."""
    box = item.get("bbox") if isinstance(item, dict) else None
    if not isinstance(box, list) or len(box) != 4 or item.get("category_id") is None:
        raise ValueError(f"expected annotations of a category_id and a bbox [x, y, width, height], got {item!r:.80}")
    x, y, width, height = (_number(value, "bbox") for value in box)
    number = str(item["category_id"])
    name = names.get(number, number)
    others = (number,) if name != number else ()
    right, bottom = np.float32(x) + np.float32(width), np.float32(y) + np.float32(height)  # as SSD's tool computes
    area = None if item.get("area") is None else _number(item["area"], "area")
    crowd = item.get("iscrowd", 0) not in (0, "0", None)
    return Object(name, (x, y, float(right), float(bottom)), crowd, others, area)


def _labelme(said: Any) -> Annotations:
    return Annotations(
        _size(said, "imageWidth", "imageHeight"),
        tuple(_shape(shape) for shape in _objects(said["shapes"], "shapes")),
    )


def _shape(shape: dict[str, Any]) -> Object:
    label, points, kind = shape.get("label"), shape.get("points"), shape.get("shape_type") or "polygon"
    if not isinstance(label, str) or not isinstance(points, list):
        raise ValueError(f"expected shapes of a label and points, got {shape!r:.80}")
    if kind not in ("rectangle", "polygon", "circle") or len(points) < 2:
        raise ValueError(
            f"shape {label!r} is a {kind} of {len(points)} points; boxes are made of rectangles, polygons and circles"
        )
    pairs = [_pair(point, label) for point in points]
    if kind == "circle":  # its centre, and a point on it
        (x, y), radius = pairs[0], math.dist(*pairs[:2])
        pairs = [(x - radius, y - radius), (x + radius, y + radius)]
    xs, ys = zip(*pairs, strict=True)
    return Object(label, (min(xs), min(ys), max(xs), max(ys)), bool(shape.get("difficult")))


def _pair(point: Any, label: str) -> tuple[float, float]:
    if not isinstance(point, list) or len(point) != 2:
        raise ValueError(f"shape {label!r}: expected points [x, y], got {point!r:.40}")
    return _number(point[0], f"shape {label!r}"), _number(point[1], f"shape {label!r}")


def _size(said: dict[str, Any], width: str, height: str) -> tuple[int, int] | None:
    try:
        return _sides(said[width], said[height])
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _sides(*values: Any) -> tuple[int, int] | None:
    """Whole numbers of pixels; None where no picture can have them. Raises what ``int`` raises."""
    width, height = map(int, values)
    return (width, height) if max(abs(width), abs(height)) < _MOST else None


# -- numbers -------------------------------------------------------------------------------------------------------


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) < _MOST:
        raise ValueError(f"{where}: expected a number, got {value!r:.40}" if value != "" else f"{where} is missing")
    return number


def _four(values: list[float]) -> Corners:
    x1, y1, x2, y2 = values
    return x1, y1, x2, y2
