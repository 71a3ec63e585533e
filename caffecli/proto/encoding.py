"""Protobuf's wire format: the fields of a message, one after another, without a schema; texts that are no UTF-8."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from google.protobuf.message import DecodeError, Message

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
SIZES = {FIXED64: 8, FIXED32: 4}

_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")


def pieces(data: bytes) -> list[bytes]:
    """The fields of a binary message, each with its number. Raises DecodeError."""
    return [data[begin:stop] for _, _, begin, _, stop in fields(data, 0, len(data))]


def enclosed(number: int, data: bytes) -> bytes:
    """A binary message as the field of that number of another."""
    return varint(number << 3 | BYTES) + varint(len(data)) + data


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each field: number, wire type, and where its tag, its value and what comes after begin. Raises DecodeError."""
    size = len(data)
    while start < end:
        key, at = data[start], start + 1
        if key > 0x7F:
            key, at = read_varint(data, start)
        wire = key & 7
        if wire == BYTES:
            length, at = read_varint(data, at)
            stop = at + length
        elif wire == VARINT:
            stop = at + 1 if at < size and data[at] < 0x80 else read_varint(data, at)[1]
        elif wire in SIZES:
            stop = at + SIZES[wire]
        else:
            raise DecodeError(f"no message has the wire type {wire}")
        if stop > end:
            raise DecodeError("a field ends after its message")
        yield key >> 3, wire, start, at, stop
        start = stop


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A number, and what comes after it."""
    if at < len(data) and data[at] < 0x80:
        return data[at], at + 1
    value = shift = 0
    while shift < 70 and at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
    raise DecodeError("a number does not end")


def varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def as_text(data: bytes) -> tuple[str, str]:
    """Bytes as a text, and the encoding's name: UTF-8; else GBK if those beyond ASCII come in pairs, else Latin-1."""
    with contextlib.suppress(UnicodeDecodeError):
        return data.decode(), "UTF-8"
    if all(len(run) % 2 == 0 for run in _BEYOND_ASCII.findall(data)):
        with contextlib.suppress(UnicodeDecodeError):
            return data.decode("gb18030"), "GBK"
    return data.decode("latin-1"), "Latin-1"


def repair_texts(message: Message) -> None:
    """Make texts of those fields of a message, and of the messages in it, that are read as bytes, being no UTF-8."""
    for field, value in message.ListFields():
        many = field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED
        if field.type == field.TYPE_MESSAGE:
            for inner in value if many else (value,):
                repair_texts(inner)
        elif field.type == field.TYPE_STRING and many and any(isinstance(one, bytes) for one in value):
            value[:] = [as_text(one)[0] if isinstance(one, bytes) else one for one in value]
        elif field.type == field.TYPE_STRING and isinstance(value, bytes):
            setattr(message, field.name, as_text(value)[0])
