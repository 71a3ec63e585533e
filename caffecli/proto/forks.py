"""Fields that Caffe's forks add to its messages, each with the fork's own number.

caffe.proto has exactly the reference's fields. A text with a field of a fork is read by a wider schema, ``caffe.proto`` plus all
of ``FORKS``, and becomes a message of the plain one, in which those fields ride along as unknown ones, into caffemodels too::

    wide = widen(NetParameter, text)    # what to parse the text into; None where it has no fork's field
    plain = NetParameter.FromString(wide.SerializeToString())
    named(plain)                        # the wide message again: to print it, or to read ``named(layer_param).permute_param``

A number that the reference, or another fork, gives to another field is moved up by ``MOVED``. In files it stays the fork's, so
that the fork can read ours; there the layer's type says what the number means: ``read_net``, ``write_net``.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message import DecodeError, Message

from caffecli.proto import caffe_pb2
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.proto.fork_names import INSTEAD, REFUSED, REFUSED_TYPES, REFUSED_VALUES
from caffecli.proto.fork_schemas import FORKS

MOVED = 8_000_000

#: layer types whose settings a fork keeps under a number of the reference's: the reference's field, and the fork's
_TAKEN = {"Upsample": ("embed_param", "upsample_param"), "Interp": ("input_param", "interp_param")}

_ITEM = re.compile(
    r"(?P<close>\})|(?P<kind>message|enum|extend) (?P<name>\w+) \{"
    r"|(?P<label>optional|repeated) (?P<type>[\w.]+) (?P<field>\w+) = (?P<number>\d+)(?: \[default = (?P<default>\S+)\])?;"
    r"|(?P<value>\w+) = (?P<at>\d+);"
)
_SCALARS = {"bool", "bytes", "float", "int32", "string", "uint32"}


@functools.cache
def wide_file() -> FileDescriptorProto:
    """caffe.proto with all that the forks add."""
    file = FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    for schema in FORKS.values():
        _read(schema, file)
    return file


def _read(schema: str, file: FileDescriptorProto) -> None:
    """Add to ``file`` what a fork's schema says; types come before their use."""
    messages = {message.name: message for message in file.message_type}
    open_items: list[Any] = [file]
    for item in _ITEM.finditer(schema):
        inside = open_items[-1]
        if item["close"]:
            open_items.pop()
        elif item["kind"] == "extend":
            open_items.append(messages[item["name"]])
        elif item["kind"] == "message":
            messages[item["name"]] = file.message_type.add(name=item["name"])
            open_items.append(messages[item["name"]])
        elif item["kind"]:
            known = [enum for enum in inside.enum_type if enum.name == item["name"]]
            open_items.append(known[0] if known else inside.enum_type.add(name=item["name"]))
        elif item["label"]:
            _add_field(inside, item, item["type"] in messages)
        else:
            inside.value.add(name=item["value"], number=int(item["at"]))


def _add_field(message: DescriptorProto, item: re.Match[str], is_message: bool) -> None:
    taken = {field.number for field in message.field}
    number = int(item["number"])
    field = message.field.add(name=item["field"], number=number + MOVED if number in taken else number)
    field.label = FieldDescriptorProto.Label.Value(f"LABEL_{item['label'].upper()}")
    kind = item["type"] if item["type"] in _SCALARS else "message" if is_message else "enum"
    field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if kind in ("message", "enum"):
        field.type_name = f".caffe.{item['type']}"
    if item["default"]:
        field.default_value = item["default"]


@functools.cache
def _pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wide_file().SerializeToString())
    return pool


@functools.cache
def _wide_class(full_name: str) -> Any:
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full_name))


@functools.cache
def _mentions() -> re.Pattern[str]:
    """Where a text may have a field of a fork."""
    names = [
        field.name
        for message in wide_file().message_type
        if message.name in caffe_pb2.DESCRIPTOR.message_types_by_name
        for field in message.field
        if field.name not in caffe_pb2.DESCRIPTOR.message_types_by_name[message.name].fields_by_name
    ]
    return re.compile(rf"\b(?:{'|'.join(names)})\s*[:{{<]")


@functools.cache
def file_schema() -> FileDescriptorProto:
    """The wide schema but for the fields whose numbers a fork uses otherwise: those are bytes, as they stand in a file."""
    file = FileDescriptorProto()
    file.CopyFrom(wide_file())
    taken = {reference for reference, _ in _TAKEN.values()}
    layer = next(message for message in file.message_type if message.name == "LayerParameter")
    for field in layer.field:
        if field.name in taken:
            field.ClearField("type_name")
            field.type = FieldDescriptorProto.TYPE_BYTES
    return file


@functools.cache
def _file_net() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file_schema().SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def widen(message: Message, text: str) -> Message | None:
    """An empty message of ``message``'s type in the wide schema; None where ``text`` has no fork's field."""
    if message.DESCRIPTOR.file is not caffe_pb2.DESCRIPTOR or not _mentions().search(text):
        return None
    return _wide_class(message.DESCRIPTOR.full_name)()


def named(message: Message) -> Any:
    """The message in the wide schema, where the fields of forks have their names."""
    if message.DESCRIPTOR.file is not caffe_pb2.DESCRIPTOR:
        return message
    return _wide_class(message.DESCRIPTOR.full_name).FromString(message.SerializePartialToString())


def owner(message: str, field: str) -> str | None:
    """The forks that have this field, when it means nothing here."""
    return _joined(fork for fork, refused in REFUSED.items() if field in refused.get(message, "").split())


def instead(message: str, name: str) -> str | None:
    """What to write for a fork's field, or for a value of an enum, that has another name here."""
    return INSTEAD.get((message, name))


def value_owner(enum: str, value: str) -> str | None:
    """The forks that have this value, when it means nothing here."""
    return _joined(fork for fork, refused in REFUSED_VALUES.items() if value in refused.get(enum, "").split())


def type_owner(layer_type: str) -> str | None:
    """The forks that have this type of layer, when it is not here."""
    return _joined(fork for fork, refused in REFUSED_TYPES.items() if layer_type in refused.split())


def _joined(forks: Iterable[str]) -> str | None:
    return " and ".join(forks) or None


def read_net(data: bytes) -> NetParameter | None:
    """The net in a binary file of the reference or of any fork; None where it is none."""
    try:
        net = NetParameter.FromString(data)
        if all(layer.type not in _TAKEN for layer in net.layer):
            return net
        wide = _file_net().FromString(data)
        for layer in wide.layer:
            move_taken(layer)
    except DecodeError:
        return None
    return NetParameter.FromString(wide.SerializePartialToString())


def write_net(net: NetParameter) -> bytes:
    """The net as a binary file that the forks of its layers can read."""
    data = net.SerializeToString()
    if all(layer.type not in _TAKEN for layer in net.layer):
        return data
    wide = _file_net().FromString(data)
    for layer in wide.layer:
        move_back(layer)
    written: bytes = wide.SerializeToString()
    return written


def move_taken(layer: Any) -> None:
    """Move the settings of a fork's layer from the reference's number, as in files, to the one they have here.

    ``layer`` is a LayerParameter of ``file_schema``.
    """
    reference, ours = _TAKEN.get(layer.type, ("", ""))
    if reference and layer.HasField(reference):
        getattr(layer, ours).MergeFromString(getattr(layer, reference))
        layer.ClearField(reference)


def move_back(layer: Any) -> None:
    """The opposite of ``move_taken``, before a file is written."""
    reference, ours = _TAKEN.get(layer.type, ("", ""))
    if reference and layer.HasField(ours):
        setattr(layer, reference, getattr(layer, ours).SerializeToString())
        layer.ClearField(ours)
