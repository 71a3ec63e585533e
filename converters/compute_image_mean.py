"""compute_image_mean: the mean picture of a database. Source: Caffe's ``tools/compute_image_mean.cpp``."""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import DataError
from caffecli.formats import datum, mean
from caffecli.formats.blob import Array
from caffecli.formats.db import Backend, Reader, Record, open_reader
from caffecli.logs import Bar
from caffecli.wording import dimensions
from converters.parallel import ordered_map

_SOURCE = "compute_image_mean.cpp"


def compute_image_mean(
    db: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, backend: Backend | None = None
) -> Array:
    """The mean of all pictures in ``db`` as (channels, height, width); written to ``out`` when given.

    Logs each channel's mean. Sums are float32, in the order of the records, as in Caffe's tool: the files are equal bit
    for bit.

    Raises FormatError for a database that is missing, damaged or of another backend, or an ``out`` that cannot be
    written; DataError, naming the key, for pictures that do not decode or whose size differs from the first one's.
    """
    with open_reader(db, backend) as reader:
        try:
            total, count = _sum(reader)
        except DataError as error:
            raise DataError(f"{str(db)!r}: {error}") from error
    average = total / np.float32(count)
    if out is not None:
        logs.info(f"{_SOURCE}:108", f"Write to {out}")
        mean.write(out, average)
    logs.info(f"{_SOURCE}:114", f"Number of channels: {len(average)}")
    for index, value in enumerate(channel_means(average)):
        logs.info(f"{_SOURCE}:119", f"mean_value channel [{index}]: {logs.number(value)}")
    return average


def channel_means(image: Array) -> list[float]:
    """The mean of each channel of a (channels, height, width) image, summed in float32, one by one, as in Caffe."""
    flat = image.reshape(len(image), -1)
    sums = np.add.accumulate(flat, axis=1, dtype=np.float32)[:, -1]
    return [float(value) for value in sums / np.float32(flat.shape[1])]


def _sum(reader: Reader) -> tuple[Array, int]:
    records = iter(reader)
    first = next(records, None)
    if first is None:
        raise DataError("there are no records; convert pictures into it first")
    encoded = datum.decode(first[1], first[0]).encoded
    if encoded:
        logs.info(f"{_SOURCE}:57", "Decoding Datum")
    logs.info(f"{_SOURCE}:70", "Starting iteration")
    all_records = itertools.chain([first], records)
    pictures = ordered_map(_picture, all_records, chunk=16) if encoded else map(_picture, all_records)
    total: Array | None = None
    count = 0
    with Bar(None, unit="images") as progress:
        for key, array in pictures:
            if total is None:
                total = np.zeros(array.shape, np.float32)
            if array.size != total.size:
                raise DataError(_differs(key, array, total))
            total += array.reshape(total.shape)
            count += 1
            progress.advance()
            if count % 10000 == 0:
                logs.info(f"{_SOURCE}:95", f"Processed {count} files.")
    if count % 10000:
        logs.info(f"{_SOURCE}:101", f"Processed {count} files.")
    return total if total is not None else np.zeros((0, 0, 0), np.float32), count


def _picture(record: Record) -> tuple[bytes, NDArray[Any]]:
    key, value = record
    return key, datum.to_array(datum.decode(value, key), key=key)


def _differs(key: bytes, array: NDArray[Any], total: Array) -> str:
    name = key.decode("utf-8", "replace")
    return (
        f"record {name!r}: its picture is {_dims(array)}, the first one {_dims(total)}; "
        "convert with --resize_height and --resize_width to make all of one size"
    )


def _dims(array: NDArray[Any]) -> str:
    return f"{dimensions(array.shape)} ({math.prod(array.shape)} numbers)"
