"""Layers and blobs whose names are paths, break lines, or hold quotes: harmless in every file that is written."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from caffecli import logs
from caffecli.cli import main
from caffecli.errors import FormatError
from caffecli.formats import caffemodel, db
from caffecli.proto.caffe_pb2 import Datum, NetParameter

NAMES = [
    "../../x", "a\nb", 'q"uote', "/abs", "two words,;", "tab\t", "é", "..", "data/0", "<b>&amp;</b>", "back\\slash",
    "%s{0}$(x)", "nul\0", "\u202ertl", "'", "\r\n", "",
]  # fmt: skip
GLOG = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ \S+\] ")


def invoke(*args: str) -> str:
    result = CliRunner().invoke(main.cli, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two nets of layers with such names, a database, and weights, two folders down."""
    top = tmp_path_factory.mktemp("names")
    folder = top / "a" / "b"
    folder.mkdir(parents=True)
    with db.open_writer(folder / "records", "lmdb") as out:
        for i in range(4):
            datum = Datum(channels=1, height=2, width=2, data=bytes([i, 50, 100, i]), label=i % 3)
            out.put(b"%d" % i, datum.SerializeToString())
    net = NetParameter(name='../../n\net"')
    data = net.layer.add(name="data", type="Data", top=["data", "label"])
    data.data_param.source, data.data_param.batch_size, data.data_param.backend = str(folder / "records"), 2, 1
    deploy = NetParameter(name=net.name)
    deploy.layer.add(name="data", type="Input", top=["data"]).input_param.shape.add(dim=[1, 1, 2, 2])
    bottom = "data"
    for name in NAMES[:-1]:
        for each in (net, deploy):
            layer = each.layer.add(name=name, type="InnerProduct", bottom=[bottom], top=[name])
            layer.inner_product_param.num_output = 3
            layer.inner_product_param.weight_filler.type = "xavier"
        bottom = name
    net.layer.add(name="loss\n", type="SoftmaxWithLoss", bottom=[bottom, "label"], top=["../lo\nss"])
    (folder / "net.prototxt").write_text(str(net))
    (folder / "deploy.prototxt").write_text(str(deploy))
    (folder / "solver.prototxt").write_text(
        f'net: "{folder}/net.prototxt" base_lr: 0.00001 random_seed: 1 lr_policy: "fixed" display: 1 test_iter: 2\n'
        f'test_interval: 1 max_iter: 2 snapshot_prefix: "{folder}/s" solver_mode: CPU'
    )
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    invoke("train", "--solver", f"{folder}/solver.prototxt", "--csv", f"{folder}/c.csv", "--log-file", f"{folder}/log")
    return folder / "s_iter_2.caffemodel"


def names_in(weights: Path) -> list[str]:
    return [name for name, arrays in caffemodel.read(weights).items() if arrays]


def test_the_log_has_a_line_for_each_message(trained: Path) -> None:
    text = (trained.parent / "log").read_text(encoding="utf-8")
    text = re.sub(r"Initializing (net|solver) from parameters: \n.*?(?=\n[IWEF]\d{4} )", "", text, flags=re.DOTALL)
    assert [line for line in text.split("\n")[:-1] if not GLOG.match(line)] == []
    assert r"Test net output #0: ../lo\nss = " in text


def test_a_log_of_such_a_net_is_parsed(trained: Path) -> None:
    invoke("parse_log", f"{trained.parent}/log", str(trained.parent))
    rows = (trained.parent / "log.train").read_text().splitlines()
    assert rows[0].endswith(r"../lo\nss")
    assert len(rows) == 3


def test_columns_keep_the_names(trained: Path) -> None:
    with (trained.parent / "c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {"train/../lo\nss", "test0/../lo\nss"} <= set(rows[0])


def test_weights_keep_the_names(trained: Path) -> None:
    here = trained.parent
    assert names_in(trained) == NAMES[:-1]
    invoke("convert_weights", str(trained), f"{here}/w.safetensors")
    invoke("convert_weights", f"{here}/w.safetensors", f"{here}/back2.caffemodel", "--net", f"{here}/deploy.prototxt")
    assert names_in(here / "back2.caffemodel") == NAMES[:-1]


def test_a_name_that_an_archive_would_cut_short(trained: Path) -> None:
    with pytest.raises(FormatError, match=r"array 'nul\\x00.weight' has a NUL in its name; choose another form"):
        invoke("convert_weights", str(trained), f"{trained.parent}/w.npz")
    assert not (trained.parent / "w.npz").exists()


def test_a_name_that_hdf5_cannot_have_is_told_before_the_training(folder: Path) -> None:
    solver = folder / "hdf5.prototxt"
    solver.write_text((folder / "solver.prototxt").read_text() + " snapshot_format: HDF5")
    with pytest.raises(FormatError, match=r"layer '\.\./\.\./x' cannot be a group in HDF5"):
        invoke("train", "--solver", str(solver))
    assert not (folder / "s_iter_2.caffemodel.h5").exists()


@pytest.mark.parametrize("out", ["p.pt2", "p.onnx"])
def test_exported_and_brought_back(trained: Path, out: str) -> None:
    here = trained.parent
    to = "onnx" if out.endswith("onnx") else "torch"
    invoke("export", "--to", to, f"{here}/deploy.prototxt", str(trained), f"{here}/{out}")
    if to == "torch":
        invoke("import", f"{here}/{out}", f"{here}/back")
        assert len(names_in(here / "back.caffemodel")) == len(NAMES) - 1


def test_a_drawing_and_a_summary(folder: Path) -> None:
    invoke("draw_net", f"{folder}/net.prototxt", f"{folder}/net.dot")
    text = (folder / "net.dot").read_text(encoding="utf-8")
    for quoted in re.findall(r'"((?:[^"\\]|\\.)*)"', text):  # what stays outside quotes are the words of the language
        text = text.replace(f'"{quoted}"', "", 1)
    assert '"' not in text
    assert set(re.findall(r"[^\s\w;=\[\],{}>#-]", text)) <= set()
    assert json.loads(invoke("summarize", f"{folder}/net.prototxt", "--json"))


def test_nothing_is_written_elsewhere(trained: Path) -> None:
    top = trained.parents[2]
    assert [path for path in top.rglob("*") if path.is_file() and trained.parent not in path.parents] == []
    assert not Path("/abs").exists()
    assert np.isfinite(caffemodel.read(trained)["é"][0]).all()


def test_log_lines_escape_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.show()
    logs.info("net.cpp:1", "a\nb\x1b[31m\u2028\tc é")
    logs.hide(handler)
    assert capsys.readouterr().err.endswith("net.cpp:1] a\\nb\\x1b[31m\\u2028\tc é\n")
