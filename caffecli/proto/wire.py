"""Binary nets with the numbers of Caffe's forks, and with ours.

In memory each field has a number of its own. In files it has its fork's, and several forks give one number to
different fields. Which field a number in a file means is decided, in this order, by how its value is encoded; by the
layer's type (``Interp`` has its ``interp_param`` where ``Input`` has its ``input_param``); by the fork whose message it
stands in; by the forks to which the rest of the net points. Else it is the reference's field, or the first fork's.

``to_file`` gives a field its fork's number only where ``from_file`` will find the field again; else it keeps ours,
which forks step over. The table is ``fork_numbers.py``.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.proto.fork_numbers import FIELDS, HOMES, LAYERS, VALUES
from caffecli.proto.fork_types import TYPES
from caffecli.proto.forks import MOVED

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_WIRE = {
    FieldDescriptor.TYPE_DOUBLE: _FIXED64,
    FieldDescriptor.TYPE_FLOAT: _FIXED32,
    FieldDescriptor.TYPE_STRING: _BYTES,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_MESSAGE: _BYTES,
}
#: added to the number of a field of ours that would be read as another fork's
_ESCAPE = 400_000_000
#: forks whose binary nets have quite another form: their fields are supported in text only
_OTHER_FILES = {"c3d_v1"}
#: (fork, number here)
_Owner = tuple[str, int]


def from_file(data: bytes) -> bytes:
    """The NetParameter in a file of the reference or of any fork, with our numbers. Raises DecodeError."""
    made = _Rewrite(data, writing=False).message(0, len(data), _Place(NetParameter.DESCRIPTOR))
    return data if made is None else made


def to_file(data: bytes) -> bytes:
    """The bytes of a NetParameter with its forks' numbers: the inverse of ``from_file``.

    Where ``from_file`` would read one of the fields as another, all fields of forks keep our numbers.
    """
    rewrite = _Rewrite(data, writing=True)
    made = rewrite.message(0, len(data), _Place(NetParameter.DESCRIPTOR)) or data
    if rewrite.has_counted and rewrite.signs and from_file(made) != data and _parsed(from_file(made)) != _parsed(data):
        made = _Rewrite(data, writing=True, ours=True).message(0, len(data), _Place(NetParameter.DESCRIPTOR)) or data
    return made


def _parsed(data: bytes) -> NetParameter:
    return NetParameter.FromString(data)


def read_net(data: bytes) -> NetParameter | None:
    """The net in a binary file of the reference or of any fork; None where it is none."""
    try:
        return NetParameter.FromString(from_file(data))
    except DecodeError:
        return None


def write_net(net: NetParameter) -> bytes:
    """The net as a binary file that the forks of its layers can read."""
    return to_file(net.SerializeToString())


def pieces(data: bytes) -> list[bytes]:
    """The fields of a binary message, each with its number. Raises DecodeError."""
    return [data[begin:stop] for _, _, begin, _, stop in _fields(data, 0, len(data))]


def enclosed(number: int, data: bytes) -> bytes:
    """A binary message as the field of that number of another."""
    return _varint(number << 3 | _BYTES) + _varint(len(data)) + data


class _Place(NamedTuple):
    """Where a field stands: its message, the fork that defines it ("":
    the reference), and the layer's extent in bytes.
    """

    message: Descriptor
    fork: str = ""
    layer: tuple[int, int] | None = None


class _Rewrite:
    """Rewrites a binary net with other field numbers."""

    def __init__(self, data: bytes, writing: bool, ours: bool = False) -> None:
        self.data = data
        self.writing = writing
        self.ours = ours
        #: serialized messages that need no change, each with its fork: a cache, as most fillers of a net are alike
        self._unchanged: set[tuple[Descriptor, str, bytes]] = set()
        #: serialized messages without a sign of any fork: a cache
        self._silent: set[tuple[Descriptor, bytes]] = set()

    @property
    def has_counted(self) -> bool:
        """Whether ``signs`` has been used: whether the result depends on the rest of the net."""
        return "signs" in self.__dict__

    @functools.cached_property
    def signs(self) -> Counter[str]:
        """By fork, how many fields and types in the net only this fork has."""
        found: Counter[str] = Counter()
        self._count(0, len(self.data), NetParameter.DESCRIPTOR, found)
        return found

    def _count(self, start: int, end: int, message: Descriptor, found: Counter[str]) -> None:
        schema = _schema(message)
        types = _forks_of_type() if message is LayerParameter.DESCRIPTOR else {}
        for number, wire, _, value, stop in _fields(self.data, start, end):
            here = number
            if number in schema.numbers or number in schema.places:
                owners = schema.owners(schema.file_number(number), wire)
                if len(owners) == 1 and owners[0][0]:
                    found[owners[0][0]] += 1
                if len({each for _, each in owners}) > 1:
                    continue
                here = owners[0][1] if owners else number
            elif types and number == LayerParameter.TYPE_FIELD_NUMBER:
                for fork in types.get(_text(self.data[value:stop]), ()):
                    found[fork] += 1
            inner = schema.content(here)
            if wire == _BYTES and isinstance(inner, Descriptor):
                piece = (inner, self.data[value:stop])
                if piece not in self._silent:
                    before = found.total()
                    self._count(value, stop, inner, found)
                    if found.total() == before:
                        self._silent.add(piece)

    def message(self, start: int, end: int, place: _Place) -> bytes | None:
        """The message between two offsets, rewritten; None where it stays as it is."""
        pieces: list[bytes] = []
        done = start
        if place.message is LayerParameter.DESCRIPTOR:
            place = _Place(place.message, layer=(start, end))
        schema = _schema(place.message)
        for number, wire, tag, value, stop in _fields(self.data, start, end):
            if number not in schema.numbers and number not in schema.places and number < _ESCAPE:
                inner = schema.content(number)
                if inner is None or (inner, "", self.data[value:stop]) in self._unchanged:
                    continue
            in_file = self._number(number, wire, place) if self.writing else number
            here, fork = self._meaning(in_file, wire, place)
            new = in_file if self.writing else here
            home = HOMES.get((schema.name, fork, in_file), fork) if fork else ""
            made = self._value(schema, here, wire, value, stop, place._replace(fork=home))
            if new == number and made is None:
                continue
            if made is None:
                made = self.data[value:stop]
            size = _varint(len(made)) if wire == _BYTES else b""
            pieces += [self.data[done:tag], _varint(new << 3 | wire), size, made]
            done = stop
        return b"".join([*pieces, self.data[done:end]]) if pieces else None

    def _value(self, schema: _Schema, here: int, wire: int, start: int, end: int, place: _Place) -> bytes | None:
        """The encoded value of a field, rewritten; None where it stays as it is."""
        inner = schema.content(here)
        if wire == _BYTES and isinstance(inner, Descriptor):
            same = (inner, place.fork, self.data[start:end])
            if same in self._unchanged:
                return None
            made = self.message(start, end, _Place(inner, place.fork))
            if made is None:
                self._unchanged.add(same)
            return made
        if wire == _VARINT and isinstance(inner, str):
            old = _read_varint(self.data, start)[0]
            new = self._file_value(inner, old, place.fork) if self.writing else self._enum_value(inner, old, place.fork)
            return None if new == old else _varint(new)
        return None

    def _meaning(self, number: int, wire: int, place: _Place) -> tuple[int, str]:
        """The number here of a field in a file, and the fork whose field it is."""
        if number >= _ESCAPE:
            return number - _ESCAPE, ""
        schema = _schema(place.message)
        owners = schema.owners(number, wire)
        if len(owners) > 1 and place.layer is not None:
            layer_type = _layer_type(self.data, *place.layer).lower()
            owners = [each for each in owners if layer_type in schema.layer_types(each[1])] or owners
        fork, here = self._likely(owners, place.fork, number)
        return here, fork

    def _likely(self, owners: list[_Owner], fork: str, number: int) -> _Owner:
        """Of the forks that use a number, the one that is meant in a message of ``fork``."""
        if len(owners) > 1:
            owners = [each for each in owners if fork and each[0] == fork] or owners
        if len(owners) > 1:
            owners = sorted(owners, key=lambda each: (-self.signs[each[0]], each[1] != number))
        return owners[0] if owners else ("", number)

    def _number(self, here: int, wire: int, place: _Place) -> int:
        """The number in a file of one of our fields."""
        schema = _schema(place.message)
        places = schema.places.get(here)
        if places is None:
            return here
        if self.ours:
            return here + _ESCAPE
        if any(number != places[0][1] for _, number in places):
            places = sorted(places, key=lambda each: (each[0] != place.fork, -self.signs[each[0]], each[1] != here))
        for _, number in (*places, ("", here)):
            if self._meaning(number, wire, place)[0] == here:
                return number
        return here + _ESCAPE

    def _enum_value(self, enum: str, number: int, fork: str) -> int:
        """The value here of an enum's value in a file."""
        if number >= _ESCAPE:
            return number - _ESCAPE
        return self._likely(list(VALUES[enum].get(number, ())), fork, number)[1]

    def _file_value(self, enum: str, here: int, fork: str) -> int:
        """The value in a file of an enum's value of ours."""
        if self.ours:
            return here + _ESCAPE
        known = [number for number, owners in VALUES[enum].items() if any(value == here for _, value in owners)]
        return next((number for number in known if self._enum_value(enum, number, fork) == here), here)


class _Schema:
    """What the table and the descriptor say of a message's fields, computed when first needed."""

    def __init__(self, message: Descriptor) -> None:
        self.name = message.full_name.removeprefix("caffe.")
        self.message = message
        kept = {
            n: tuple(own for own in owners if own[0] not in _OTHER_FILES)
            for n, owners in FIELDS.get(self.name, {}).items()
        }
        self.numbers = {number: owners for number, owners in kept.items() if any(fork for fork, _ in owners)}
        #: number here -> (fork, number in its files), where the table has either
        self.places: dict[int, list[_Owner]] = {}
        for number, owners in self.numbers.items():
            for fork, here in owners:
                self.places.setdefault(here, []).append((fork, number))
        for here, places in self.places.items():
            if here < MOVED and ("", here) not in places:
                places.append(("", here))
        self._content: dict[int, Descriptor | str | None] = {}

    def file_number(self, number: int) -> int:
        """The number in its fork's files of a field that has another here."""
        moved = number >= MOVED and number not in self.numbers and number in self.places
        return self.places[number][0][1] if moved else number

    def owners(self, number: int, wire: int) -> list[_Owner]:
        """The forks that use a number for a field of this encoding, each with the field's number here."""
        return [each for each in self.numbers.get(number, ()) if wire in self._wires(each[1])]

    def content(self, here: int) -> Descriptor | str | None:
        """The message that a field holds, or the enum, by name, where the table may have something to say of it."""
        if here not in self._content:
            field = self.message.fields_by_number.get(here)
            found: Descriptor | str | None = None
            if field is not None and field.message_type is not None and _matters(field.message_type):
                found = field.message_type
            elif field is not None and field.enum_type is not None:
                name = field.enum_type.full_name.removeprefix("caffe.")
                found = name if name in VALUES else None
            self._content[here] = found
        return self._content[here]

    def layer_types(self, here: int) -> set[str]:
        """The types of layer, in small letters, whose settings a field holds."""
        field = self.message.fields_by_number[here]
        if field.message_type is None:
            return set()
        names = {
            field.name.removesuffix("_param").replace("_", ""),
            field.message_type.name.removesuffix("Parameter").lower(),
        }
        return names | {each.lower() for each in LAYERS.get(field.name, ())}

    def _wires(self, here: int) -> tuple[int, ...]:
        field = self.message.fields_by_number[here]
        wire = _WIRE.get(field.type, _VARINT)
        return (wire, _BYTES) if _is_repeated(field) else (wire,)


@functools.cache
def _matters(message: Descriptor) -> bool:
    """Whether a message, or one in it, has numbers of forks.

    Blobs are left alone: they are large; none of theirs clash.
    """
    if message.name in ("BlobProto", "BlobShape"):
        return False
    if message.full_name.removeprefix("caffe.") in FIELDS or message.name == "NetParameter":
        return True
    return any(
        _matters(field.message_type)
        if field.message_type is not None
        else field.enum_type is not None and field.enum_type.full_name.removeprefix("caffe.") in VALUES
        for field in message.fields
    )


@functools.cache
def _schema(message: Descriptor) -> _Schema:
    return _Schema(message)


@functools.cache
def _forks_of_type() -> dict[str, list[str]]:
    """The fork of each type that only one fork has."""
    forks: dict[str, list[str]] = {}
    for fork, names in TYPES.items():
        for name in names.split():
            forks.setdefault(name, []).append(fork)
    return {name: each for name, each in forks.items() if len(each) == 1}


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED)


def _layer_type(data: bytes, start: int, end: int) -> str:
    found = (
        data[v:s]
        for n, w, _, v, s in _fields(data, start, end)
        if n == LayerParameter.TYPE_FIELD_NUMBER and w == _BYTES
    )
    return _text(next(found, b""))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Of each field: number, wire type, and where its tag, its value and what comes after begin. Raises DecodeError."""
    size = len(data)
    while start < end:
        key, at = data[start], start + 1
        if key > 0x7F:
            key, at = _read_varint(data, start)
        wire = key & 7
        if wire == _BYTES:
            length, at = _read_varint(data, at)
            stop = at + length
        elif wire == _VARINT:
            stop = at + 1 if at < size and data[at] < 0x80 else _read_varint(data, at)[1]
        elif wire in _SIZES:
            stop = at + _SIZES[wire]
        else:
            raise DecodeError(f"no message has the wire type {wire}")
        if stop > end:
            raise DecodeError("a field ends after its message")
        yield key >> 3, wire, start, at, stop
        start = stop


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
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


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
