"""Datum <-> numpy: the records of Caffe's databases.

A datum holds one picture as bytes, channel × height × width, blue first; or the bytes of a picture file (``encoded``);
or floats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from numpy.typing import NDArray

from caffecli.errors import DataError
from caffecli.formats import picture
from caffecli.proto.caffe_pb2 import Datum
from caffecli.wording import dimensions


def decode(value: bytes, key: bytes | str = b"") -> Datum:
    """The datum in a database's value. Raises DataError, naming ``key``, when it is none."""
    try:
        return Datum.FromString(value)
    except DecodeError as error:
        raise DataError(
            f"record {_text(key)}: the value is not a Datum; the database is damaged or was not made for Caffe"
        ) from error


def stack(values: Sequence[bytes]) -> tuple[NDArray[np.uint8], list[int]] | None:
    """Pictures (count, channels, height, width) and labels of several datums;
    None unless all are raw and encoded alike.

    Such datums differ only in pixels and label: the first one shows where these are, and the others need no parsing.
    """
    try:
        first = Datum.FromString(values[0])
        dims, size = (first.channels, first.height, first.width), len(first.data)
        if not size or min(dims) < 1 or math.prod(dims) != size:
            return None
        plain = Datum(channels=dims[0], height=dims[1], width=dims[2], data=first.data).SerializeToString()
        start, end = len(plain) - size, len(plain)
        labels: dict[bytes, int] = {}
        for tail in {value[end:] for value in values}:
            rest = Datum.FromString(tail)
            labels[tail] = rest.label
            rest.ClearField("label")
            if not rest.encoded:
                rest.ClearField("encoded")
            if rest.ByteSize():
                return None
    except DecodeError:
        return None
    pixels = b"".join([value[start:end] for value in values])
    if len(pixels) != size * len(values) or not all(value.startswith(plain[:start]) for value in values):
        return None
    return np.frombuffer(pixels, np.uint8).reshape(len(values), *dims), [labels[value[end:]] for value in values]


def to_array(datum: Datum, color: bool | None = None, key: bytes | str = b"") -> NDArray[Any]:
    """The datum's (channels, height, width) array: uint8 of ``data`` or of the decoded picture,
    float32 of ``float_data``.

    ``color`` is for encoded datums: True decodes to three channels, False to one, None as the picture is.
    Raises DataError, naming ``key``, when the picture does not decode or the data do not fill the shape.
    """
    if datum.encoded:
        return from_image(decode_image(datum.data, color, key))
    dims = (datum.channels, datum.height, datum.width)
    array: NDArray[Any]
    array = np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    if array.size != math.prod(dims) or min(dims) < 1:
        if _is_annotated(datum):
            raise DataError(
                f"record {_text(key)}: it is an AnnotatedDatum, a picture with boxes, as SSD's convert_annoset writes "
                "it; layer type AnnotatedData reads those, here pictures with one label are read"
            )
        raise DataError(
            f"record {_text(key)}: expected {_product(dims)} numbers, the datum holds {array.size}; "
            "the record is damaged or empty, convert the data again"
        )
    return array.reshape(dims)


def decode_image(data: bytes, color: bool | None = None, key: bytes | str = b"") -> NDArray[np.uint8]:
    """The picture in the bytes of a picture file, as OpenCV gives it: height × width (× channels), blue first."""
    try:
        return picture.decode(data, color)
    except DataError as error:
        raise DataError(
            f"record {_text(key)}: the encoded picture ({len(data)} bytes) {error}; "
            "replace its file and convert the data again"
        ) from error


def is_annotated(value: bytes) -> bool:
    """Whether a database's value is SSD's AnnotatedDatum. Raises DataError, where it is no message."""
    return _is_annotated(decode(value))


def _is_annotated(datum: Datum) -> bool:
    """Whether this was read of SSD's AnnotatedDatum: its field 1 is a Datum, where a Datum has a number."""
    return any(field.field_number == 1 and field.wire_type == 2 for field in UnknownFieldSet(datum))


def from_image(image: NDArray[Any]) -> NDArray[Any]:
    """OpenCV's height × width (× channels) as channels × height × width, contiguous."""
    return np.ascontiguousarray(image.transpose(2, 0, 1)) if image.ndim == 3 else image[None]


def from_array(array: NDArray[Any], label: int | None = None) -> Datum:
    """A datum of a (channels, height, width) array: ``data`` for uint8, ``float_data`` for anything else."""
    if array.ndim != 3:
        raise DataError(f"expected an array of (channels, height, width), got shape {array.shape}")
    channels, height, width = array.shape
    datum = Datum(channels=channels, height=height, width=width)
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(np.asarray(array, np.float32).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def _text(key: bytes | str) -> str:
    return repr(key.decode("utf-8", "replace") if isinstance(key, bytes) else key)


def _product(dims: tuple[int, ...]) -> str:
    return f"{dimensions(dims)} = {math.prod(dims)}"
