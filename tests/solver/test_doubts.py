"""Trainings that cannot learn, which the reference begins without a word."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffecli import logs
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver.solver import Solver

DATA = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }"""
FILLED = 'weight_filler { type: "xavier" }'
NORM = """layer { name: "bn1" type: "BatchNorm" bottom: "a" top: "n1" batch_norm_param { %s } }
layer { name: "bn2" type: "BatchNorm" bottom: "n1" top: "b" batch_norm_param { %s } }"""


def warnings_of(
    capsys: pytest.CaptureFixture[str],
    first: str,
    middle: str = "",
    solver: str = "max_iter: 1",
    last: str = FILLED,
    data: str = DATA,
) -> list[str]:
    middle = middle or 'layer { name: "relu" type: "ReLU" bottom: "a" top: "b" }'
    text = f"""base_lr: 0.1 lr_policy: "fixed" snapshot_after_train: false solver_mode: CPU {solver}
net_param {{ name: "n" {data}
  layer {{ name: "a" type: "InnerProduct" bottom: "data" top: "a" inner_product_param {{ num_output: 5 {first} }} }}
  {middle}
  layer {{ name: "c" type: "InnerProduct" bottom: "b" top: "c" inner_product_param {{ num_output: 2 {last} }} }}
  layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "c" bottom: "label" top: "loss" }} }}"""
    param = text_format.Parse(text, SolverParameter())
    handler = logs.show()
    made = Solver(param)
    made.solve()
    made.close()
    logs.hide(handler)
    return [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines() if line.startswith("W")]


def test_a_net_that_can_learn(capsys: pytest.CaptureFixture[str]) -> None:
    assert warnings_of(capsys, FILLED, NORM % ("", "")) == []
    assert warnings_of(capsys, FILLED, last="") == [], "the last layer may begin at zero"


def test_weights_that_are_all_zero(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = warnings_of(capsys, "", last="")
    assert line.startswith("all weights of net 'n' are zero, and most will stay so: give its layers a weight_filler")


@pytest.mark.parametrize(("solver", "why"), [("max_iter: 0", "max_iter is not set"), ("", "max_iter is not set")])
def test_nothing_left_to_train(solver: str, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = warnings_of(capsys, FILLED, solver=solver)
    assert line == f"iteration 0: {why}: nothing is trained; give a larger max_iter"


def test_scoring_by_a_solver_as_ssd_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert warnings_of(capsys, FILLED, solver="max_iter: 0 test_iter: 1 test_interval: 1") == []


def test_stored_statistics_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = warnings_of(capsys, FILLED, NORM % (("use_global_stats: true",) * 2))
    assert line.startswith("layer 'bn1' (and 1 more) uses stored statistics in training, and has none: leave out")


def test_statistics_of_the_batch_in_scoring(capsys: pytest.CaptureFixture[str]) -> None:
    solver = "max_iter: 1 test_iter: 1 test_interval: 1"
    (line,) = warnings_of(capsys, FILLED, NORM % ("use_global_stats: false", ""), solver)
    assert line.startswith("layer 'bn1' uses the statistics of each batch in scoring too")


CHANCE = np.random.default_rng(0).integers(2, size=100).tolist()


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([i // 50 for i in range(100)], True),
        ([0] * 90 + [1] * 10, True),
        (CHANCE, False),
        ([0] * 100, False),
        ([0] * 99 + [1], False),  # it may be by chance
        ([0] * 10 + [1] * 10, False),  # too few to tell
    ],
)
@pytest.mark.parametrize("kind", ["Data", "ImageData"])
def test_records_sorted_by_label(
    kind: str, labels: list[int], told: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_writer(tmp_path / "db") as writer:
        for i, label in enumerate(labels):
            writer.put(b"%05d" % i, from_array(np.zeros((1, 2, 3), np.uint8), label).SerializeToString())
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((2, 3), np.uint8))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/a.png {label}\n" for label in labels))
    setting = {
        "Data": f'data_param {{ source: "{tmp_path}/db" backend: LMDB batch_size: 4 SHUFFLE }}',
        "ImageData": f'image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 4 is_color: false SHUFFLE }}',
    }[kind]
    for shuffle, expected in (("", told), ("shuffle: true", False)):
        data = f'layer {{ name: "d" type: "{kind}" top: "data" top: "label" {setting.replace("SHUFFLE", shuffle)} }}'
        lines = warnings_of(capsys, FILLED, data=data)
        assert len(lines) == expected, lines
        assert all(line.startswith("layer 'd' reads records that are sorted by label, so that") for line in lines)
