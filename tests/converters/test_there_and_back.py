"""Nets that we have exported, imported again."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from caffecli.errors import SpecError
from caffecli.net import exported, weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, NetParameter
from caffecli.spec import text
from caffecli.spec.load import prepare_net
from converters import export, import_
from converters.from_torch import archive
from scripts.zoo import made_up
from tests.converters.importing import agree
from tests.converters.nets import EXPORTED, ROOT

SMALL = ["lenet", "cifar10_quick", "cifar10_full", "cifar10_full_sigmoid_bn", "mnist_siamese", "vanilla_cnn"]
#: the share of SegNet's values that agree: of two that are nearly equal, rounding decides which is pooled, and with it
#: of a patch where it is put back
SEGNET_SHARE = 0.75
#: what does not come back, or not in the layers that it had
OTHERS = ["s2vt", "segnet", "parsenet"]
LARGE = sorted(EXPORTED - {*SMALL, *OTHERS})
#: nets whose LRN has a k other than 1: a Power each
BY_POWER = {"vgg_cnn_f": 2, "vgg_cnn_m": 2, "vgg_cnn_s": 1}


def there_and_back(net, tmp_path, audience="both"):
    """The net that import makes of a net's export; its weights are held to be the same, bit for bit."""
    path = tmp_path / "there.pt2"
    with exported.quiet():
        torch.export.save(exported.program(net), path)
    made = import_.convert(archive.read(path), net.name, net.inputs, audience)
    path.unlink()
    for name, layer in net.layers.items():
        for old, new in zip(layer.blobs, made.weights.get(name, []), strict=True):
            np.testing.assert_array_equal(new.reshape(old.shape), old.detach().numpy(), err_msg=name)
    return made


def agree_with_net(made, net, share=1):
    back = Net(prepare_net(made.net, TEST))
    given = {
        name: values
        for i in back.inputs
        for name, values in made_up.inputs(back, back.shape(i)[0]).items()
        if name == i
    }
    with torch.no_grad():
        expected = [top.numpy() for top in net(given).values()]
        weights.copy(back, made.weights, "import")
        tops = back(given)
    assert back.inputs == net.inputs
    agree([tops[name].numpy() for name in made.outputs], expected, 1e-5, share)


def names(net):
    return {layer.name for layer in net.layer if layer.type not in ("Input", "Split")}


def types(net):
    """How many layers of each type, but for those that change nothing in TEST."""
    return Counter(
        layer.type
        for layer in net.layer
        if layer.type not in ("Dropout", "Split", "Flatten", "Silence", "Slice", "Crop")
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
    made = import_.convert(archive.read(tmp_path / "there.pt2"), net.name, net.inputs)
    agree_with_net(made, net)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "audience"), [("segnet", "forks"), ("s2vt", "both")])
def test_forks_layers_and_states(name, audience, tmp_path):
    """SegNet's masks are those of forks, and what an LSTM carries on are inputs and outputs of its program."""
    net = exported.exposed(made_up.weights(export.build(ROOT / "models" / name / "deploy.prototxt", None)))
    made = there_and_back(net, tmp_path, audience)
    assert names(made.net) == names(net.param)
    agree_with_net(made, net, share=SEGNET_SHARE if name == "segnet" else 1)
    before = types(net.param)
    before["Scale"] += before.pop("BN", 0)
    assert types(made.net) == before


@pytest.mark.slow
def test_forks_layers_are_named_for_others(tmp_path):
    net = export.build(ROOT / "models/segnet/deploy.prototxt", None)
    with pytest.raises(
        SpecError, match=r"aten\.max_unpool2d \(of Caffe's only forks have Upsample \(--for forks\)\) at 'upsample5'"
    ):
        there_and_back(net, tmp_path)


def small_net(layer, *shapes):
    inputs = zip("xyz", shapes, strict=False)
    lines = [
        f'layer {{ name: "{n}" type: "Input" top: "{n}" input_param {{ shape {{ {_dims(s)} }} }} }}' for n, s in inputs
    ]
    param = text.parse("\n".join([*lines, layer]), NetParameter())
    return exported.exposed(made_up.weights(Net(prepare_net(param, TEST))))


def _dims(shape):
    return " ".join(f"dim: {size}" for size in shape)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("time", [1, 3])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_recurrent_layers_there_and_back(kind, time, static, tmp_path):
    bottoms = "".join(f' bottom: "{name}"' for name in ("xyz" if static else "xy"))
    layer = f'layer {{ name: "l" type: "{kind}"{bottoms} top: "l" recurrent_param {{ num_output: 3 {FILLER} }} }}'
    net = small_net(layer, (time, 2, 5), (time, 2), *[(2, 4)] * static)
    made = there_and_back(net, tmp_path)
    assert types(made.net) == types(net.param)
    agree_with_net(made, net)


FILLER = 'weight_filler { type: "uniform" min: -1 max: 1 } bias_filler { type: "uniform" min: -1 max: 1 }'
MASKED = """layer { name: "p" type: "Pooling" bottom: "x" top: "p" top: "m" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "u" type: "Upsample" bottom: "p" bottom: "m" top: "u" upsample_param { %s } }"""


@pytest.mark.parametrize("shape", [(2, 4), (2, 4, 5), (2, 4, 5, 3)])
@pytest.mark.parametrize(
    "param", ["", "top_k: 3", "out_max_val: true", "out_max_val: true top_k: 2", "axis: 1", "axis: -1 top_k: 2"]
)
def test_argmax_there_and_back(param, shape, tmp_path):
    net = small_net(f'layer {{ name: "l" type: "ArgMax" bottom: "x" top: "l" argmax_param {{ {param} }} }}', shape)
    made = there_and_back(net, tmp_path)
    assert [layer.type for layer in made.net.layer] == ["Input", "ArgMax"]
    agree_with_net(made, net)


@pytest.mark.parametrize("param", ["", "eps: 0.5", "across_channels: true", "normalize_variance: false"])
def test_mvn_there_and_back(param, tmp_path):
    net = small_net(f'layer {{ name: "l" type: "MVN" bottom: "x" top: "l" mvn_param {{ {param} }} }}', (2, 4, 5, 3))
    made = there_and_back(net, tmp_path, "caffe")
    assert text.format(made.net.layer[1].mvn_param).split() == param.split()
    agree_with_net(made, net)


@pytest.mark.parametrize(
    ("shape", "param"), [((2, 3, 4, 6), "scale: 2"), ((2, 3, 5, 6), "upsample_h: 5 upsample_w: 6")]
)
def test_masks_there_and_back(shape, param, tmp_path):
    net = small_net(MASKED % param, shape)
    made = there_and_back(net, tmp_path, "forks")
    assert [layer.type for layer in made.net.layer] == ["Input", "Pooling", "Upsample"]
    agree_with_net(made, net)
