"""merge_bn: the folded net gives the same outputs; what cannot be folded stays, and is named."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import FormatError, SpecError
from caffecli.formats import caffemodel
from caffecli.layers import Layer, registry
from caffecli.layers.conv import Convolution
from caffecli.layers.folding import Foldable, FoldTarget
from caffecli.net import weights as net_weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, NetParameter
from caffecli.spec import text
from caffecli.spec.load import load_net, prepare_net
from caffecli.tools.detector_input import preparation
from converters.fold import merge
from converters.merge_bn import merge_bn

ROOT = Path(__file__).parents[2]
INPUT = 'layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 4 dim: 7 dim: 6 } } }'
BN = 'layer {{ name: "{0}" type: "BatchNorm" bottom: "{1}" top: "{2}" batch_norm_param {{ eps: 0.001 }} }}'
SCALE = 'layer {{ name: "{0}" type: "Scale" bottom: "{1}" top: "{2}" scale_param {{ bias_term: true }} }}'
CONV = (
    'layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{2}" '
    "convolution_param {{ num_output: 6 kernel_size: 3 {3} }} }}"
)
SCALED = 'layer { name: "s" type: "Scale" bottom: "c" %s top: "s" scale_param { %s } }'
RELU = 'layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }'


def filled(source):
    """A net of ``source`` with weights and statistics that are all different."""
    net = Net(prepare_net(text.parse(source, NetParameter()), TEST))
    generator = torch.Generator().manual_seed(3)
    for node in net.nodes:
        for blob in node.layer.blobs:
            if node.layer.type in ("BatchNorm", "BN"):
                blob.data.uniform_(0.3, 2.0, generator=generator)
            else:
                blob.data.normal_(0, 0.5, generator=generator)
    return net


def run(net, shape=(2, 4, 7, 6)):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        return {name: top.numpy() for name, top in net({"data": x}).items()}


def merged_of(source):
    net = filled(source)
    done = merge(text.parse(source, NetParameter()), net_weights.export(net))
    other = Net(prepare_net(done.net, TEST))
    net_weights.copy(other, done.weights, "merged")
    before, after = run(net), run(other)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, rtol=1e-5, atol=1e-5)
    return done


@pytest.mark.parametrize("bias", ["", "bias_term: false"])
@pytest.mark.parametrize(
    "layers",
    [
        [BN.format("bn", "c", "c"), SCALE.format("s", "c", "c"), RELU],
        [BN.format("bn", "c", "b"), SCALE.format("s", "b", "d")],
        [BN.format("bn", "c", "c"), RELU],
        [SCALE.format("s", "c", "c")],
    ],
    ids=["in place", "separate tops", "BatchNorm alone", "Scale alone"],
)
def test_convolution(layers, bias):
    done = merged_of(INPUT + CONV.format("conv", "data", "c", bias) + "".join(layers))
    assert not done.left
    assert not {layer.type for layer in done.net.layer} & {"BatchNorm", "Scale"}
    assert set(done.folded.values()) == {"conv"}


@pytest.mark.parametrize(
    "target",
    [
        'type: "Convolution" convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 group: 2 dilation: 1 }',
        'type: "Deconvolution" convolution_param { num_output: 6 kernel_size: 3 group: 2 stride: 2 bias_term: false }',
        'type: "Deconvolution" convolution_param { num_output: 6 kernel_size: 3 }',
        'type: "ConvolutionDepthwise" convolution_param { num_output: 4 kernel_size: 3 }',
        'type: "DepthwiseConvolution" convolution_param { num_output: 4 kernel_size: 3 group: 4 }',
        'type: "InnerProduct" inner_product_param { num_output: 5 }',
        'type: "InnerProduct" inner_product_param { num_output: 5 transpose: true bias_term: false }',
    ],
)
def test_every_target(target):
    source = f'{INPUT} layer {{ name: "h" bottom: "data" top: "c" {target} }}'
    done = merged_of(source + BN.format("bn", "c", "b") + SCALE.format("s", "b", "b"))
    assert done.folded == {"bn": "h", "s": "h"}


@pytest.mark.parametrize(
    ("layers", "left", "reason"),
    [
        (BN.format("bn", "data", "b"), "bn", r"it stands behind 'in' \(Input\), which has no weights to take it"),
        (RELU + BN.format("bn", "c", "b"), "bn", r"it stands behind 'relu' \(ReLU\)"),
        (BN.format("bn", "c", "b") + RELU.replace('top: "c"', 'top: "r"'), "bn",
            "'relu' reads 'c' too, as it is before"),
        (BN.format("bn", "c", "b").replace("eps: 0.001", "use_global_stats: false"), "bn",
            "use_global_stats: false makes it"),
        (SCALED % ('bottom: "c"', "axis: 0"), "s", "its factors are the blob 'c'"),
        (SCALED % ("", "axis: 2"), "s", "it scales 1 axes from axis 2 on"),
        (BN.format("bn", "c", "b").replace("batch", "exclude { phase: TRAIN } batch"), "bn", "under other include"),
    ],
)  # fmt: skip
def test_what_stays(layers, left, reason):
    conv2 = CONV.format("conv2", "data", "c2", "") + BN.format("bn2", "c2", "c2")
    done = merged_of(INPUT + CONV.format("conv", "data", "c", "") + layers + conv2)
    assert done.folded == {"bn2": "conv2"}
    assert list(done.left) == [left]
    assert re.search(reason, done.left[left])


@pytest.mark.parametrize(
    "settings",
    [
        "slope_filler { value: 1 } eps: 0.01",
        "slope_filler { value: 1 } frozen: true",
        "scale_filler { value: 1 } bn_mode: INFERENCE",
    ],
)
def test_bn_of_forks(settings):
    bn = 'layer { name: "bn" type: "BN" bottom: "c" top: "b" bn_param { ' + settings + " } }"
    done = merged_of(INPUT + CONV.format("conv", "data", "c", "bias_term: false") + bn)
    assert done.folded == {"bn": "conv"}


def test_bn_of_segnet_that_still_learns_stays():
    bn = 'layer { name: "bn" type: "BN" bottom: "c" top: "b" bn_param { scale_filler { value: 1 } } }'
    done = merged_of(INPUT + CONV.format("conv", "data", "c", "bias_term: false") + bn)
    assert done.left == {"bn": "bn_mode: LEARN makes it take each batch's own statistics"}


@pytest.mark.parametrize(
    "target",
    [
        'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 }',
        'type: "Convolution" convolution_param { num_output: 6 kernel_size: 3 group: 2 bias_term: false stride: 2 }',
        'type: "ConvolutionDepthwise" convolution_param { num_output: 4 kernel_size: 3 }',
        'type: "DepthwiseConvolution" convolution_param { num_output: 4 kernel_size: 3 group: 4 }',
        'type: "InnerProduct" inner_product_param { num_output: 5 }',
        'type: "InnerProduct" inner_product_param { num_output: 5 transpose: true bias_term: false }',
    ],
)
@pytest.mark.parametrize("in_place", [True, False])
def test_before_a_layer_with_weights(target, in_place):
    tops = ("data", "data") if in_place else ("b", "s")
    source = INPUT + BN.format("bn", "data", tops[0]) + SCALE.format("s", *tops)
    done = merged_of(f'{source} layer {{ name: "h" bottom: "{tops[1]}" top: "c" {target} }}')
    assert done.folded == {"bn": "h", "s": "h"}
    assert not done.left
    assert done.net.layer[1].bottom == ["data"]


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        (CONV.format("h", "b", "c", "pad: 1"), "nor does it fit into 'h' behind it: that pads with zeros"),
        (CONV.format("h", "b", "c", "").replace('"Convolution"', '"Deconvolution"'),
            "a Deconvolution's edges get less"),
        (CONV.format("h", "b", "c", "") + CONV.format("g", "b", "d", ""), None),
        ('layer { name: "r" type: "ReLU" bottom: "b" top: "b" }' + CONV.format("h", "b", "c", ""), None),
        (CONV.format("h", "b", "c", "").replace("convolution", "include { phase: TEST } convolution"),
            "under other include"),
    ],
)  # fmt: skip
def test_what_stays_before_a_layer_with_weights(layers, reason):
    done = merged_of(INPUT + BN.format("bn", "data", "b") + layers)
    assert list(done.left) == ["bn"]
    assert not done.folded
    assert "it stands behind 'in' (Input), which has no weights to take it" in done.left["bn"]
    assert (reason or "bn") in done.left["bn"] if reason else "; nor does it fit" not in done.left["bn"]


def test_a_scale_without_bias_goes_through_padding():
    scale = SCALE.format("s", "data", "d").replace("true", "false")
    assert merged_of(INPUT + scale + CONV.format("h", "d", "c", "pad: 1")).folded == {"s": "h"}


def test_between_two_convolutions_it_goes_into_the_first():
    first = CONV.format("a", "data", "c", "")
    done = merged_of(INPUT + first + BN.format("bn", "c", "b") + CONV.format("h", "b", "d", ""))
    assert done.folded == {"bn": "a"}


def test_a_scale_that_shares_its_weights_stays():
    scale = SCALE.replace("scale_param", 'param {{ name: "f" }} scale_param')
    convs = CONV.format("a", "data", "c", "") + CONV.format("b", "data", "d", "")
    done = merged_of(INPUT + convs + scale.format("s", "c", "e") + scale.format("t", "d", "f"))
    assert done.left == {"s": "'s' shares its weights with 't'", "t": "'t' shares its weights with 's'"}


def test_shared_weights_stay():
    conv = CONV.format("a", "data", "c", 'weight_filler { } } param { name: "w"') + CONV.format(
        "b", "data", "d", '} param { name: "w"'
    )
    done = merged_of(INPUT + conv + BN.format("bn", "c", "c"))
    assert done.left == {"bn": "'a' shares its weights with 'b'"}


def test_files(tmp_path):
    source = INPUT + CONV.format("conv", "data", "c", "bias_term: false") + BN.format("bn", "c", "c")
    (tmp_path / "net.prototxt").write_text(source)
    net = filled(source)
    caffemodel.write(tmp_path / "a.caffemodel", net_weights.definition(net), net_weights.export(net))
    with pytest.raises(FormatError, match="create the folder"):
        merge_bn(
            tmp_path / "net.prototxt",
            tmp_path / "a.caffemodel",
            tmp_path / "o.prototxt",
            tmp_path / "no" / "o.caffemodel",
        )
    assert not (tmp_path / "o.prototxt").exists()
    merge_bn(tmp_path / "net.prototxt", tmp_path / "a.caffemodel", tmp_path / "o.prototxt", tmp_path / "o.caffemodel")
    other = Net(prepare_net(load_net(tmp_path / "o.prototxt"), TEST))
    net_weights.load(other, tmp_path / "o.caffemodel")
    np.testing.assert_allclose(run(other)["c"], run(net)["c"], rtol=1e-5, atol=1e-5)
    with pytest.raises(SpecError, match="nothing to fold: it has no BatchNorm, BN or Scale layer"):
        merge_bn(tmp_path / "o.prototxt", tmp_path / "o.caffemodel", tmp_path / "p.prototxt", tmp_path / "p.caffemodel")


def test_weights_of_another_net(tmp_path):
    source = INPUT + CONV.format("conv", "data", "c", "bias_term: false") + BN.format("bn", "c", "c")
    (tmp_path / "net.prototxt").write_text(source)
    out = tmp_path / "o.prototxt", tmp_path / "o.caffemodel"
    other = filled(source.replace("num_output: 6", "num_output: 5"))
    caffemodel.write(tmp_path / "a.caffemodel", net_weights.definition(other), net_weights.export(other))
    words = r"layer 'bn': the caffemodel's 'conv', of shape \(5, 4, 3, 3\), is that of another net: num_output is 6"
    with pytest.raises(SpecError, match=words):
        merge_bn(tmp_path / "net.prototxt", tmp_path / "a.caffemodel", *out)
    other = filled(source.replace('"conv"', '"conv9"'))
    caffemodel.write(tmp_path / "b.caffemodel", net_weights.definition(other), net_weights.export(other))
    with pytest.raises(
        SpecError, match=r"b.caffemodel' has no weights for any layer of .*net.prototxt', such as 'conv'; give its"
    ):
        merge_bn(tmp_path / "net.prototxt", tmp_path / "b.caffemodel", *out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.caffemodel", "b.caffemodel", "net.prototxt"]


DATA = 'layer { name: "data" type: "AnnotatedData" top: "data" transform_param { mean_value: 7 scale: 0.5 } }'
ROIS = """layer { name: "roi-data" type: "Python" bottom: "c" top: "r" python_param {
  module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "'num_classes': 3" } }"""


def test_what_the_weights_say_of_their_training_stays(tmp_path, monkeypatch):
    """By it detect prepares pictures, and scales weights."""
    monkeypatch.chdir(tmp_path)
    source = INPUT + CONV.format("c", "data", "c", "") + BN.format("bn", "c", "c")
    Path("net.prototxt").write_text(source)
    arrays = {name: blobs for name, blobs in net_weights.export(filled(source)).items() if blobs}
    trained = text.parse(DATA + source.replace(INPUT, "") + ROIS, NetParameter())
    caffemodel.write("a.caffemodel", trained, arrays)
    merge_bn("net.prototxt", "a.caffemodel", "o.prototxt", "o.caffemodel")
    kept = caffemodel.read_net("o.caffemodel")
    assert [layer.type for layer in kept.layer] == ["AnnotatedData", "Python", "Input", "Convolution"]
    assert kept.layer[0].transform_param.scale == 0.5
    assert [layer.type for layer in load_net("o.prototxt").layer] == ["Input", "Convolution"]
    prepared = preparation(
        "o.caffemodel", (1, 4, 7, 6), mean=None, like=None, input_scale=None, resize_mode=None, bgr=True
    )
    assert prepared.scale == 0.5 and prepared.mean.ravel().tolist() == [7]
    Path("net.prototxt").write_text(DATA + ROIS + source)  # as it is there already
    merge_bn("net.prototxt", "a.caffemodel", "p.prototxt", "p.caffemodel")
    assert [layer.type for layer in caffemodel.read_net("p.caffemodel").layer].count("AnnotatedData") == 1
    plain = DATA.replace("transform_param { mean_value: 7 scale: 0.5 }", 'data_param { source: "db" }')
    Path("net.prototxt").write_text(source)
    caffemodel.write("b.caffemodel", text.parse(plain + source.replace(INPUT, ""), NetParameter()), arrays)
    merge_bn("net.prototxt", "b.caffemodel", "r.prototxt", "r.caffemodel")
    assert caffemodel.read_net("r.caffemodel").layer[0].type == "AnnotatedData"
    caffemodel.write("a.caffemodel.h5", trained, arrays)
    Path("net.prototxt").write_text(source)
    merge_bn("net.prototxt", "a.caffemodel.h5", "q.prototxt", "q.caffemodel")
    assert [layer.type for layer in caffemodel.read_net("q.caffemodel").layer] == ["Input", "Convolution"]


def test_inner_products_of_old_files():
    """Their weights have four dimensions."""
    layer = 'layer { name: "h" type: "InnerProduct" bottom: "data" top: "c" inner_product_param { num_output: 5 } }'
    source = f"{INPUT} {layer}"
    net = filled(source + BN.format("bn", "c", "b"))
    weights = net_weights.export(net)
    old = dict(weights, h=[weights["h"][0].reshape(1, 1, 5, -1), weights["h"][1].reshape(1, 1, 1, 5)])
    definition = text.parse(source + BN.format("bn", "c", "b"), NetParameter())
    for one, other in zip(merge(definition, old).weights["h"], merge(definition, weights).weights["h"], strict=True):
        np.testing.assert_array_equal(one, other)


class Halved(Foldable, Layer):
    """y = x / 2 + 1."""

    keeps_shape = True

    @classmethod
    def factor_and_shift(cls, param, blobs):
        return np.full(6, 0.5), np.ones(6)

    def forward(self, x):
        return x / 2 + 1


class Twin(Convolution):
    """A Convolution by another name."""


def test_every_type_that_folds_is_tested():
    folding = {cls.type for cls in registry.classes() if issubclass(cls, Foldable | FoldTarget)}
    tested = set(re.findall(r'type: "(\w+)"', Path(__file__).read_text()))
    assert folding and folding <= tested


def test_layers_from_outside(monkeypatch):
    for name, cls in (("Halved", Halved), ("Twin", Twin)):
        monkeypatch.setitem(registry._LAYERS, name, cls)
        monkeypatch.setattr(cls, "type", name)
    conv = CONV.format("conv", "data", "c", "").replace('"Convolution"', '"Twin"')
    done = merged_of(INPUT + conv + 'layer { name: "half" type: "Halved" bottom: "c" top: "h" }')
    assert done.folded == {"half": "conv"}


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mobilenet", 54),
        pytest.param("mobilenet_v2", 106, marks=pytest.mark.slow),
        pytest.param("resnet50", 106, marks=pytest.mark.slow),
    ],
)
def test_nets_of_the_zoo(name, count):
    """Nothing of the kind is left, and what goes into the Softmax is the same."""
    definition = load_net(ROOT / f"models/{name}/deploy.prototxt")
    layers = [layer for layer in definition.layer if layer.type != "Softmax"]
    del definition.layer[:]
    definition.layer.extend(layers)
    net = Net(prepare_net(definition, TEST))
    generator = torch.Generator().manual_seed(3)
    for node in net.nodes:
        for index, blob in enumerate(node.layer.blobs):
            if node.layer.type in ("BatchNorm", "Scale"):
                blob.data.uniform_(0.5, 1.5, generator=generator)
            else:
                blob.data.normal_(0, (2 / blob[0].numel()) ** 0.5 if index == 0 else 0.1, generator=generator)
    done = merge(definition, net_weights.export(net))
    assert (len(done.folded), done.left) == (count, {})
    assert len(done.net.layer) == len(layers) - count
    other = Net(prepare_net(done.net, TEST))
    net_weights.copy(other, done.weights, "merged")
    (before,), (after,) = (run(one, (1, 3, 224, 224)).values() for one in (net, other))
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * np.abs(before).max())


def test_files_that_are_refused_do_not_wait_for_torch() -> None:
    code = """
import sys
from caffecli.errors import SpecError
from converters.merge_bn import merge_bn
try:
    merge_bn("no.prototxt", "no.caffemodel", "o.prototxt", "o.caffemodel")
except SpecError:
    assert "torch" not in sys.modules
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
