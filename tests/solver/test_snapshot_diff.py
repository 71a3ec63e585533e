"""snapshot_diff: the caffemodel holds what the last update subtracted; and snapshots too large for a binary file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import blob, caffemodel, solverstate
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
OPTIONS = TrainOptions(Path("solver.prototxt"))

RULES = [
    'type: "SGD" momentum: 0.9',
    'type: "Nesterov" momentum: 0.9',
    'type: "AdaGrad"',
    'type: "RMSProp" rms_decay: 0.9',
    'type: "AdaDelta" momentum: 0.95 delta: 1e-6',
    'type: "Adam" momentum: 0.9',
]


def blobs(path: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Data and diff by layer and number."""
    net = NetParameter.FromString(Path(path).read_bytes())
    found = {}
    for layer in net.layer:
        for i, one in enumerate(layer.blobs):
            found[f"{layer.name}/{i}"] = (np.array(one.data, "f"), np.array(one.diff, "f"))
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.split('"')[1])
def test_diffs_are_what_the_last_update_subtracts(run_folder: Path, edit: Edit, rule: str) -> None:
    edit("solver.prototxt", "momentum: 0.9", rule)
    edit("solver.prototxt", "snapshot: 10", "snapshot: 1 snapshot_diff: true clip_gradients: 5")
    edit("solver.prototxt", "max_iter: 20", "max_iter: 3")
    assert train(OPTIONS)
    before, after = blobs("s_iter_2.caffemodel"), blobs("s_iter_3.caffemodel")
    assert list(after) == ["conv1/0", "conv1/1", "ip1/0", "ip1/1"]
    for name, (data, diff) in after.items():
        assert diff.any(), name
        np.testing.assert_allclose(before[name][0] - data, diff, atol=2e-7)
    if "SGD" in rule:
        history = solverstate.read(Path("s_iter_3.solverstate")).history
        for (_, diff), sums in zip(after.values(), history, strict=True):
            np.testing.assert_array_equal(diff, sums.ravel())


def test_training_is_the_same_but_for_rounding(run_folder: Path, edit: Edit) -> None:
    train(OPTIONS)
    plain = caffemodel.read(Path("s_iter_20.caffemodel"))
    size = Path("s_iter_20.caffemodel").stat().st_size
    edit("solver.prototxt", "snapshot: 10", "snapshot: 10 snapshot_diff: true")
    train(OPTIONS)
    for name, arrays in caffemodel.read(Path("s_iter_20.caffemodel")).items():
        for ours, theirs in zip(arrays, plain[name], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert Path("s_iter_20.caffemodel").stat().st_size > 1.9 * size


def test_frozen_blobs_have_zeros_and_shared_ones_their_owners(run_folder: Path, edit: Edit) -> None:
    edit(
        "net.prototxt",
        "param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }",
        "param { lr_mult: 0 } param { lr_mult: 0 }",
    )
    ip = 'inner_product_param { num_output: 10 weight_filler { type: "xavier" } }'
    more = f'layer {{ name: "%s" type: "InnerProduct" bottom: "%s" top: "%s" param {{ name: "w" }} {ip} }}\n'
    last = 'layer { name: "loss"'
    edit("net.prototxt", last, more % ("ip2", "ip1", "ip2") + more % ("ip3", "ip2", "ip3") + last)
    edit("net.prototxt", 'bottom: "ip1" bottom: "label" top: "loss"', 'bottom: "ip3" bottom: "label" top: "loss"')
    edit("solver.prototxt", "snapshot: 10", "snapshot: 2 snapshot_diff: true snapshot_format: HDF5")
    edit("solver.prototxt", "max_iter: 20", "max_iter: 2")
    assert train(OPTIONS)
    with h5py.File("s_iter_2.caffemodel.h5") as file:
        assert list(file) == ["data", "diff"]
        assert list(file["data/ip3"]) == ["1"]
        assert list(file["diff/ip3"]) == ["0", "1"]  # Caffe writes the diffs of shared blobs too
        assert not file["diff/conv1/0"][()].any()
        assert file["diff/ip2/0"][()].any()
        np.testing.assert_array_equal(file["diff/ip2/0"][()], file["diff/ip3/0"][()])
        assert list(file["diff/relu1"]) == []


def test_zeros_before_the_first_update(run_folder: Path, edit: Edit) -> None:
    edit("solver.prototxt", "snapshot: 10", "snapshot: 10 snapshot_diff: true")
    solver = Solver(load.load_solver(Path("solver.prototxt")))
    solver.snapshot()
    solver.close()
    assert all(diff.size == data.size and not diff.any() for data, diff in blobs("s_iter_0.caffemodel").values())


def test_without_it_no_diff_is_kept(run_folder: Path) -> None:
    solver = Solver(load.load_solver(Path("solver.prototxt")))
    assert solver.rule.diffs() == []
    solver.close()


@pytest.mark.parametrize("more", ["", 'type: "Adam" snapshot_diff: true'])
def test_a_binary_snapshot_over_2_gb_is_refused_before_the_training(
    run_folder: Path, edit: Edit, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    edit("solver.prototxt", "snapshot: 10", f"snapshot: 10 {more}")
    weights = 4 * (6 * 25 + 6 + 10 * 6 * 100 + 10)
    monkeypatch.setattr(blob, "MAX_MESSAGE", 2**24 + weights * (2 if more else 1) - 1)
    with pytest.raises(FormatError, match=r"cannot write 's_iter_20.caffemodel'.*2 GB at most.*snapshot_format: HDF5"):
        train(OPTIONS)
    if more:  # its history is twice as large as its weights
        edit("solver.prototxt", "snapshot_diff: true", "")
        with pytest.raises(FormatError, match=r"cannot write 's_iter_20.solverstate'.*snapshot_format: HDF5"):
            train(OPTIONS)
    assert not list(run_folder.glob("s_iter*"))
    edit("solver.prototxt", "snapshot: 10", "snapshot: 10 snapshot_format: HDF5")
    assert train(OPTIONS)
    assert load.load_solver(Path("solver.prototxt")).snapshot_format == SolverParameter.HDF5
