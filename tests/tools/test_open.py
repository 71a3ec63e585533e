"""Opening a net: its state, its place, its weights; and closing it when that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caffecli.errors import FormatError
from caffecli.formats import caffemodel
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.net.weights import export
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from caffecli.tools.open import build_net, open_net, read_net, split_names

NET = """
name: "n"
state { stage: "own" }
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 2 kernel_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "c" top: "y" inner_product_param { num_output: 2 } }
layer { name: "trained" type: "ReLU" bottom: "y" top: "r" include { phase: TRAIN } }
layer { name: "staged" type: "ReLU" bottom: "y" top: "s" include { stage: "own" stage: "given" min_level: 2 } }
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "net.prototxt"
    path.write_text(NET)
    return path


def opened(model: Path, *state: Any, **how: Any) -> Net:
    return open_net(model, Whole, *state, **how).net


def names(net: Net) -> set[str]:
    return set(net.layers) & {"trained", "staged"}


def test_state(model: Path) -> None:
    assert names(opened(model)) == set()
    assert names(opened(model, TRAIN)) == {"trained"}
    assert names(opened(model, TEST, 2, ["given"])) == {"staged"}  # the file's own stage stays
    assert names(opened(model, TEST, 1, ["given"])) == set()


def test_weights_the_later_over_the_earlier(model: Path, tmp_path: Path) -> None:
    net = opened(model)
    files = []
    for number, layers in enumerate((["conv", "ip"], ["ip"]), 1):
        blobs = {name: [np.full_like(array, number) for array in arrays] for name, arrays in export(net).items()}
        files.append(tmp_path / f"{number}.caffemodel")
        saved = NetParameter(layer=[layer for layer in net.param.layer if layer.name in layers])
        caffemodel.write(files[-1], saved, {name: blobs[name] for name in layers})
    net = opened(model, weights=split_names(f"{files[0]}, {files[1]}"))
    assert [float(net.layer(name).blobs[0].detach().mean()) for name in ("conv", "ip")] == [1, 2]


def test_weights_that_are_not_there_are_told(model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    net = opened(model)
    weights = {name: arrays for name, arrays in export(net).items() if arrays}
    for name in weights:
        saved = NetParameter(layer=[layer for layer in net.param.layer if layer.name != name])
        caffemodel.write(tmp_path / f"{name}.caffemodel", saved, {k: v for k, v in weights.items() if k != name})
    opened(model, weights=[tmp_path / f"{name}.caffemodel" for name in weights])
    opened(model, weights=[tmp_path / "conv.caffemodel"])
    assert [each.message.partition("' ")[2] for each in caplog.records if each.levelname == "WARNING"] == [
        "has no weights for layer 'conv', which keeps random ones: are they another net's?"
    ]


def test_it_stays_as_built_unless_placed(model: Path) -> None:
    assert build_net(read_net(model), model).layer("conv").blobs[0].is_contiguous()
    assert opened(model).layer("conv").blobs[0].is_contiguous(memory_format=torch.channels_last)


def test_it_is_closed_when_its_weights_cannot_be_read(model: Path) -> None:
    closed = []

    class Watched(Net):
        def close(self) -> None:
            closed.append(self.name)

    with pytest.raises(FormatError, match="cannot read 'none'"):
        build_net(read_net(model), model, weights=["none"], kind=Watched)
    assert closed == []  # it was not built
    with pytest.raises(FormatError, match="is not a caffemodel"):
        build_net(read_net(model), model, weights=[model], kind=Watched)
    assert closed == ["n"]


def test_precision(model: Path) -> None:
    low, full = (open_net(model, Whole, amp=amp) for amp in (True, False))
    generator = torch.Generator().manual_seed(1)
    for blob in low.net.parameters():
        blob.data.normal_(generator=generator)
    full.net.load_state_dict(low.net.state_dict())
    x = {"x": torch.rand(2, 3, 4, 5, generator=generator)}
    near, exact = (runner.forward(x).outputs["y"] for runner in (low, full))
    assert near.dtype == torch.float32
    assert not torch.equal(near, exact)
    assert torch.allclose(near, exact, rtol=0.02, atol=0.2)
