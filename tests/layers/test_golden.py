"""Every recorded small net, the reference's and the forks', forward and backward, layer by layer and at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import Phase
from caffecli.spec import load

GOLDEN = Path(__file__).parents[1] / "golden"
FOLDERS = ("layers", "segnet", "ssd")
TOLERANCE = 2e-4


CASES = sorted(f"{folder}/{path.stem}" for folder in FOLDERS for path in (GOLDEN / folder).glob("*.npz"))


class Case:
    """A recorded net, built and filled."""

    def __init__(self, name: str, channels_last: bool = False) -> None:
        self.answers = dict(np.load(GOLDEN / f"{name}.npz"))
        param = load.load_net(GOLDEN / f"{name}.prototxt")
        param.state.phase = Phase.Value(str(self.answers["phase"]))
        self.net = Net(param)
        if channels_last:
            self.net.place("cpu")
        with torch.no_grad():
            for key, value in self.group("param").items():
                layer, index = key.rsplit("/", 1)
                self.net.layer(layer).blobs[int(index)].copy_(torch.from_numpy(value))
        self.inputs = {name: torch.from_numpy(value) for name, value in self.group("in").items()}
        if channels_last:
            four = {n: t.contiguous(memory_format=torch.channels_last) for n, t in self.inputs.items() if t.dim() == 4}
            self.inputs |= four

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        return {k[len(prefix) + 1 :]: v for k, v in self.answers.items() if k.startswith(prefix + "/")}

    def check(self, what: str, got: np.ndarray, expected: np.ndarray) -> None:
        assert got.shape == expected.shape, f"{what}: shape {got.shape}, recorded {expected.shape}"
        error = np.abs(got - expected).max(initial=0.0)
        assert error <= TOLERANCE * max(1.0, np.abs(expected).max(initial=0.0)), f"{what}: off by {error}"

    def check_params(self) -> None:
        for key, expected in self.group("param_after").items():
            layer, index = key.rsplit("/", 1)
            self.check(f"param {key}", self.net.layer(layer).blobs[int(index)].detach().numpy(), expected)
        for key, expected in self.group("paramdiff").items():
            layer, index = key.rsplit("/", 1)
            blob = self.net.layer(layer).blobs[int(index)]
            self.check(
                f"param diff {key}", np.zeros_like(expected) if blob.grad is None else blob.grad.numpy(), expected
            )


def test_each_net_has_its_answers() -> None:
    found = [path for folder in FOLDERS for path in (GOLDEN / folder).glob("*.prototxt")]
    assert sorted(f"{path.parent.name}/{path.stem}" for path in found) == CASES


@pytest.mark.parametrize("name", CASES)
def test_layer_by_layer(name: str) -> None:
    case = Case(name)
    steps = Stepwise(case.net)
    result = steps.forward(case.inputs)
    for blob, expected in case.group("out").items():
        case.check(f"blob {blob}", steps.data[steps.slot(blob)].numpy(), expected)
    steps.backward(result, {n: torch.from_numpy(v) for n, v in case.group("topdiff").items()})
    for blob, expected in case.group("diff").items():
        diff = steps.diff[steps.first_slot(blob)]
        case.check(f"diff of {blob}", np.zeros_like(expected) if diff is None else diff.numpy(), expected)
    case.check_params()


@pytest.mark.parametrize("channels_last", [False, True], ids=["contiguous", "channels_last"])
@pytest.mark.parametrize("name", CASES)
def test_whole_graph(name: str, channels_last: bool) -> None:
    case = Case(name, channels_last)
    inputs = {n: t.requires_grad_() for n, t in case.inputs.items()}
    result = Whole(case.net).forward(inputs)
    total = result.loss
    for blob, value in case.group("topdiff").items():
        total = total + (result.outputs[blob] * torch.from_numpy(value)).sum()
    for blob, expected in case.group("out").items():
        if blob in result.outputs:
            case.check(f"blob {blob}", result.outputs[blob].detach().numpy(), expected)
    if not total.requires_grad:
        return
    if any(
        node.backward for node in case.net.nodes
    ):  # as the reference, which does nothing where no loss or force asks for it
        total.backward()
    for blob, expected in case.group("diff").items():
        if blob in inputs:
            grad = inputs[blob].grad
            case.check(f"diff of {blob}", np.zeros_like(expected) if grad is None else grad.numpy(), expected)
    case.check_params()
