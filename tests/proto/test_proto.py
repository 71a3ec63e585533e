"""caffe.proto has exactly the reference's fields; the generated code is that of the .proto files; every protobuf "
"from 4.25 on
reads it."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from caffecli.proto import caffe_pb2, forks
from scripts import generate_schema

ROOT = Path(__file__).parents[2]
ROUND_TRIPS = Path(__file__).parent / "round_trips.py"


def wide() -> FileDescriptorProto:
    """The schema that programs see, without what it has of forks."""
    file = descriptor_pb2.FileDescriptorProto()
    caffe_pb2.DESCRIPTOR.CopyToProto(file)

    def plain(message: Any, name: str) -> None:
        kept = [field for field in message.field if forks.is_of_reference(name, field.number)]
        del message.field[:]
        message.field.extend(kept)
        del message.nested_type[:]
        for enum in message.enum_type:
            values = [value for value in enum.value if forks.is_of_reference(f"{name}.{enum.name}", value.number)]
            del enum.value[:]
            enum.value.extend(values)

    for message in file.message_type:
        plain(message, message.name)
    enums = [enum for enum in file.enum_type if enum.name == "Phase"]
    del file.enum_type[:]
    file.enum_type.extend(enums)
    return file


def fields(file: FileDescriptorProto) -> list[tuple[str, ...]]:
    """The rows of caffe_proto_fields.tsv for a schema."""
    rows: list[tuple[str, ...]] = []

    def add_enum(prefix: str, enum: Any) -> None:
        rows.extend(
            (f"{prefix}.{enum.name}", str(value.number), "enum", "", value.name, "", "") for value in enum.value
        )

    def add_message(prefix: str, message: Any) -> None:
        name = f"{prefix}.{message.name}"
        python = getattr_path(name)
        for field in message.field:
            label = FieldDescriptorProto.Label.Name(field.label).removeprefix("LABEL_").lower()
            kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
            options = [option for option in ("packed", "deprecated") if getattr(field.options, option)]
            default = python_default(python.fields_by_name[field.name]) if field.default_value else ""
            number = str(field.number)
            rows.append(
                (name, number, label, field.type_name.lstrip(".") or kind, field.name, default, ",".join(options))
            )
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


def compiled() -> FileDescriptorProto:
    """What protoc makes of caffe.proto."""
    compiler = generate_schema.protoc()
    if compiler is None:
        pytest.skip("protoc is not installed")
    return generate_schema.compile_all(compiler)[generate_schema.REFERENCE]


@pytest.mark.parametrize("schema", [compiled, wide])
def test_fields_are_the_references(golden: Path, schema: Callable[[], FileDescriptorProto]) -> None:
    head, *recorded = (golden / "caffe_proto_fields.tsv").read_text().splitlines()
    assert head.split("\t") == ["message", "number", "label", "type", "name", "default", "options"]
    rows = {tuple(line.split("\t")) for line in recorded}
    found = fields(schema())
    assert {row[:5] for row in found} == {row[:5] for row in rows}
    assert {(*row[:5], row[6]) for row in found} == {(*row[:5], row[6]) for row in rows}
    written = {row[:5]: row[5] for row in found if row[5]}
    assert {key: {row[:5]: row[5] for row in rows}[key] for key in written} == written


def test_the_generated_code_is_that_of_the_proto_files() -> None:
    compiler = generate_schema.protoc()
    if compiler is None:
        pytest.skip("protoc is not installed")
    for name, made in generate_schema.generate(compiler).items():
        assert (ROOT / name).read_text() == made, f"{name} is stale: run make proto"


def test_a_field_with_two_types_is_refused() -> None:
    first, second = (FileDescriptorProto(name=f"caffecli/proto/forks/{fork}.proto") for fork in ("ssd", "segnet"))
    for file, kind in ((first, "TYPE_INT32"), (second, "TYPE_STRING")):
        field = file.message_type.add(name="Own").field.add(name="x", number=1, label="LABEL_OPTIONAL")
        field.type = FieldDescriptorProto.Type.Value(kind)
    others = {f"caffecli/proto/forks/{fork}.proto": FileDescriptorProto() for fork in forks.FORKS}
    reference = {generate_schema.REFERENCE: FileDescriptorProto()}
    with pytest.raises(ValueError, match=r"segnet: Own\.x has another type, or label, than it has elsewhere"):
        generate_schema.merge(others | reference | {first.name: first, second.name: second})


def test_round_trips_with_this_runtime() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", ROUND_TRIPS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("round trips hold with protobuf ")


@pytest.mark.slow
@pytest.mark.parametrize("version", ["protobuf==4.25.*", "protobuf<8"])
def test_round_trips_with_the_oldest_and_the_newest_runtime(tmp_path: Path, version: str) -> None:
    venv.create(tmp_path, with_pip=True)
    python = tmp_path / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", version]
    installed = subprocess.run(pip, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"cannot install {version}: {installed.stderr.splitlines()[-1:]}")
    done = subprocess.run([python, "-W", "error", ROUND_TRIPS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    oldest = "with protobuf 4.25." in done.stdout
    assert oldest == (version == "protobuf==4.25.*")


@pytest.mark.parametrize("order", ["ours, theirs", "theirs, ours"])
def test_programs_may_bring_a_caffe_pb2_of_their_own(tmp_path: Path, order: str) -> None:
    """As protoc makes it of a caffe.proto, in the pool of the process: the names are the same."""
    file = FileDescriptorProto(name="caffe.proto", package="caffe")
    file.message_type.add(name="NetParameter").field.add(
        name="name", number=1, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )
    (tmp_path / "caffe_pb2.py").write_text(
        "from google.protobuf import descriptor_pool, message_factory\n"
        f"DESCRIPTOR = descriptor_pool.Default().AddSerializedFile({file.SerializeToString()!r})\n"
        'NetParameter = message_factory.GetMessageClass(DESCRIPTOR.message_types_by_name["NetParameter"])\n'
    )
    imports = {"ours": "from caffecli.proto import caffe_pb2 as ours", "theirs": "import caffe_pb2 as theirs"}
    program = "\n".join(imports[one] for one in order.split(", ")) + (
        "\nnet = ours.NetParameter.FromString(theirs.NetParameter(name='net').SerializeToString())"
        "\nprint(net.name, theirs.NetParameter is ours.NetParameter, hasattr(theirs, 'LabelMap'))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("net False False\n", "")
