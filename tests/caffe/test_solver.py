"""caffe.SGDSolver and its kin: steps, shared weights, updates by hand, callbacks, snapshots."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.engine import Engine
from caffecli import logs
from caffecli.errors import CaffeError
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TRAIN, NetParameter
from caffecli.solver.solver import Solver
from caffecli.spec import load, text
from tests.caffe.nets import LOSS

SETTINGS = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 4 random_seed: 3 snapshot_after_train: false'


def solver_file(folder: Path, settings: str = SETTINGS, net: str = LOSS) -> str:
    (folder / "net.prototxt").write_text(net.replace('include { stage: "scored" }', ""))
    path = folder / "solver.prototxt"
    path.write_text(f'net: "{folder}/net.prototxt" snapshot_prefix: "{folder}/made" {settings}')
    return str(path)


@pytest.mark.parametrize("kind", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_weights_are_those_of_the_bare_solver(tmp_path: Path, kind: str) -> None:
    momentum = "" if kind in ("AdaGrad", "RMSProp") else "momentum: 0.9"
    more = f"{momentum} weight_decay: 0.01 iter_size: 2 {'rms_decay: 0.9' if kind == 'RMSProp' else ''} type: '{kind}'"
    file = solver_file(tmp_path, f"{SETTINGS} {more}")
    bare = Solver(load.load_solver(file))
    bare.step(4)
    solver = caffe.get_solver(file)
    assert type(solver) is getattr(caffe, f"{kind}Solver")
    weight, bias = (blob.data for blob in solver.net.params["ip"])
    before = weight.copy()
    solver.step(3)
    last = weight.copy()
    solver.step(1)
    assert solver.iter == 4 and (weight != before).any()
    np.testing.assert_allclose(weight, bare.net.layer("ip").blobs[0].detach().numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(bias, bare.net.layer("ip").blobs[1].detach().numpy(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(solver.net.params["ip"][0].diff, last - weight, rtol=1e-3, atol=1e-6)


def test_the_class_decides_not_the_file(tmp_path: Path) -> None:
    assert caffe.AdamSolver(solver_file(tmp_path)).param.type == "Adam"


def test_blobs_can_be_read_after_a_step_and_written_before(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    labels, loss = solver.net.blobs["label"].data, solver.net.blobs["loss"].data
    labels[...] = 2
    for _ in range(60):
        solver.step(1)
    assert (labels == 2).all()
    assert (solver.net.blobs["ip"].data.argmax(1) == 2).all()
    assert 0 < float(loss) < 0.5
    assert solver.net.blobs["ip"].diff.any()


def test_apply_update_is_base_lr_times_the_diffs(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    weight = solver.net.params["ip"][0]
    data = weight.data
    data[...] = 0
    weight.diff[...] = 1
    solver.apply_update()
    np.testing.assert_allclose(data, np.full(data.shape, -0.1), 1e-6)
    assert solver.iter == 1


def test_a_loop_by_hand_is_a_step(tmp_path: Path) -> None:
    file = solver_file(tmp_path, f"{SETTINGS} momentum: 0.9")
    caffe.set_random_seed(5)
    one = caffe.SGDSolver(file)
    one.step(2)
    caffe.set_random_seed(5)
    two = caffe.SGDSolver(file)
    for _ in range(2):
        two.net.clear_param_diffs()
        two.net.forward()
        two.net.backward()
        two.apply_update()
    np.testing.assert_allclose(one.net.params["ip"][0].data, two.net.params["ip"][0].data, 1e-5)


def test_callbacks(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    said: list[tuple[str, int, float]] = []
    weight = solver.net.params["ip"][0]
    solver.add_callback(
        lambda: said.append(("start", solver.iter, float(np.abs(weight.diff).sum()))),
        lambda: said.append(("ready", solver.iter, float(np.abs(weight.diff).sum()))),
    )
    solver.step(2)
    assert [one[:2] for one in said] == [("start", 0), ("ready", 0), ("start", 1), ("ready", 1)]
    assert [one[2] > 0 for one in said] == [False, True, False, True]


def test_a_callback_may_change_the_gradients(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    weight = solver.net.params["ip"][0]
    before = weight.data.copy()
    solver.add_callback(lambda: None, lambda: weight.diff.fill(0))
    solver.step(2)
    np.testing.assert_array_equal(weight.data, before)


def test_test_nets_share_the_weights_but_not_their_diffs(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path, f"{SETTINGS} test_iter: 2 test_interval: 2"))
    (test_net,) = solver.test_nets
    solver.net.params["ip"][0].data[0, 0] = 9
    assert test_net.params["ip"][0].data[0, 0] == 9
    solver.solve()
    assert test_net.blobs["ip"].data.any()
    solver.net.clear_param_diffs()
    test_net.forward()
    test_net.backward()
    assert test_net.params["ip"][0].diff.any()
    assert not solver.net.params["ip"][0].diff.any()


def test_snapshot_and_restore(tmp_path: Path) -> None:
    file = solver_file(tmp_path, f"{SETTINGS} momentum: 0.9")
    first = caffe.SGDSolver(file)
    first.step(2)
    first.snapshot()
    first.step(2)
    again = caffe.SGDSolver(file)
    weight = again.net.params["ip"][0].data
    again.restore(str(tmp_path / "made_iter_2.solverstate"))
    assert again.iter == 2
    again.step(2)
    np.testing.assert_allclose(weight, first.net.params["ip"][0].data, 1e-6)
    third = caffe.SGDSolver(file)
    third.solve(str(tmp_path / "made_iter_2.solverstate"))
    assert third.iter == 4
    np.testing.assert_allclose(third.net.params["ip"][0].data, weight, 1e-6)


def test_nets_outlive_their_solver(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    net = solver.net
    del solver
    assert np.isfinite(net.forward()["loss"])


def test_share_weights(tmp_path: Path) -> None:
    solver = caffe.SGDSolver(solver_file(tmp_path))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    solver.share_weights(net)
    solver.step(1)
    np.testing.assert_array_equal(net.params["ip"][0].data, solver.net.params["ip"][0].data)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not open file none"):
        caffe.SGDSolver("none")
    with pytest.raises(CaffeError, match="solver type 'Sgd' is not known; known types: SGD, Nesterov"):
        caffe.get_solver(solver_file(tmp_path, f'{SETTINGS} type: "Sgd"'))
    solver = caffe.SGDSolver(solver_file(tmp_path))
    with pytest.raises(RuntimeError, match="add_callback takes two functions"):
        solver.add_callback(print)
    with pytest.raises(RuntimeError, match="caffecli train --gpu"):
        caffe.NCCL(solver, "uid")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_training_goes_on_after_a_loss_that_is_no_number(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bad: float
) -> None:
    logs.show_by_default()
    solver = caffe.SGDSolver(solver_file(tmp_path, f"{SETTINGS} display: 1 average_loss: 2"))
    weight, bias = (blob.data for blob in solver.net.params["ip"])
    before = weight.copy()
    bias[...] = [bad, 0, 0]
    solver.step(3)
    assert solver.iter == 3 and np.isnan(weight).any()
    error = capsys.readouterr().err
    assert error.count("\nW") == 1, "one word"
    assert "] Iteration 0: the loss is nan; training goes on, as Caffe's does; lower base_lr, or set clip" in error
    assert "Iteration 2 (" in error and "loss = nan" in error
    weight[...], bias[...] = before, 0
    solver.step(2)
    solver.snapshot()
    assert "nan" not in capsys.readouterr().err.rpartition("] Iteration 4")[2]
    again = caffe.SGDSolver(solver_file(tmp_path))
    again.restore(tmp_path / "made_iter_5.solverstate")
    assert again.iter == 5


def test_the_rate_of_single_steps_is_that_since_the_last_display(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.arange(1000.0))  # each look takes a second
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    solver = caffe.SGDSolver(solver_file(tmp_path, f"{SETTINGS} display: 2"))
    logs.show_by_default()
    for _ in range(5):
        solver.step(1)
        next(clock)  # what comes between steps is not training
    shown = [line for line in capsys.readouterr().err.splitlines() if "iter/s" in line]
    assert [line.partition("] ")[2].partition(", loss")[0] for line in shown] == [
        "Iteration 0 (0 iter/s, 1s/2 iters)",
        "Iteration 2 (0.666667 iter/s, 3s/2 iters)",
        "Iteration 4 (0.666667 iter/s, 3s/2 iters)",
    ]


@pytest.mark.parametrize("grad", [True, False])
def test_the_engine_is_a_runner_like_the_whole_net(grad: bool) -> None:
    param = text.parse(LOSS.replace('include { stage: "scored" }', ""), NetParameter())
    param.state.phase = TRAIN
    runs = []
    for kind in (Whole, Engine):
        torch.manual_seed(1)
        runner = kind(Net(param))
        inputs = {name: torch.ones(tuple(runner.net.shape(name))) for name in runner.net.inputs}
        with torch.set_grad_enabled(grad):
            result = runner.forward(inputs)
        runner.backward(result)
        runs.append((runner, result))
    (whole, expected), (engine, found) = runs
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6) and found.loss > 0
    assert found.outputs.keys() == expected.outputs.keys()
    for name, value in expected.outputs.items():
        torch.testing.assert_close(found.outputs[name], value.detach(), check_stride=False)
    if grad:
        assert isinstance(engine, Engine)
        for weight, ours in zip(engine.weights, whole.net.params, strict=True):
            torch.testing.assert_close(weight.diff.tensor(ours.tensor.shape, engine.device), ours.tensor.grad)


def test_a_state_of_another_kind_of_solver_is_refused(tmp_path: Path) -> None:
    momentum = f"{SETTINGS} momentum: 0.9"
    caffe.AdamSolver(solver_file(tmp_path, momentum)).snapshot()
    with pytest.raises(CaffeError, match="has 4 history blobs, the SGD solver of this net keeps 2; resume with"):
        caffe.SGDSolver(solver_file(tmp_path, momentum)).restore(str(tmp_path / "made_iter_0.solverstate"))
