"""convert_imageset: the pictures of a list -> a database of datums. Source: Caffe's ``tools/convert_imageset.cpp``."""

from __future__ import annotations

import functools
import os
import random
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats import picture
from caffecli.formats.atomic import read_file
from caffecli.formats.datum import from_image
from caffecli.formats.db import Backend, open_writer
from caffecli.formats.list_file import Entry, read_list, why_not_there
from caffecli.logs import Bar
from caffecli.proto.caffe_pb2 import Datum
from caffecli.wording import dimensions
from converters.parallel import ordered_map

_NOT_THERE = "is not there"
#: of a picture that is there and cannot be read, where its fault tells no other
_REMEDY = "; it is left out: save or download it anew, or take it out of the list"
#: for how many pictures that are not there the reason is looked for, which reads their folder
_EXPLAINED = 20


class Listed(Protocol):
    """A line of a list: its number, and the picture's path."""

    @property
    def line(self) -> int: ...

    @property
    def path(self) -> str: ...


E = TypeVar("E", bound=Listed)


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
    if Path(list_file).is_dir():
        raise DataError(
            f"{os.fspath(list_file)!r} is a folder, and LISTFILE a file with a line for each picture; "
            f"`caffecli new {shlex.quote(os.fspath(list_file))}` makes databases of a folder of class folders"
        )
    entries = read_list(list_file)
    before = prefix(root, entries)
    return write_records(
        entries, functools.partial(_read, options=options, before=before), before, list_file, db, options, _PLACES
    )


class Places(NamedTuple):
    """The file of Caffe's source, and the lines in it, that the log names."""

    source: str
    shuffle: int
    total: int
    encode: int
    guess: int
    processed: int
    last: int

    def __call__(self, line: int) -> str:
        return f"{self.source}:{line}"


_PLACES = Places("convert_imageset.cpp", 86, 89, 92, 117, 147, 153)


def write_records(
    entries: list[E],
    read: Callable[[E], Record | str],
    before: str,
    list_file: str | os.PathLike[str],
    db: str | os.PathLike[str],
    options: Options,
    places: Places,
) -> int:
    """Write what ``read`` makes of each entry, found under ``before`` + its path, to a new database; returns how many.

    Where it gives a text, the picture cannot be read, and the text says why, to follow its name.
    """
    if options.shuffle:
        logs.info(places(places.shuffle), "Shuffling data")
        entries = shuffled(entries, options.seed)
    logs.info(places(places.total), f"A total of {len(entries)} images.")
    if (options.resize_width > 0) != (options.resize_height > 0):
        logs.warning(
            places(places.total),
            "The pictures keep their sizes, as in Caffe: give both --resize_width and --resize_height to resize them",
        )
    if options.encode_type and not options.encoded:
        logs.info(places(places.encode), "encode_type specified, assuming encoded=true.")
    count = 0
    left_out: Counter[str] = Counter()
    reason = ""
    first: Record | None = None
    with open_writer(db, options.backend) as writer, Bar(len(entries), unit="images") as progress:
        for index, (entry, record) in enumerate(zip(entries, ordered_map(read, entries), strict=True)):
            progress.advance()
            if options.encoded and not options.encode_type and "." not in entry.path:
                logs.warning(places(places.guess), f"Failed to guess the encoding of '{entry.path}'")
            if isinstance(record, str):
                left_out[record.partition(";")[0]] += 1
                if record == _NOT_THERE and left_out[_NOT_THERE] <= _EXPLAINED:
                    record = f"{record}: {why_not_there(entry.path, before) if entry.path else 'the line is blank'}"
                reason = reason or f"{before + entry.path!r} {record}"
                remedy = "" if record.startswith(_NOT_THERE) or ";" in record else _REMEDY
                logs.error("io.cpp:80", f"Could not open or find file {before}{entry.path}: it {record}{remedy}")
                continue
            first = first or record
            if options.check_size and record.size != first.size:
                raise DataError(
                    f"{list_file}:{entry.line}: {entry.path!r} has {record.shape}, the first picture {first.shape}; "
                    "give --resize_height and --resize_width, or leave out --check_size"
                )
            writer.put(b"%08d_" % index + os.fsencode(entry.path), record.value)
            count += 1
            if count % 1000 == 0:
                logs.info(places(places.processed), f"Processed {count} files.")
        if not count:
            raise DataError(
                f"none of the {len(entries)} pictures of {str(list_file)!r} could be read below {before!r}: {reason}"
            )
    if count % 1000:
        logs.info(places(places.last), f"Processed {count} files.")
    if left_out:
        causes = ", ".join(f"{many} {cause.removeprefix('is ')}" for cause, many in left_out.most_common())
        logs.warning(places(places.last), f"Left out {left_out.total()} of the {len(entries)} pictures: {causes}")
    return count


def shuffled(entries: list[E], seed: int | None = None) -> list[E]:
    """The entries in a random order, a new one each time unless ``seed`` is given."""
    return random.Random(seed).sample(entries, len(entries))


def prefix(root: str, entries: Sequence[Listed]) -> str:
    """The text before each name: Caffe joins root and name without a slash between.

    So a root must end in a slash, or be the beginning of the names; one that is a folder gets the slash that it lacks.
    """
    if not root or root.endswith("/") or entries[0].path.startswith("/") or not Path(root).is_dir():
        return root
    return root + "/"


@dataclass(frozen=True)
class Record:
    """What is stored, and the dimensions (channels last) of its picture."""

    value: bytes
    dims: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.dims))

    @property
    def shape(self) -> str:
        return dimensions(self.dims)


def _read(entry: Entry, options: Options, before: str) -> Record | str:
    """The record of one picture; where it cannot be read, what it is, to follow its name."""
    made = read_picture(entry, options, before)
    if isinstance(made, str):
        return made
    data, image = made
    if options.resize_height > 0 and options.resize_width > 0:
        image = resized(image, (options.resize_width, options.resize_height), entry)
    datum = datum_of(entry, options, image, data, entry.label, options.resize_height > 0 or options.resize_width > 0)
    return Record(datum.SerializeToString(), image.shape)


def read_picture(entry: Listed, options: Options, before: str) -> tuple[bytes, NDArray[Any]] | str:
    """The bytes of a picture's file, and its pixels; where it cannot be read, what it is, to follow its name."""
    try:
        data = read_file(before + entry.path)
        return data, picture.decode(data, not options.gray)
    except (FileNotFoundError, NotADirectoryError):
        return _NOT_THERE
    except (OSError, ValueError) as error:
        if not entry.path:
            return _NOT_THERE
        return f"cannot be read ({getattr(error, 'strerror', None) or error}); it is left out: see to its permissions"
    except DataError as error:
        return str(error)


def resized(image: NDArray[Any], size: tuple[int, int], entry: Listed) -> NDArray[Any]:
    """The picture in another size (width, height)."""
    try:
        return cv2.resize(image, size)
    except cv2.error as error:
        raise DataError(
            f"{entry.path!r} (line {entry.line}): no memory for {size[1]} × {size[0]} pixels; "
            "lower --resize_height and --resize_width"
        ) from error


def datum_of(entry: Listed, options: Options, image: NDArray[Any], data: bytes, label: int, changed: bool) -> Datum:
    """The datum of a picture: its pixels, or a picture file: ``data``, its own, unless it is ``changed`` or the
    encoding is another.
    """
    if options.encoded or options.encode_type:
        return Datum(data=_encoded(entry, options, image, data, changed), label=label, encoded=True)
    array = from_image(image)
    channels, height, width = array.shape
    return Datum(channels=channels, height=height, width=width, data=array.tobytes(), label=label, encoded=False)


def _encoded(entry: Listed, options: Options, image: NDArray[Any], data: bytes, changed: bool) -> bytes:
    """The picture's file as it is, when nothing about it changes; otherwise encoded anew."""
    extension = _extension(entry.path)
    wanted = options.encode_type or extension
    if not wanted:
        raise DataError(f"{entry.path!r} (line {entry.line}) has no extension to tell its encoding; give --encode_type")
    same = extension == wanted.lower() or (wanted.lower() == "jpg" and extension == "jpeg")
    if same and not changed:
        return data
    try:
        done, encoded = cv2.imencode(f".{wanted}", image)
    except cv2.error:
        done = False
    if not done:
        raise DataError(
            f"{entry.path!r} (line {entry.line}): cannot encode as {wanted!r}; give --encode_type png or jpg"
        )
    return bytes(encoded.tobytes())


def _extension(name: str) -> str:
    return name.rpartition(".")[2].lower() if "." in name else ""
