"""--keep N: the newest snapshots of a run stay, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from caffecli.errors import FormatError
from caffecli.formats import caffemodel, solverstate
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
SOLVER = Path("solver.prototxt")
KINDS = ["caffemodel", "solverstate", "solverstate.json"]


def iterations(folder: Path, prefix: str = "s", kind: str = "solverstate") -> list[int]:
    return sorted(int(p.name.split("_iter_")[1].split(".")[0]) for p in folder.glob(f"{prefix}_iter_*.{kind}"))


def kept(folder: Path, tail: str = "") -> list[int]:
    """The iterations of which all files are there; no other file is."""
    names = [iterations(folder, kind=kind.replace("solverstate", "solverstate" + tail)) for kind in KINDS[1:]]
    assert names[0] == names[1] == iterations(folder, kind="caffemodel" + tail)
    assert len(list(folder.glob("s_iter_*"))) == 3 * len(names[0])
    return names[0]


@pytest.fixture
def often(run_folder: Path, edit: Edit) -> Path:
    edit("solver.prototxt", "snapshot: 10", "snapshot: 4")
    return run_folder


@pytest.mark.parametrize(("count", "left"), [(1, [20]), (2, [16, 20]), (9, [4, 8, 12, 16, 20])])
def test_the_newest_stay(often: Path, count: int, left: list[int]) -> None:
    assert train(TrainOptions(SOLVER, keep=count))
    assert kept(often) == left


def test_without_it_all_stay(often: Path) -> None:
    assert train(TrainOptions(SOLVER))
    assert kept(often) == [4, 8, 12, 16, 20]


def test_hdf5(often: Path, edit: Edit) -> None:
    edit("solver.prototxt", "snapshot: 4", "snapshot: 4 snapshot_format: HDF5")
    assert train(TrainOptions(SOLVER, keep=2))
    assert kept(often, ".h5") == [16, 20]


def test_both_formats_of_an_old_snapshot_go(often: Path, edit: Edit) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 8")
    assert train(TrainOptions(SOLVER, keep=2))
    edit("solver.prototxt", "max_iter: 8", "max_iter: 16 snapshot_format: HDF5")
    assert train(TrainOptions(SOLVER, Path("s_iter_8.solverstate"), keep=2))
    assert kept(often, ".h5") == [12, 16]


@pytest.mark.parametrize("keep_before", [None, 5])
def test_resume(often: Path, edit: Edit, keep_before: int | None) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 12")
    assert train(TrainOptions(SOLVER, keep=keep_before))
    edit("solver.prototxt", "max_iter: 12", "max_iter: 20")
    assert train(TrainOptions(SOLVER, Path("s_iter_8.solverstate"), keep=1))
    assert kept(often) == [20]


def test_resumed_one_stays_until_a_newer_is_whole(often: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 8")
    assert train(TrainOptions(SOLVER, keep=1))
    assert kept(often) == [8]

    def full(path: Path, state: object) -> None:
        raise FormatError("no space")

    edit("solver.prototxt", "max_iter: 8", "max_iter: 12")
    with monkeypatch.context() as patch:
        patch.setattr(solverstate, "write", full)
        with pytest.raises(FormatError, match="no space"):
            train(TrainOptions(SOLVER, Path("s_iter_8.solverstate"), keep=1))
    assert all(Path(f"s_iter_8.{kind}").exists() for kind in KINDS)
    assert train(TrainOptions(SOLVER, Path("s_iter_8.solverstate"), keep=1))
    assert kept(often) == [12]


def test_what_is_not_of_this_run_stays(often: Path) -> None:
    others = [
        "s_bn_iter_4",
        "s_best",
        "s_iter_4_best",
        "s_best_iter_4",
        "S_iter_4",
        "xs_iter_4",
        "s_iter_04",
        "s_iter_2",
        "s_iter_99",
    ]
    for stem in others:
        for kind in KINDS:
            Path(f"{stem}.{kind}").write_bytes(b"other")
    assert train(TrainOptions(SOLVER, keep=1))
    assert all(Path(f"{stem}.{kind}").read_bytes() == b"other" for stem in others for kind in KINDS)
    assert not list(often.glob("s_iter_4.*")) and Path("s_iter_20.solverstate").exists()


def test_what_a_run_resumed_from_elsewhere_stays(often: Path, edit: Edit) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 8")
    assert train(TrainOptions(SOLVER, keep=5))
    edit("solver.prototxt", "max_iter: 8", "max_iter: 16")
    edit("solver.prototxt", '"s"', '"t"')
    for kind in KINDS:
        Path(f"t_iter_3.{kind}").write_bytes(b"other")
    assert train(TrainOptions(SOLVER, Path("s_iter_8.solverstate"), keep=1))
    assert kept(often) == [4, 8]
    assert iterations(often, "t") == [3, 16]


def test_resume_from_the_best(often: Path, edit: Edit) -> None:
    """A snapshot under another name carries the list of those before it."""
    edit("solver.prototxt", "max_iter: 20", "max_iter: 12")
    assert train(TrainOptions(SOLVER, keep=5))
    for kind in KINDS:
        Path(f"s_iter_8.{kind}").rename(f"s_best.{kind}")
    best = Path("s_best.solverstate")
    solverstate.write(best, replace(solverstate.read(best), learned_net="s_best.caffemodel"))
    edit("solver.prototxt", "max_iter: 12", "max_iter: 20")
    assert train(TrainOptions(SOLVER, best, keep=1))
    assert iterations(often) == [20]
    assert all(Path(f"s_best.{kind}").exists() for kind in KINDS)


def test_copies_elsewhere_say_nothing_of_what_lies_here(often: Path, edit: Edit) -> None:
    edit("solver.prototxt", "max_iter: 20", "max_iter: 8")
    assert train(TrainOptions(SOLVER, keep=5))
    Path("copy").mkdir()
    for path in often.glob("s_iter_8.*"):
        path.rename(Path("copy") / path.name)
    edit("solver.prototxt", "max_iter: 8", "max_iter: 12")
    assert train(TrainOptions(SOLVER, Path("copy/s_iter_8.solverstate"), keep=1))
    assert kept(often) == [4, 12]


def test_weights_of_what_stays_are_whole(often: Path) -> None:
    assert train(TrainOptions(SOLVER, keep=1))
    assert caffemodel.read(Path(solverstate.read(Path("s_iter_20.solverstate")).learned_net))["ip1"]
