"""All runners give the same losses, outputs and diffs; what they share is right by itself."""

from __future__ import annotations

import pytest
import torch

from caffecli.errors import ShapeError, SpecError
from caffecli.net.net import Net
from caffecli.net.runners.base import Result, Runner, differentiate, weighted_sum
from caffecli.net.runners.compiled import Compiled
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TRAIN, NetParameter
from caffecli.solver.debug import Debug
from caffecli.spec import text

NET = """
name: "forks"
layer { name: "in" type: "Input" top: "x" top: "y"
  input_param { shape { dim: 4 dim: 3 dim: 8 dim: 8 } shape { dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "a" type: "InnerProduct" bottom: "conv" top: "a" param { name: "w" } param { lr_mult: 0 }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "b" type: "InnerProduct" bottom: "conv" top: "b" propagate_down: false param { name: "w" }
  inner_product_param { num_output: 5 } }
layer { name: "first" type: "SoftmaxWithLoss" bottom: "a" bottom: "y" top: "first" loss_weight: 0.5 }
layer { name: "second" type: "SoftmaxWithLoss" bottom: "b" bottom: "y" }
layer { name: "third" type: "Power" bottom: "b" top: "third" loss_weight: 0.1 power_param { power: 2 } }
layer { name: "shown" type: "Softmax" bottom: "a" top: "shown" }
"""
RUNNERS: list[type[Runner]] = [Whole, Stepwise, Compiled, Debug]


def forks() -> Net:
    torch.manual_seed(1)
    param = text.parse(NET, NetParameter())
    param.state.phase = TRAIN
    return Net(param)


def inputs() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {"x": torch.randn(4, 3, 8, 8), "y": torch.tensor([0.0, 4.0, 2.0, 2.0])}


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stretches of layers as they would be compiled, but run as they stand."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)


def passed(kind: type[Runner], passes: int = 2) -> tuple[Result, list[torch.Tensor | None]]:
    """The last of some passes, and the diffs of the parameters, which add up over them."""
    runner = kind(forks())
    for _ in range(passes):
        result = runner.forward(inputs())
        runner.backward(result)
    return result, [param.tensor.grad for param in runner.net.params]


@pytest.mark.parametrize("kind", RUNNERS[1:])
def test_all_give_what_the_whole_graph_gives(kind: type[Runner], uncompiled: None) -> None:
    (expected, grads), (result, found) = passed(Whole), passed(kind)
    assert result.loss.item() == pytest.approx(expected.loss.item(), rel=1e-6)
    assert list(result.outputs) == list(expected.outputs) == ["first", "shown", "third"]
    for name, value in expected.outputs.items():
        torch.testing.assert_close(result.outputs[name], value, check_stride=False)
    assert [grad is None for grad in grads] == [grad is None for grad in found]
    assert sum(grad is None for grad in grads) == 1
    for ours, theirs in zip(found, grads, strict=True):
        if ours is not None:
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("kind", RUNNERS)
def test_a_pass_without_gradients(kind: type[Runner], uncompiled: None) -> None:
    runner = kind(forks())
    with torch.no_grad():
        result = runner.forward(inputs())
    assert not result.loss.requires_grad and result.loss > 0
    assert runner.net({**inputs()}).keys() == result.outputs.keys()


@pytest.mark.parametrize("kind", RUNNERS)
def test_an_input_that_is_none(kind: type[Runner], uncompiled: None) -> None:
    with pytest.raises(SpecError, match="net 'forks' has no input blob 'z'; its inputs: x, y"):
        kind(forks()).forward({"z": torch.zeros(1)})


@pytest.mark.parametrize("kind", RUNNERS)
def test_a_net_without_a_loss(kind: type[Runner], uncompiled: None) -> None:
    param = text.parse(NET, NetParameter())
    del param.layer[5:]
    runner = kind(Net(param))
    result = runner.forward(inputs())
    runner.backward(result)
    assert result.loss == 0 and list(result.outputs) == ["a", "b", "y"]
    assert all(param.tensor.grad is None for param in runner.net.params)


def test_weighted_sum() -> None:
    assert weighted_sum([]) is None
    total = weighted_sum([(torch.tensor(3.0), 1), (torch.tensor([1.0, 2.0]), 0.5), (torch.tensor(2.0), -1)])
    assert total is not None and total.item() == 2.5


def test_a_layers_backward_pass() -> None:
    node = forks().nodes[0]
    a, b, c = torch.tensor([2.0], requires_grad=True), torch.tensor([1.0], requires_grad=True), torch.tensor([5.0])
    weight, idle = torch.tensor([3.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    tops = (a * weight, c + 1)
    below, learned = differentiate(node, (a, b, c), tops, [torch.tensor([10.0]), None], [weight, idle])
    assert below == [torch.tensor([30.0]), torch.tensor([0.0]), None]
    assert learned == [torch.tensor([20.0]), None]
    below, learned = differentiate(node, (a, b, c), tops, [None, torch.tensor([1.0])], [weight])
    assert below == [torch.tensor([0.0]), torch.tensor([0.0]), None] and learned == [None]
    with pytest.raises(ShapeError, match=r"layer 'in' .*: cannot run backward: "):
        differentiate(node, (a,), (a * 2,), [torch.ones(3)], [])
