"""convert_imageset: the pictures of a list -> a database of datums. Source: Caffe's ``tools/convert_imageset.cpp``."""

from __future__ import annotations

import functools
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats import picture
from caffecli.formats.atomic import read_bytes
from caffecli.formats.datum import from_image
from caffecli.formats.db import Backend, open_writer
from caffecli.formats.foreign import describe
from caffecli.logs import Bar
from caffecli.proto.caffe_pb2 import Datum
from caffecli.wording import dimensions
from converters.parallel import ordered_map

_SOURCE = "convert_imageset.cpp"


@dataclass(frozen=True)
class Options:
    """The flags of Caffe's tool. A resize happens when both sizes are above 0."""

    gray: bool = False
    shuffle: bool = False
    backend: Backend = "lmdb"
    resize_width: int = 0
    resize_height: int = 0
    check_size: bool = False
    encoded: bool = False
    encode_type: str = ""
    #: makes ``shuffle`` repeatable; Caffe's tool has no such flag
    seed: int | None = None


def convert_imageset(
    root: str, list_file: str | os.PathLike[str], db: str | os.PathLike[str], options: Options | None = None
) -> int:
    """Write the pictures of ``list_file`` to the new database ``db``; returns how many.

    Keys are ``%08d_name``, the number being the line's (after a shuffle: the place in the new order). Pictures that
    cannot be read are logged and left out. The database appears under its name only when it is complete.

    Raises FormatError when ``db`` exists or cannot be written, DataError for a list that is empty or malformed, sizes
    that differ (``check_size``), an unknown ``encode_type``, and when not one picture could be read.
    """
    options = options or Options()
    entries = read_list(list_file)
    if options.shuffle:
        logs.info(f"{_SOURCE}:86", "Shuffling data")
        entries = shuffled(entries, options.seed)
    logs.info(f"{_SOURCE}:89", f"A total of {len(entries)} images.")
    if options.encode_type and not options.encoded:
        logs.info(f"{_SOURCE}:92", "encode_type specified, assuming encoded=true.")
    before = _prefix(root, entries)
    count = 0
    first: _Record | None = None
    with open_writer(db, options.backend) as writer, Bar(len(entries), unit="images") as progress:
        records = ordered_map(functools.partial(_read, options=options, before=before), entries)
        for index, (entry, record) in enumerate(zip(entries, records, strict=True)):
            progress.advance()
            if options.encoded and not options.encode_type and "." not in entry.name:
                logs.warning(f"{_SOURCE}:117", f"Failed to guess the encoding of '{entry.name}'")
            if record is None:
                logs.error("io.cpp:80", f"Could not open or find file {before}{entry.name}")
                continue
            first = first or record
            if options.check_size and record.size != first.size:
                raise DataError(
                    f"{list_file}:{entry.line}: {entry.name!r} has {record.shape}, the first picture {first.shape}; "
                    "give --resize_height and --resize_width, or leave out --check_size"
                )
            writer.put(b"%08d_" % index + os.fsencode(entry.name), record.value)
            count += 1
            if count % 1000 == 0:
                logs.info(f"{_SOURCE}:147", f"Processed {count} files.")
        if not count:
            raise DataError(
                f"none of the {len(entries)} pictures of {str(list_file)!r} could be read below {root!r}; "
                "check the root folder"
            )
    if count % 1000:
        logs.info(f"{_SOURCE}:153", f"Processed {count} files.")
    return count


class Entry(NamedTuple):
    """A line of an image list. ``line`` counts from 1."""

    name: str
    label: int
    line: int


def read_list(path: str | os.PathLike[str]) -> list[Entry]:
    """The entries of a list file. Names may hold spaces: the last one separates name and label.

    A blank line is an entry without a name, as the database's keys count lines.

    Raises FormatError when the file cannot be read, DataError for an empty list and for lines without a label.
    """
    data = read_bytes(path)
    if b"\0" in data:
        raise describe(path, data, "an image list")
    text = os.fsdecode(data)
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    entries = [_entry(path, number, line.rstrip("\r \t")) for number, line in enumerate(lines, 1)]
    if not any(entry.name for entry in entries):
        raise DataError(f"{str(path)!r} lists no pictures; expected lines of 'path label'")
    return entries


def _entry(path: str | os.PathLike[str], number: int, line: str) -> Entry:
    if not line:
        return Entry("", 0, number)
    name, space, label = line.rpartition(" ")
    try:
        value = int(label)
        if not space or not -(2**31) <= value < 2**31:
            raise ValueError
    except ValueError:
        expected = "expected 'path label', parted by a space, the label a whole number"
        raise DataError(f"{path}:{number}: {expected}; the line is {line[:200]!r}") from None
    return Entry(name, value, number)


def shuffled(entries: list[Entry], seed: int | None = None) -> list[Entry]:
    """The entries in a random order, a new one each time unless ``seed`` is given."""
    return random.Random(seed).sample(entries, len(entries))


def _prefix(root: str, entries: list[Entry]) -> str:
    """The text before each name: Caffe joins root and name without a slash between.

    So a root must end in a slash, or be the beginning of the names; one that is a folder gets the slash that it lacks.
    """
    if not root or root.endswith("/") or entries[0].name.startswith("/") or not Path(root).is_dir():
        return root
    return root + "/"


@dataclass(frozen=True)
class _Record:
    """A serialized datum, and the dimensions (channels last) of its picture."""

    value: bytes
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.dims))

    @property
    def shape(self) -> str:
        return dimensions(self.dims)


def _read(entry: Entry, options: Options, before: str) -> _Record | None:
    """The record of one picture; None when it cannot be read."""
    path = before + entry.name
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a Path would take as long as the reading
            data = file.read()
        image: NDArray[Any] = picture.decode(data, not options.gray)
    except (OSError, ValueError, DataError):
        return None
    if options.resize_height > 0 and options.resize_width > 0:
        try:
            image = cv2.resize(image, (options.resize_width, options.resize_height))
        except cv2.error as error:
            size = f"{options.resize_height} × {options.resize_width}"
            raise DataError(
                f"{entry.name!r} (line {entry.line}): no memory for {size} pixels; "
                "lower --resize_height and --resize_width"
            ) from error
    if options.encoded or options.encode_type:
        datum = Datum(data=_encoded(entry, options, image, data), label=entry.label, encoded=True)
    else:
        array = from_image(image)
        channels, height, width = array.shape
        datum = Datum(
            channels=channels, height=height, width=width, data=array.tobytes(), label=entry.label, encoded=False
        )
    return _Record(datum.SerializeToString(), image.shape)


def _encoded(entry: Entry, options: Options, image: NDArray[Any], data: bytes) -> bytes:
    """The picture's file as it is, when nothing about it changes; otherwise encoded anew."""
    extension = _extension(entry.name)
    wanted = options.encode_type or extension
    if not wanted:
        raise DataError(f"{entry.name!r} (line {entry.line}) has no extension to tell its encoding; give --encode_type")
    same = extension == wanted.lower() or (wanted.lower() == "jpg" and extension == "jpeg")
    if same and options.resize_height <= 0 and options.resize_width <= 0:
        return data
    try:
        done, encoded = cv2.imencode(f".{wanted}", image)
    except cv2.error:
        done = False
    if not done:
        raise DataError(
            f"{entry.name!r} (line {entry.line}): cannot encode as {wanted!r}; give --encode_type png or jpg"
        )
    return bytes(encoded.tobytes())


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""
