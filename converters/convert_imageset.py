"""convert_imageset: the pictures of a list -> a database of datums. Source: Caffe's ``tools/convert_imageset.cpp``."""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

_SOURCE = "convert_imageset.cpp"
_NOT_THERE = "is not there"
#: for how many pictures that are not there the reason is looked for, which reads their folder
_EXPLAINED = 20


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
    if (options.resize_width > 0) != (options.resize_height > 0):
        logs.warning(
            f"{_SOURCE}:89",
            "The pictures keep their sizes, as in Caffe: give both --resize_width and --resize_height to resize them",
        )
    if options.encode_type and not options.encoded:
        logs.info(f"{_SOURCE}:92", "encode_type specified, assuming encoded=true.")
    before = _prefix(root, entries)
    count = 0
    left_out: Counter[str] = Counter()
    reason = ""
    first: _Record | None = None
    with open_writer(db, options.backend) as writer, Bar(len(entries), unit="images") as progress:
        records = ordered_map(functools.partial(_read, options=options, before=before), entries)
        for index, (entry, record) in enumerate(zip(entries, records, strict=True)):
            progress.advance()
            if options.encoded and not options.encode_type and "." not in entry.path:
                logs.warning(f"{_SOURCE}:117", f"Failed to guess the encoding of '{entry.path}'")
            if isinstance(record, str):
                left_out[record.partition(";")[0]] += 1
                if record == _NOT_THERE and left_out[_NOT_THERE] <= _EXPLAINED:
                    record = f"{record}: {why_not_there(entry.path, before) if entry.path else 'the line is blank'}"
                reason = reason or f"{before + entry.path!r} {record}"
                logs.error("io.cpp:80", f"Could not open or find file {before}{entry.path}: it {record}")
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
                logs.info(f"{_SOURCE}:147", f"Processed {count} files.")
        if not count:
            raise DataError(
                f"none of the {len(entries)} pictures of {str(list_file)!r} could be read below {root!r}: {reason}"
            )
    if count % 1000:
        logs.info(f"{_SOURCE}:153", f"Processed {count} files.")
    if left_out:
        causes = ", ".join(f"{many} {cause.removeprefix('is ')}" for cause, many in left_out.most_common())
        logs.warning(f"{_SOURCE}:153", f"Left out {left_out.total()} of the {len(entries)} pictures: {causes}")
    return count


def shuffled(entries: list[Entry], seed: int | None = None) -> list[Entry]:
    """The entries in a random order, a new one each time unless ``seed`` is given."""
    return random.Random(seed).sample(entries, len(entries))


def _prefix(root: str, entries: list[Entry]) -> str:
    """The text before each name: Caffe joins root and name without a slash between.

    So a root must end in a slash, or be the beginning of the names; one that is a folder gets the slash that it lacks.
    """
    if not root or root.endswith("/") or entries[0].path.startswith("/") or not Path(root).is_dir():
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


def _read(entry: Entry, options: Options, before: str) -> _Record | str:
    """The record of one picture; where it cannot be read, what it is, to follow its name."""
    try:
        data = read_file(before + entry.path)
        image: NDArray[Any] = picture.decode(data, not options.gray)
    except (FileNotFoundError, NotADirectoryError):
        return _NOT_THERE
    except (OSError, ValueError) as error:
        return _NOT_THERE if not entry.path else f"cannot be read ({getattr(error, 'strerror', None) or error})"
    except DataError as error:
        return str(error)
    if options.resize_height > 0 and options.resize_width > 0:
        try:
            image = cv2.resize(image, (options.resize_width, options.resize_height))
        except cv2.error as error:
            size = f"{options.resize_height} × {options.resize_width}"
            raise DataError(
                f"{entry.path!r} (line {entry.line}): no memory for {size} pixels; "
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
    extension = _extension(entry.path)
    wanted = options.encode_type or extension
    if not wanted:
        raise DataError(f"{entry.path!r} (line {entry.line}) has no extension to tell its encoding; give --encode_type")
    same = extension == wanted.lower() or (wanted.lower() == "jpg" and extension == "jpeg")
    if same and options.resize_height <= 0 and options.resize_width <= 0:
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
