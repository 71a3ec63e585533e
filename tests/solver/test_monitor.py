"""Runs that watch a test output: early stop, plateau, the best snapshot; and what a resumed one decides."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffecli.errors import CaffeError, SolverError
from caffecli.formats import atomic, caffemodel, solverstate
from caffecli.net.weights import export
from caffecli.solver.callbacks import Callback
from caffecli.solver.learning_rate import RateOptions
from caffecli.solver.monitor import Monitor, WatchOptions
from caffecli.solver.parallel import World
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
OPTIONS = TrainOptions(Path("solver.prototxt"))


@pytest.fixture
def long(run_folder: Path, edit: Edit) -> Path:
    """A run of 60 iterations, tested every 3, whose accuracy goes up and down;
    test batches go round the database unevenly.
    """
    edit("solver.prototxt", "test_interval: 10", "test_interval: 3")
    edit("solver.prototxt", "max_iter: 20", "max_iter: 60")
    edit("net.prototxt", "batch_size: 24", "batch_size: 7")
    return run_folder


def options(watch: WatchOptions, **more: Any) -> TrainOptions:
    return dataclasses.replace(OPTIONS, watch=watch, **more)


def weights(path: str) -> list[np.ndarray]:
    return [blob for blobs in caffemodel.read(Path(path)).values() for blob in blobs]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return len(ours) == len(theirs) > 0 and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def accuracies(log: str) -> list[tuple[int, float]]:
    """(iteration, accuracy) of each test in a log."""
    found = re.findall(r"Iteration (\d+), Testing net.*?accuracy = (\S+)", log, re.S)
    return [(int(iteration), float(value)) for iteration, value in found]


def decisions(log: str) -> list[str]:
    """Tests, rates and decisions in a log."""
    lines = [line.partition("] ")[2] for line in log.splitlines()]
    wanted = re.compile(r"Iteration \d+: |Iteration \d+, lr|    Test net output|Iteration \d+, Testing")
    return [line for line in lines if wanted.match(line)]


def stop_at(scores: list[tuple[int, float]], patience: int) -> int:
    """Where an early stop has to come, by hand."""
    best, waited = -1.0, 0
    for iteration, value in scores:
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited == patience:
            return iteration
    return -1


def test_early_stop(long: Path, heard: io.StringIO) -> None:
    assert train(OPTIONS)
    end = stop_at(accuracies(heard.getvalue()), 3)
    assert 0 < end < 60
    heard.truncate(0)
    assert not train(options(WatchOptions(early_stop=3)))
    log = heard.getvalue()
    assert re.search(
        rf"Iteration {end}: accuracy was not better than \S+ of iteration {end - 9} in 3 tests; stopping", log
    )
    assert "Optimization stopped early." in log
    assert accuracies(log)[-1][0] == end
    assert solverstate.read(Path(f"s_iter_{end}.solverstate")).iter == end


def test_a_stopped_run_goes_on_with_more_patience(long: Path, heard: io.StringIO) -> None:
    train(options(WatchOptions(early_stop=5)))
    whole = heard.getvalue()
    heard.truncate(0)
    train(options(WatchOptions(early_stop=3)))
    end = accuracies(heard.getvalue())[-1][0]
    heard.truncate(0)
    state = Path(f"s_iter_{end}.solverstate")
    assert not train(options(WatchOptions(early_stop=3), snapshot=state))  # still enough is enough
    assert not accuracies(heard.getvalue()) or accuracies(heard.getvalue())[-1][0] == end
    heard.truncate(0)
    train(options(WatchOptions(early_stop=5), snapshot=state))
    resumed = decisions(heard.getvalue())
    assert len(resumed) > 2 and decisions(whole)[-len(resumed) :] == resumed


WATCH = WatchOptions("loss", early_stop=9, plateau=1, plateau_gamma=0.5, best=True)


def test_n_plus_n_is_2n_with_all_of_them(long: Path, edit: Edit, heard: io.StringIO) -> None:
    rates = RateOptions(min_lr=0.004, warmup=15, start_lr=0.001)
    assert train(options(WATCH, rate=rates))
    whole = heard.getvalue()
    assert "multiplied by 0.25" in whole and "is the best so far" in whole
    last, best = weights("s_iter_60.caffemodel"), weights("s_best.caffemodel")
    kept = json.loads(Path("s_iter_60.solverstate.json").read_text())["callbacks"]
    for at in (10, 30, 50):  # 30: a snapshot right before a test
        for path in (*long.glob("s_iter_60.*"), *long.glob("s_best.*")):
            path.unlink()
        heard.truncate(0)
        assert train(options(WATCH, rate=rates, snapshot=Path(f"s_iter_{at}.solverstate")))
        assert same(weights("s_iter_60.caffemodel"), last)
        assert json.loads(Path("s_iter_60.solverstate.json").read_text())["callbacks"] == kept
        resumed = decisions(heard.getvalue())
        assert len(resumed) > 9 and decisions(whole)[-len(resumed) :] == resumed
        if Path("s_best.caffemodel").exists():
            assert same(weights("s_best.caffemodel"), best)


def test_the_best_snapshot(long: Path, heard: io.StringIO) -> None:
    assert train(options(WatchOptions(best=True)))
    log = heard.getvalue()
    scores = accuracies(log)
    best = max(value for _, value in scores)
    at = next(iteration for iteration, value in scores if value == best)
    assert re.findall(r"Iteration (\d+): accuracy = (\S+) is the best so far", log)[-1] == (str(at), f"{best:g}")
    state = solverstate.read(Path("s_best.solverstate"))
    assert (state.iter, state.learned_net) == (at, "s_best.caffemodel")
    assert not [path.name for path in long.iterdir() if path.name.startswith(".")]


def test_a_resume_from_the_best_goes_on_after_its_tests(long: Path, heard: io.StringIO) -> None:
    train(options(WATCH))
    last, whole = weights("s_iter_60.caffemodel"), decisions(heard.getvalue())
    heard.truncate(0)
    at = solverstate.read(Path("s_best.solverstate")).iter
    train(options(WATCH, snapshot=Path("s_best.solverstate")))
    assert same(weights("s_iter_60.caffemodel"), last)
    resumed = decisions(heard.getvalue())
    assert f"Iteration {at}, Testing net (#0)" not in resumed
    assert whole[-len(resumed) :] == resumed if resumed else at == 60
    heard.truncate(0)
    train(dataclasses.replace(OPTIONS, snapshot=Path("s_best.solverstate")))  # without flags: as Caffe does
    assert f"Iteration {at}, Testing net (#0)" in decisions(heard.getvalue())
    assert "this one goes on without" in heard.getvalue()


def test_a_better_best_that_is_there_stays(long: Path, edit: Edit, heard: io.StringIO) -> None:
    """A run that was resumed without the flag, and a new one, go on from the best that stands there."""
    train(options(WatchOptions(best=True)))
    best = max(value for _, value in accuracies(heard.getvalue()))
    at, kept = solverstate.read(Path("s_best.solverstate")).iter, Path("s_best.caffemodel").read_bytes()
    told = f"s_best.caffemodel is there, of accuracy = {best:g} in iteration {at}; only a better one replaces it"
    assert told not in heard.getvalue()
    edit("solver.prototxt", "max_iter: 60", "max_iter: 63")
    train(dataclasses.replace(OPTIONS, snapshot=Path("s_iter_60.solverstate")))
    position = Path("s_iter_63.solverstate.json")
    assert "--best" not in json.loads(position.read_text()).get("callbacks", {})
    edit("solver.prototxt", "max_iter: 63", "max_iter: 66")
    train(options(WatchOptions(best=True), snapshot=Path("s_iter_63.solverstate")))
    assert told in heard.getvalue()
    heard.truncate(0)
    edit("solver.prototxt", "max_iter: 66", "max_iter: 3")
    train(options(WatchOptions(best=True)))
    assert told in heard.getvalue()
    assert Path("s_best.caffemodel").read_bytes() == kept


def test_a_worse_best_that_is_there_is_replaced(run_folder: Path) -> None:
    train(options(WatchOptions(best=True)))
    position = Path("s_best.solverstate.json")
    said = json.loads(position.read_text())
    said["callbacks"]["--best"] |= {"best": -1.0}
    position.write_text(json.dumps(said))
    Path("s_best.caffemodel").write_bytes(b"worse")
    train(options(WatchOptions(best=True)))
    assert weights("s_best.caffemodel") and json.loads(position.read_text())["callbacks"]["--best"]["best"] >= 0


@pytest.mark.parametrize("position", ["", None, '{"callbacks": {"--best": {"of": 3}}}'])
def test_a_best_of_which_nothing_is_known_stays(run_folder: Path, position: str | None) -> None:
    train(options(WatchOptions(best=True)))
    path = Path("s_best.solverstate.json")
    path.unlink() if position is None else path.write_text(position)
    words = (
        r"--best: 's_best.caffemodel' is there, the best by an unknown output, and this run watches 0:accuracy:max; "
        "move it away, or name another snapshot_prefix"
    )
    with pytest.raises(SolverError, match=words):
        train(options(WatchOptions(best=True)))
    with pytest.raises(SolverError, match=r"by an unknown output, and this run watches 0:loss:min"):
        train(options(WatchOptions("loss", best=True)))


def test_the_best_in_hdf5(run_folder: Path, edit: Edit) -> None:
    edit("solver.prototxt", "display: 5", "snapshot_format: HDF5")
    train(options(WatchOptions(best=True)))
    assert sorted(p.name for p in run_folder.glob("s_best*")) == [
        "s_best.caffemodel.h5", "s_best.solverstate.h5", "s_best.solverstate.h5.json",
    ]  # fmt: skip


def test_an_unwritten_best_leaves_the_former(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(options(WatchOptions(best=True)))
    before = {path.name: path.read_bytes() for path in run_folder.glob("s_best*")}
    assert len(before) == 3

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(solverstate, "write", full)
    solver = Solver(load.load_solver(Path("solver.prototxt")))
    try:
        with pytest.raises(
            CaffeError, match=r"cannot write 's_best\.caffemodel': No space left on device; free some space"
        ):
            solver.snapshot("best")
    finally:
        solver.close()
    assert {path.name: path.read_bytes() for path in run_folder.glob("*s_best*")} == before


def test_a_best_that_is_cut_short_has_no_wrong_solverstate(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(options(WatchOptions(best=True)))
    solver = Solver(load.load_solver(Path("solver.prototxt")))
    replace = Path.replace

    def cut(path: Path, target: Path) -> Path:
        if path.suffix == ".json" and ".new" in str(path.parent):
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", cut)
    try:
        with pytest.raises(KeyboardInterrupt):
            solver.snapshot("best")
        initial = [blob for blobs in export(solver.net).values() for blob in blobs]
    finally:
        solver.close()
    assert same(weights("s_best.caffemodel"), initial)
    assert not Path("s_best.solverstate").exists() and not list(run_folder.glob(".s_best*"))


def test_a_full_disk_names_the_file(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, *args: object) -> None:
        raise atomic.cannot_write(path, OSError(28, "No space left on device"))

    monkeypatch.setattr(caffemodel, "write", full)
    with pytest.raises(CaffeError, match=r"cannot write 's_best\.caffemodel': No space"):
        train(options(WatchOptions(best=True)))


def test_best_needs_a_writable_folder(run_folder: Path, edit: Edit) -> None:
    edit("solver.prototxt", 'snapshot: 10 snapshot_prefix: "s"', 'snapshot_after_train: false snapshot_prefix: "no/s"')
    with pytest.raises(SolverError, match="the folder 'no' does not exist"):
        train(options(WatchOptions(best=True)))


def test_plateau_multiplies_the_rate(long: Path, heard: io.StringIO) -> None:
    train(options(WatchOptions("accuracy", plateau=2, plateau_gamma=0.1), rate=RateOptions(min_lr=0.002)))
    best, waited, factor, rates = -1.0, 0, 1.0, {}
    for iteration, value in accuracies(heard.getvalue()):
        best, waited = (value, 0) if value > best else (best, waited + 1)
        if waited == 2:
            waited, factor = 0, factor * 0.1
        rates[iteration] = max(0.002, 0.05 * factor)
    told = {int(i): float(rate) for i, rate in re.findall(r"Iteration (\d+), lr = (\S+)", heard.getvalue())}
    assert {rates[i] for i in rates} >= {0.05, 0.05 * 0.1, 0.002}
    for iteration, rate in told.items():
        assert rate == pytest.approx(rates[iteration - iteration % 3], rel=1e-5)


def test_plateau_takes_the_solvers_gamma(long: Path, edit: Edit, heard: io.StringIO) -> None:
    with pytest.raises(
        SolverError, match=r"by what is the rate multiplied\? give --plateau 1:0.1, or gamma in the solver"
    ):
        train(options(WatchOptions(plateau=1)))
    edit("solver.prototxt", "max_iter", "gamma: 0.25 max_iter")
    train(options(WatchOptions(plateau=1)))
    assert "in 1 test; the policy's learning rate is multiplied by 0.25 from here on" in heard.getvalue()
    edit("solver.prototxt", "gamma: 0.25", "gamma: 1")
    with pytest.raises(SolverError, match="--plateau 1: gamma must lie between 0 and 1, got 1"):
        train(options(WatchOptions(plateau=1)))


def test_the_same_with_two_test_nets(long: Path, edit: Edit, heard: io.StringIO) -> None:
    edit("solver.prototxt", "test_iter: 3", "test_iter: 3 test_iter: 5")
    assert not train(options(WatchOptions("1:accuracy", early_stop=2)))
    assert re.findall(r"Testing net \(#(\d)\)", heard.getvalue())[-1] == "1"
    first = [line for line in decisions(heard.getvalue()) if "accuracy" in line]
    scores = [float(line.split()[-1]) for line in first if "Test net" in line][1::2]
    assert stop_at(list(enumerate(scores)), 2) == len(scores) - 1


def test_another_monitor_starts_anew(long: Path, heard: io.StringIO) -> None:
    train(options(WatchOptions("accuracy", early_stop=9)))
    train(options(WatchOptions("loss", early_stop=9), snapshot=Path("s_iter_30.solverstate")))
    assert "--early-stop watched 0:accuracy:max before, now 0:loss:min: it starts anew" in heard.getvalue()


def test_what_is_watched(long: Path, edit: Edit) -> None:
    edit(
        "net.prototxt",
        'layer { name: "accuracy"',
        'layer { name: "s" type: "Softmax" bottom: "ip1" top: "many" }\nlayer { name: "accuracy"',
    )
    edit(
        "net.prototxt",
        'layer { name: "loss"',
        'layer { name: "odd" type: "Reduction" bottom: "ip1" top: "odd" }\nlayer { name: "loss"',
    )
    solver = Solver(load.load_solver(Path("solver.prototxt")))
    nets = solver.test_nets
    solver.close()
    assert Monitor.find("", nets) == Monitor.find("0:accuracy:max", nets) == Monitor(0, "accuracy", "max")
    assert Monitor.find("loss", nets) == Monitor(0, "loss", "min")
    assert Monitor.find("#0:odd:min", nets) == Monitor(0, "odd", "min")
    for asked, words in {
        "acuracy": r"test net #0 has no output 'acuracy'; did you mean 'accuracy'\? "
        r"its outputs: accuracy, loss, many, odd",
        "odd": r"is more better, or less\? give odd:max or odd:min",
        "many": "'many' has 70 values; watch one that has one",
        "1:accuracy": "there is no test net #1; there is only #0",
        "accuracy:up": "has no output 'accuracy:up'",
    }.items():
        with pytest.raises(SolverError, match=words):
            Monitor.find(asked, nets)
    with pytest.raises(SolverError, match="there is no test net; give the solver test_iter and test_interval"):
        Monitor.find("", [])


def test_what_is_not_a_number_is_not_better() -> None:
    monitor = Monitor(0, "loss", "min")
    assert not monitor.better(float("nan"), None) and not monitor.better(float("nan"), 1.0)
    assert monitor.better(1.0, None) and monitor.better(0.5, 1.0) and not monitor.better(1.0, 1.0)


def test_hooks(run_folder: Path) -> None:
    class Notes(Callback):
        name = "notes"

        def __init__(self) -> None:
            self.said: list[str] = []

        def started(self, solver: Solver) -> None:
            self.said.append("started")

        def displayed(self, solver: Solver, figures: Any, outputs: Any) -> None:
            assert set(figures) == {"loss", "lr", "iter/s"} and isinstance(outputs["loss"], float)
            self.said.append(f"displayed {solver.iter}")

        def tested(self, solver: Solver, index: int, means: Any) -> None:
            assert set(means) == {"accuracy", "loss"}
            self.said.append(f"tested {solver.iter}")

        def snapshotted(self, solver: Solver, model: Path, state: Path) -> None:
            assert model.is_file() and state.is_file()
            self.said.append(f"{state}")

        def finished(self, solver: Solver) -> None:
            self.said.append("finished")

        def close(self) -> None:
            self.said.append("closed")

        def state(self) -> dict[str, Any]:
            return {"count": len(self.said)}

        def restore(self, solver: Solver, state: dict[str, Any]) -> None:
            self.said.append(f"restored {state['count']}")

    param, notes = load.load_solver(Path("solver.prototxt")), Notes()
    for path in (None, "s_iter_10.solverstate"):
        solver = Solver(param, world=World(), callbacks=[notes])
        if path:
            solver.restore(path)
        solver.solve()
        solver.close()
    half = ["tested 10", "displayed 10", "displayed 15", "s_iter_20.solverstate", "tested 20", "finished", "closed"]
    assert notes.said[:5] == ["started", "tested 0", "displayed 0", "displayed 5", "s_iter_10.solverstate"]
    assert notes.said[5:] == [*half, "restored 4", "started", *half]
