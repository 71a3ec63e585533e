"""safetensors files <-> numpy: arrays by name, and a few texts.

A file is the header's length (8 bytes, little-endian), the header as JSON, and the arrays' bytes, C order and
little-endian. The header has for each name its dtype, shape and place, and under ``__metadata__`` the texts.
Source: the format's description at huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import FormatError
from caffecli.formats.atomic import read_bytes, replacing

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str] | None = None
) -> None:
    """Write ``arrays`` in their order, and ``texts`` as metadata. Raises FormatError."""
    with replacing(path) as file:
        for part in pieces(arrays, texts):
            file.write(part)


def pieces(arrays: Mapping[str, NDArray[Any]], texts: Mapping[str, str] | None = None) -> list[bytes]:
    """The file's bytes: its head, then each array's."""
    plain = {name: np.asarray(array, array.dtype.newbyteorder("<")) for name, array in arrays.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(texts or {})}}
    start = 0
    for name, array in plain.items():
        header[name] = {
            "dtype": _NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, start + array.nbytes],
        }
        start += array.nbytes
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)  # the arrays begin at a multiple of 8
    return [len(head).to_bytes(8, "little"), head, *(array.tobytes() for array in plain.values())]


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays, in the order of their bytes, and the texts. bfloat16 comes as float32.

    Raises FormatError for a file that is missing, damaged, or something else.
    """
    data = read_bytes(path)
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        if len(data) < 8 or end > len(data):
            raise ValueError("its header is cut off")
        header = json.loads(data[8:end])
        texts = header.pop("__metadata__", {})
        entries = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
        body = memoryview(data)[end:]
        if (entries[-1][1]["data_offsets"][1] if entries else 0) != len(body):
            raise ValueError("its arrays and its length do not agree")
        starts = [0, *(entry["data_offsets"][1] for _, entry in entries)]
        for (name, entry), start in zip(entries, starts, strict=False):
            if entry["data_offsets"][0] != start:
                raise ValueError(f"array {name!r} does not begin where the one before it ends")
        return {name: _array(body, name, entry) for name, entry in entries}, texts
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise FormatError(
            f"{str(path)!r} is not a safetensors file, or damaged: {error}; copy or download it again"
        ) from error


def _array(body: memoryview, name: str, entry: dict[str, Any]) -> NDArray[Any]:
    first, last = entry["data_offsets"]
    shape, dtype = tuple(entry["shape"]), entry["dtype"]
    if dtype != "BF16" and dtype not in _DTYPES:
        raise ValueError(f"array {name!r} is of {dtype}")
    kind = np.dtype("<u2" if dtype == "BF16" else _DTYPES[dtype])
    if last - first != math.prod(shape) * kind.itemsize:
        raise ValueError(f"array {name!r} of shape {shape} has {last - first} bytes")
    array: NDArray[Any] = np.frombuffer(body[first:last], kind).reshape(shape)
    return (array.astype("<u4") << 16).view("<f4") if dtype == "BF16" else array
