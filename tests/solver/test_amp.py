"""--amp: training, scoring and timing in mixed precision."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import SolverError
from caffecli.formats import caffemodel, solverstate
from caffecli.net import precision
from caffecli.net.runners.whole import Whole
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools import test, time, train

Edit = Callable[[str, str, str], None]


def trained(amp: bool, snapshot: Path | None = None) -> tuple[float, list[np.ndarray]]:
    runner = partial(Whole, precision=precision.BFLOAT16 if amp else precision.FULL)
    solver = Solver(load.load_solver(Path("solver.prototxt")), runner=runner, test_runner=runner)
    try:
        if snapshot is not None:
            solver.restore(snapshot)
        solver.solve()
        assert all(blob.dtype == torch.float32 for blob in [*solver.net.parameters(), *solver.rule.history])
        means = [solver.settled_loss()]
        return means[0], [blob.detach().numpy().copy() for blob in solver.net.parameters()]
    finally:
        solver.close()


def test_training(run_folder: Path, edit: Edit) -> None:
    """The same loss, near enough; weights and history in float32; N + N = 2 N."""
    edit("solver.prototxt", "max_iter: 20", "max_iter: 20 average_loss: 10")
    loss, _ = trained(amp=False)
    near, whole = trained(amp=True)
    assert near != loss
    assert near == pytest.approx(loss, rel=0.05)
    for blobs in caffemodel.read(Path("s_iter_20.caffemodel")).values():
        assert all(blob.dtype == np.float32 for blob in blobs)
    assert all(blob.dtype == np.float32 for blob in solverstate.read(Path("s_iter_20.solverstate")).history)
    _, resumed = trained(amp=True, snapshot=Path("s_iter_10.solverstate"))
    for ours, theirs in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_debug_info_gives_the_same_weights(run_folder: Path, edit: Edit) -> None:
    _, quick = trained(amp=True)
    edit("solver.prototxt", "max_iter: 20", "max_iter: 20 debug_info: true")
    _, slow = trained(amp=True)
    for ours, theirs in zip(slow, quick, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_train_test_and_time(run_folder: Path) -> None:
    assert train.train(train.TrainOptions(Path("solver.prototxt"), amp=True))
    full, low = (
        test.test(test.TestOptions(Path("net.prototxt"), "s_iter_20.caffemodel", 3, amp=amp)) for amp in (False, True)
    )
    assert any(float(full[name]) != float(low[name]) for name in full)
    for name, value in full.items():
        assert float(low[name]) == pytest.approx(float(value), rel=0.05)
    test.test(
        test.TestOptions(
            Path("net.prototxt"),
            "s_iter_20.caffemodel",
            1,
            amp=True,
            predictions=Path("p.csv"),
            confusion=Path("c.csv"),
        )
    )
    assert len(Path("p.csv").read_text().splitlines()) > 1
    time.time(time.TimeOptions(Path("net.prototxt"), 1, amp=True))


def test_a_slow_device_is_told_and_one_without_refused(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(logging.getLogger("caffecli"), "propagate", True)
    precision.choose(True, torch.device("cpu"))
    assert "this CPU has no instructions for bfloat16" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda device: __import__("contextlib").nullcontext())
    with pytest.raises(SolverError, match=r"--amp computes in bfloat16, which Old GPU does not .*; leave it out"):
        precision.choose(True, torch.device("cuda", 0))
