"""Weights through every form and back, exact; files that cannot be converted are named."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest

from caffecli.errors import FormatError, SpecError
from caffecli.formats import blob as blobs
from caffecli.formats import caffemodel, safetensors
from caffecli.net import weights as net_weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, LayerParameter, NetParameter
from caffecli.spec import text
from caffecli.spec.load import prepare_net
from converters import convert_weights as converter
from converters import export
from converters.convert_mean import convert_mean
from converters.convert_weights import convert_weights

FORMS = ["caffemodel", "caffemodel.h5", "npz", "safetensors"]


def same(one, other):
    assert {name: len(arrays) for name, arrays in one.items()} == {name: len(arrays) for name, arrays in other.items()}
    for name, arrays in one.items():
        for a, b in zip(arrays, other[name], strict=True):
            assert a.shape == b.shape
            assert a.tobytes() == b.tobytes(), name


@pytest.fixture
def lenet(golden):
    return golden / "lenet" / "lenet_iter_10000.caffemodel"


@pytest.mark.parametrize(("first", "second"), list(itertools.permutations(FORMS, 2)))
def test_round_trips_are_exact(lenet, tmp_path, first, second):
    a, b, back = tmp_path / f"a.{first}", tmp_path / f"b.{second}", tmp_path / "back.caffemodel"
    convert_weights(lenet, a)
    convert_weights(a, b)
    convert_weights(b, back)
    original = caffemodel.read(lenet)
    same(converter.read(a)[1], original)
    same(converter.read(b)[1], original)
    same(caffemodel.read(back), original)
    if not {first, second} & {"caffemodel.h5"}:
        assert back.read_bytes() == lenet.read_bytes()


def test_any_number_comes_through(tmp_path):
    odd = np.array([np.nan, np.inf, -0.0, 1e-45, 3.4e38], np.float32)
    net = NetParameter(layer=[LayerParameter(name="a/b.c", type="Mine"), LayerParameter(name="empty", type="ReLU")])
    caffemodel.write(tmp_path / "a.caffemodel", net, {"a/b.c": [odd, odd[:0].reshape(0, 3), odd[:1].reshape(())]})
    original = caffemodel.read(tmp_path / "a.caffemodel")
    for form in FORMS[1:]:
        convert_weights(tmp_path / "a.caffemodel", tmp_path / f"b.{form}")
        same(converter.read(tmp_path / f"b.{form}")[1], original)


def test_nvidias_form_is_read(tmp_path):
    net = blobs.twin("NetParameter")()
    blob = net.layer.add(name="conv", type="Convolution").blobs.add(raw_data_type=2)
    values = np.arange(6, dtype=np.float16).reshape(2, 3) / 7
    blob.shape.dim.extend(values.shape)
    blob.raw_data = values.tobytes()
    (tmp_path / "nv.caffemodel").write_bytes(net.SerializeToString())
    for form in FORMS:
        convert_weights(tmp_path / "nv.caffemodel", tmp_path / f"x.{form}")
        np.testing.assert_array_equal(converter.read(tmp_path / f"x.{form}")[1]["conv"][0], values.astype(np.float32))


NAMED = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "dw" type: "ConvolutionDepthwise" bottom: "c" top: "d"
  convolution_param { num_output: 2 kernel_size: 1 } }
layer { name: "up" type: "Deconvolution" bottom: "d" top: "u"
  convolution_param { num_output: 2 kernel_size: 1 bias_term: false } }
layer { name: "norm" type: "BatchNorm" bottom: "u" top: "n" }
layer { name: "scale" type: "Scale" bottom: "n" top: "s" scale_param { bias_term: true } }
layer { name: "times" type: "Scale" bottom: "s" bottom: "n" top: "t" scale_param { axis: 0 bias_term: true } }
layer { name: "plus" type: "Bias" bottom: "t" top: "p" }
layer { name: "slope" type: "PReLU" bottom: "p" top: "r" }
layer { name: "segnet" type: "BN" bottom: "r" top: "bn" bn_param { bn_mode: INFERENCE } }
layer { name: "pspnet" type: "BN" bottom: "bn" top: "bn2" bn_param { frozen: true } }
layer { name: "length" type: "Normalize" bottom: "bn2" top: "l" }
layer { name: "ip" type: "InnerProduct" bottom: "l" top: "ip" inner_product_param { num_output: 2 } }
layer { name: "words" type: "Input" top: "words" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 3 dim: 2 } } }
layer { name: "embed" type: "Embed" bottom: "words" top: "e" embed_param { num_output: 2 input_dim: 5 } }
layer { name: "lstm" type: "LSTM" bottom: "e" bottom: "cont" top: "h" recurrent_param { num_output: 3 } }
layer { name: "lstm2" type: "LSTM" bottom: "h" bottom: "cont" bottom: "ip" top: "h2" recurrent_param { num_output: 3 } }
layer { name: "rnn" type: "RNN" bottom: "h2" bottom: "cont" top: "y" recurrent_param { num_output: 3 } }
"""


@pytest.mark.parametrize("form", ["npz", "safetensors"])
def test_names_are_those_of_the_layers(form, tmp_path):
    """``export`` writes ``blob_names`` of each layer; both know each other's files."""
    net = Net(prepare_net(text.parse(NAMED, NetParameter()), TEST))
    (tmp_path / "n.prototxt").write_text(NAMED)
    caffemodel.write(tmp_path / "n.caffemodel", net_weights.definition(net), net_weights.export(net))
    convert_weights(tmp_path / "n.caffemodel", tmp_path / f"a.{form}")
    ours = converter._read_npz(tmp_path / "a.npz") if form == "npz" else safetensors.read(tmp_path / "a.safetensors")
    names = {name: layer.blob_names for name, layer in net.layers.items() if layer.blob_names}
    assert {name: blobs for name, blobs in json.loads(ours[1]["caffe.blobs"]).items() if blobs} == names
    assert set(ours[0]) == {f"{layer}.{blob}" for layer, blobs in names.items() for blob in blobs}  # type: ignore[union-attr]
    export.export(tmp_path / "n.prototxt", tmp_path / "n.caffemodel", "torch", tmp_path / "b.safetensors")
    assert set(safetensors.read(tmp_path / "b.safetensors")[0]) == set(ours[0])
    expected = {name: arrays for name, arrays in net_weights.export(net).items() if arrays}
    same({name: arrays for name, arrays in converter.read(tmp_path / f"a.{form}")[1].items() if arrays}, expected)


def test_names_without_a_description(tmp_path):
    """The names of a layer's blobs say their order; a lone bias is taken for that of a layer that has a weight too."""
    net = Net(prepare_net(text.parse(NAMED, NetParameter()), TEST))
    arrays: dict[str, np.ndarray] = {}
    for name, layer in net.layers.items():
        arrays |= {f"{name}.{blob}": getattr(layer, blob).detach().numpy() for blob in layer.blob_names}  # type: ignore[union-attr]
    safetensors.write(tmp_path / "a.safetensors", arrays)
    came = converter.read(tmp_path / "a.safetensors")[1]
    for name in ("plus", "times"):
        (bias,) = net_weights.export(net)[name]
        same({name: came.pop(name)}, {name: [caffemodel.ABSENT, bias]})
    expected = {
        name: arrays for name, arrays in net_weights.export(net).items() if arrays and name not in ("plus", "times")
    }
    same(came, expected)


def test_numbers_of_files_written_before(tmp_path):
    """LSTM, BN and Normalize had numbers for names."""
    blobs_ = [np.full((2, 3), i, np.float32) for i in range(3)]
    arrays = {f"lstm.{i}": blob for i, blob in enumerate(blobs_)}
    texts = {"caffe.net": 'layer { name: "lstm" type: "LSTM" }', "caffe.blobs": json.dumps({"lstm": ["0", "1", "2"]})}
    safetensors.write(tmp_path / "a.safetensors", arrays, texts)
    same(converter.read(tmp_path / "a.safetensors")[1], {"lstm": blobs_})
    safetensors.write(tmp_path / "b.safetensors", arrays)
    same(converter.read(tmp_path / "b.safetensors")[1], {"lstm": blobs_})


def test_types_without_a_class_have_numbers():
    net = NetParameter(layer=[LayerParameter(name="m", type="Mine"), LayerParameter(name="c", type="Convolution")])
    array = np.zeros(1, np.float32)
    assert converter.blob_names(net, {"m": [array] * 2, "c": [array] * 3}) == {"m": ["0", "1"], "c": ["0", "1", "2"]}


def test_torch_is_loaded_only_for_names(lenet, tmp_path):
    script = """
import sys
from converters.convert_weights import convert_weights
convert_weights(sys.argv[1], sys.argv[2] + ".h5")
assert "torch" not in sys.modules
convert_weights(sys.argv[1], sys.argv[2] + ".npz")
"""
    subprocess.run([sys.executable, "-c", script, str(lenet), str(tmp_path / "x")], check=True)


def test_what_export_wrote_comes_back(lenet, tmp_path):
    body = (
        'name: "n" layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 dim: 3 dim: 3 } } }'
        'layer { name: "a.b" type: "BatchNorm" bottom: "x" top: "y" }'
        'layer { name: "p" type: "PReLU" bottom: "y" top: "z" }'
    )
    (tmp_path / "n.prototxt").write_text(body)
    export.export(tmp_path / "n.prototxt", None, "torch", tmp_path / "n.safetensors")
    convert_weights(tmp_path / "n.safetensors", tmp_path / "n.caffemodel")
    assert {name: len(arrays) for name, arrays in caffemodel.read(tmp_path / "n.caffemodel").items() if arrays} == {
        "a.b": 3,
        "p": 1,
    }
    assert [layer.type for layer in caffemodel.read_net(tmp_path / "n.caffemodel").layer] == [
        "Input",
        "BatchNorm",
        "PReLU",
    ]


def test_files_without_a_description(tmp_path):
    w, b = np.ones((2, 3), np.float32), np.zeros(2, np.float32)
    safetensors.write(tmp_path / "a.safetensors", {"ip.bias": b, "ip.weight": w, "x.y.0": b})
    _, read = converter.read(tmp_path / "a.safetensors")
    same(read, {"ip": [w, b], "x.y": [b]})
    np.savez(tmp_path / "a.npz", allow_pickle=False, **{"bn.running_mean": b})
    with pytest.raises(
        FormatError, match=r"which blob is 'bn.running_mean'\? Expected LAYER.NUMBER, or after the layer one of"
    ):
        converter.read(tmp_path / "a.npz")


def test_shared_blobs_of_hdf5(tmp_path):
    ip = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}" param {{ name: "w" }} '
        "inner_product_param {{ num_output: 2 }} }}"
    )
    source = (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }'
        + ip.format("a")
        + ip.format("b")
    )
    (tmp_path / "n.prototxt").write_text(source)
    net = Net(prepare_net(text.parse(source, NetParameter()), TEST))
    caffemodel.write(tmp_path / "n.h5", net_weights.definition(net), net_weights.export(net, shared=False))
    convert_weights(tmp_path / "n.h5", tmp_path / "n.npz")
    convert_weights(tmp_path / "n.npz", tmp_path / "again.h5")
    same(caffemodel.read(tmp_path / "again.h5"), caffemodel.read(tmp_path / "n.h5"))
    with pytest.raises(
        FormatError, match=r"layer 'b', blob 0: the file leaves it out, as another layer has it; say which"
    ):
        convert_weights(tmp_path / "n.h5", tmp_path / "n.caffemodel")
    convert_weights(tmp_path / "n.h5", tmp_path / "n.caffemodel", tmp_path / "n.prototxt")
    read = caffemodel.read(tmp_path / "n.caffemodel")
    np.testing.assert_array_equal(read["b"][0], read["a"][0])
    (tmp_path / "other.prototxt").write_text(source.replace('"b"', '"c"'))
    with pytest.raises(
        SpecError, match=r"other.prototxt' has no layer 'b', for which .*n.h5' has weights; give its own net"
    ):
        convert_weights(tmp_path / "n.h5", tmp_path / "o.caffemodel", tmp_path / "other.prototxt")


def test_wrong_files(lenet, tmp_path):
    with pytest.raises(
        FormatError, match=r"what form of weights shall it have\? Choose a name that ends in .caffemodel, .h5"
    ):
        convert_weights(lenet, tmp_path / "a.pt")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04" + bytes(30))
    with pytest.raises(FormatError, match=r"cut.npz' is not an npz file of numbers, or damaged"):
        convert_weights(tmp_path / "cut.npz", tmp_path / "a.h5")
    np.savez(tmp_path / "text.npz", allow_pickle=False, **{"a.0": np.array("x")})
    with pytest.raises(FormatError, match=r"array 'a.0' holds no numbers but <U1"):
        convert_weights(tmp_path / "text.npz", tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()


def test_mean_either_way(golden, tmp_path):
    source = golden / "cifar10_quick" / "mean.binaryproto"
    convert_mean(source, tmp_path / "m.npy")
    convert_mean(tmp_path / "m.npy", tmp_path / "m.binaryproto")
    assert (tmp_path / "m.binaryproto").read_bytes() == source.read_bytes()
    with pytest.raises(
        FormatError, match=r"m.npy' is a numpy array already; choose for .* a name that ends in .binaryproto"
    ):
        convert_mean(tmp_path / "m.npy", tmp_path / "n.npy")
    with pytest.raises(FormatError, match=r"mean.binaryproto' is not a numpy array"):
        convert_mean(source, tmp_path / "n.binaryproto")
