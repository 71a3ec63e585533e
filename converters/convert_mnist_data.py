"""convert_mnist_data: MNIST's idx files -> databases. Source: Caffe's ``convert_mnist_data.cpp``.

An idx file has a big-endian header (0, 0, element type, number of dimensions; each dimension as 32 bits), then the
elements, row by row.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError, FormatError
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.db import Backend, open_writer
from caffecli.formats.foreign import describe
from caffecli.logs import Bar
from caffecli.proto.caffe_pb2 import Datum
from caffecli.wording import dimensions

_SOURCE = "convert_mnist_data.cpp"
_UINT8 = 8


def read_idx(path: str | os.PathLike[str], dims: int | None = None) -> NDArray[np.uint8]:
    """The array in an idx file of bytes, or in its gzipped form: ``path`` itself or ``path`` + ``.gz`` may be that.

    ``dims`` is the number of dimensions to expect: 3 for pictures, 1 for labels.
    Raises FormatError when the file is missing, of another kind, or its length is not what its header says.
    """
    file = Path(path)
    if not file.exists() and file.with_name(file.name + ".gz").exists():
        file = file.with_name(file.name + ".gz")
    data = read_bytes(file)
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise FormatError(
                f"{str(file)!r}: the gzip file is damaged or truncated ({error}); download it again"
            ) from error
    wanted = {1: "an idx file of labels (magic 2049)", 3: "an idx file of pictures (magic 2051)"}.get(
        dims or 0, "an idx file"
    )
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _UINT8 or not data[3]:
        raise describe(file, data, wanted)
    if dims is not None and data[3] != dims:
        magic = int.from_bytes(data[:4], "big")
        raise FormatError(
            f"{str(file)!r}: expected {wanted}, its magic is {magic}; give the pictures first, then the labels"
        )
    start = 4 + 4 * data[3]
    if len(data) < start:
        raise FormatError(f"{str(file)!r}: the file ends within its header; it is truncated, download it again")
    shape = struct.unpack(f">{data[3]}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise FormatError(
            f"{str(file)!r}: the header says {dimensions(shape)} bytes, the file has {len(data) - start}; "
            "it is truncated or damaged, download it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def write_idx(path: str | os.PathLike[str], array: NDArray[np.uint8]) -> None:
    """Write bytes of any shape as an idx file; gzipped when the name ends in ``.gz``. Raises FormatError."""
    if array.dtype != np.uint8 or not 1 <= array.ndim <= 255:
        raise DataError(f"expected an array of bytes for {str(path)!r}, got {array.dtype} of {array.ndim} dimensions")
    data = bytes([0, 0, _UINT8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    with replacing(path) as file:
        file.write(gzip.compress(data, mtime=0) if os.fspath(path).endswith(".gz") else data)


def read_pair(
    images: str | os.PathLike[str], labels: str | os.PathLike[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """idx pictures (count × rows × columns) and their labels.

    Raises FormatError as ``read_idx``; DataError when they are no pair.
    """
    pictures = read_idx(images, dims=3)
    classes = read_idx(labels, dims=1)
    if len(pictures) != len(classes):
        raise DataError(
            f"{str(images)!r} has {len(pictures)} pictures, {str(labels)!r} has {len(classes)} labels; give a pair"
        )
    if not len(pictures):
        raise DataError(f"{str(images)!r} has no pictures")
    return pictures, classes


def convert_mnist_data(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    db: str | os.PathLike[str],
    *,
    backend: Backend = "lmdb",
) -> int:
    """Write idx pictures (count × rows × columns) and their labels to the new database ``db``, keys ``%08d``.

    Returns the count.

    Raises FormatError for files that are not such or are damaged, and when ``db`` exists or cannot be written;
    DataError when there are not as many labels as pictures.
    """
    pictures, classes = read_pair(images, labels)
    count, rows, columns = pictures.shape
    with open_writer(db, backend) as writer, Bar(count, unit="images") as progress:
        logs.info(f"{_SOURCE}:88", f"A total of {count} items.")
        logs.info(f"{_SOURCE}:89", f"Rows: {rows} Cols: {columns}")
        datum = Datum(channels=1, height=rows, width=columns)
        for index, (picture, label) in enumerate(zip(pictures, classes.tolist(), strict=True)):
            datum.data = picture.tobytes()
            datum.label = label
            writer.put(b"%08d" % index, datum.SerializeToString())
            progress.advance()
    logs.info(f"{_SOURCE}:108", f"Processed {count} files.")
    return count
