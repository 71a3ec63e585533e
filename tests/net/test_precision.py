"""Mixed precision: products of matrices in bfloat16, all else in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.layers import registry
from caffecli.layers.base import Layer, Precision
from caffecli.net.net import Net
from caffecli.net.precision import BFLOAT16, FULL
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter, Phase
from caffecli.spec import text

FOLDER = Path(__file__).parents[1] / "golden" / "layers"
CASES = sorted(path.stem for path in FOLDER.glob("*.npz"))


def passed(case: str, amp: bool) -> dict[str, torch.Tensor]:
    """Outputs and gradients of a recorded net on bottoms that bfloat16 holds; as bfloat16 too, where ``amp``."""
    answers = dict(np.load(FOLDER / f"{case}.npz"))
    param = text.read(FOLDER / f"{case}.prototxt", NetParameter)
    param.state.phase = Phase.Value(str(answers["phase"]))
    net = Net(param)
    with torch.no_grad():
        for key, value in answers.items():
            if key.startswith("param/"):
                _, layer, index = key.split("/")
                net.layer(layer).blobs[int(index)].copy_(torch.from_numpy(value))
    rounded = {key[3:]: torch.from_numpy(value).bfloat16() for key, value in answers.items() if key.startswith("in/")}
    inputs = {name: (value if amp else value.float()).requires_grad_() for name, value in rounded.items()}
    torch.manual_seed(1)
    result = Whole(net, BFLOAT16 if amp else FULL).forward(inputs)
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


@pytest.mark.parametrize("kind", ["Convolution", "ConvolutionDepthwise", "DepthwiseConvolution"])
def test_convolutions_multiply_in_bfloat16(kind: str) -> None:
    net = Net(text.parse(CONVOLUTION.format(kind), NetParameter()))
    steps = Stepwise(net, BFLOAT16)
    steps.forward({"x": torch.rand(1, 4, 8, 8)})
    assert steps.data[steps.slot("c")].dtype == torch.bfloat16
    assert Whole(net).forward({"x": torch.rand(1, 4, 8, 8)}).outputs["r"].dtype == torch.float32


CONVOLUTION = """
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 1 dim: 4 dim: 8 dim: 8 }} }} }}
layer {{ name: "c" type: "{}" bottom: "x" top: "c"
  convolution_param {{ num_output: 4 group: 4 kernel_size: 3 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "r" type: "ReLU" bottom: "c" top: "r" }}
"""


class Product(Layer):
    """y = a b: a layer from outside."""

    bottom_count = (2, 2)
    keeps_shape = True
    precision = Precision.BFLOAT16

    def forward(self, *bottoms: Tensor) -> Tensor:
        self.came = [bottom.dtype for bottom in bottoms]
        return bottoms[0] @ bottoms[1]


class AnyProduct(Product):
    precision = Precision.ANY


class FullProduct(Product):
    precision = Precision.FLOAT32


OUTSIDE = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 3 dim: 3 } } }
layer { name: "m" type: "Product" bottom: "x" bottom: "x" top: "m" }
layer { name: "n" type: "%s" bottom: "m" bottom: "m" top: "n" }
layer { name: "o" type: "Product" bottom: "n" bottom: "n" top: "o" }
"""


@pytest.mark.parametrize(
    ("kind", "came", "made"),
    [
        (Product, torch.bfloat16, torch.bfloat16),
        (AnyProduct, torch.bfloat16, torch.bfloat16),
        (FullProduct, torch.float32, torch.float32),
    ],
)
def test_a_layer_from_outside_gets_what_it_asks_for(
    kind: type[Product], came: torch.dtype, made: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cls in {Product, kind}:
        monkeypatch.setitem(registry._LAYERS, cls.__name__, cls)  # type: ignore[attr-defined]
    net = Net(text.parse(OUTSIDE % kind.__name__, NetParameter()))
    steps = Stepwise(net, BFLOAT16)
    result = steps.forward({"x": torch.rand(3, 3)})
    assert steps.data[steps.slot("m")].dtype == torch.bfloat16
    assert net.layer("n").came == [came, came]
    assert steps.data[steps.slot("n")].dtype == made
    assert result.outputs["o"].dtype == torch.float32
