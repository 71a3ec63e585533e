"""Solverstates and their position files, damaged field by field: one line each, and never another run's weights."""

from __future__ import annotations

import copy
import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import caffemodel, solverstate
from caffecli.formats.solverstate import SolverState
from caffecli.net.weights import export
from caffecli.solver.keep import Keep
from caffecli.solver.monitor import Best, Plateau
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]

#: what may stand in a field of another type
_ODD: tuple[Any, ...] = (None, True, -5, 2**70, 1.5, "x", "", [], [[1]], {}, {"x": {}})
_STATE, _POSITION = Path("s_iter_10.solverstate"), Path("s_iter_10.solverstate.json")


@pytest.fixture
def solver(run_folder: Path) -> Iterator[Solver]:
    """A solver that has written ``_STATE``, with all that a position file can hold."""
    param = load.load_solver("solver.prototxt")
    made = Solver(param, callbacks=[Keep(2), Plateau("", 3, 0.5), Best("")])
    made.param.max_iter = 10
    made.solve()
    yield made
    made.close()


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all fields and items."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from _paths(value[key], (*path, key))


def test_each_field_of_a_position_is_checked(solver: Solver) -> None:
    """A field that is missing or of another type ends in one line that names the file and says what to do."""
    good = json.loads(_POSITION.read_text())
    assert good["callbacks"].keys() == {"--keep", "--plateau", "--best"}
    refused = 0
    for path in list(_paths(good)):
        for odd in (*_ODD, "missing"):
            bad = copy.deepcopy(good)
            parent = bad
            for key in path[:-1]:
                parent = parent[key]
            if odd == "missing":
                del parent[path[-1]]
            else:
                parent[path[-1]] = odd
            _POSITION.write_text(json.dumps(bad))
            try:
                solver.restore(_STATE)
            except FormatError as error:
                refused += 1
                words = str(error)
                assert "\n" not in words
                assert f"'{_POSITION}' is damaged (" in words or "was written with other weights than" in words, words
    assert refused > 300
    _POSITION.write_text(json.dumps(good))
    solver.restore(_STATE)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[" * 100_000, "recursion"),
        ("5", r"it is 5; expected an object"),
        ('{"of": 3}', r"of is 3; expected a text"),
        ("{}", "of is missing"),
        ("\xff\xfe", "Expecting value"),
    ],
)
def test_a_position_that_is_none(solver: Solver, text: str, words: str) -> None:
    _POSITION.write_text(text, "latin-1" if text.startswith("\xff") else "utf-8")
    with pytest.raises(
        FormatError, match=rf"damaged \(.*{words}.*\); remove it to resume with the data from"
    ) as caught:
        solver.restore(_STATE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [("iter", -5), ("current_step", -9), ("iter", -(2**31))])
@pytest.mark.parametrize("tail", ["", ".h5"])
def test_numbers_that_no_run_reaches(tmp_path: Path, tail: str, field: str, value: int) -> None:
    path = tmp_path / f"x.solverstate{tail}"
    solverstate.write(path, SolverState(**{"iter": 1, "learned_net": "x", field: value}))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match=rf"{path}' is damaged: {field} is {value}; resume from another snapshot"):
        solverstate.read(path)


@pytest.mark.parametrize("name", ["iter", "current_step"])
@pytest.mark.parametrize("value", ["x", 1.5, [], [1, 2], None])
def test_hdf5_numbers_that_are_none(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "x.solverstate.h5"
    solverstate.write(path, SolverState(1, 0, "x", [np.zeros(2, np.float32)]))
    with h5py.File(path, "a") as file:
        del file[name]
        if value is None:
            file.create_group(name)
        else:
            file[name] = value
    with pytest.raises(FormatError, match=r"x.solverstate.h5': it is damaged"):
        solverstate.read(path)


def test_weights_beside_the_solverstate_come_first(run_folder: Path, edit: Edit, heard: io.StringIO) -> None:
    """Two folders with one relative snapshot_prefix: the state of the other folder goes with that folder's weights."""
    train(TrainOptions(Path("solver.prototxt")))
    (run_folder / "other").mkdir()
    for path in run_folder.glob("s_iter_10.*"):
        shutil.copy(path, run_folder / "other" / path.name)
    edit("solver.prototxt", "random_seed: 7", "random_seed: 8")
    train(TrainOptions(Path("solver.prototxt")))
    theirs = caffemodel.read(Path("other/s_iter_10.caffemodel"))
    for position in (True, False):  # Caffe's own solverstates have none
        if not position:
            Path("other/s_iter_10.solverstate.json").unlink()
        heard.truncate(0)
        solver = Solver(load.load_solver("solver.prototxt"))
        solver.restore("other/s_iter_10.solverstate")
        solver.close()
        assert "The weights of other/s_iter_10.solverstate: other/s_iter_10.caffemodel" in heard.getvalue()
        ours = export(solver.net)
        assert all(np.array_equal(a, b) for name in theirs for a, b in zip(theirs[name], ours[name], strict=True))


def test_weights_of_another_run_are_refused(run_folder: Path, edit: Edit) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    kept = Path("s_iter_10.solverstate").read_bytes(), Path("s_iter_10.solverstate.json").read_bytes()
    own = Path("s_iter_10.caffemodel").rename("own")
    edit("solver.prototxt", "random_seed: 7", "random_seed: 8")
    train(TrainOptions(Path("solver.prototxt")))
    Path("s_iter_10.solverstate").write_bytes(kept[0])
    Path("s_iter_10.solverstate.json").write_bytes(kept[1])
    again = TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate"))
    words = "'s_iter_10.solverstate' was written with other weights than 's_iter_10.caffemodel' now holds; bring"
    with pytest.raises(FormatError, match=words):
        train(again)
    own.replace("s_iter_10.caffemodel")
    train(again)


def test_weights_where_the_state_says_when_those_beside_are_others(run_folder: Path, edit: Edit) -> None:
    """A solverstate copied next to weights of the same name: its own are still where it says."""
    train(TrainOptions(Path("solver.prototxt")))
    (run_folder / "other").mkdir()
    for name in ("s_iter_10.solverstate", "s_iter_10.solverstate.json"):
        shutil.copy(name, run_folder / "other" / name)
    shutil.copy("s_iter_20.caffemodel", "other/s_iter_10.caffemodel")
    train(TrainOptions(Path("solver.prototxt"), snapshot=Path("other/s_iter_10.solverstate")))
