"""The upgrade tools: the reference's results, its log lines, and what they refuse."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caffecli.cli import main
from caffecli.errors import FormatError
from caffecli.proto import encoding
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from caffecli.tools.upgrade import upgrade_net_proto_binary

Tool = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Tool:
    """Runs a tool; gives its exit code and its lines on stderr, without glog's date, time and process id."""

    def run(name: str, *args: str | Path) -> tuple[int, list[str]]:
        monkeypatch.setattr(sys, "argv", [name, *map(str, args)])
        with pytest.raises(SystemExit) as end:
            main.run(main.load_command(name))
        assert isinstance(end.value.code, int)
        return end.value.code, plain(capsys.readouterr().err)

    return run


def plain(log: str) -> list[str]:
    return [re.sub(r"^([IWE])\d+ [\d:.]+ \d+ ", r"\1 ", line) for line in log.splitlines()]


@pytest.mark.parametrize("name", ["v0_small", "v1_lenet", "v1_include_share", "bn_with_params", "solver_enum"])
def test_recorded_files(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: Tool, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(f"{name}.prototxt").write_bytes((golden / "upgrade" / f"{name}.prototxt").read_bytes())
    command = "upgrade_solver_proto_text" if name == "solver_enum" else "upgrade_net_proto_text"
    code, lines = tool(command, f"{name}.prototxt", f"{name}.upgraded.prototxt")
    assert code == 0
    assert lines == plain((golden / "upgrade" / f"{name}.log").read_text())
    assert (
        Path(f"{name}.upgraded.prototxt").read_text() == (golden / "upgrade" / f"{name}.upgraded.prototxt").read_text()
    )


def test_binary_keeps_the_blobs(tmp_path: Path, tool: Tool) -> None:
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    source = (
        "layers { name: 'c' type: CONVOLUTION blobs { num: 1 channels: 1 height: 1 width: 2 data: [0.5, -3] } "
        "blobs_lr: 2 }"
    )
    old.write_bytes(text.parse(source, NetParameter()).SerializeToString())
    code, lines = tool("upgrade_net_proto_binary", old, new)
    assert (code, lines[-1]) == (
        0,
        f"I upgrade_net_proto_binary.cpp:48] Wrote upgraded NetParameter binary proto to {new}",
    )
    wanted = "layer { name: 'c' type: 'Convolution' param { lr_mult: 2 } "
    wanted += "blobs { num: 1 channels: 1 height: 1 width: 2 data: [0.5, -3] } }"
    assert NetParameter.FromString(new.read_bytes()) == text.parse(wanted, NetParameter())


def test_files_up_to_date_are_written_all_the_same(golden: Path, tmp_path: Path, tool: Tool) -> None:
    for kind, name in (("net", "v1_lenet"), ("solver", "solver_enum")):
        old, new = golden / "upgrade" / f"{name}.upgraded.prototxt", tmp_path / name
        code, lines = tool(f"upgrade_{kind}_proto_text", old, new)
        assert code == 0
        assert lines[0] == f"E upgrade_{kind}_proto_text.cpp:43] File already in latest proto format: {old}"
        assert new.read_text() == old.read_text()


def test_a_file_may_be_replaced_by_its_upgrade(golden: Path, tmp_path: Path, tool: Tool) -> None:
    path = tmp_path / "n.prototxt"
    path.write_bytes((golden / "upgrade" / "v0_small.prototxt").read_bytes())
    assert tool("upgrade_net_proto_text", path, path)[0] == 0
    assert path.read_text() == (golden / "upgrade" / "v0_small.upgraded.prototxt").read_text()


def test_settings_that_find_no_place_make_it_a_failure_once_written(tmp_path: Path, tool: Tool) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_text("layers { layer { type: 'relu' stride: 2 } }")
    code, lines = tool("upgrade_net_proto_text", old, new)
    assert code == 1
    assert lines[-3:] == [
        "E upgrade_net_proto_text.cpp:39] Encountered error(s) while upgrading prototxt; see details above.",
        f"I upgrade_net_proto_text.cpp:49] Wrote upgraded NetParameter text proto to {new}",
        f"Error: {str(old)!r} has settings that its layers have no use for (see above); {str(new)!r} is without them",
    ]
    assert new.read_text() == 'layer {\n  type: "ReLU"\n}\n'


@pytest.mark.parametrize("name", ["upgrade_net_proto_text", "upgrade_net_proto_binary", "upgrade_solver_proto_text"])
def test_what_cannot_be_read_leaves_the_output_alone(golden: Path, tmp_path: Path, tool: Tool, name: str) -> None:
    new = tmp_path / "new"
    new.write_text("mine")
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\x00\x01\x02garbage")
    empty = tmp_path / "empty"
    empty.touch()
    text_file = golden / "README.md"
    for old in (tmp_path / "none", tmp_path, garbage, empty, text_file):
        code, lines = tool(name, old, new)
        assert code == 1
        assert len(lines) == 1
        assert lines[0].startswith("Error: ")
        assert str(old) in lines[0]
    assert new.read_text() == "mine"


def test_a_place_that_cannot_be_written(golden: Path, tmp_path: Path, tool: Tool) -> None:
    code, lines = tool("upgrade_net_proto_text", golden / "upgrade" / "v1_lenet.prototxt", tmp_path / "no" / "new")
    assert code == 1
    assert lines[-1] == (
        f"Error: cannot write {str(tmp_path / 'no' / 'new')!r}: No such file or directory; "
        f"create the folder {str(tmp_path / 'no')!r} first"
    )


def test_wrong_use(tool: Tool) -> None:
    code, lines = tool("upgrade_net_proto_text", "one")
    assert (code, lines[-1]) == (2, "Error: Missing argument 'NEW_NET'.")


def test_a_setting_of_an_unknown_fork_is_not_lost(tmp_path: Path) -> None:
    """Field 145 of a layer, whose bytes are no message of ours: the weights can be read, a new file would lack it."""
    layer = NetParameter()
    layer.layer.add(name="ip", type="InnerProduct").blobs.add(data=[1, 2]).shape.dim.append(2)
    field = encoding.enclosed(145, b"\xff\xff\xff")
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    old.write_bytes(encoding.enclosed(100, layer.layer[0].SerializeToString() + field))
    with pytest.raises(FormatError, match="has settings that cannot be read, of a fork that is not known here"):
        upgrade_net_proto_binary(str(old), str(new))
    assert not new.exists()


def test_a_message_of_a_fork_that_lacks_what_ours_requires(tmp_path: Path) -> None:
    """Field 148 is Caffe's clip_param, with two required fields; a fork's may have none."""
    layer = NetParameter()
    layer.layer.add(name="ip", type="InnerProduct").blobs.add(data=[1, 2]).shape.dim.append(2)
    old, new = tmp_path / "old.caffemodel", tmp_path / "new.caffemodel"
    data = encoding.enclosed(100, layer.layer[0].SerializeToString() + encoding.enclosed(148, b""))
    old.write_bytes(data)
    upgrade_net_proto_binary(str(old), str(new))
    assert new.read_bytes() == data
