"""Mean images: a BlobProto of 1 × channels × height × width, as ``compute_image_mean`` writes it."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import FormatError
from caffecli.formats import blob as blobs
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.blob import Array
from caffecli.formats.foreign import describe


def read(path: str | os.PathLike[str]) -> Array:
    """The mean image in ``path`` as (channels, height, width).

    Raises FormatError for a file that is missing, damaged, or holds something else.
    """
    data = read_bytes(path)
    blob = blobs.parse(_BlobTwin, data)
    if blob is None or not (blob.data or blob.double_data or blob.HasField("channels")):
        raise describe(path, data, "a mean image")
    try:
        array = blobs.twin_to_array(blob)
    except FormatError as error:
        raise FormatError(f"{str(path)!r}: {error}") from error
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise FormatError(
            f"{str(path)!r}: expected one mean image, (1, channels, height, width), it has shape {array.shape}"
        )
    return array


def write(path: str | os.PathLike[str], array: NDArray[Any]) -> None:
    """Write a (channels, height, width) mean image in the old 4-D form, as Caffe's tool does. Raises FormatError."""
    if array.ndim != 3:
        raise FormatError(
            f"cannot write {str(path)!r}: expected a mean of (channels, height, width), got shape {array.shape}"
        )
    channels, height, width = array.shape
    blob = _BlobTwin(num=1, channels=channels, height=height, width=width)
    blob.data = np.asarray(array, "<f4").tobytes()
    with replacing(path) as file:
        file.write(blob.SerializeToString())


_BlobTwin = blobs.twin("BlobProto")
