"""The same answers on CUDA; skipped where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.formats import caffemodel
from caffecli.layers import registry
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter, Phase
from caffecli.spec import text
from caffecli.tools.test import TestOptions, test
from caffecli.tools.time import TimeOptions, time
from caffecli.tools.train import TrainOptions, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")

GOLDEN = Path(__file__).parent / "golden"
CASES = [
    case
    for case in sorted(p.stem for p in (GOLDEN / "layers").glob("*.npz"))
    if all(
        layer.type in registry.types()
        for layer in text.read(GOLDEN / "layers" / f"{case}.prototxt", NetParameter).layer
    )
]


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded answers have 32 bits; TF32 would give 19."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("name", CASES)
def test_recorded_layers(name: str) -> None:
    answers = dict(np.load(GOLDEN / "layers" / f"{name}.npz"))
    param = text.read(GOLDEN / "layers" / f"{name}.prototxt", NetParameter)
    param.state.phase = Phase.Value(str(answers["phase"]))
    net = Net(param)
    with torch.no_grad():
        for key, value in answers.items():
            if key.startswith("param/"):
                _, layer, index = key.rsplit("/", 2)
                net.layer(layer).blobs[int(index)].copy_(torch.from_numpy(value))
    net.place("cuda")
    inputs = {k[3:]: torch.from_numpy(v).cuda().requires_grad_() for k, v in answers.items() if k.startswith("in/")}
    result = Whole(net).forward(inputs)
    total = result.loss
    for key, value in answers.items():
        if key.startswith("topdiff/"):
            total = total + (result.outputs[key[8:]] * torch.from_numpy(value).cuda()).sum()
    if total.requires_grad:
        total.backward()
    for key, expected in answers.items():
        kind, _, blob = key.partition("/")
        if kind == "out" and blob in result.outputs:
            got = result.outputs[blob].detach()
        elif kind == "diff" and blob in inputs and inputs[blob].grad is not None:
            got = inputs[blob].grad
        else:
            continue
        assert np.abs(got.cpu().numpy() - expected).max(initial=0) <= 2e-4 * max(
            1.0, np.abs(expected).max(initial=0)
        ), key


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("train_lmdb", "test_lmdb", "sgd_inv"):
        shutil.copytree(GOLDEN / "solvers" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path / "sgd_inv")
    return tmp_path / "sgd_inv"


def test_a_recorded_run_and_its_resume(folder: Path) -> None:
    final = np.load("final.npz")
    assert train(TrainOptions(Path("solver.prototxt"), weights="init.caffemodel", gpu="0"))
    whole = caffemodel.read("t_iter_30.caffemodel")
    for key in final.files:
        layer, index = key.rsplit("/", 1)
        assert np.abs(whole[layer][int(index)] - final[key]).max() <= 2e-3 * max(1.0, np.abs(final[key]).max()), key
    assert train(TrainOptions(Path("solver.prototxt"), snapshot=Path("t_iter_15.solverstate"), gpu="all"))


def test_test_and_time(folder: Path) -> None:
    means = test(TestOptions(Path("net.prototxt"), "t_iter_15.caffemodel", 3, gpu="0"))
    assert float(means["accuracy"]) == pytest.approx(0.416667, abs=1e-4)
    assert set(time(TimeOptions(Path("net.prototxt"), 2, gpu="0"))) >= {"conv1", "loss"}
