"""The recorded training runs: losses, rates, scores and final weights,
from the start and from Caffe's own solverstate.
"""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from caffecli import logs
from caffecli.formats import caffemodel
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver.rules import RULES
from caffecli.solver.solver import Solver
from caffecli.spec import load

GOLDEN = Path(__file__).parents[1] / "golden" / "solvers"


def runs() -> list[str]:
    """The recorded runs whose solver type we have."""
    folders = sorted(p.parent for p in GOLDEN.glob("*/solver.prototxt"))
    return [f.name for f in folders if load.load_solver(f / "solver.prototxt").type in RULES]


def figures(log: str) -> dict[str, list[tuple[int, float]]]:
    """What a training log says by iteration: losses, rates, test scores."""
    found: dict[str, list[tuple[int, float]]] = {"loss": [], "lr": [], "accuracy": [], "test loss": []}
    iteration = 0
    for line in log.splitlines():
        if match := re.search(r"\] Iteration (\d+)", line):
            iteration = int(match[1])
        if match := re.search(r"\] Iteration \d+ \(.*\), loss = (\S+)|\] Iteration \d+, loss = (\S+)", line):
            found["loss"].append((iteration, float(match[1] or match[2])))
        if match := re.search(r"lr = (\S+)", line):
            found["lr"].append((iteration, float(match[1])))
        if match := re.search(r"Test net output #0: accuracy = (\S+)", line):
            found["accuracy"].append((iteration, float(match[1])))
        if match := re.search(r"Test net output #1: loss = (\S+)", line):
            found["test loss"].append((iteration, float(match[1])))
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """A copy of a recorded run's folder, databases beside it, as the working directory."""
    name = request.param
    for database in ("train_lmdb", "test_lmdb"):
        shutil.copytree(GOLDEN / database, tmp_path / database)
    shutil.copytree(GOLDEN / name, tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    return tmp_path / name


def train(folder: Path, resume: bool) -> str:
    param: SolverParameter = load.load_solver(Path("solver.prototxt"))
    heard = io.StringIO()
    handler = logs.show(heard)
    try:
        if not resume:
            del param.weights[:]
            param.weights.append("init.caffemodel")
        solver = Solver(param, "cpu")
        if resume:
            solver.restore(next(iter(sorted(folder.glob("t_iter_15.solverstate*")))))
        solver.solve()
        solver.close()
    finally:
        logs.hide(handler)
    return heard.getvalue()


@pytest.mark.parametrize("resume", [False, True], ids=["from_init", "from_solverstate"])
@pytest.mark.parametrize("folder", runs(), indirect=True)
def test_run(folder: Path, resume: bool) -> None:
    expected = figures((folder / ("resume.log" if resume else "train.log")).read_text())
    final = np.load(folder / ("final_resumed.npz" if resume else "final.npz"))
    log = train(folder, resume)
    got = figures(log)
    for what, tolerance in (("lr", 1e-4), ("loss", 2e-3), ("test loss", 2e-3), ("accuracy", 1e-5)):
        assert [i for i, _ in got[what]] == [i for i, _ in expected[what]], what
        ours, theirs = (np.array([v for _, v in f[what]]) for f in (got, expected))
        assert np.abs(ours - theirs).max(initial=0) <= tolerance * max(1.0, np.abs(theirs).max(initial=0)), what
    written = caffemodel.read(next(iter(folder.glob("t_iter_30.caffemodel*"))))
    assert final.files
    for key in final.files:
        layer, index = key.rsplit("/", 1)
        error = np.abs(written[layer][int(index)] - final[key]).max()
        assert error <= 2e-3 * max(1.0, np.abs(final[key]).max()), key
