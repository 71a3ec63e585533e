"""Any weights through any two forms, and back, bit for bit; NVIDIA's form by its field numbers."""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffecli.cli.main import cli
from caffecli.errors import FormatError
from caffecli.formats import caffemodel
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from converters import convert_weights as converter
from converters.convert_weights import convert_weights

#: the end of the name, and NVIDIA's type
FORMS = [
    ("caffemodel", None),
    ("caffemodel.h5", None),
    ("npz", None),
    ("safetensors", None),
    ("caffemodel", "FLOAT"),
    ("caffemodel", "DOUBLE"),
]
NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_. -]{0,8}(/[A-Za-z0-9_]{1,4}x)?", fullmatch=True)
TYPES = ["Convolution", "BatchNorm", "Scale", "PReLU", "LSTM", "Mine"]
BITS = arrays.arrays(np.uint32, arrays.array_shapes(min_dims=0, max_dims=5, min_side=1, max_side=3)).map(
    lambda a: a.view(np.float32)
)


def same(one, other):
    assert {name: len(blobs) for name, blobs in one.items() if blobs} == {
        name: len(blobs) for name, blobs in other.items() if blobs
    }
    for name, blobs in one.items():
        for a, b in zip(blobs, other[name], strict=True) if blobs else ():
            assert a.shape == b.shape, name
            # any NaN is as good as another where a type of 64 bits lay between
            assert np.where(np.isnan(a), 0, a).tobytes() == np.where(np.isnan(b), 0, b).tobytes(), name
            assert (np.isnan(a) == np.isnan(b)).all()


@st.composite
def nets(draw):
    names = draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    net = NetParameter(
        name="n", layer=[LayerParameter(name=name, type=draw(st.sampled_from(TYPES)), top=[name]) for name in names]
    )
    return net, {name: draw(st.lists(BITS, max_size=4)) for name in names}


@settings(max_examples=60, deadline=None)
@given(nets(), st.sampled_from(FORMS), st.sampled_from(FORMS))
def test_any_weights_through_any_forms(made, first, second):
    net, blobs = made
    with tempfile.TemporaryDirectory() as folder:
        start, a, b, back = (
            Path(folder) / f"{i}.{end}" for i, end in enumerate(["caffemodel", first[0], second[0], "caffemodel"])
        )
        caffemodel.write(start, net, blobs)
        convert_weights(start, a, nvidia=first[1])
        convert_weights(a, b, nvidia=second[1])
        convert_weights(b, back)
        for path in (a, b, back):
            same(converter.read(path)[1], blobs)
        if "h5" not in first[0] + second[0]:  # those hold no definition
            assert caffemodel.read_net(back) == net


def varint(number):
    made = b""
    while number > 127:
        made, number = made + bytes([number & 127 | 128]), number >> 7
    return made + bytes([number])


def field(number, content):
    """A field of a message: a number, or bytes."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize(("name", "number", "code"), [("FLOAT", 1, "f"), ("FLOAT16", 2, "e"), ("DOUBLE", 0, "d")])
def test_nvidias_form_is_that_of_its_proto(name, number, code, tmp_path):
    """BlobProto: shape = 7, raw_data_type = 10, raw_data = 12; DOUBLE 0, FLOAT 1, FLOAT16 2; blobs = 7 in a layer."""
    values = [0.5, -2.0, 1024.0, 3.0, 0.1, -0.25]
    net = NetParameter(name="n", layer=[LayerParameter(name="fc", type="InnerProduct")])
    caffemodel.write(tmp_path / "a.caffemodel", net, {"fc": [np.array(values, np.float32).reshape(2, 3)]})
    args = ["convert_weights", "--nvidia", name.lower(), str(tmp_path / "a.caffemodel"), str(tmp_path / "b.caffemodel")]
    cli.main(args, standalone_mode=False)
    raw = struct.pack(f"<6{code}", *np.array(values, np.float32))
    blob = field(7, field(1, bytes([2, 3]))) + field(10, number) + field(12, raw)
    layer = field(1, b"fc") + field(2, b"InnerProduct") + field(7, blob)
    assert (tmp_path / "b.caffemodel").read_bytes() == field(1, b"n") + field(100, layer)
    exact = np.array(struct.unpack(f"<6{code}", raw), np.float32).reshape(2, 3)
    np.testing.assert_array_equal(caffemodel.read(tmp_path / "b.caffemodel")["fc"][0], exact)


def test_what_float16_cannot_hold(tmp_path):
    net = NetParameter(layer=[LayerParameter(name="fc", type="InnerProduct")])
    odd = np.array([np.inf, -np.inf, np.nan, 1e-9, 65504], np.float32)
    caffemodel.write(tmp_path / "a.caffemodel", net, {"fc": [odd]})
    convert_weights(tmp_path / "a.caffemodel", tmp_path / "b.caffemodel", nvidia="FLOAT16")
    np.testing.assert_array_equal(
        caffemodel.read(tmp_path / "b.caffemodel")["fc"][0], [np.inf, -np.inf, np.nan, 0, 65504]
    )
    caffemodel.write(tmp_path / "a.caffemodel", net, {"fc": [odd, odd[3:] + 100]})
    (tmp_path / "b.caffemodel").write_bytes(b"mine")
    words = r"b.caffemodel': layer 'fc', blob 1: 65604 does not fit into FLOAT16, whose largest number is 65504; choose"
    with pytest.raises(FormatError, match=words):
        convert_weights(tmp_path / "a.caffemodel", tmp_path / "b.caffemodel", nvidia="FLOAT16")
    assert (tmp_path / "b.caffemodel").read_bytes() == b"mine"


def test_nvidias_form_has_one_name(tmp_path):
    with pytest.raises(
        FormatError, match=r"NVIDIA's form is one of binary caffemodels; choose a name that ends in .caffemodel"
    ):
        convert_weights(tmp_path / "a.caffemodel", tmp_path / "b.h5", nvidia="FLOAT")


@pytest.mark.parametrize(
    ("nvidia", "count", "size"), [(None, 2**29, "2.0"), ("FLOAT16", 2**30, "2.0"), ("DOUBLE", 2**28, "2.0")]
)
def test_two_gigabytes_are_refused_in_binary(nvidia, count, size, tmp_path):
    huge = np.broadcast_to(np.float32(1), (2, count // 2))
    net = NetParameter(layer=[LayerParameter(name="fc", type="InnerProduct")])
    words = (
        f"c.caffemodel': {size} GB do not fit into a binary file .2 GB at most.; "
        "set snapshot_format: HDF5, or .* in .h5"
    )
    with pytest.raises(FormatError, match=words):
        converter.write(tmp_path / "c.caffemodel", net, {"fc": [huge]}, nvidia)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", [("a", "a/0"), ("", "a"), ("/a", "b"), ("a//b", "a/b"), ("a", "./a"), ("a/", "b")])
def test_layers_that_hdf5_cannot_keep_apart(names, tmp_path):
    net = NetParameter(layer=[LayerParameter(name=name, type="Bias") for name in names])
    one = np.ones(2, np.float32)
    caffemodel.write(tmp_path / "a.caffemodel", net, {name: [one] for name in names})
    words = r"cannot write .*a.h5': layer '.*' cannot be a group in HDF5 .*; rename it, or choose a binary file"
    with pytest.raises(FormatError, match=words):
        convert_weights(tmp_path / "a.caffemodel", tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.caffemodel"]
