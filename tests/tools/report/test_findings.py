"""What a report finds by running the test net over records: numbers computed by hand."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import caffemodel
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from caffecli.tools import report as tool
from caffecli.tools.report import Finder, ReportOptions, gather, page
from caffecli.tools.report.follow import Followed, Server
from tests.tools.report.pages import LOG, Page, made

RECORDS = """
layer {{ name: "data" type: "Data" top: "data" data_param {{ source: "{folder}/db" batch_size: 4 backend: LMDB }}
  transform_param {{ scale: 0.01 }} }}
layer {{ name: "label" type: "Data" top: "label"
  data_param {{ source: "{folder}/labels" batch_size: 4 backend: LMDB }} }}
"""
ONE_LABEL = """
layer {{ name: "data" type: "Data" top: "data" top: "label" transform_param {{ scale: 0.01 }}
  data_param {{ source: "{folder}/db" batch_size: 4 backend: LMDB }} }}
"""
CLASSES = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 2 bias_term: false } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "score" type: "InnerProduct" bottom: "pool" top: "score"
  inner_product_param { num_output: 3 bias_term: false } }
"""
POINTS = """
layer { name: "score" type: "Convolution" bottom: "data" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 bias_term: false } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }'
#: the labels of six pictures, and their colours (blue, green, red), which the nets say
LABELS, SHOWN = [0, 1, 0, 2, 1, 0], [0, 1, 2, 2, 1, 0]


def run_of(folder: Path, data: str, body: str) -> dict[str, Any]:
    """A log, and the options for a net that says the colour of pictures that have one."""
    with open_writer(folder / "db") as pictures, open_writer(folder / "labels") as labels:
        for i, (label, colour) in enumerate(zip(LABELS, SHOWN, strict=True)):
            picture = np.zeros((3, 4, 4), np.uint8)
            picture[colour] = 100 + 20 * i
            pictures.put(b"%d.png" % i, from_array(picture, label).SerializeToString())
            labels.put(b"%d.png" % i, from_array(np.full((1, 4, 4), label, np.uint8)).SerializeToString())
    (folder / "net.prototxt").write_text(data.format(folder=folder) + body + LOSS)
    (folder / "names.txt").write_text("blue\ngreen <b>\nred\n")
    (folder / "a.log").write_text(LOG)
    conv = np.zeros((4, 3, 2, 2), np.float32)
    conv[range(3), range(3)] = 1  # the fourth filter is 0: its unit is dead
    weights: dict[str, list[Any]] = {"conv": [conv], "score": [np.eye(3, 4, dtype=np.float32)]}
    if body == POINTS:
        weights = {"score": [np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)]}
    caffemodel.write(folder / "a.caffemodel", text.read(folder / "net.prototxt", NetParameter), weights)
    return {"model": folder / "net.prototxt", "weights": folder / "a.caffemodel", "labels": folder / "names.txt"}


def test_classes(tmp_path: Path) -> None:
    shown = made(tmp_path, tmp_path / "a.log", **run_of(tmp_path, ONE_LABEL, CLASSES))
    assert "83.33% right: 5 of 6 records. Over all 6 records" in shown.sections["classes"]
    assert shown.tables["Scores of the classes"][1:] == [
        ["blue", "0", "3", "66.67%", "100.00%", "80.00%"],
        ["green <b>", "1", "2", "100.00%", "100.00%", "100.00%"],
        ["red", "2", "1", "100.00%", "50.00%", "66.67%"],
    ]
    confusions = next(table for caption, table in shown.tables.items() if caption.startswith("Confusions"))
    assert confusions[1:] == [["blue", "2", "", "1"], ["green <b>", "", "2", ""], ["red", "", "", "1"]]
    assert "said red" in shown.sections["mistakes"]
    assert "is blue" in shown.sections["mistakes"]
    assert "record 2.png" in shown.sections["mistakes"]
    assert shown.sections["mistakes"].count("said ") == 1
    assert "boxes" not in shown.sections  # sections for other kinds of nets are not there
    assert "overlays" not in shown.sections


def test_dead_units(tmp_path: Path) -> None:
    shown = made(tmp_path, tmp_path / "a.log", **run_of(tmp_path, ONE_LABEL, CLASSES))
    (dead,) = (table for caption, table in shown.tables.items() if caption.startswith("Channels"))
    assert dead[1:] == [["conv", "4", "1", "25.0%", "3"]]


def test_a_class_for_each_point(tmp_path: Path) -> None:
    shown = made(tmp_path, tmp_path / "a.log", **run_of(tmp_path, RECORDS, POINTS))
    table = shown.tables["Scores of the classes"]
    assert table[0][-1].startswith("IU")
    assert [(row[0], row[2], row[-1]) for row in table[1:]] == [
        ("blue", "48", "66.67%"),
        ("green <b>", "32", "100.00%"),
        ("red", "16", "50.00%"),
    ]
    assert "overlays" in shown.sections
    assert "mistakes" not in shown.sections


def test_layers_without_tops_and_such_as_write(tmp_path: Path) -> None:
    options = run_of(tmp_path, ONE_LABEL, CLASSES)
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    writes = (
        'layer { name: "w" type: "HDF5Output" bottom: "pool" bottom: "label" hdf5_output_param { file_name: "X" } }'
    )
    with options["model"].open("a") as file:
        file.write('layer { name: "s" type: "Silence" bottom: "pool" }\n' + writes.replace("X", str(precious)))
    shown = made(tmp_path, tmp_path / "a.log", **options)
    assert "83.33% right: 5 of 6 records" in shown.sections["classes"]
    assert precious.read_text() == "mine"


def test_some_records(tmp_path: Path) -> None:
    shown = made(tmp_path, tmp_path / "a.log", records=2, **run_of(tmp_path, ONE_LABEL, CLASSES))
    assert "100.00% right: 2 of 2 records. Over the first 2 records" in shown.sections["classes"]
    shown = made(tmp_path, tmp_path / "a.log", records=0)
    assert "Left out: --records 0" in shown.sections["classes"]


def test_what_is_gone_is_told(tmp_path: Path) -> None:
    options = run_of(tmp_path, ONE_LABEL, CLASSES)
    (tmp_path / "db" / "data.mdb").unlink()
    shown = made(tmp_path, tmp_path / "a.log", **options)
    assert "Left out: the test net does not run here" in shown.sections["classes"]
    assert "Curves" in shown.sections["curves"]


def test_a_log_runs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = run_of(tmp_path, ONE_LABEL, CLASSES)
    code = 'layer { name: "code" type: "Python" bottom: "pool" python_param { module: "code_" layer: "L" } }\n'
    (tmp_path / "code_.py").write_text("open('has_run', 'w')")
    net = options.pop("model").read_text() + code
    begin = "I1231 23:59:58.200000 77 net.cpp:1] "
    said = [
        f"{begin}Initializing net from parameters:\nstate {{ phase: {phase} }}\n{net}\n" for phase in ("TRAIN", "TEST")
    ]
    (tmp_path / "a.log").write_text(f"{''.join(said)}{begin}Made\n{LOG}")
    shown = made(tmp_path, tmp_path / "a.log", **options)
    for section in ("classes", "net"):
        assert "layer 'code' is Python code, which is run only of a net named with --model" in shown.sections[section]
    assert not (tmp_path / "has_run").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "a.log").write_text(LOG[: LOG.index("Iteration 10")].rpartition("\n")[0] + "\n")
    options = ReportOptions((tmp_path / "a.log",), tmp_path / "a.html")
    finder = Finder(options)
    followed = Followed(options, lambda version: page.make(gather(options, finder, waiting=True), version))
    with Server(0, followed) as one:
        thread = threading.Thread(target=one.serve_forever, daemon=True)
        thread.start()
        yield one
        one.shutdown()
        thread.join()


def ask(url: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return str(answer.read().decode())


def test_following(server: Server, tmp_path: Path) -> None:
    before, version = Page(ask(server.url)), ask(server.url + "version")
    assert f'data-version="{version}"' in before.text
    assert ask(server.url + "version") == version
    (tmp_path / "a.log").write_text(LOG)
    assert ask(server.url + "version") != version
    after = Page(ask(server.url))
    assert len(after.charts["curve-0"]["traces"][0]["x"]) > len(before.charts["curve-0"]["traces"][0]["x"])
    for path, host in (("etc/passwd", ""), ("", "example.org:80")):
        with pytest.raises(urllib.error.HTTPError, match=r"404|403"):
            ask(server.url + path, **({"Host": host} if host else {}))
    (tmp_path / "a.log").unlink()
    with pytest.raises(urllib.error.HTTPError, match="503"):
        ask(server.url)


def test_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    options = ReportOptions((tmp_path / "a.log",), tmp_path / "a.html")
    with pytest.raises(FormatError, match="give another --port"):
        tool.follow(options, server.server_port, lambda url: None)


def test_names_beside_the_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = run_of(tmp_path, ONE_LABEL, CLASSES) | {"labels": None}
    (tmp_path / "names.txt").rename(tmp_path / "labels.txt")
    named = LOG.replace("Solving small", "Creating training net from net file: net.prototxt", 1)
    (tmp_path / "a.log").write_text(named)
    shown = made(tmp_path, tmp_path / "a.log", **options)
    assert shown.tables["Scores of the classes"][1][0] == "blue"
