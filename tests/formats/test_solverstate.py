"""Solver states: the reference's files, ours, foreign ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from caffecli.errors import FormatError
from caffecli.formats import solverstate
from caffecli.formats.solverstate import SolverState

LENET = "lenet/lenet_iter_10000.solverstate"
CIFAR = "cifar10_quick/cifar10_quick_iter_5000.solverstate.h5"


def test_reads_the_reference_and_writes_the_same_bytes(golden: Path, tmp_path: Path) -> None:
    state = solverstate.read(golden / LENET)
    assert (state.iter, state.current_step) == (10000, 0)
    assert state.learned_net == "examples/mnist/lenet_iter_10000.caffemodel"
    assert [array.shape for array in state.history][:3] == [(20, 1, 5, 5), (20,), (50, 20, 5, 5)]
    solverstate.write(tmp_path / "out", state)
    assert (tmp_path / "out").read_bytes() == (golden / LENET).read_bytes()


def test_hdf5_has_the_references_layout(golden: Path, tmp_path: Path) -> None:
    state = solverstate.read(golden / CIFAR)
    assert (state.iter, state.current_step, len(state.history)) == (5000, 0, 10)
    assert state.learned_net == "examples/cifar10/cifar10_quick_iter_5000.caffemodel.h5"
    solverstate.write(tmp_path / "out.h5", state)
    with h5py.File(golden / CIFAR) as wanted, h5py.File(tmp_path / "out.h5") as made:
        assert list(made) == list(wanted)
        for name in ("iter", "current_step", "learned_net"):
            assert made[name].shape == wanted[name].shape
            assert made[name].id.get_type() == wanted[name].id.get_type()
            assert made[name][()] == wanted[name][()]
        for name in wanted["history"]:
            assert made["history"][name].dtype == np.float32
            np.testing.assert_array_equal(made["history"][name][()], wanted["history"][name][()])


@pytest.mark.parametrize("suffix", ["", ".h5"])
@given(
    step=st.integers(0, 2**31 - 1),
    text=st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    count=st.integers(0, 12),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, suffix: str, step: int, text: str, count: int) -> None:
    path = tmp_path_factory.mktemp("state") / f"s.solverstate{suffix}"
    solverstate.write(path, SolverState(step, 3, text, [np.full((2, i), i, np.float32) for i in range(count)]))
    if not text and not count and not suffix:
        return  # an empty state is not told from foreign bytes
    state = solverstate.read(path)
    assert (state.iter, state.current_step, state.learned_net) == (step, 3, text)
    assert [array.shape for array in state.history] == [(2, i) for i in range(count)]
    assert all((array == i).all() for i, array in enumerate(state.history))


def test_weights_given_as_a_solverstate_are_named(golden: Path) -> None:
    with pytest.raises(
        FormatError,
        match=r"10000.caffemodel' is not a solverstate: it is a caffemodel; caffecli train takes it by --weights",
    ):
        solverstate.read(golden / "lenet" / "lenet_iter_10000.caffemodel")
    with pytest.raises(
        FormatError, match=r"is not a solverstate: it lacks 'iter' and seems to be weights; give them to --weights"
    ):
        solverstate.read(golden / "cifar10_quick" / "cifar10_quick_iter_5000.caffemodel.h5")
    with pytest.raises(FormatError, match="is not a solverstate: it is a single blob, perhaps a mean"):
        solverstate.read(golden / "cifar10_quick" / "mean.binaryproto")


@pytest.mark.parametrize("name", [LENET, CIFAR])
def test_truncated_files_are_named(golden: Path, tmp_path: Path, name: str) -> None:
    data = (golden / name).read_bytes()
    (tmp_path / "s").write_bytes(data[: len(data) // 2])
    with pytest.raises(FormatError, match="damaged or truncated"):
        solverstate.read(tmp_path / "s")
