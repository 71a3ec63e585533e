"""Callbacks that are none, that fail, or that keep what cannot be kept; and what a Net and a Solver are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format

import caffecli
from caffecli.errors import SolverError, SpecError
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.solver.callbacks import Callback
from caffecli.solver.solver import Solver

SOLVER = """
base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false solver_mode: CPU
net_param {
  layer { name: "data" type: "DummyData" top: "data" top: "label"
    dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
  layer { name: "loss" type: "EuclideanLoss" bottom: "data" bottom: "label" top: "loss" }
}
"""


class Keeps(Callback):
    """Keeps ``what``; says in ``seen`` that it was closed."""

    def __init__(self, name: str, what: Any = 1, fails: bool = False) -> None:
        self.name, self.what, self.fails = name, what, fails
        self.closed = False

    def state(self) -> dict[str, Any]:
        return {"kept": self.what}

    def close(self) -> None:
        self.closed = True
        if self.fails:
            raise OSError("planted")


def solver(callbacks: Any = (), tmp_path: Path = Path()) -> Solver:
    param = text_format.Parse(SOLVER, SolverParameter())
    param.snapshot_prefix = str(tmp_path / "s")
    return Solver(param, callbacks=callbacks)


@pytest.mark.parametrize("wrong", [5, None, object(), Keeps])
def test_what_is_no_callback(wrong: object) -> None:
    with pytest.raises(SolverError, match=r"is no callback: give objects of subclasses of caffecli\.Callback"):
        solver([wrong])


def test_two_states_of_one_name() -> None:
    with pytest.raises(SolverError, match="two callbacks that keep a state are called 'a'"):
        solver([Keeps("a"), Keeps("a")])
    solver([Callback(), Callback(), Keeps("a")]).close()


@pytest.mark.parametrize("what", [{1, 2}, object(), float])
def test_a_state_that_json_cannot_hold(what: object, tmp_path: Path) -> None:
    made = solver([Keeps("notes", what)], tmp_path)
    with pytest.raises(SolverError, match="callback 'notes': JSON has no form for its state"):
        made.snapshot()
    made.close()
    assert list(tmp_path.iterdir()) == []


def test_each_is_closed_whatever_another_raises() -> None:
    callbacks = [Keeps("a", fails=True), Keeps("b", fails=True), Keeps("c")]
    made = solver(callbacks)
    with pytest.raises(OSError, match="planted"):
        made.close()
    assert [callback.closed for callback in callbacks] == [True] * 3


@pytest.mark.parametrize("count", [2.5, -1, "3", None])
def test_a_step_takes_a_number_of_iterations(count: Any) -> None:
    made = solver()
    with pytest.raises(SolverError, match="step takes a number of iterations, not "):
        made.step(count)
    made.close()
    assert made.iter == 0


@pytest.mark.parametrize("wrong", ["solver.prototxt", None, NetParameter(name="n")])
def test_a_solver_is_made_of_its_definition(wrong: Any) -> None:
    with pytest.raises(SolverError, match=r"takes a SolverParameter, as load_solver\(path\) gives it; not "):
        caffecli.Solver(wrong)


@pytest.mark.parametrize("wrong", ["net.prototxt", None, SolverParameter(base_lr=1)])
def test_a_net_is_made_of_its_definition(wrong: Any) -> None:
    with pytest.raises(SpecError, match=r"takes a NetParameter, as load_net\(path\) gives it; not "):
        caffecli.Net(wrong)


def test_a_path_with_a_nul() -> None:
    with pytest.raises(SpecError, match=r"cannot read 'a.*b': embedded null byte"):
        caffecli.load_net("a\0b")
