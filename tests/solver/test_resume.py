"""N + N iterations equal 2N, bit for bit, with dropout, random crops, mirrors and accumulated gradients in play."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caffecli.errors import CaffeError, FormatError, ShapeError, SolverError
from caffecli.formats import caffemodel, solverstate
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]


def weights(path: str) -> list[np.ndarray]:
    return [blob for blobs in caffemodel.read(Path(path)).values() for blob in blobs]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return len(ours) == len(theirs) > 0 and all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "more", ["", "iter_size: 2", "average_loss: 4", "clip_gradients: 0.5", "snapshot_format: HDF5"]
)
def test_n_plus_n_is_2n(run_folder: Path, edit: Edit, more: str) -> None:
    edit("solver.prototxt", "random_seed: 7", "random_seed: 7 " + more)
    tail = ".h5" if "HDF5" in more else ""
    assert train(TrainOptions(Path("solver.prototxt")))
    whole = weights(f"s_iter_20.caffemodel{tail}")
    history = solverstate.read(Path(f"s_iter_20.solverstate{tail}")).history
    Path(f"s_iter_20.caffemodel{tail}").unlink()
    assert train(TrainOptions(Path("solver.prototxt"), snapshot=Path(f"s_iter_10.solverstate{tail}")))
    assert same(weights(f"s_iter_20.caffemodel{tail}"), whole)
    assert same(solverstate.read(Path(f"s_iter_20.solverstate{tail}")).history, history)


def test_without_position_the_data_start_anew(run_folder: Path) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    whole = weights("s_iter_20.caffemodel")
    Path("s_iter_10.solverstate.json").unlink()
    train(TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate")))
    assert not same(weights("s_iter_20.caffemodel"), whole)


def test_a_position_of_another_run_is_not_used(run_folder: Path) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    path = Path("s_iter_10.solverstate.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of": "10:00000000"}))
    train(TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate")))


def test_moved_solverstate_finds_its_weights(run_folder: Path) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    (run_folder / "elsewhere").mkdir()
    for path in run_folder.glob("s_iter_10.*"):
        path.rename(run_folder / "elsewhere" / path.name)
    train(TrainOptions(Path("solver.prototxt"), snapshot=Path("elsewhere/s_iter_10.solverstate")))


def test_the_snapshot_of_the_other_format_is_found(run_folder: Path, edit: Edit) -> None:
    """Caffe's own train_full.sh names x.solverstate where its solver makes x.solverstate.h5."""
    edit("solver.prototxt", "random_seed: 7", "random_seed: 7 snapshot_format: HDF5")
    train(TrainOptions(Path("solver.prototxt")))
    whole = weights("s_iter_20.caffemodel.h5")
    Path("s_iter_20.caffemodel.h5").unlink()
    assert train(TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate")))
    assert same(weights("s_iter_20.caffemodel.h5"), whole)


def test_same_seed_same_weights(run_folder: Path) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    first = weights("s_iter_20.caffemodel")
    train(TrainOptions(Path("solver.prototxt")))
    assert same(weights("s_iter_20.caffemodel"), first)


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (
            lambda: Path("x.solverstate").write_bytes(Path("s_iter_10.caffemodel").read_bytes()),
            FormatError,
            "caffemodel",
        ),
        (lambda: Path("x.solverstate").write_bytes(b""), FormatError, "empty"),
        (
            lambda: Path("x.solverstate").write_bytes(Path("s_iter_10.solverstate").read_bytes()[:-40]),
            FormatError,
            "x.solverstate",
        ),
        (lambda: None, SolverError, "no such file"),
    ],
    ids=["caffemodel", "empty", "truncated", "missing"],
)
def test_wrong_snapshot(run_folder: Path, make: Callable[[], object], kind: type[CaffeError], words: str) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    make()
    with pytest.raises(kind, match=words):
        train(TrainOptions(Path("solver.prototxt"), snapshot=Path("x.solverstate")))


def test_solverstate_of_another_net(run_folder: Path, edit: Edit) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    edit("net.prototxt", "num_output: 6", "num_output: 7")
    with pytest.raises(SolverError, match=r"history blob 0: expected \(7, 1, 5, 5\), it has \(6, 1, 5, 5\)"):
        train(TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate")))


def test_missing_learned_net(run_folder: Path) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    Path("s_iter_10.caffemodel").unlink()
    with pytest.raises(FormatError, match=r"its weights 's_iter_10.caffemodel' are not there"):
        train(TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate")))


def test_weights_that_do_not_fit_are_all_named(run_folder: Path, edit: Edit) -> None:
    train(TrainOptions(Path("solver.prototxt")))
    edit("net.prototxt", "num_output: 6", "num_output: 7")
    with pytest.raises(ShapeError) as caught:
        train(TrainOptions(Path("solver.prototxt"), weights="s_iter_10.caffemodel"))
    text = str(caught.value)
    assert "layer 'conv1', blob 0: expected (7, 1, 5, 5), 's_iter_10.caffemodel' has (6, 1, 5, 5)" in text
    assert "layer 'conv1', blob 1: expected (7,)" in text
    assert "layer 'ip1', blob 0" in text
    assert "rename the layer to train it afresh" in text
