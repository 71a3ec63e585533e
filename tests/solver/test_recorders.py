"""--csv, --jsonl and --tensorboard: every figure, line by line, going on after a resume."""

from __future__ import annotations

import csv
import errno
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from caffecli import logs
from caffecli.errors import CaffeError, SolverError
from caffecli.formats import log_file
from caffecli.solver.launch import launch
from caffecli.solver.recorders import Csv, JsonLines
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.train import TrainOptions, train, work

Edit = Callable[[str, str, str], None]
SOLVER = Path("solver.prototxt")
CSV, JSONL = Path("a.csv"), Path("a.jsonl")
#: (iteration, net) of the records of a run of 20 iterations
ALL = [
    (0, "test0"),
    (0, "train"),
    (5, "train"),
    (10, "test0"),
    (10, "train"),
    (15, "train"),
    (20, "test0"),
    (20, "train"),
]


def rows() -> list[dict[str, str]]:
    with CSV.open() as file:
        return list(csv.DictReader(file))


def records() -> list[dict[str, Any]]:
    return [json.loads(line) for line in JSONL.read_text().splitlines()]


def figures(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what differs by the clock."""
    return [{name: value for name, value in record.items() if name not in ("seconds", "iter/s")} for record in found]


def places(found: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(record["iteration"], record["net"]) for record in found]


def test_csv(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.show()
    try:
        assert train(TrainOptions(SOLVER, csv=CSV))
    finally:
        logs.hide(handler)
    log = capsys.readouterr().err
    assert CSV.read_text().splitlines()[0] == "iteration,seconds,lr,loss,iter/s,train/loss,test0/accuracy,test0/loss"
    found = rows()
    assert [int(row["iteration"]) for row in found] == [iteration for iteration, _ in ALL]
    for pattern, column in (
        (r"Iteration \d+(?: \(.*\))?, loss = (\S+)", "loss"),
        (r"lr = (\S+)", "lr"),
        (r"Train net output #0: loss = (\S+)", "train/loss"),
        (r"Test net output #0: accuracy = (\S+)", "test0/accuracy"),
        (r"Test net output #1: loss = (\S+)", "test0/loss"),
    ):
        told = [float(value) for value in re.findall(pattern, log)]
        assert [float(row[column]) for row in found if row[column]] == pytest.approx(told, rel=1e-5)
        assert told
    assert found[1]["lr"] == "0.05"
    seconds = [float(row["seconds"]) for row in found]
    assert seconds == sorted(seconds)
    assert seconds[-1] > 0


def test_jsonl(run_folder: Path) -> None:
    assert train(TrainOptions(SOLVER, jsonl=JSONL))
    found = records()
    assert places(found) == ALL
    assert list(found[0]) == ["iteration", "seconds", "net", "outputs"]
    assert list(found[0]["outputs"]) == ["accuracy", "loss"]
    assert list(found[1]) == ["iteration", "seconds", "net", "lr", "loss", "iter/s", "outputs"]
    assert found[1]["loss"] == found[1]["outputs"]["loss"]
    assert list(found[-1]) == ["iteration", "seconds", "net", "loss", "outputs"]


@pytest.mark.parametrize("state", [10, 20])
def test_a_resumed_run_goes_on_with_its_files(run_folder: Path, state: int) -> None:
    assert train(TrainOptions(SOLVER, csv=CSV, jsonl=JSONL))
    whole, both = rows(), records()
    with CSV.open("a") as file:
        file.write("20,0.")  # of a machine that was switched off
    with JSONL.open("a") as file:
        file.write('{"iteration": 2')
    assert train(TrainOptions(SOLVER, Path(f"s_iter_{state}.solverstate"), csv=CSV, jsonl=JSONL))
    assert figures(rows()) == figures(whole)
    assert figures(records()) == figures(both)
    seconds = [record["seconds"] for record in records()]
    assert seconds == sorted(seconds)
    assert CSV.read_text().count("iteration") == 1


def test_tests_that_are_not_done_again_are_kept(run_folder: Path) -> None:
    callbacks = [Csv(CSV), JsonLines(JSONL)]
    solver = Solver(load.load_solver(SOLVER), callbacks=callbacks)
    solver.step(10)
    solver.test_all()
    solver.snapshot()
    solver.close()
    assert places(records()) == ALL[:4]
    solver = Solver(load.load_solver(SOLVER), callbacks=[Csv(CSV), JsonLines(JSONL)])
    solver.restore("s_iter_10.solverstate")
    solver.solve()
    solver.close()
    assert places(records()) == ALL
    assert [int(row["iteration"]) for row in rows()] == [iteration for iteration, _ in ALL]


def test_another_run_starts_the_files_anew(run_folder: Path) -> None:
    for _ in range(2):
        assert train(TrainOptions(SOLVER, csv=CSV, jsonl=JSONL))
        assert places(records()) == ALL
        assert len(rows()) == len(ALL)


def test_each_line_is_there_at_once(run_folder: Path) -> None:
    solver = Solver(load.load_solver(SOLVER), callbacks=[Csv(CSV), JsonLines(JSONL)])
    solver.step(6)
    assert len(rows()) == len(records()) == 3
    solver.close()


def test_outputs_of_several_values(run_folder: Path, edit: Edit) -> None:
    layer = (
        'layer { name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy" %sinclude { phase: '
        "TEST } }"
    )
    edit("net.prototxt", layer % "", layer % 'top: "each" ')
    assert train(TrainOptions(SOLVER, csv=CSV, jsonl=JSONL))
    assert "test0/accuracy,test0/each/0,test0/each/1," in CSV.read_text()
    assert len(records()[0]["outputs"]["each"]) == 10
    assert rows()[0]["test0/each/3"] == pytest.approx(str(records()[0]["outputs"]["each"][3]))


def test_numbers_that_json_lacks(run_folder: Path) -> None:
    recorder = JsonLines(JSONL)
    solver = Solver(load.load_solver(SOLVER), callbacks=[recorder, Csv(CSV)])
    solver.callbacks[1].tested(solver, 0, {"loss": math.nan, "accuracy": 0.1})
    recorder.tested(solver, 0, {"loss": math.inf, "accuracy": [0.1, math.nan]})
    solver.close()
    assert records()[0]["outputs"] == {"loss": None, "accuracy": [0.1, None]}
    assert rows()[0]["test0/loss"] == "nan"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("csv", "a,b\n1,2\n", "'f' is there and is no CSV of figures"),
        ("csv", "\x00\xff", "'f' is there and is no CSV of figures"),
        ("jsonl", "a,b\n1,2\n", "'f' is there and its line 1 is no record"),
        ("jsonl", '{"a": 1}\n', "'f' is there and its line 1 is no record"),
    ],
)
def test_foreign_files_are_left_alone(run_folder: Path, name: str, content: str, words: str) -> None:
    Path("f").write_text(content, "latin-1")
    options: dict[str, Any] = {name: Path("f")}
    with pytest.raises(CaffeError, match=words):
        train(TrainOptions(SOLVER, **options))
    assert Path("f").read_text("latin-1") == content


def test_a_resume_with_other_columns(run_folder: Path, edit: Edit) -> None:
    assert train(TrainOptions(SOLVER, csv=CSV))
    edit("net.prototxt", 'top: "accuracy"', 'top: "score"')
    with pytest.raises(CaffeError, match=r"other columns than this run: .*test0/accuracy.* instead of .*test0/score"):
        train(TrainOptions(SOLVER, Path("s_iter_10.solverstate"), csv=CSV))


@pytest.mark.parametrize("name", ["csv", "jsonl"])
def test_where_nothing_can_be_written(run_folder: Path, name: str) -> None:
    options: dict[str, Any] = {name: Path("no/f")}
    with pytest.raises(CaffeError, match=r"cannot write 'no/f'.*create the folder 'no' first"):
        train(TrainOptions(SOLVER, **options))
    assert not list(run_folder.glob("s_iter*"))


def test_a_full_disk_is_told(run_folder: Path) -> None:
    recorder = Csv(CSV)

    def full(record: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    recorder.write = full  # type: ignore[method-assign]
    solver = Solver(load.load_solver(SOLVER), callbacks=[recorder])
    with pytest.raises(CaffeError, match=r"cannot write 'a.csv': No space left on device"):
        solver.solve()
    solver.close()


@pytest.mark.usefixtures("ranks_at_once")
def test_one_of_two_processes_writes(run_folder: Path) -> None:
    options = TrainOptions(SOLVER, csv=CSV, jsonl=JSONL, keep=1, log_file=Path("log"))
    with log_file.appending(options.log_file):
        assert launch(work, [torch.device("cpu")] * 2, (options, load.load_solver(SOLVER)))
    assert places(records()) == ALL
    assert len(rows()) == len(ALL)
    assert sorted(p.name for p in run_folder.glob("s_iter*solverstate")) == ["s_iter_20.solverstate"]
    log = Path("log").read_text()
    assert len(re.findall("Iteration 15, lr = ", log)) == 1


def test_without_tensorboard(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(SolverError, match=r"^--tensorboard needs the package tensorboard: pip install tensorboard$"):
        train(TrainOptions(SOLVER, tensorboard=Path("tb")))
    assert not Path("tb").exists()


def test_tensorboard(run_folder: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError)
    assert train(TrainOptions(SOLVER, tensorboard=Path("tb"), jsonl=JSONL))
    assert train(TrainOptions(SOLVER, Path("s_iter_10.solverstate"), tensorboard=Path("tb"), jsonl=JSONL))
    events = accumulator.EventAccumulator("tb")
    events.Reload()
    tags = {"lr", "loss", "iter/s", "train/loss", "test0/accuracy", "test0/loss"}
    assert set(events.Tags()["scalars"]) == tags
    found = records()
    for tag, net, name in (("train/loss", "train", "loss"), ("test0/accuracy", "test0", "accuracy")):
        wanted = [(r["iteration"], r["outputs"][name]) for r in found if r["net"] == net and name in r["outputs"]]
        assert [(scalar.step, pytest.approx(scalar.value)) for scalar in events.Scalars(tag)] == wanted
