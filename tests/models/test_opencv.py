"""OpenCV's importer of Caffe nets reads our caffemodels of the nets in models/ and gives our outputs."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from caffecli.net.net import Net
from caffecli.tools.open import build_net, read_net
from scripts.zoo import made_up
from tests.models.opencv import assert_agree, needs_importer, read

pytestmark = needs_importer

MODELS = Path(__file__).parents[2] / "models"
#: nets with a layer that OpenCV has not
REFUSED = {"parsenet": "Bias", "s2vt": "Embed", "segnet": "BN"}
REFUSED |= dict.fromkeys(("faster_rcnn_vgg16", "faster_rcnn_zf", "rfcn_resnet50"), "Python")
REFUSED |= {"mobilenet_yolov3": "Yolov3DetectionOutput"}
QUICK = ("parsenet", "segnet")
SMALL = (
    *("cifar10_full", "cifar10_full_sigmoid", "cifar10_full_sigmoid_bn", "cifar10_quick", "nin_cifar10", "lenet"),
    *("mnist_autoencoder", "mnist_siamese", "squeezenet_v1.1", "vanilla_cnn"),
)
#: nets for pictures of any size, which are to be small here
ANY_SIZE = ("fcn8s", "fcn16s", "fcn32s", "hed")
#: nets whose LRN has a k of 2: OpenCV does not read k, for it is always 1
LRN_OF_2 = ("vgg_cnn_f", "vgg_cnn_m", "vgg_cnn_s")
LARGE = sorted({path.parent.name for path in MODELS.glob("*/deploy.prototxt")} - {*SMALL, *REFUSED})


def built(definition: Path) -> Net:
    return build_net(read_net(definition), definition)


@pytest.mark.parametrize("name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)])
def test_outputs_agree(name: str, tmp_path: Path) -> None:
    definition = tmp_path / "deploy.prototxt"
    text = (MODELS / name / "deploy.prototxt").read_text()
    if name in ANY_SIZE:
        text = text.replace("dim: 500", "dim: 96")
    assert ("    k: 2\n" in text) == (name in LRN_OF_2)
    definition.write_text(text.replace("    k: 2\n", ""))
    net = made_up.weights(built(definition))
    assert_agree(net, read(net, definition, tmp_path))


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted({*REFUSED} - {*QUICK}))]
)
def test_nets_that_opencv_has_no_layers_for(name: str, tmp_path: Path) -> None:
    definition = MODELS / name / "deploy.prototxt"
    net = built(definition)
    with pytest.raises(cv2.error, match=f'type "{REFUSED[name]}"'):
        theirs = read(net, definition, tmp_path)
        for blob, values in made_up.inputs(net).items():
            theirs.setInput(values.numpy(), blob)
        theirs.forward(net.outputs[0])
