"""caffe.proto has exactly the reference's fields, and every protobuf runtime from 4.25 on reads the generated module."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from caffecli.proto import caffe_pb2

ROOT = Path(__file__).parents[2]
ROUND_TRIPS = Path(__file__).parent / "round_trips.py"


def fields() -> list[tuple[str, ...]]:
    """The rows of caffe_proto_fields.tsv for the module's own descriptor."""
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)
    rows: list[tuple[str, ...]] = []

    def add_enum(prefix: str, enum: Any) -> None:
        rows.extend((f"{prefix}.{enum.name}", str(value.number), "enum", "", value.name, "", "") for value in enum.value)

    def add_message(prefix: str, message: Any) -> None:
        name = f"{prefix}.{message.name}"
        python = getattr_path(name)
        for field in message.field:
            label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
            kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
            options = [option for option in ("packed", "deprecated") if getattr(field.options, option)]
            default = python_default(python.fields_by_name[field.name]) if field.default_value else ""
            number = str(field.number)
            rows.append((name, number, label, field.type_name.lstrip(".") or kind, field.name, default, ",".join(options)))
        for nested in message.nested_type:
            add_message(name, nested)
        for enum in message.enum_type:
            add_enum(name, enum)

    for message in file.message_type:
        add_message(file.package, message)
    for enum in file.enum_type:
        add_enum(file.package, enum)
    return rows


def getattr_path(full_name: str) -> Any:
    return caffe_pb2.DESCRIPTOR.pool.FindMessageTypeByName(full_name)


def python_default(field: Any) -> str:
    if field.enum_type is not None:
        return field.enum_type.values_by_number[field.default_value].name
    return repr(field.default_value) if isinstance(field.default_value, str) else str(field.default_value)


def test_fields_are_the_references(golden: Path) -> None:
    head, *recorded = (golden / "caffe_proto_fields.tsv").read_text().splitlines()
    assert head.split("\t") == ["message", "number", "label", "type", "name", "default", "options"]
    rows = {tuple(line.split("\t")) for line in recorded}
    assert {row[:5] for row in fields()} == {row[:5] for row in rows}
    assert {(*row[:5], row[6]) for row in fields()} == {(*row[:5], row[6]) for row in rows}
    written = {row[:5]: row[5] for row in fields() if row[5]}
    assert {key: {row[:5]: row[5] for row in rows}[key] for key in written} == written


def test_round_trips_with_this_runtime() -> None:
    done = subprocess.run([sys.executable, "-W", "error", ROUND_TRIPS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("round trips hold with protobuf ")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["protobuf==4.25.*", "protobuf<8"])
def test_round_trips_with_the_oldest_and_the_newest_runtime(tmp_path: Path, version: str) -> None:
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", version]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"cannot install {version}: {installed.stderr.splitlines()[-1:]}")
    done = subprocess.run([python, "-W", "error", ROUND_TRIPS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    oldest = "with protobuf 4.25." in done.stdout
    assert oldest == (version == "protobuf==4.25.*")
