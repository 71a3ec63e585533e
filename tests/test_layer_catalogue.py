"""docs/layers.md is what the code gives today, and its examples run."""

from __future__ import annotations

import pytest
import torch

from caffecli.layers import registry
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from scripts import layer_catalogue

#: types whose examples read files or other programs, which their own tests make
OUTSIDE = {
    "AnnotatedData", "BoxData", "Data", "ImageData", "HDF5Data", "HDF5Output", "WindowData", "MemoryData", "Python",
    "VideoData",
}  # fmt: skip

#: what BVLC Caffe registers
CAFFE_TYPES = """
    AbsVal Accuracy ArgMax BNLL BatchNorm BatchReindex Bias Clip Concat ContrastiveLoss Convolution Crop Data
    Deconvolution Dropout DummyData ELU Eltwise Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output HingeLoss
    Im2col ImageData InfogainLoss InnerProduct Input LRN LSTM LSTMUnit Log MVN MemoryData MultinomialLogisticLoss PReLU
    Parameter Pooling Power Python RNN ReLU Reduction Reshape SPP Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice
    Softmax SoftmaxWithLoss Split Swish TanH Threshold Tile WindowData
"""


def own_types() -> set[str]:
    """The registered types but for those of the forks."""
    return {name for name in registry.types() if ".forks" not in registry.layer_class(name).__module__}


def test_every_type_of_caffe_is_there_and_no_other() -> None:
    assert own_types() == set(CAFFE_TYPES.split())


def test_the_page_is_current() -> None:
    assert layer_catalogue.PAGE.read_text(encoding="utf-8") == layer_catalogue.catalogue(), "run `make docs`"


def test_every_type_has_an_example_and_a_section() -> None:
    assert set(layer_catalogue.examples()) >= own_types()
    page = layer_catalogue.PAGE.read_text(encoding="utf-8")
    for name in registry.types():
        assert f"### {name}\n" in page


@pytest.mark.parametrize("name", registry.types())
def test_docstrings_say_what_the_layer_does(name: str) -> None:
    doc = registry.layer_class(name).__doc__ or ""
    assert len(doc) > 60, f"{name}: the docstring must give the equation, shapes and source"


def test_the_examples_build_run_and_learn() -> None:
    param = text.read(layer_catalogue.EXAMPLES, NetParameter)
    kept = [layer for layer in param.layer if layer.type not in OUTSIDE]
    del param.layer[:]
    param.layer.extend(kept)
    net = Net(param)
    torch.manual_seed(0)
    result = Whole(net).forward({name: torch.rand(tuple(net.shape(name))) for name in net.inputs})
    assert torch.isfinite(result.loss)
    result.loss.backward()
