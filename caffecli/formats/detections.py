"""Files of what a detector found: ``caffecli detect``'s JSON and CSV; VOC's, COCO's and ILSVRC's results, which
``detect`` and DetectionOutput write. All are read, and all but ILSVRC's written.

=========  ========================================================================================================
JSON       a list of pictures, each with its ``objects``
CSV        ``picture,label,name,score,xmin,ymin,xmax,ymax``, by their names in the first line
COCO       a JSON list of ``image_id``, ``category_id``, ``bbox`` (x, y, width, height), ``score``
VOC        a folder of files whose names end in ``CLASS.txt``, or one of them: ``picture score xmin ymin xmax ymax``
ILSVRC     a text of lines ``picture label score xmin ymin xmax ymax``
=========  ========================================================================================================
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from caffecli.errors import DataError, FormatError, in_a_line
from caffecli.formats import proposals
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.form import read_json
from caffecli.formats.list_file import refuse_utf16

Kind = Literal["names", "coco", "voc", "ilsvrc"]
Format = Literal["json", "csv", "coco", "voc", "hdf5"]
CORNERS = ("xmin", "ymin", "xmax", "ymax")
#: how the names of videos end
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v")


class Box(NamedTuple):
    """A box that was found, in pixels. ``label``: its class's number, a name where the file has no number."""

    picture: str
    label: int | str
    score: float
    xmin: float
    ymin: float
    xmax: float
    ymax: float


@dataclass
class Detections:
    """The boxes of a file. ``kind`` says what a class is: "names", by number and perhaps by name; "coco", the id of a
    category, or a name; "voc", the end of a file's name; "ilsvrc", a number.
    """

    kind: Kind
    boxes: list[Box] = field(default_factory=list)
    #: names of classes by number
    names: dict[int, str] = field(default_factory=dict)
    #: the pictures' widths and heights, where the file has them; also of pictures without a box
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)


def read(path: str | os.PathLike[str]) -> Detections:
    """The boxes in a file, or a folder of VOC's files, whose form is found out.

    Raises DataError, naming the file and the place in it, for what is none of the forms above, or has numbers that are
    none; FormatError for what cannot be read.
    """
    file = Path(path)
    if file.is_dir():
        files = sorted(each for each in file.iterdir() if each.suffix == ".txt")
        if not files:
            raise FormatError(f"the folder {str(path)!r} has no results of VOC's, a file ...CLASS.txt for each class")
        found = Detections("voc")
        for each in files:
            found.boxes += _read(each, voc=True).boxes
        return found
    return _read(file)


def _read(file: Path, voc: bool = False) -> Detections:
    data = read_bytes(file)
    refuse_utf16(file, data)
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        if not voc and text.lstrip()[:1] in ("[", "{"):
            return _json(text)
        if not voc and (file.suffix.lower() == ".csv" or text.startswith("picture,")):
            return _csv(text)
        return _lines(text, file.stem, voc)
    except ValueError as error:
        raise DataError(f"{str(file)!r}: {in_a_line(error)}") from error


# -- JSON ----------------------------------------------------------------------------------------------------------


def _json(text: str) -> Detections:
    said = read_json(text, "it may be damaged, or not complete: write it anew")
    if isinstance(said, dict):
        hint = "; it looks like the truth, which comes second" if "annotations" in said else ""
        raise ValueError(f"expected a list of boxes, as COCO's results, or of pictures, got an object{hint}")
    if any(isinstance(item, dict) and "image_id" in item for item in said):
        return Detections("coco", [_coco(item, f"[{number}]") for number, item in enumerate(said)])
    found = Detections("names")
    for number, item in enumerate(said):
        _picture(item, f"[{number}]", found)
    return found


def _coco(item: Any, where: str) -> Box:
    box = item.get("bbox") if isinstance(item, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not {"image_id", "category_id", "score"} <= item.keys():
        raise ValueError(
            f"{where}: expected an image_id, a category_id, a bbox [x, y, width, height] and a score, got {item!r:.80}"
        )
    x, y, width, height = (_number(value, f"{where}: bbox") for value in box)
    label = item["category_id"]
    if isinstance(label, bool) or not isinstance(label, int | str):
        raise ValueError(f"{where}: category_id: expected a category's id, got {label!r:.40}")
    return Box(str(item["image_id"]), label, _number(item["score"], f"{where}: score"), x, y, x + width, y + height)


def _picture(item: Any, where: str, found: Detections) -> None:
    objects = item.get("objects") if isinstance(item, dict) else None
    if not isinstance(objects, list) or not isinstance(item.get("picture"), str):
        raise ValueError(
            f"{where}: expected a picture with its objects, as caffecli detect writes it, or a box of COCO's results, "
            f"got {item!r:.80}"
        )
    sides = [item.get(name) for name in ("width", "height")]
    if not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"{where}: expected the picture's width and height, got {sides[0]!r:.40} and {sides[1]!r:.40}")
    found.sizes[item["picture"]] = sides[0], sides[1]
    for number, each in enumerate(objects):
        place = f"{where}, objects[{number}]"
        if not isinstance(each, dict):
            raise ValueError(f"{place}: expected an object, got {each!r:.40}")
        found.boxes.append(_named(item["picture"], each, place, found))


def _named(picture: str, item: dict[str, Any], where: str, found: Detections) -> Box:
    """The box of one of ``detect``'s objects."""
    label = _label(item.get("label"), f"{where}: label")
    found.names.setdefault(label, str(item.get("name") or label))
    return Box(picture, label, *(_number(item.get(name), f"{where}: {name}") for name in ("score", *CORNERS)))


# -- text ----------------------------------------------------------------------------------------------------------


def _csv(text: str) -> Detections:
    found = Detections("names")
    try:
        rows = csv.DictReader(text.splitlines(), strict=True)
        missing = [name for name in ("picture", "label", "score", *CORNERS) if name not in (rows.fieldnames or ())]
        if missing:
            raise ValueError(
                f"its first line has no {missing[0]!r}; expected picture,label,name,score,{','.join(CORNERS)}, as "
                "caffecli detect writes it"
            )
        for row in rows:
            where = f"line {rows.line_num}"
            if not row["picture"]:
                raise ValueError(f"{where}: it names no picture")
            found.boxes.append(_named(row["picture"], row, where, found))
    except csv.Error as error:
        raise ValueError(f"it is no CSV ({error})") from error
    return found


def _lines(text: str, stem: str, voc: bool) -> Detections:
    """VOC's lines, or where not ``voc``, and the first one has a number behind the picture, ILSVRC's."""
    found = Detections("voc")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        words = line.rsplit(None, 6)
        if not voc and not found.boxes and len(words) == 7 and words[1].isdecimal():
            found.kind = "ilsvrc"
        words = line.rsplit(None, 6 if found.kind == "ilsvrc" else 5)
        where = f"line {number}"
        if len(words) != (7 if found.kind == "ilsvrc" else 6):
            what = "picture label score" if found.kind == "ilsvrc" else "picture score"
            raise ValueError(f"{where}: expected {what} xmin ymin xmax ymax, got {line!r:.80}")
        label = _label(words.pop(1), where) if found.kind == "ilsvrc" else stem
        found.boxes.append(Box(words[0].strip(), label, *(_number(word, where) for word in words[1:])))
    return found


# -- numbers -------------------------------------------------------------------------------------------------------


def _number(value: Any, where: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{where}: expected a number, got {value!r:.40}")
    return number


def _label(value: Any, where: str) -> int:
    number = _number(value, where)
    if number != int(number):
        raise ValueError(f"{where}: expected a class's number, got {value!r:.40}")
    return int(number)


# -- writing -------------------------------------------------------------------------------------------------------


class Object(NamedTuple):
    """An object: its class, how sure the net is, and its box in pixels."""

    label: int
    name: str
    score: float
    xmin: float
    ymin: float
    xmax: float
    ymax: float


class Found(NamedTuple):
    """What was found in a picture, or a video's frame."""

    picture: str
    width: int
    height: int
    objects: list[Object]


def write(path: str, form: Format, found: Sequence[Found], categories: Mapping[int, int]) -> None:
    """Write what was found: ``voc`` into a folder, others into a file; ``hdf5`` as regions for ``formats.proposals``.

    ``categories``: COCO's ids by label, where they differ. Raises FormatError where a file cannot be written.
    """
    if form == "coco":
        _write_coco(path, found, categories)
    else:
        {"json": _write_json, "csv": _write_csv, "voc": _write_voc, "hdf5": _write_hdf5}[form](path, found)


def _write_json(path: str, found: Sequence[Found]) -> None:
    whole = [each._asdict() | {"objects": [one._asdict() for one in each.objects]} for each in found]
    with replacing(path, "w") as file:
        json.dump(whole, file, indent=1)
        file.write("\n")


def _write_csv(path: str, found: Sequence[Found]) -> None:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(["picture", *Object._fields])
    for each in found:
        writer.writerows([each.picture, *one] for one in each.objects)
    with replacing(path) as file:
        file.write(os.fsencode(lines.getvalue()))


def _write_coco(path: str, found: Sequence[Found], categories: Mapping[int, int]) -> None:
    whole = [
        {
            "image_id": int(stem) if (stem := result_name(each.picture)).isdecimal() else stem,
            "category_id": categories.get(one.label, one.label),
            "bbox": [one.xmin, one.ymin, one.xmax - one.xmin, one.ymax - one.ymin],
            "score": one.score,
        }
        for each in found
        for one in each.objects
    ]
    with replacing(path, "w") as file:
        json.dump(whole, file)
        file.write("\n")


def _write_voc(path: str, found: Sequence[Found]) -> None:
    lines: dict[str, list[str]] = {}
    for each in found:
        for one in each.objects:
            corners = " ".join(f"{value:.6f}" for value in one[3:])
            lines.setdefault(one.name, []).append(f"{result_name(each.picture)} {one.score:.6f} {corners}\n")
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    for name, own in lines.items():
        with replacing(folder / f"comp4_det_test_{in_file_names(name)}.txt") as file:
            file.write(os.fsencode("".join(own)))


def in_file_names(name: str) -> str:
    """A class's name as it stands in the names of VOC's files: with '_' for what these should not have."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)


def _write_hdf5(path: str, found: Sequence[Found]) -> None:
    """A dataset for each picture, xmin, ymin, xmax, ymax, score."""
    rows = ((each.picture, [(*one[3:], one.score) for one in each.objects]) for each in found)
    proposals.write(path, ((name, np.array(boxes, np.float32).reshape(-1, 5)) for name, boxes in rows))


def frame_name(video: str, number: int) -> str:
    """What a video's frame is called: ``street.avi#0`` for the first."""
    return f"{video}#{number}"


def video_of(picture: str) -> str:
    """The video that a picture is a frame of, by its name; "" where it is none, but a picture such as ``a#1.jpg``."""
    video, _, number = picture.rpartition("#")
    return video if number.isdecimal() and video.lower().endswith(VIDEOS) else ""


def result_name(picture: str) -> str:
    """What COCO's and VOC's results call a picture, or a video's frame: without folders and ending."""
    video = video_of(picture)
    return Path(video).stem + picture.removeprefix(video) if video else Path(picture).stem
