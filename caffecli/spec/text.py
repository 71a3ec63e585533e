"""Prototxts: protobuf's text format, read and written as Caffe does.

``parse`` and ``read`` raise SpecError, which says ``file:line:col: what``, and the known name that was probably meant.
``format`` prints as the reference's logs and upgrade tools do: fields by number, floats in the fewest digits that read
back the same.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.host import check_file
from caffecli.proto import caffe_pb2, encoding, forks
from caffecli.spec.instead import INSTEAD
from caffecli.spec.upgrade_v1 import TYPE_NAMES
from caffecli.wording import did_you_mean

M = TypeVar("M", bound=Message)

#: strings and comments, which the searches below skip
_SKIP = r"\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*"
_COMMENT = re.compile(r"(\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*')|#[^\n]*")
_BRACE = re.compile(rf"{_SKIP}|([{{}}<>])")
_SIZES = re.compile(rf"{_SKIP}|\b(transform_param)\s*:?\s*[{{<]|\b(resize_param)\b|([{{<])|([}}>])")
_LONE_MINUS = re.compile(rf"({_SKIP})|-(\s+)(?=[\d.]|inf|nan)")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")
#: the beginnings of protobuf's errors, and what was expected ("": protobuf's words are kept)
_EXPECTED = {
    "Expected identifier": "a field's name",
    "Couldn't parse (?:float|double)|Invalid octal float": "a number",
    "Couldn't parse integer": "a whole number",
    "Expected string": "a text in quotes",
    r'Expected (".*")\.': "",
}
#: the kind of file that holds a message
_FILES: dict[Any, str] = {
    caffe_pb2.NetParameter: "net",
    caffe_pb2.SolverParameter: "solver",
    caffe_pb2.LabelMap: "label map",
}
#: fields that hold messages of which nothing is known
_UNREAD = {
    field.name
    for message in (caffe_pb2.LayerParameter, caffe_pb2.V1LayerParameter)
    for field in message.DESCRIPTOR.fields
    if field.message_type is caffe_pb2.Unread.DESCRIPTOR
}
_BEGINS_UNREAD = re.compile(rf"{_SKIP}|\b({'|'.join(sorted(_UNREAD))})\s*:?\s*[{{<]")
#: a field that is given a list, or the part of one in this line
_LIST = re.compile(r"\b(?P<name>\w+)\s*:\s*(?P<list>\[[^\]]*)")
_TOKEN = re.compile(r"[\w.+-]+|\"[^\"]*\"?|'[^']*'?|\S")


def read(path: str | os.PathLike[str], message_type: type[M]) -> M:
    """The message in a prototxt file.

    Raises SpecError when the file cannot be read, is no text, is empty, or does not hold such a message.
    """
    try:
        check_file(os.fsdecode(path))
        data = Path(os.fsdecode(path)).read_bytes()
    except IsADirectoryError:
        raise SpecError(f"cannot read {str(path)!r}: it is a folder; give a prototxt file") from None
    except ValueError as error:  # a NUL in the name
        raise SpecError(f"cannot read {str(path)!r}: {error}; check the path") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise SpecError(f"cannot read {str(path)!r}: {why}; check the path") from None
    name = message_type.DESCRIPTOR.name
    if _CONTROL.search(data[: 1 << 16]):
        raise SpecError(f"{str(path)!r} is a binary file; expected a prototxt, the text of a {name}")
    message = parse(_decode(data, str(path)), message_type(), str(path))
    if not message.ListFields():
        raise SpecError(f"{str(path)!r} is empty; expected a prototxt, the text of a {name}")
    return message


def parse(text: str, message: M, name: str = "<string>") -> M:
    """Fill ``message`` from a text, and return it. ``name`` stands for the file in errors. Raises SpecError."""
    # C++ reads `- 1` as -1, Python does not; columns stay
    text = _LONE_MINUS.sub(lambda found: found[1] or found[2] + "-", text)
    if text.count("resize_param") > 1:
        text = _with_other_sizes(text)
    if any(field in text for field in _UNREAD):
        text = _without_unread(text, name)
    try:
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        line, column, what = _explain(error, text, message.DESCRIPTOR)
        raise SpecError(f"{name}:{line}:{column}: {what}") from None
    except RecursionError:
        raise SpecError(f"{name}: messages are nested too deep") from None
    if not message.IsInitialized():
        raise SpecError(f"{name}: required field(s) are missing: {', '.join(message.FindInitializationErrors())}")
    return message


def format(message: Message) -> str:
    """The message as text, a field to a line."""
    return "".join(f"{line}\n" for line in _lines(message, ""))


def _decode(data: bytes, name: str) -> str:
    """The text of a file. Comments may be in any encoding, as C++ skips them; the rest is UTF-8.

    Where it is not, it is taken for GBK if its bytes beyond ASCII come in pairs, else for Latin-1, with a word.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = _COMMENT.sub(lambda found: found[1] or "", data.decode("utf-8-sig", "replace"))
        at = text.find("\ufffd")
        if at < 0:
            return text
    decoded, title = encoding.as_text(data)
    line, column = _place(text, at)
    logs.warning("io.cpp:36", f"{name}:{line}:{column}: not UTF-8; read as {title}")
    return decoded


def _place(text: str, at: int) -> tuple[int, int]:
    """Line and column, from 1, of an offset."""
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


# -- errors --------------------------------------------------------------------------------------------------------


def _explain(error: text_format.ParseError, text: str, root: Descriptor) -> tuple[int, int, str]:
    """Line, column and the user's words for protobuf's error."""
    line, column = error.GetLine() or 1, error.GetColumn() or 1
    what = re.sub(r"^\d+:\d+ : ('.*': )?(?=[A-Z])", "", str(error), flags=re.DOTALL)
    if re.match(r'Expected "[}>]"', what) and (at := _unclosed(text)) is not None:
        return *_place(text, at), f"the {text[at]!r} here is not closed"
    written = text.split("\n")[line - 1]
    for field in _LIST.finditer(written):
        if field.start("list") == column - 1:
            return line, column, _list_for_one(field["name"], field["list"])
    found = _TOKEN.match(written, column - 1)
    return line, column, _reword(what, found[0] if found else "", root)


def _list_for_one(name: str, values: str) -> str:
    what = f"field {name!r} holds one value, got a list"
    if name != "device_id":
        return what
    gpus = ",".join(re.findall(r"\d+", values))
    return (
        f"{what}, as {forks.title('tsn')} has it; keep one GPU here, and give --gpu {gpus or '0,1'} to train on several"
    )


def _reword(what: str, token: str, root: Descriptor) -> str:
    """Protobuf's error at this token in words for the user.

    Protobuf's are the same from version 4 to 7; any that are not known here are passed on as they are.
    """
    if found := re.match(r'Message type "([\w.]+)" has no field named "(.*)"', what):
        return _unknown_field(found[2], root.file.pool.FindMessageTypeByName(found[1]), root)
    if found := re.match(r'Message type "[\w.]+" should not have multiple "(\w+)" fields', what):
        return f"field {found[1]!r} is given a second time; it holds one value"
    if found := re.match(r'Enum type "([\w.]+)" has no value (?:named|with number) "?(.*?)"?\.$', what):
        value, enum = found[2].strip("\"'"), root.file.pool.FindEnumTypeByName(found[1])
        quoted = token.startswith(('"', "'"))
        if quoted and value not in enum.values_by_name and enum.name == "LayerType":
            return (
                f"expected a type of the old 'layers', as CONVOLUTION; for {value!r} write layer {{ ... }}, the "
                "present form"
            )
        return f"expected {value}, a name without quotes" if quoted else _unknown_value(value, enum)
    if what.startswith("Value out of range"):
        return f"{token} is out of range for this field"
    if what.startswith("String missing ending quote"):
        return f"the quote is not closed: {token}"
    if what.startswith("Expected identifier") and token in ("}", ">"):
        return f"a {token} with nothing to close"
    for pattern, expected in _EXPECTED.items():
        if found := re.match(pattern, what):
            expected = expected or found[1].replace('"', "'")
            if expected == "a text in quotes" and re.fullmatch(r"[A-Za-z]\w*", token):
                return f'expected {expected}, got {token}; write "{TYPE_NAMES.get(token, token)}"'
            if expected.endswith("number") and re.fullmatch(r"[A-Za-z_]\w+", token):
                return f"expected {expected}, got {token}; if this is a template, give the file that its script writes"
            return f"expected {expected}, " + (f"got {token}" if token else "but the line or the file ends")
    return what


def _unknown_field(name: str, message: Descriptor, root: Descriptor) -> str:
    what = f"unknown field {name!r} in {message.name}"
    if meant := INSTEAD.get(message.name, {}).get(name):
        return f"{what}; {meant}"
    if fork := forks.of_name(message.name, name):
        return f"{what}; it is one of {fork}, which is not here"
    if (
        message.name == "V1LayerParameter"
        and name in root.file.pool.FindMessageTypeByName("caffe.LayerParameter").fields_by_name
    ):
        return (
            f"{what}; the old 'layers' have no such field: write all as layer {{ type: \"Type\" ... }}, the present "
            "form"
        )
    if message is not root and name in root.fields_by_name:
        return f"{what}; is a '}}' missing before it?"
    for other, noun in _FILES.items():
        if message is root and name in other.DESCRIPTOR.fields_by_name:
            return f"{what}; it is one of {other.DESCRIPTOR.name}: is this a {noun} file?"
    fields = _of_reference(message)
    parts = [part for part in fields if name in _of_reference(message.fields_by_name[part].message_type)]
    if 0 < len(parts) <= 4:
        return f"{what}; it belongs in {' or '.join(parts)}"
    of_names = message is root and root is caffe_pb2.LabelMap.DESCRIPTOR
    hint = "; caffecli create_label_map makes a label map of a list of names" if of_names else ""
    return what + (did_you_mean(name, fields) or did_you_mean(name, message.fields_by_name) or hint)


def _of_reference(message: Descriptor | None) -> list[str]:
    """The names of a message's fields that are not of a fork."""
    if message is None:
        return []
    name = message.full_name.removeprefix("caffe.")
    return [field.name for field in message.fields if forks.is_of_reference(name, field.number)]


def _unknown_value(name: str, enum: EnumDescriptor) -> str:
    what = f"unknown value {name!r} for {enum.name}"
    known = [f"{value.name} ({value.number})" for value in enum.values if value.number < forks.MOVED]
    return what + did_you_mean(name, enum.values_by_name, f"expected one of {', '.join(known)}")


def _unclosed(text: str) -> int | None:
    """The place of the last brace that is not closed."""
    opened: list[int] = []
    for found in _BRACE.finditer(text):
        if found[1] in ("{", "<"):
            opened.append(found.start())
        elif found[1] and opened:
            opened.pop()
    return opened[-1] if opened else None


# -- what is stepped over ------------------------------------------------------------------------------------------


def _without_unread(text: str, name: str) -> str:
    """The text with blanks for what stands in messages of which nothing is known, which the log says;
    all else stays.
    """
    left_out: dict[str, None] = {}
    begin = 0
    while found := _BEGINS_UNREAD.search(text, begin):
        begin = found.end()
        if found[1]:
            end = _closes(text, begin)
            if text[begin:end].strip():
                left_out[found[1]] = None
            text = text[:begin] + re.sub(r"\S", " ", text[begin:end]) + text[end:]
            begin = end
    if left_out:
        logs.warning(
            "upgrade_proto.cpp:90", f"{name}: what stands in {', '.join(left_out)} is not known here, and left out"
        )
    return text


def _with_other_sizes(text: str) -> str:
    """The text in which of several ``resize_param`` of a ``transform_param``, as MobileNet-YOLO has them, those behind
    the first have a field of their own, whose name is as long: where SSD's Python programs look there is one.
    """
    #: of each message that is open, how many it has so far; None where it is no transform_param
    counts: list[int | None] = [0]
    parts, begin = [], 0
    for found in _SIZES.finditer(text):
        so_far = counts[-1]
        if found[1] or found[3]:
            counts.append(0 if found[1] else None)
        elif found[4] and len(counts) > 1:
            counts.pop()
        elif found[2] and so_far is not None:
            counts[-1] = so_far + 1
            if so_far:
                parts += [text[begin : found.start()], "resize_other"]
                begin = found.end()
    return "".join([*parts, text[begin:]])


def _closes(text: str, begin: int) -> int:
    """Where the brace closes that was opened before ``begin``; the text's end, where it does not."""
    depth = 1
    for found in _BRACE.finditer(text, begin):
        if found[1]:
            depth += 1 if found[1] in ("{", "<") else -1
        if not depth:
            return found.start(1)
    return len(text)


# -- printing ------------------------------------------------------------------------------------------------------


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.ListFields():
        one = isinstance(value, Message | str | bytes | int | float)
        for item in [value] if one else value:
            if isinstance(item, Message):
                name = "resize_param" if field.name == "resize_other" else field.name
                yield f"{indent}{name} {{"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}"
            else:
                yield f"{indent}{field.name}: {_scalar(field, item)}"


def _scalar(field: FieldDescriptor, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _number(value, single=field.type == FieldDescriptor.TYPE_FLOAT)
    if isinstance(value, str | bytes):
        data = (
            value.encode() if isinstance(value, str) else value
        )  # as bytes: older versions of protobuf escape a str by code points
        return f'"{text_encoding.CEscape(data, False)}"'
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    return str(value)


def _number(value: float, single: bool) -> str:
    """A float or double in the few digits that read back as the same; C++ tries 6 or 15, then takes 9 or 17."""
    short = f"{value:.{6 if single else 15}g}"
    back = struct.unpack("f", struct.pack("f", float(short)))[0] if single else float(short)
    return short if back == value or value != value else f"{value:.{9 if single else 17}g}"
