"""OpenCV's importer of Caffe nets reads our caffemodels of the nets in models/ and gives our outputs."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from converters import export
from scripts.zoo import made_up
from tests.models.opencv import assert_agree, needs_importer, read

pytestmark = needs_importer

MODELS = Path(__file__).parents[2] / "models"
#: nets with a layer that OpenCV has not
REFUSED = {"s2vt": "Embed"}
SMALL = (
    *("cifar10_full", "cifar10_full_sigmoid", "cifar10_full_sigmoid_bn", "cifar10_quick", "nin_cifar10", "lenet"),
    *("mnist_autoencoder", "mnist_siamese", "squeezenet_v1.1", "vanilla_cnn"),
)
LARGE = sorted({path.parent.name for path in MODELS.glob("*/deploy.prototxt")} - {*SMALL, *REFUSED})


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_outputs_agree(name: str, tmp_path: Path) -> None:
    definition = MODELS / name / "deploy.prototxt"
    net = made_up.weights(export.build(definition, None))
    assert_agree(net, read(net, definition, tmp_path))


@pytest.mark.parametrize("name", REFUSED)
def test_nets_that_opencv_has_no_layers_for(name: str, tmp_path: Path) -> None:
    definition = MODELS / name / "deploy.prototxt"
    net = export.build(definition, None)
    with pytest.raises(cv2.error, match=REFUSED[name]):
        theirs = read(net, definition, tmp_path)
        theirs.setInput(made_up.inputs(net)[net.inputs[0]].numpy(), net.inputs[0])
        theirs.forward(net.outputs[0])
