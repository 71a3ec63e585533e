"""A run by lr_policy "plateau": its rate follows the loss, and a resumed run goes on exactly."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffecli.formats import caffemodel, solverstate
from caffecli.proto.caffe_pb2 import SolverState
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
SOLVER = Path("solver.prototxt")


@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_resumed_run_goes_on_exactly(run_folder: Path, edit: Edit, heard: io.StringIO, form: str) -> None:
    plateau = f'"plateau" gamma: 0.1 plateau_winsize: 2 plateau_winsize: 3 snapshot_format: {form}'
    edit("solver.prototxt", '"fixed"', plateau)
    tail = ".h5" if form == "HDF5" else ""
    assert train(TrainOptions(SOLVER))
    rates = re.findall(r"Iteration (\d+), lr = (\S+)", heard.getvalue())
    steps = re.findall(r"Plateau Status: Iteration (\d+), step = (\d)", heard.getvalue())
    assert len({rate for _, rate in rates}) > 1
    whole = caffemodel.read(Path(f"s_iter_20.caffemodel{tail}"))
    state = solverstate.read(Path(f"s_iter_10.solverstate{tail}"))
    assert state.minimum_loss is not None and 0 < state.minimum_loss < 5
    assert state.iter_last_event is not None and 0 < state.iter_last_event < 10
    assert state.current_step == sum(int(iteration) < 10 for iteration, _ in steps)
    Path(f"s_iter_20.caffemodel{tail}").unlink()
    heard.truncate(0)
    assert train(TrainOptions(SOLVER, snapshot=Path(f"s_iter_10.solverstate{tail}")))
    assert re.findall(r"Iteration (\d+), lr = (\S+)", heard.getvalue()) == [r for r in rates if int(r[0]) >= 10]
    for layer, blobs in caffemodel.read(Path(f"s_iter_20.caffemodel{tail}")).items():
        for blob, expected in zip(blobs, whole[layer], strict=True):
            np.testing.assert_array_equal(blob, expected)


def test_the_fields_are_ssds(run_folder: Path, edit: Edit) -> None:
    edit("solver.prototxt", '"fixed"', '"plateau" gamma: 0.1 plateau_winsize: 100')
    assert train(TrainOptions(SOLVER))
    state = SolverState.FromString(Path("s_iter_20.solverstate").read_bytes())
    assert state.HasField("minimum_loss") and state.HasField("iter_last_event") and state.current_step == 0
    edit("solver.prototxt", "snapshot: 10", "snapshot: 10 snapshot_format: HDF5")
    assert train(TrainOptions(SOLVER))
    with h5py.File("s_iter_20.solverstate.h5") as file:
        assert (file["minimum_loss"].shape, file["iter_last_event"].shape) == ((1,), (1,))


def test_other_policies_write_none_of_them(run_folder: Path) -> None:
    assert train(TrainOptions(SOLVER))
    state = SolverState.FromString(Path("s_iter_20.solverstate").read_bytes())
    assert not state.HasField("minimum_loss") and not state.HasField("iter_last_event")
