"""Trainings that cannot learn, which the reference begins without a word."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from caffecli import logs
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver.solver import Solver

DATA = """layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { type: "constant" } } }"""
FILLED = 'weight_filler { type: "xavier" }'
NORM = """layer { name: "bn1" type: "BatchNorm" bottom: "a" top: "n1" batch_norm_param { %s } }
layer { name: "bn2" type: "BatchNorm" bottom: "n1" top: "b" batch_norm_param { %s } }"""


def warnings_of(
    capsys: pytest.CaptureFixture[str], first: str, middle: str = "", solver: str = "max_iter: 1", last: str = FILLED
) -> list[str]:
    middle = middle or 'layer { name: "relu" type: "ReLU" bottom: "a" top: "b" }'
    text = f"""base_lr: 0.1 lr_policy: "fixed" snapshot_after_train: false solver_mode: CPU {solver}
net_param {{ name: "n" {DATA}
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


def test_stored_statistics_that_are_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = warnings_of(capsys, FILLED, NORM % (("use_global_stats: true",) * 2))
    assert line.startswith("layer 'bn1' (and 1 more) uses stored statistics in training, and has none: leave out")


def test_statistics_of_the_batch_in_scoring(capsys: pytest.CaptureFixture[str]) -> None:
    solver = "max_iter: 1 test_iter: 1 test_interval: 1"
    (line,) = warnings_of(capsys, FILLED, NORM % ("use_global_stats: false", ""), solver)
    assert line.startswith("layer 'bn1' uses the statistics of each batch in scoring too")
