"""--amp: products of matrices in bfloat16, all else in float32."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import SolverError
from caffecli.formats import caffemodel, solverstate
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter, Phase
from caffecli.solver import mixed
from caffecli.solver.solver import Solver
from caffecli.spec import load, text
from caffecli.tools import test, time, train

FOLDER = Path(__file__).parents[1] / "golden" / "layers"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))
Edit = Callable[[str, str, str], None]


def passed(case: str, amp: bool) -> dict[str, torch.Tensor]:
    """Outputs and gradients of a recorded net on bottoms that bfloat16 holds; as bfloat16 too, where ``amp``."""
    answers = dict(np.load(FOLDER / f"{case}.npz"))
    param = text.read(FOLDER / f"{case}.prototxt", NetParameter)
    param.state.phase = Phase.Value(str(answers["phase"]))
    net = Net(param)
    if amp:
        mixed.mix(net)
    with torch.no_grad():
        for key, value in answers.items():
            if key.startswith("param/"):
                _, layer, index = key.split("/")
                net.layer(layer).blobs[int(index)].copy_(torch.from_numpy(value))
    rounded = {key[3:]: torch.from_numpy(value).bfloat16() for key, value in answers.items() if key.startswith("in/")}
    inputs = {name: (value if amp else value.float()).requires_grad_() for name, value in rounded.items()}
    torch.manual_seed(1)
    result = net.run(inputs)
    assert result.loss.dtype == torch.float32
    total, found = result.loss, {}
    for name, output in result.outputs.items():
        assert output.dtype == torch.float32
        found[name] = output.detach()
        if f"topdiff/{name}" in answers:
            total = total + (output * torch.from_numpy(answers[f"topdiff/{name}"])).sum()
    if total.requires_grad:
        total.backward()
    for i, param_ in enumerate(net.params):
        assert param_.tensor.dtype == torch.float32
        if param_.tensor.grad is not None:
            assert param_.tensor.grad.dtype == torch.float32
            found[f"diff of blob {i}"] = param_.tensor.grad
    return found | {f"diff of {name}": value.grad.float() for name, value in inputs.items() if value.grad is not None}


@pytest.mark.parametrize("case", CASES)
def test_every_layer_runs_and_is_near_float32(case: str) -> None:
    full, mixed_ = passed(case, amp=False), passed(case, amp=True)
    assert full.keys() == mixed_.keys()
    for name, expected in full.items():
        scale = max(float(expected.norm()), 1e-2 * expected.numel() ** 0.5)
        assert float((mixed_[name] - expected).norm()) <= 0.03 * scale, name


def trained(amp: bool, snapshot: Path | None = None) -> tuple[float, list[np.ndarray]]:
    solver = Solver(load.load_solver(Path("solver.prototxt")), amp=amp)
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
    full, low = (test.test(test.TestOptions(Path("net.prototxt"), "s_iter_20.caffemodel", 3, amp=amp)) for amp in (False, True))
    assert any(float(full[name]) != float(low[name]) for name in full)
    for name, value in full.items():
        assert float(low[name]) == pytest.approx(float(value), rel=0.05)
    test.test(
        test.TestOptions(
            Path("net.prototxt"), "s_iter_20.caffemodel", 1, amp=True, predictions=Path("p.csv"), confusion=Path("c.csv")
        )
    )
    assert len(Path("p.csv").read_text().splitlines()) > 1
    time.time(time.TimeOptions(Path("net.prototxt"), 1, amp=True))


def test_a_slow_device_is_told_and_one_without_refused(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(logging.getLogger("caffecli"), "propagate", True)
    mixed.check(torch.device("cpu"))
    assert "this CPU has no instructions for bfloat16" in caplog.text
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    monkeypatch.setattr(torch.cuda, "device", lambda device: __import__("contextlib").nullcontext())
    with pytest.raises(SolverError, match=r"--amp computes in bfloat16, which Old GPU does not .*; leave it out"):
        mixed.check(torch.device("cuda", 0))
