"""summarize and resize_images, parse_log and plot_log: what the commands print and write."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from caffecli.cli.main import load_command

NET = """name: "small"
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "halves" type: "Slice" bottom: "c" top: "a" top: "b" }
"""


def call(name: str, *args: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(load_command(name), list(map(str, args)))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def net(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    return tmp_path / "net.prototxt"


def test_the_table(net: Path) -> None:
    lines = call("summarize", net).splitlines()
    assert lines[0] == "small: 112 parameters, 7.78 k multiply-adds, 3.84 kB of blobs, 448 B of weights"
    assert lines[2].split() == ["layer", "type", "top", "shape", "parameters", "multiply-adds", "memory"]
    assert [line.split() for line in lines[4:9]] == [
        ["x", "Input", "x", "2", "×", "3", "×", "8", "×", "8", "1,536"],
        ["conv", "Convolution", "c", "2", "×", "4", "×", "6", "×", "6", "112", "7,776", "1,152"],
        ["relu", "ReLU", "c", "2", "×", "4", "×", "6", "×", "6"],
        ["halves", "Slice", "a", "2", "×", "2", "×", "6", "×", "6", "1,152"],
        ["b", "2", "×", "2", "×", "6", "×", "6"],
    ]
    assert lines[-1].split() == ["total", "112", "7,776", "3,840"]


def test_csv_and_json(net: Path) -> None:
    rows = list(csv.DictReader(call("summarize", "--csv", "--batch=1", net).splitlines()))
    assert rows[1] == {
        "layer": "conv", "type": "Convolution", "tops": "c", "shapes": "1x4x6x6", "parameters": "112", "multiply_adds":
            "3888",
        "memory": "576",
    }  # fmt: skip
    assert rows[3]["shapes"] == "1x2x6x6;1x2x6x6"
    found = json.loads(call("summarize", "-json", net))
    assert (found["name"], found["parameters"], found["multiply_adds"]) == ("small", 112, 7776)
    assert found["layers"][1]["tops"] == {"c": [2, 4, 6, 6]}
    call("summarize", "--csv", "--json", net, code=2)
    assert "no shape; give channels, height and width" in call("summarize", "--input", "3,x,4", net, code=2)


def test_logs(golden: Path, tmp_path: Path) -> None:
    log = golden / "solvers" / "adam" / "train.log"
    out = call("parse_log", log, tmp_path, "--verbose", "--delimiter", "\\t")
    assert out.splitlines() == [f"Wrote {tmp_path}/train.log.train", f"Wrote {tmp_path}/train.log.test"]
    assert (tmp_path / "train.log.test").read_text().startswith("NumIters\tSeconds\tLearningRate\taccuracy\tloss\n")
    assert "one character" in call("parse_log", log, tmp_path, "--delimiter=ab", code=2)
    call("plot_log", "6", tmp_path / "x.png", code=2)
    pytest.importorskip("matplotlib")
    call("plot_log", "accuracy", tmp_path / "x.pdf", log, log)
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")


def test_resize(golden: Path, tmp_path: Path) -> None:
    out = call("resize_images", "-crop", "--width=20", "--height=10", golden / "tools" / "images", tmp_path / "out")
    assert out.splitlines()[-1].endswith("resized, 0 there already, 0 could not be read")
    assert call("resize_images", golden / "tools" / "images", tmp_path / "out").startswith("0 resized")
    call("resize_images", "--width=0", golden / "tools" / "images", tmp_path / "out", code=2)


def test_a_net_whose_data_wait_for_a_stage(net: Path) -> None:
    net.write_text(NET.replace('type: "Input"', 'type: "Input" include { stage: "deploy" }'))
    result = CliRunner().invoke(load_command("summarize"), [str(net)])
    assert "layer 'conv': unknown bottom blob 'x'; no layer makes it in phase TEST without stage 'deploy'" in str(
        result.exception
    )
    assert call("summarize", "--stage", "deploy", net).startswith("small: 112 parameters")


def test_what_is_missing_is_said_of_the_whole_net(net: Path) -> None:
    """Neither phase is said to run where both lack a layer."""
    loss = 'layer { name: "l" type: "L1Loss" bottom: "conv" top: "l" include { phase: %s } }'
    net.write_text(f"{NET} {loss % 'TRAIN'}")
    result = CliRunner().invoke(load_command("summarize"), ["--phase", "TRAIN", str(net)])
    assert "L1Loss" in str(result.exception) and "in phase TEST the net runs" in str(result.exception)
    net.write_text(f"{NET} {loss % 'TRAIN'} {loss % 'TEST'}")
    for phase in ("TRAIN", "TEST"):
        result = CliRunner().invoke(load_command("summarize"), ["--phase", phase, str(net)])
        assert "L1Loss" in str(result.exception) and "the net runs" not in str(result.exception)
