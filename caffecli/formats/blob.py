"""BlobProto <-> numpy.

A BlobProto stores its numbers as ``repeated float data = 5 [packed = true]``; on the wire that is a length and the raw
little-endian bytes, just what a ``bytes data = 5`` would be. So this module keeps a twin of the schema in which the
four number fields are bytes: whole arrays go in and out without a Python number in between, which makes a 240 MB
caffemodel load
in a fraction of a second. Files whose numbers are not packed are read with the plain schema.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from caffecli.errors import FormatError
from caffecli.proto import caffe_pb2
from caffecli.proto.caffe_pb2 import BlobProto, BlobShape

Array = NDArray[np.float32]
M = TypeVar("M", bound=Message)

#: protobuf's limit for a message, in bytes; Caffe's too
MAX_MESSAGE = 2**31 - 1

_NUMBERS = {"data": "<f4", "diff": "<f4", "double_data": "<f8", "double_diff": "<f8"}
_MESSAGES = (
    "BlobShape",
    "BlobProto",
    "NetParameter",
    "SolverState",
    "LayerParameter",
    "V1LayerParameter",
    "V0LayerParameter",
)
#: NumPy types by NVIDIA's ``raw_data_type``
_RAW = {0: "<f8", 1: "<f4", 2: "<f2", 3: "<i4", 4: "<u4"}
#: the types that NVIDIA's Caffe can read, by name
RAW_TYPES = {"DOUBLE": 0, "FLOAT": 1, "FLOAT16": 2}


def _twin_pool() -> descriptor_pool.DescriptorPool:
    """The messages that hold blobs, with bytes for the blobs' numbers and for all messages without blobs."""
    file = descriptor_pb2.FileDescriptorProto(name="caffecli/twin.proto", package="caffe")
    for name in _MESSAGES:
        message = file.message_type.add()
        caffe_pb2.DESCRIPTOR.message_types_by_name[name].CopyToProto(message)
        message.ClearField("enum_type")
        for field in message.field:
            if name == "BlobProto" and field.name in _NUMBERS:
                field.type, field.label = field.TYPE_BYTES, field.LABEL_OPTIONAL
                field.ClearField("options")
            elif field.type == field.TYPE_ENUM:
                field.type = field.TYPE_INT32
                field.ClearField("type_name")
                field.ClearField("default_value")
            elif field.type == field.TYPE_MESSAGE and field.type_name.removeprefix(".caffe.") not in _MESSAGES:
                field.type, field.label = (
                    field.TYPE_BYTES,
                    field.LABEL_REPEATED,
                )  # the field may occur several times in a file
                field.ClearField("type_name")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _twin_pool()


def twin(name: str) -> Any:
    """The class of message ``caffe.<name>`` whose blobs hold bytes where the plain one's hold numbers."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"caffe.{name}"))


_BlobTwin = twin("BlobProto")
#: the fields that may hold a blob's values; the first that does is the one that counts
_VALUES = ("double_data", "data", "raw_data")


def shape(blob: Any) -> tuple[int, ...]:
    """The blob's shape; the old form (num, channels, height, width) has four dimensions."""
    if any(blob.HasField(field) for field in ("num", "channels", "height", "width")):
        return blob.num, blob.channels, blob.height, blob.width
    return tuple(blob.shape.dim)


def to_array(blob: BlobProto) -> Array:
    """The blob's data as float32 in its own shape; ``double_data`` is rounded to float32 as Caffe does.

    Raises FormatError when the data do not fill the shape.
    """
    return twin_to_array(_BlobTwin.FromString(blob.SerializeToString()))


def twin_to_array(blob: Any) -> Array:
    """``to_array`` for a twin message."""
    dims = shape(blob)
    if min(dims, default=0) < 0:
        raise FormatError(f"a blob has the shape {dims}; the file is damaged")
    count = math.prod(dims)
    field, raw = next(((name, found) for name in _VALUES if (found := getattr(blob, name))), ("data", b""))
    if field == "raw_data" and (not blob.HasField("raw_data_type") or blob.raw_data_type not in _RAW):
        raise FormatError(
            "a blob's raw_data has no raw_data_type; expected DOUBLE (0), FLOAT (1), FLOAT16 (2), INT (3) or UINT (4)"
        )
    dtype = np.dtype(_RAW[blob.raw_data_type] if field == "raw_data" else _NUMBERS[field])
    if field == "raw_data" and len(raw) != count * dtype.itemsize:
        raise FormatError(
            f"a blob of shape {dims} holds {len(raw)} bytes of raw_data instead of {count * dtype.itemsize}; "
            "the file is damaged"
        )
    if len(raw) != count * dtype.itemsize:
        numbers = _unpacked(blob, field)
        if len(numbers) != count:
            raise FormatError(
                f"a blob of shape {dims} holds {len(numbers)} numbers instead of {count}; the file is damaged"
            )
        return numbers.reshape(dims)
    return np.frombuffer(raw, dtype).astype(np.float32).reshape(dims)


def _unpacked(blob: Any, field: str) -> Array:
    """The numbers read by the plain schema: number by number, or packed in several pieces."""
    plain = BlobProto.FromString(blob.SerializeToString())
    numbers = plain.double_data if plain.double_data else plain.data
    return np.array(numbers, np.float32)


def from_array(array: NDArray[Any], blob: BlobProto | None = None) -> BlobProto:
    """``array`` as a BlobProto of float32 data with its shape; fills and returns ``blob`` when given one."""
    blob = BlobProto() if blob is None else blob
    made = _BlobTwin()
    fill_twin(made, array)
    blob.ParseFromString(made.SerializeToString())
    return blob


def fill_twin(blob: Any, array: NDArray[Any], raw_type: str | None = None) -> None:
    """Put ``array`` and its shape into a twin message; in NVIDIA's form with ``raw_type``, one of ``RAW_TYPES``.

    Raises FormatError where a number is too large for FLOAT16, which ends at 65504.
    """
    blob.ClearField("shape")
    if array.ndim:  # Caffe gives a blob of no axes no shape
        blob.shape.dim.extend(array.shape)
    if raw_type is None:
        blob.data = np.asarray(array, "<f4").tobytes()
        return
    blob.raw_data_type = RAW_TYPES[raw_type]
    with np.errstate(over="ignore"):
        raw = np.asarray(array, _RAW[RAW_TYPES[raw_type]])
    lost = np.isinf(raw) & np.isfinite(array)
    if lost.any():
        raise FormatError(
            f"{array[lost].flat[0]:g} does not fit into {raw_type}, whose largest number is 65504; choose FLOAT"
        )
    blob.raw_data = raw.tobytes()


def check_size(path: object, arrays_bytes: int) -> None:
    """Raise FormatError when a binary file of that many bytes of numbers would pass protobuf's limit of 2 GB."""
    if arrays_bytes > MAX_MESSAGE - 2**24:  # room for the net's definition
        raise FormatError(
            f"cannot write {str(path)!r}: {arrays_bytes / 2**30:.1f} GB do not fit into a binary file (2 GB at most); "
            "set snapshot_format: HDF5, or choose a name that ends in .h5"
        )


def parse(message_type: type[M], data: bytes) -> M | None:
    """The message in ``data``; None where it is no message of that type."""
    try:
        return message_type.FromString(data)
    except DecodeError:
        return None


__all__ = [
    "RAW_TYPES", "Array", "BlobShape", "check_size", "fill_twin", "from_array", "parse",
    "shape", "to_array", "twin", "twin_to_array",
]  # fmt: skip
