"""The loop as its user sees it: displays, tests, snapshots, signals, and what ends it."""

from __future__ import annotations

import io
import os
import re
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from caffecli import logs
from caffecli.errors import CaffeError, DataError, SolverError, SpecError
from caffecli.formats import solverstate
from caffecli.solver import parallel
from caffecli.solver.monitor import WatchOptions
from caffecli.solver.signals import Action, Signals
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
OPTIONS = TrainOptions(Path("solver.prototxt"))


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """What the log says during the test."""
    stream = io.StringIO()
    handler = logs.show(stream)
    yield stream
    logs.hide(handler)


def test_lines_of_a_run(run_folder: Path, heard: io.StringIO) -> None:
    assert train(OPTIONS)
    log = heard.getvalue()
    assert re.search(r"^I\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ caffe\.cpp:197\] Use CPU\.$", log, re.M)
    assert [int(n) for n in re.findall(r"Iteration (\d+) \(\S+ iter/s, \S+s/5 iters\), loss = ", log)] == [0, 5, 10, 15]
    assert [int(n) for n in re.findall(r"Iteration (\d+), lr = 0.05$", log, re.M)] == [0, 5, 10, 15]
    assert [int(n) for n in re.findall(r"Iteration (\d+), Testing net \(#0\)", log)] == [0, 10, 20]
    assert re.findall(r"Snapshotting to binary proto file (.*)", log) == [
        "s_iter_10.caffemodel",
        "s_iter_20.caffemodel",
    ]
    assert re.search(r"\]     Test net output #1: loss = (\S+) \(\* 1 = \1 loss\)", log)
    assert re.search(
        r"sgd_solver.cpp:284\] Snapshotting solver state to binary proto file s_iter_10.solverstate\n", log
    )
    assert log.count("Optimization Done.") == 2
    assert log.index("Solving small") < log.index("Iteration 0")
    assert re.search(r"Iteration 20, loss = \S+$", log, re.M)


def test_counts_below_zero_run_as_in_the_reference(run_folder: Path, edit: Edit, heard: io.StringIO) -> None:
    edit("solver.prototxt", "display: 5", "display: -5")
    edit("solver.prototxt", "snapshot: 10", "snapshot: -10")
    edit("solver.prototxt", "test_iter: 3", "test_iter: -1 test_compute_loss: true")
    assert train(OPTIONS)
    log = heard.getvalue()
    assert [int(n) for n in re.findall(r"Iteration (\d+), lr = 0.05$", log, re.M)] == [0, 5, 10, 15]
    assert [int(n) for n in re.findall(r"Iteration (\d+), Testing net \(#0\)", log)] == [0, 10, 20]
    assert log.count("Snapshotting to binary") == 2
    assert "Test net output" not in log
    assert "Test net #0, test_iter -1: nothing is scored; give a larger one" in log
    edit("solver.prototxt", "max_iter: 20", "max_iter: -1")
    assert train(OPTIONS)
    assert "iteration 0: max_iter -1 is reached: nothing is trained" in heard.getvalue()


def test_a_solver_changed_before_it_is_resumed(run_folder: Path, edit: Edit, heard: io.StringIO) -> None:
    edit("solver.prototxt", '"fixed"', '"multistep" gamma: 0.1 stepvalue: 2')
    edit("solver.prototxt", "max_iter: 20", "max_iter: 10")
    assert train(OPTIONS)
    edit("solver.prototxt", "max_iter: 10", "max_iter: 20")
    edit("solver.prototxt", "stepvalue: 2", "stepvalue: 12")
    edit("solver.prototxt", "base_lr: 0.05", "base_lr: 0.5")
    assert train(replace(OPTIONS, snapshot=Path("s_iter_10.solverstate")))
    assert re.findall(r"Iteration (\d+), lr = (\S+)$", heard.getvalue(), re.M) == [
        ("0", "0.05"), ("5", "0.005"), ("10", "0.5"), ("15", "0.05"),
    ]  # fmt: skip


def test_a_test_without_batches_cannot_be_watched(run_folder: Path, edit: Edit) -> None:
    edit("solver.prototxt", "test_iter: 3", "test_iter: 0")
    with pytest.raises(SolverError, match=r"--best watches test net #0, and test_iter 0 scores nothing; give a larger"):
        train(replace(OPTIONS, watch=WatchOptions(best=True)))


def test_snapshots_written(run_folder: Path) -> None:
    train(OPTIONS)
    names = sorted(p.name for p in run_folder.glob("s_iter_*"))
    stems = [f"s_iter_{n}{tail}" for n in (10, 20) for tail in (".caffemodel", ".solverstate", ".solverstate.json")]
    assert names == sorted(stems)
    assert solverstate.read(Path("s_iter_20.solverstate")).iter == 20


@pytest.mark.parametrize("wrong", ["snapshot_after_train: false", "snapshot_after_train: true"])
def test_snapshot_after_train(run_folder: Path, edit: Edit, wrong: str) -> None:
    edit("solver.prototxt", "snapshot: 10", wrong)
    train(OPTIONS)
    assert Path("s_iter_20.solverstate").exists() == ("true" in wrong)


@pytest.mark.parametrize(
    ("prefix", "file"), [("", "solver_iter_20.caffemodel"), ('snapshot_prefix: "out"', "out/solver_iter_20.caffemodel")]
)
def test_snapshot_prefix(run_folder: Path, edit: Edit, heard: io.StringIO, prefix: str, file: str) -> None:
    Path("out").mkdir()
    edit("solver.prototxt", 'snapshot_prefix: "s"', prefix)
    train(OPTIONS)
    assert Path(file).is_file()
    stem, why = (
        file.removesuffix("_iter_20.caffemodel"),
        "a directory and is replaced" if prefix else "not specified and is set",
    )
    assert f"snapshot_prefix was {why} to {stem}" in heard.getvalue().splitlines()[0]
    assert f'\nsnapshot_prefix: "{stem}"\n' in heard.getvalue()


def test_test_interval_and_initialization(run_folder: Path, edit: Edit, heard: io.StringIO) -> None:
    edit("solver.prototxt", "test_interval: 10", "test_interval: 10 test_initialization: false test_compute_loss: true")
    train(OPTIONS)
    assert re.findall(r"Iteration (\d+), Testing", heard.getvalue()) == ["10", "20"]
    assert re.findall(r"Test loss: (\S+)", heard.getvalue()) == re.findall(r"output #1: loss = (\S+)", heard.getvalue())


def test_several_test_nets(run_folder: Path, edit: Edit, heard: io.StringIO) -> None:
    edit(
        "solver.prototxt",
        "test_iter: 3",
        'test_iter: 1 test_iter: 2 test_state { stage: "a" } test_state { stage: "b" }',
    )
    train(OPTIONS)
    assert "Creating test net (#1)" in heard.getvalue()
    assert heard.getvalue().count("Testing net (#1)") == 3


@pytest.mark.parametrize(
    ("name", "action"),
    [("SIGINT", "stop"), ("SIGHUP", "snapshot"), ("SIGINT", "none"), ("SIGHUP", "stop"), ("SIGTERM", "stop")],
)
def test_signals(run_folder: Path, edit: Edit, heard: io.StringIO, name: str, action: str) -> None:
    """A signal that arrives while iteration 5 is being shown is obeyed at its end."""
    number = getattr(signal, name)

    class Sender(io.StringIO):
        def write(self, text: str) -> int:
            if "Iteration 5 (" in text:
                os.kill(os.getpid(), number)
            return super().write(text)

    handler = logs.show(Sender())
    effects = {f"{name.lower()}_effect": Action(action)} if name != "SIGTERM" else {}
    try:
        command = ("caffecli", "train", "--solver=my solver.prototxt")
        finished = train(TrainOptions(Path("solver.prototxt"), command=command, **effects))  # type: ignore[arg-type]
    finally:
        logs.hide(handler)
    assert finished == (action != "stop")
    assert Path("s_iter_6.solverstate").exists() == (action in ("stop", "snapshot"))
    assert Path("s_iter_20.solverstate").exists() == (action != "stop")
    assert ("Optimization stopped early." in heard.getvalue()) == (action == "stop")
    told = "To go on from there: caffecli train '--solver=my solver.prototxt' --snapshot=s_iter_6.solverstate\n"
    assert heard.getvalue().count(told) == (action != "none")


def test_the_bar_shows_the_last_test(run_folder: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[dict[str, float]] = []
    monkeypatch.setattr(logs.Bar, "note", lambda bar, **figures: noted.append(figures))
    handler = logs.show(heard := io.StringIO())
    try:
        train(OPTIONS)
    finally:
        logs.hide(handler)
    scores = [float(value) for value in re.findall(r"accuracy = (\S+)", heard.getvalue())]
    assert [noted[i]["test accuracy"] for i in (0, 9, 10, 19)] == pytest.approx(
        [scores[i] for i in (0, 0, 1, 1)], rel=1e-5
    )
    noted.clear()
    edit("solver.prototxt", "test_iter: 3 test_interval: 10", "")
    train(OPTIONS)
    assert all(list(figures) == ["loss", "lr"] for figures in noted)


def test_torchruns_part_of_a_command_is_not_left_out(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[tuple[TrainOptions, object]] = []
    monkeypatch.setattr(parallel, "given_rank", lambda: 0)
    monkeypatch.setattr(parallel, "join", lambda work, device, job: came.append(job))
    train(replace(OPTIONS, command=("caffecli", "train")))
    assert came[0][0].command == ()


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Signals():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_nan_names_iteration_blob_and_snapshot(run_folder: Path, edit: Edit) -> None:
    edit("solver.prototxt", 'base_lr: 0.05 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"',
         'base_lr: 0.05 momentum: 0.9 lr_policy: "multistep" gamma: 1e30 stepvalue: 12')  # fmt: skip
    with pytest.raises(SolverError) as caught:
        train(OPTIONS)
    text = str(caught.value)
    assert re.match(
        r"iteration 1[3-6]: the loss is (nan|inf); first bad blob: layer '\w+', (top|param) blob \S+; ", text
    ), text
    assert "the last snapshot is s_iter_10.solverstate" in text
    assert Path("s_iter_10.solverstate").exists()
    assert not Path("s_iter_20.solverstate").exists()
    assert "\n" not in text


def test_label_past_the_classes_names_the_record(run_folder: Path) -> None:
    from .conftest import NET

    Path("net.prototxt").write_text(NET.format(classes=5))
    with pytest.raises(DataError, match=r"layer '\w+': label \d .* 5 classes.*record '\d+' of layer 'data'"):
        train(OPTIONS)


def test_debug_info_gives_the_same_weights(run_folder: Path, edit: Edit, heard: io.StringIO) -> None:
    def final() -> list[torch.Tensor]:
        solver = Solver(load.load_solver(Path("solver.prototxt")), "cpu")
        solver.solve()
        solver.close()
        return [p.tensor.detach().clone() for p in solver.net.params]

    plain = final()
    edit("solver.prototxt", "display: 5", "display: 5 debug_info: true")
    for ours, theirs in zip(final(), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert "[Forward] Layer conv1, top blob conv1 data: " in heard.getvalue()
    assert "[Backward] Layer ip1, param blob 0 diff: " in heard.getvalue()
    assert "All net params (data, diff): L1 norm = (" in heard.getvalue()


@pytest.mark.parametrize(
    ("file", "old", "new", "kind", "words"),
    [
        ("solver.prototxt", 'snapshot_prefix: "s"', 'snapshot_prefix: "no/s"', SolverError,
            "the folder 'no' does not exist"),
        ("solver.prototxt", 'net: "net.prototxt"', "", SolverError,
            "exactly one of net, net_param, train_net, train_net_param"),
        ("solver.prototxt", 'net: "net.prototxt"', 'net: "nn.prototxt"', CaffeError, "nn.prototxt"),
        ("solver.prototxt", "test_interval: 10", "", SolverError, "test_interval must be positive"),
        ("solver.prototxt", "test_iter: 3", 2 * 'test_net: "net.prototxt"' + "test_iter: 3", SolverError,
            "once per test net"),
        ("solver.prototxt", "random_seed: 7", "iter_size: 0", SolverError, "iter_size must be at least 1, got 0"),
        ("solver.prototxt", "random_seed: 7", "average_loss: 0", SolverError, "average_loss must be at least 1, got 0"),
        ("solver.prototxt", "fixed", "fixd", SolverError, "did you mean 'fixed'"),
        ("solver.prototxt", "solver_mode: CPU", "solver_mode: GPU", SolverError,
            "none that PyTorch can use; write solver_mode: CPU in the solver, or run with --cpu"),
        ("net.prototxt", '"ReLU"', '"ReLUU"', SpecError, "layer 'relu1': unknown type 'ReLUU'; did you mean 'ReLU'"),
        ("net.prototxt", '"ip1" bottom: "label" top: "loss"', '"ip2" bottom: "label" top: "loss"', SpecError, "'ip1'"),
        ("net.prototxt", 'name: "ip1"', 'name: "conv1"', SpecError, "layer 'conv1' is defined twice"),
        ("net.prototxt", "kernel_size: 5", "kernel_size: 50", CaffeError, "layer 'conv1'"),
    ],
)  # fmt: skip
def test_wrong_input_before_training(
    run_folder: Path, edit: Edit, file: str, old: str, new: str, kind: type[CaffeError], words: str
) -> None:
    if "GPU" in new and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    edit(file, old, new)
    with pytest.raises(kind) as caught:
        train(OPTIONS)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(run_folder.glob("s_iter*"))


def test_time_runs_the_backward_pass_of_a_deploy_net_too(tmp_path: Path) -> None:
    from caffecli.tools.time import TimeOptions, time

    (tmp_path / "deploy.prototxt").write_text(
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 32 dim: 16 dim: 40 dim: 40 } } }'
        'layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param { num_output: 32 kernel_size: '
        "5 } }"
    )
    forward, backward = time(TimeOptions(tmp_path / "deploy.prototxt", 2))["conv"]
    assert backward > forward / 10
