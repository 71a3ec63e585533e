"""Crop without crop_param: as the first fully convolutional nets and HED mean it, where the net's form tells."""

from __future__ import annotations

import io

import pytest
import torch

from caffe.coord_map import crop
from caffe.net_spec import layers as L
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from caffecli.spec.upgrade import upgrade_net

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 1 dim: 20 dim: 25 } } }'
CONV = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 1 kernel_size: 3 pad: 6 } }
  layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }"""
POOL = 'layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }'
UP = """layer { name: "up" type: "Deconvolution" bottom: "pool" top: "up"
  convolution_param { num_output: 1 kernel_size: 4 stride: 2 } }"""
CROP = 'layer { name: "crop" type: "Crop" bottom: "%s" bottom: "data" top: "out" %s }'


def build(*parts: str) -> Net:
    return Net(upgrade_net(text.parse("".join(parts), NetParameter())))


def offsets(net: Net) -> list[int]:
    return list(net.layer("crop").param.crop_param.offset)


def test_a_spot_stays_where_it_is(heard: io.StringIO) -> None:
    """HED's form: the input is padded far, and cut back at the end."""
    net = build(INPUT, CONV, CROP % ("conv", ""))
    assert offsets(net) == [5, 5]
    weight, bias = net.layer("conv").blobs
    with torch.no_grad():
        weight.zero_()[0, 0, 1, 1] = 1
        bias.zero_()
    data = torch.zeros(1, 1, 20, 25)
    data[0, 0, 13, 7] = 1
    assert torch.equal(net({"data": data})["out"], data)
    assert (
        "W" in heard.getvalue()
        and "Crop without crop_param cuts where the pixels of both bottoms lie over each other, as HED and the first "
        "FCN have it: 'crop' at 5; for Caffe's own rule, 0, write crop_param { offset: 0 }\n"
        in heard.getvalue()
    )


def test_as_coord_map_has_it() -> None:
    """Through pooling, deconvolution, splits and layers in place."""
    data = L.Input()
    conv = L.Convolution(data, num_output=1, kernel_size=3, pad=6)
    up = L.Deconvolution(L.Pooling(conv, kernel_size=2, stride=2), num_output=1, kernel_size=4, stride=2)
    expected = crop(up, data).fn.params["crop_param"]["offset"]
    assert offsets(build(INPUT, CONV, POOL, UP, CROP % ("up", ""))) == expected * 2 == [6, 6]
    net = build(INPUT, CONV, POOL, UP, 'layer { name: "s" type: "Sigmoid" bottom: "up" top: "s" }', CROP % ("s", ""))
    assert offsets(net) == [6, 6]


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ((CONV, CROP % ("conv", "crop_param { }")), ""),
        ((CONV, CROP % ("conv", "crop_param { offset: 0 }")), ""),
        ((CONV.replace("pad: 6", "pad: 1"), CROP % ("conv", "")), ""),
        ((CONV.replace("pad: 6", "pad_h: 1 pad_w: 4"), CROP % ("conv", "")), "pixels lie 0 and 3 apart"),
        ((CONV.replace("kernel_size: 3", "kernel_size: 4"), CROP % ("conv", "")), "pixels lie 4.5 apart"),
        (
            (CONV, UP.replace('"pool"', '"conv"'), CROP % ("up", "")),
            "but by the layers before them its bottoms' pixels differ in size; write crop_param { axis: 2 offset: N }",
        ),
        ((INPUT.replace("data", "other").replace("dim: 20", "dim: 30"), CROP % ("other", "")), ""),
    ],
)
def test_where_it_cannot_be_told_offset_0_and_a_word(heard: io.StringIO, parts: tuple[str, ...], words: str) -> None:
    net = build(INPUT, *parts)
    assert set(offsets(net)) <= {0}
    told = [line for line in heard.getvalue().splitlines() if "(Crop) has no crop_param" in line]
    assert [words in line for line in told] == ([True] if words else [])


def test_the_old_layers_crop(heard: io.StringIO) -> None:
    """CROP of the forks of 2015 is this layer, and has no settings."""
    old = """input: "data" input_dim: 1 input_dim: 1 input_dim: 20 input_dim: 25
    layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv"
      convolution_param { num_output: 1 kernel_size: 3 pad: 6 } }
    layers { name: "crop" type: CROP bottom: "conv" bottom: "data" top: "out" }"""
    net = build(old)
    assert offsets(net) == [5, 5] and net.shape("out") == (1, 1, 20, 25)
