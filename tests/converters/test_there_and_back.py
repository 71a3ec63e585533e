"""Nets that we have exported, imported again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import SpecError
from caffecli.net import exported, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST
from caffecli.spec.load import prepare_net
from converters import export, import_torch
from converters.from_torch import archive
from scripts.zoo import made_up
from tests.converters.importing import agree

ROOT = Path(__file__).parents[2]
SMALL = ["lenet", "cifar10_quick", "cifar10_full", "cifar10_full_sigmoid_bn", "mnist_siamese", "vanilla_cnn"]
#: what does not come back, or not in the layers that it had
OTHERS = ["s2vt", "segnet", "parsenet"]
LARGE = sorted({path.parent.name for path in ROOT.glob("models/*/deploy.prototxt")} - {*SMALL, *OTHERS})
#: nets whose LRN has a k other than 1: a Power each
BY_POWER = {"vgg_cnn_f": 2, "vgg_cnn_m": 2, "vgg_cnn_s": 1}


def there_and_back(net, tmp_path):
    """The net that import makes of a net's export; its weights are held to be the same, bit for bit."""
    path = tmp_path / "there.pt2"
    with exported.quiet():
        torch.export.save(exported.program(net), path)
    made = import_torch.convert(archive.read(path), net.name, net.inputs)
    path.unlink()
    for name, layer in net.layers.items():
        for old, new in zip(layer.blobs, made.weights.get(name, []), strict=True):
            np.testing.assert_array_equal(new.reshape(old.shape), old.detach().numpy(), err_msg=name)
    return made


def agree_with_net(made, net):
    given = made_up.inputs(net, made.net.layer[0].input_param.shape[0].dim[0])
    with torch.no_grad():
        expected = [top.numpy() for top in net(given).values()]
        back = Net(prepare_net(made.net, TEST))
        weights.copy(back, made.weights, "import")
        tops = back(given)
    assert back.inputs == net.inputs
    agree([tops[name].numpy() for name in made.outputs], expected, 1e-5)


def types(net):
    """How many layers of each type, but for those that change nothing in TEST."""
    return Counter(
        layer.type for layer in net.layer if layer.type not in ("Dropout", "Split", "Flatten", "Silence", "Slice", "Crop")
    )


@pytest.mark.parametrize("name", SMALL)
def test_small_nets_there_and_back(name, tmp_path):
    net = made_up.weights(export.build(ROOT / "models" / name / "deploy.prototxt", None))
    made = there_and_back(net, tmp_path)
    agree_with_net(made, net)
    assert types(made.net) == types(net.param)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_large_nets_there_and_back(name, tmp_path):
    net = made_up.weights(export.build(ROOT / "models" / name / "deploy.prototxt", None))
    made = there_and_back(net, tmp_path)
    agree_with_net(made, net)
    assert types(made.net) - types(net.param) == ({"Power": BY_POWER[name]} if name in BY_POWER else {})


@pytest.mark.slow
def test_parsenet_comes_back_in_other_layers(tmp_path):
    path = tmp_path / "net.prototxt"
    path.write_text((ROOT / "models/parsenet/deploy.prototxt").read_text().replace("dim: 500", "dim: 96"))
    net = made_up.weights(export.build(path, None))
    with exported.quiet():
        torch.export.save(exported.program(net), tmp_path / "there.pt2")
    made = import_torch.convert(archive.read(tmp_path / "there.pt2"), net.name, net.inputs)
    agree_with_net(made, net)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "why"),
    [("segnet", r"aten\.scatter \(no such layer\) at 'upsample5'"), ("s2vt", r"aten\.addmm \(.*\) at 'lstm1', 'lstm2'")],
)
def test_nets_that_do_not_come_back(name, why, tmp_path):
    net = export.build(ROOT / "models" / name / "deploy.prototxt", None)
    with pytest.raises(SpecError, match=why):
        there_and_back(net, tmp_path)
