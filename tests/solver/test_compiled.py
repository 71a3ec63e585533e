"""--compile: the same run, its net made into code."""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.errors import DataError, PythonLayerError, SolverError
from caffecli.formats import caffemodel
from caffecli.layers import registry
from caffecli.layers.base import Layer
from caffecli.net.net import Net
from caffecli.net.runners import compiled
from caffecli.net.runners.compiled import Compiled
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TRAIN, NetParameter
from caffecli.solver.signals import Action, Signals
from caffecli.solver.solver import Solver
from caffecli.spec import load, text
from caffecli.tools import train

Edit = Callable[[str, str, str], None]


def compiling(test: Callable[..., None]) -> Callable[..., None]:
    """A test that really compiles, which makes torch warn of itself."""
    test = pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler")(test)
    return pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")(pytest.mark.slow(test))


NET = """
name: "forks"
layer { name: "x" type: "DummyData" top: "x"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } data_filler { type: "gaussian" } } }
layer { name: "y" type: "DummyData" top: "y" dummy_data_param { shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { pool: AVE kernel_size: 3 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "drop" }
layer { name: "a" type: "InnerProduct" bottom: "drop" top: "a"
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "first" type: "SoftmaxWithLoss" bottom: "a" bottom: "y" top: "first" loss_weight: 0.5 }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b" propagate_down: true
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "second" type: "SoftmaxWithLoss" bottom: "b" bottom: "y" top: "second" }
layer { name: "third" type: "Reduction" bottom: "b" top: "third" loss_weight: 0.1 reduction_param { operation: SUMSQ } }
"""


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stretches of layers as they would be compiled, but run as they stand."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def both(param: NetParameter) -> list[list[torch.Tensor]]:
    """Loss, outputs, gradients and statistics of a pass, by the net itself and in stretches."""
    found = []
    for kind in (Whole, Compiled):
        torch.manual_seed(1)
        net = Net(param).place("cpu")
        torch.manual_seed(2)
        runner = kind(net)
        result = runner.forward()
        runner.backward(result)
        grads = [p.tensor.grad for p in net.params if p.tensor.grad is not None]
        found.append(
            [result.loss.detach(), *(result.outputs[name].detach() for name in net.outputs), *grads, *net.buffers()]
        )
    return found


def forks() -> NetParameter:
    param = text.parse(NET, NetParameter())
    param.state.phase = TRAIN
    return param


def test_stretches_give_what_the_net_gives(uncompiled: None) -> None:
    whole, parts = both(forks())
    assert len(whole) == len(parts) > 8
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_propagate_down_stops_gradients(uncompiled: None) -> None:
    param = forks()
    (layer,) = [layer for layer in param.layer if layer.name == "b"]
    layer.propagate_down[0] = False
    whole, parts = both(param)
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_an_error_names_the_record(run_folder: Path, edit: Edit, uncompiled: None) -> None:
    edit("net.prototxt", "num_output: 10", "num_output: 4")
    edit("solver.prototxt", "test_iter: 3 test_interval: 10", "")
    with pytest.raises(
        DataError, match=r"layer 'loss': label \d of item \d+ is past the 4 classes .*; record '\d+' of layer 'data'"
    ):
        Solver(load.load_solver(Path("solver.prototxt")), runner=Compiled).solve()


class Fails(Layer):
    """A layer from outside whose forward fails where shapes are not known before."""

    keeps_shape = True

    def forward(self, *bottoms: Tensor) -> Tensor:
        return bottoms[0] @ torch.ones(7, 6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_layer_from_outside_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch)
    monkeypatch.setitem(registry._LAYERS, "Fails", Fails)
    param = forks()
    param.layer[4].type = "Fails"
    with pytest.raises(PythonLayerError, match=r"layer 'relu' .*: its forward failed: RuntimeError: .* 'conv' \(4, 4,"):
        Compiled(Net(param)).forward()


def test_signals_wait_while_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that is started meanwhile inherits that: Ctrl-C reaches all processes of the terminal."""
    blocked: list[set[int]] = []

    def watched(function: Callable[..., tuple[Tensor, ...]], **_: object) -> Callable[..., tuple[Tensor, ...]]:
        def code(*bottoms: Tensor) -> tuple[Tensor, ...]:
            blocked.append({*signal.pthread_sigmask(signal.SIG_BLOCK, [])})
            return function(*bottoms)

        return code

    monkeypatch.setattr(torch, "compile", watched)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with Signals() as signals:
        runner = Compiled(Net(forks()))
        result = runner.forward()
        assert {signal.SIGINT, signal.SIGTERM, signal.SIGHUP} <= blocked[0]
        runner.backward(result)
        count = len(blocked)
        os.kill(os.getpid(), signal.SIGTERM)
        runner.forward()
        assert blocked[count] == {*before} == {*signal.pthread_sigmask(signal.SIG_BLOCK, [])}
        assert signals.requested() is Action.STOP


@compiling
def test_a_signal_to_the_compiler_too(run_folder: Path) -> None:
    """Both where the forward pass is compiled and the backward pass: the run stops as it would without."""
    shell = shutil.which("bash")
    if shell is None:
        pytest.skip("there is no bash")
    calls = run_folder / "calls"
    for nth in (1, 3):
        (run_folder / "cxx").write_text(
            f"""#!{shell}
case "$*" in *.main.cpp*) echo >> {calls}; [ "$(wc -l < {calls})" = {nth} ] && kill -TERM 0;; esac
exec g++ "$@"
"""
        )
        (run_folder / "cxx").chmod(0o755)
        calls.write_text("")
        cache = {"CXX": str(run_folder / "cxx"), "TORCHINDUCTOR_CACHE_DIR": str(run_folder / f"cache{nth}")}
        done = subprocess.run(
            [sys.executable, "-m", "caffecli", "train", "--solver=solver.prototxt", "--compile"],
            env=os.environ | cache, start_new_session=True, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-500:]
        assert "Optimization stopped early." in done.stderr
        assert Path("s_iter_1.solverstate").is_file()


@compiling
@pytest.mark.parametrize("amp", [False, True])
def test_a_run_ends_with_the_same_weights(run_folder: Path, amp: bool) -> None:
    """Dropout and all; and 10 + 10 = 20, with snapshots that either kind of run goes on from."""
    weights = {}
    for how in (False, True):
        assert train.train(train.TrainOptions(Path("solver.prototxt"), compiled=how, amp=amp))
        weights[how] = caffemodel.read(Path("s_iter_20.caffemodel"))
    for name, blobs in weights[True].items():
        for ours, theirs in zip(blobs, weights[False][name], strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3 if amp else 1e-5)
    assert train.train(
        train.TrainOptions(Path("solver.prototxt"), Path("s_iter_10.solverstate"), compiled=True, amp=amp)
    )
    for name, blobs in caffemodel.read(Path("s_iter_20.caffemodel")).items():
        for ours, theirs in zip(blobs, weights[True][name], strict=True):
            np.testing.assert_array_equal(ours, theirs)


class Branches(Layer):
    """y = x, or 0 where a value is large: a layer from outside that looks at values."""

    keeps_shape = True
    compiles = False
    compiling: ClassVar[list[bool]] = []

    def forward(self, *bottoms: Tensor) -> Tensor:
        self.compiling.append(torch.compiler.is_compiling())
        return bottoms[0] * 0 if bool((bottoms[0] > 1e9).any()) else bottoms[0]


def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let torch.compile read the stretches, as it does, but make no code of them; what it cannot read is an error."""
    reading = functools.partial(torch.compile, backend="eager", dynamic=False, fullgraph=True)
    monkeypatch.setattr(torch, "compile", lambda function, **_: reading(function))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_layer_from_outside_that_looks_at_values(monkeypatch: pytest.MonkeyPatch) -> None:
    traced(monkeypatch)
    monkeypatch.setitem(registry._LAYERS, "Branches", Branches)
    param = forks()
    param.layer[4].type = "Branches"
    whole, parts = both(param)
    assert Branches.compiling == [False, False]
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_any_number_of_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the times that torch compiles a function; each with gradients and without.

    Torch's settings stay as they are.
    """
    traced(monkeypatch)
    limit = torch._dynamo.config.recompile_limit
    power = 'layer { name: "%s" type: "Power" bottom: "%s" top: "%s" power_param { power: 2 scale: 0.5 } }'
    names = [f"b{i}" for i in range(3 * (limit + 2))]
    text_ = 'layer { name: "b0" type: "Input" top: "b0" input_param { shape { dim: 3 } } }'
    for i, (bottom, top) in enumerate(itertools.pairwise(names)):
        text_ += (power % (top, bottom, top)).replace("Power", "Pooled" if i % 3 == 2 else "Power")
    monkeypatch.setitem(
        registry._LAYERS, "Pooled", type("Pooled", (registry.layer_class("Power"),), {"compiles": False})
    )
    net = Net(text.parse(text_, NetParameter()))
    runner = Compiled(net)
    x = torch.rand(3)
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for grad in (True, False, True):
            with torch.set_grad_enabled(grad):
                made = runner.forward({"b0": x.clone().requires_grad_(grad)}).outputs[names[-1]]
            torch.testing.assert_close(made, net({"b0": x})[names[-1]], check_stride=False)
    assert torch._dynamo.config.recompile_limit == limit


@compiling
def test_a_net_of_several_stretches() -> None:
    whole, parts = both(forks())
    for ours, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_no_compiler(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(
        SolverError, match="--compile needs a C\\+\\+ compiler, and there is no 'no-such-compiler'; install it"
    ):
        train.train(train.TrainOptions(Path("solver.prototxt"), compiled=True))
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    with pytest.raises(SolverError, match="--compile needs Triton"):
        compiled.check(torch.device("cuda", 0))
