"""Binary nets with the numbers of Caffe's forks, and with ours.

In memory each field has a number of its own. In files it has its fork's, and several forks give one number to
different fields. Which field a number in a file means is decided, in this order, by how its value is encoded; by the
layer's type (``Interp`` has its ``interp_param`` where ``Input`` has its ``input_param``); by whether the content fits;
by the fork whose message it stands in; by the forks to which the rest of the net points. Else it is the reference's
field. Where the reference has none and nothing tells the forks' apart, it stays unknown: its bytes are kept, under a
number that is nobody's, and written as they came.

``to_file`` gives a field the number of the fork that the net shows, or of the field's own fork, where ``from_file``
will find the field again; else it keeps ours, which forks step over. The table is ``fork_numbers.py``.
"""

from __future__ import annotations

import functools
from collections import Counter
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError

from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.proto.encoding import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    fields,
    read_varint,
    varint,
)
from caffecli.proto.fork_numbers import FIELDS, HOMES, LAYERS, VALUES
from caffecli.proto.forks import FORKS, MOVED, forks_of_types

_WIRE = {
    FieldDescriptor.TYPE_DOUBLE: FIXED64,
    FieldDescriptor.TYPE_FLOAT: FIXED32,
    FieldDescriptor.TYPE_STRING: BYTES,
    FieldDescriptor.TYPE_BYTES: BYTES,
    FieldDescriptor.TYPE_MESSAGE: BYTES,
}
#: added to the number of a field of ours that would be read as another fork's
_ESCAPE = 400_000_000
#: added to a number in a file of which nothing tells whose it is
_UNKNOWN = 200_000_000
#: forks whose nets show that number 13 of a pooling is ceil_mode: they took it from a pull request, before round_mode
_RELATED = {"ceil_mode": ("caffe_model", "rfcn", "cascade_rcnn")}
#: forks whose binary nets have quite another form: their fields are supported in text only
_OTHER_FILES = {"c3d_v1"}
_ORDER = {fork: at for at, fork in enumerate(("", *FORKS))}
#: (fork, number here)
_Owner = tuple[str, int]


def from_file(data: bytes) -> bytes:
    """The NetParameter in a file of the reference or of any fork, with our numbers. Raises DecodeError."""
    made = _Rewrite(data, writing=False).message(0, len(data), _Place(NetParameter.DESCRIPTOR))
    return data if made is None else made


def to_file(data: bytes) -> bytes:
    """The bytes of a NetParameter with its forks' numbers: the inverse of ``from_file``.

    The net's signs in memory choose the numbers; then those that ``from_file`` finds in what is written, as numbers are
    signs too. Where ``from_file`` would read one of the fields as another, all fields of forks keep our numbers.
    """
    signs: _Signs | None = None
    best: bytes | None = None
    for _ in range(3):
        rewrite = _Rewrite(data, writing=True, signs=signs)
        made = rewrite.message(0, len(data), _Place(NetParameter.DESCRIPTOR)) or data
        if not rewrite.has_counted:
            return made
        reader = _Rewrite(made, writing=False)
        read = reader.message(0, len(made), _Place(NetParameter.DESCRIPTOR)) or made
        same = read == data or _parsed(read) == _parsed(data)
        if made == best or (not same and best is not None):
            return best
        best = made if same else None
        signs = reader.signs
    return (
        best or _Rewrite(data, writing=True, ours=True).message(0, len(data), _Place(NetParameter.DESCRIPTOR)) or data
    )


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
    return to_file(net.SerializePartialToString())  # a fork's field may have been taken for one with required fields


class _Place(NamedTuple):
    """Where a field stands: its message, the fork that defines it ("":
    the reference), and the layer's extent in bytes.
    """

    message: Descriptor
    fork: str = ""
    layer: tuple[int, int] | None = None


class _Rewrite:
    """Rewrites a binary net with other field numbers."""

    def __init__(self, data: bytes, writing: bool, ours: bool = False, signs: _Signs | None = None) -> None:
        self.data = data
        self.writing = writing
        self.ours = ours
        if signs is not None:
            self.signs = signs
        #: serialized messages that need no change, each with its fork: a cache, as most fillers of a net are alike
        self._unchanged: set[tuple[Descriptor, str, bytes]] = set()
        #: serialized messages, each with its fork, in which signs have been looked for
        self._searched: set[tuple[Descriptor, str, bytes]] = set()

    @property
    def has_counted(self) -> bool:
        """Whether ``signs`` has been used: whether the result depends on the rest of the net."""
        return "signs" in self.__dict__

    @functools.cached_property
    def signs(self) -> _Signs:
        """The forks to which the net points."""
        found: set[tuple[str, frozenset[str]]] = set()
        self._find_signs(0, len(self.data), _Place(NetParameter.DESCRIPTOR), found)
        return _Signs(found)

    def _find_signs(self, start: int, end: int, place: _Place, found: set[tuple[str, frozenset[str]]]) -> None:
        """Add each field and type that only some forks have, with these forks."""
        message = place.message
        schema = _schema(message)
        types = forks_of_types() if message is LayerParameter.DESCRIPTOR else {}
        if types:
            place = place._replace(layer=(start, end))
        for number, wire, _, value, stop in fields(self.data, start, end):
            here, home = number, place.fork
            if number in schema.numbers or number in schema.places:
                owners = self._owners(number, wire, value, stop, place)
                if owners and all(fork for fork, _ in owners):
                    if not self._is_sign(owners, number, wire, place):
                        continue
                    found.add((f"{schema.name}.{number}", frozenset(fork for fork, _ in owners)))
                if len({each for _, each in owners}) > 1:
                    continue
                here = owners[0][1] if owners else number
                homes = {schema.home(fork, here) for fork, _ in owners}
                home = homes.pop() if len(homes) == 1 else ""
            elif types and number == LayerParameter.TYPE_FIELD_NUMBER:
                name = _text(self.data[value:stop])
                if name in types:
                    found.add((name, types[name]))
            inner = schema.content(here)
            if wire == BYTES and isinstance(inner, Descriptor):
                piece = (inner, home, self.data[value:stop])
                if piece not in self._searched:
                    self._searched.add(piece)
                    self._find_signs(value, stop, _Place(inner, home), found)

    def _is_sign(self, owners: list[_Owner], number: int, wire: int, place: _Place) -> bool:
        """Whether more than the content says that a layer's field is these forks'."""
        schema = _schema(place.message)
        if self.writing or place.layer is None or len({here for _, here in schema.owners(number, wire)}) < 2:
            return True
        return _layer_type(self.data, *place.layer).lower() in schema.layer_types(owners[0][1])

    def _owners(self, number: int, wire: int, value: int, stop: int, place: _Place) -> list[_Owner]:
        """The forks whose field it can be, by all but the net's signs, each with the field's number here."""
        schema = _schema(place.message)
        if self.writing:
            here = number
            owners = [(fork, here) for fork, _ in schema.places.get(here, ())]
        else:
            owners = self._fitting(schema.owners(number, wire), wire, value, stop, place)
        return [each for each in owners if place.fork and each[0] == place.fork] or owners

    def _fitting(self, owners: list[_Owner], wire: int, value: int, stop: int, place: _Place) -> list[_Owner]:
        """Those whose field is of the layer's type, and holds what the content is, as far as there are any."""
        schema = _schema(place.message)
        if len({here for _, here in owners}) > 1 and place.layer is not None:
            layer_type = _layer_type(self.data, *place.layer).lower()
            typed = [each for each in owners if layer_type in schema.layer_types(each[1])]
            if not typed:  # those that are of no type, as a layer's engine
                typed = [each for each in owners if each[0] == "" or not schema.layer_types(each[1])]
                typed = [each for each in typed if self._fits(schema, each, wire, value, stop)]
            owners = typed or owners
        if len(owners) > 1:
            owners = [each for each in owners if self._fits(schema, each, wire, value, stop)] or owners
        return owners

    def _fits(self, schema: _Schema, owner: _Owner, wire: int, value: int, stop: int) -> bool:
        """Whether the content of a field in a file can be that of a fork's."""
        field = schema.message.fields_by_number[owner[1]]
        if wire == BYTES and field.type == FieldDescriptor.TYPE_STRING:
            return _text(self.data[value:stop]).isprintable()
        if wire != BYTES or field.message_type is None or field.message_type.name == "BlobProto":
            return True
        forks = {"", owner[0], schema.home(*owner)}
        inner = _schema(field.message_type)
        seen: set[tuple[int, int]] = set()  # numbers: one of them says as much as all of a long list
        try:
            for number, each_wire, _, start, end in fields(self.data, value, stop):
                if (number, each_wire) in seen:
                    continue
                if each_wire != BYTES:
                    seen.add((number, each_wire))
                owners = inner.owners(number, each_wire)
                if len({here for _, here in inner.numbers.get(number, ())}) > 1:
                    owners = [each for each in owners if each[0] in forks]
                elif number in inner.message.fields_by_number and each_wire in inner.wires(number):
                    owners = owners or [("", number)]
                if not any(self._fits(inner, (each[0] or owner[0], each[1]), each_wire, start, end) for each in owners):
                    return False
        except DecodeError:
            return False
        return True

    def message(self, start: int, end: int, place: _Place) -> bytes | None:
        """The message between two offsets, rewritten; None where it stays as it is."""
        pieces: list[bytes] = []
        done = start
        if place.message is LayerParameter.DESCRIPTOR:
            place = _Place(place.message, layer=(start, end))
        schema = _schema(place.message)
        for number, wire, tag, value, stop in fields(self.data, start, end):
            if number not in schema.numbers and number not in schema.places and number < _UNKNOWN:
                inner = schema.content(number)
                if inner is None or (inner, "", self.data[value:stop]) in self._unchanged:
                    continue
            elif number in schema.plain and not self.ours:
                continue
            if self.writing:
                new, fork = self._number(number, wire, value, stop, place)
                here = number
            else:
                here, fork = self._meaning(number, wire, value, stop, place)
                new = here
            home = schema.home(fork, here)
            made = self._value(schema, here, wire, value, stop, place._replace(fork=home))
            if new == number and made is None:
                continue
            if made is None:
                made = self.data[value:stop]
            size = varint(len(made)) if wire == BYTES else b""
            pieces += [self.data[done:tag], varint(new << 3 | wire), size, made]
            done = stop
        return b"".join([*pieces, self.data[done:end]]) if pieces else None

    def _value(self, schema: _Schema, here: int, wire: int, start: int, end: int, place: _Place) -> bytes | None:
        """The encoded value of a field, rewritten; None where it stays as it is."""
        inner = schema.content(here)
        if wire == BYTES and isinstance(inner, Descriptor):
            same = (inner, place.fork, self.data[start:end])
            if same in self._unchanged:
                return None
            made = self.message(start, end, _Place(inner, place.fork))
            if made is None:
                self._unchanged.add(same)
            return made
        if wire == VARINT and isinstance(inner, str):
            old = read_varint(self.data, start)[0]
            new = self._file_value(inner, old, place.fork) if self.writing else self._enum_value(inner, old, place.fork)
            return None if new == old else varint(new)
        return None

    def _meaning(self, number: int, wire: int, value: int, stop: int, place: _Place) -> tuple[int, str]:
        """The number here of a field in a file, and the fork whose field it is."""
        if number >= _ESCAPE:
            return number - _ESCAPE, ""
        schema = _schema(place.message)
        owners = self._fitting(schema.owners(number, wire), wire, value, stop, place)
        fork, here = self._likely(owners, place.fork, number)
        if self._unclear(owners, fork, here, place):
            return number + _UNKNOWN, ""
        if fork and place.layer is not None and schema.layer_types(here):
            layer_type = _layer_type(self.data, *place.layer)
            known = layer_type.lower() in schema.layer_types(here) or self.signs.strong(fork)
            known = known or bool({fork, schema.home(fork, here)} & forks_of_types().get(layer_type, frozenset()))
            several = len({each for _, each in schema.owners(number, wire)}) > 1
            if not known and (several or not self._fits(schema, (fork, here), wire, value, stop)):
                return number + _UNKNOWN, ""
        return here, fork

    def _unclear(self, owners: list[_Owner], fork: str, here: int, place: _Place) -> bool:
        """Whether a field is as likely another fork's."""
        others = [each for each, number in owners if number != here]
        return bool(fork and fork != place.fork) and any(
            self.signs.rank(each) <= self.signs.rank(fork) for each in others
        )

    def _likely(self, owners: list[_Owner], fork: str, number: int) -> _Owner:
        """Of the forks that use a number, the one that is meant in a message of ``fork``."""
        if len(owners) > 1:
            owners = [each for each in owners if fork and each[0] == fork] or owners
        if len(owners) > 1:
            owners = sorted(owners, key=lambda each: (*self.signs.rank(each[0]), each[1] != number))
        return owners[0] if owners else ("", number)

    def _number(self, here: int, wire: int, value: int, stop: int, place: _Place) -> tuple[int, str]:
        """The number in a file of one of our fields, and the fork whose it is."""
        schema = _schema(place.message)
        places = schema.places.get(here)
        if _UNKNOWN <= here < _ESCAPE:
            back = here - _UNKNOWN
            return (back, "") if self._meaning(back, wire, value, stop, place)[0] == here else (here, "")
        if places is None:
            return here, ""
        if self.ours:
            return here + _ESCAPE, ""
        if len({number for _, number in places}) > 1 or (len(places) > 1 and schema.content(here) is not None):
            places = [each for each in places if self._has(schema, each[0], here, wire, value, stop)] or places
            places = sorted(
                places, key=lambda each: (each[0] != place.fork, *self.signs.rank(each[0]), each[1] != here)
            )
        for fork, number in (*places, ("", here)):
            if self._reads_as(number, fork, here, wire, place):
                return number, fork
        return here + _ESCAPE, ""

    def _has(self, schema: _Schema, fork: str, here: int, wire: int, value: int, stop: int) -> bool:
        """Whether a fork has all the fields that a field of it holds, with our numbers."""
        message = schema.message.fields_by_number[here].message_type
        if wire != BYTES or message is None:
            return True
        inner = _schema(message)
        home = schema.home(fork, here)
        for number, each_wire, _, start, end in fields(self.data, value, stop):
            owners = {each for each, _ in inner.places.get(number, ())}
            if owners and not owners & {"", fork, home}:
                return False
            if number in message.fields_by_number and not self._has(inner, home, number, each_wire, start, end):
                return False
        return True

    def _reads_as(self, number: int, fork: str, here: int, wire: int, place: _Place) -> bool:
        """Whether a field of a fork, with its number in a file, will be read as the one here."""
        schema = _schema(place.message)
        owners = schema.owners(number, wire)
        if place.layer is not None and len(owners) > 1:
            layer_type = _layer_type(self.data, *place.layer).lower()
            owners = [each for each in owners if layer_type in schema.layer_types(each[1])] or owners
        chosen, meant = self._likely(owners, place.fork, number)
        return meant == here and not self._unclear(owners, chosen, meant, place)

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


class _Signs:
    """The forks to which a net points: by the fields and types that only they have."""

    def __init__(self, found: set[tuple[str, frozenset[str]]]) -> None:
        self._alone: Counter[str] = Counter()
        self._shared: dict[str, float] = {}
        for _, forks in found:
            for fork in forks:
                if len(forks) == 1:
                    self._alone[fork] += 1
                self._shared[fork] = self._shared.get(fork, 0) + 1 / len(forks)

    def strong(self, fork: str) -> int:
        """How many fields and types in the net only this fork has."""
        return self._alone[fork] + sum(self._alone[each] for each in _RELATED.get(fork, ()))

    def rank(self, fork: str) -> tuple[int, bool, float]:
        """The smaller, the likelier is the fork. The reference comes after forks with signs of their own."""
        return -self.strong(fork), fork != "", -self._shared.get(fork, 0)


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
            places.sort(key=lambda each: _ORDER[each[0]])
            if here < MOVED and all(number != here for _, number in places):
                places.append(("", here))
        self._content: dict[int, Descriptor | str | None] = {}
        #: numbers that are one field's, in all files and here, whose value has nothing to rewrite
        self.plain = {
            number
            for number, owners in self.numbers.items()
            if {here for _, here in owners} == {number}
            and all(each == number for _, each in self.places[number])
            and self.content(number) is None
        }

    def home(self, fork: str, here: int) -> str:
        """The fork whose message a field of a fork holds."""
        number = next((number for each, number in self.places.get(here, ()) if each == fork), here)
        return HOMES.get((self.name, fork, number), fork) if fork else ""

    def owners(self, number: int, wire: int) -> list[_Owner]:
        """The forks that use a number for a field of this encoding, each with the field's number here."""
        return [each for each in self.numbers.get(number, ()) if wire in self.wires(each[1])]

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

    def wires(self, here: int) -> tuple[int, ...]:
        field = self.message.fields_by_number[here]
        wire = _WIRE.get(field.type, VARINT)
        return (wire, BYTES) if _is_repeated(field) else (wire,)


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


def _is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == FieldDescriptor.LABEL_REPEATED)


def _layer_type(data: bytes, start: int, end: int) -> str:
    found = (
        data[v:s] for n, w, _, v, s in fields(data, start, end) if n == LayerParameter.TYPE_FIELD_NUMBER and w == BYTES
    )
    return _text(next(found, b""))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
