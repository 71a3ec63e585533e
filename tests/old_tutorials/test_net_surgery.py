"""Fully convolutional CaffeNet: the seventh note of 2014, and a page of 2020 that sums up net_surgery.ipynb."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from tests.old_tutorials.conftest import MODELS, thinned

PLAIN = MODELS / "bvlc_reference_caffenet/deploy.prototxt"
FULL = MODELS / "bvlc_caffenet_full_conv/deploy.prototxt"


def test_shapes_of_the_whole_nets() -> None:
    """As both documents print them; until 2014 blobs had axes of length 1 in front, (1, 1, 4096, 9216)."""
    net = caffe.Net(str(PLAIN), caffe.TEST)
    params = ["fc6", "fc7", "fc8"]
    fc_params = {pr: (net.params[pr][0].data, net.params[pr][1].data) for pr in params}
    said = [
        f"{fc} weights are {fc_params[fc][0].shape} dimensional and biases are {fc_params[fc][1].shape} dimensional"
        for fc in params
    ]
    assert said == [
        "fc6 weights are (4096, 9216) dimensional and biases are (4096,) dimensional",
        "fc7 weights are (4096, 4096) dimensional and biases are (4096,) dimensional",
        "fc8 weights are (1000, 4096) dimensional and biases are (1000,) dimensional",
    ]
    net_full_conv = caffe.Net(str(FULL), caffe.TEST)
    params_full_conv = ["fc6-conv", "fc7-conv", "fc8-conv"]
    conv_params = {pr: (net_full_conv.params[pr][0].data, net_full_conv.params[pr][1].data) for pr in params_full_conv}
    said = [
        f"{conv} weights are {conv_params[conv][0].shape} dimensional and biases are {conv_params[conv][1].shape} "
        "dimensional"
        for conv in params_full_conv
    ]
    assert said == [
        "fc6-conv weights are (4096, 256, 6, 6) dimensional and biases are (4096,) dimensional",
        "fc7-conv weights are (4096, 4096, 1, 1) dimensional and biases are (4096,) dimensional",
        "fc8-conv weights are (1000, 4096, 1, 1) dimensional and biases are (1000,) dimensional",
    ]


@pytest.mark.parametrize("year", [2014, 2020])
def test_a_map_of_classes(year: int, caffenet: tuple[Path, Path], caffe_root: Path) -> None:
    """The weights are moved as typed, the net saved, loaded, and fed as in each year: an 8 x 8 map, the one that the
    windows' own features give.
    """
    model, weights = map(str, caffenet)
    full = Path("imagenet_full_conv.prototxt")
    full.write_text(thinned(FULL, 16))
    cv2.imwrite("cat.jpg", np.random.default_rng(1).integers(0, 255, (360, 480, 3), np.uint8))
    np.save("mean.npy", np.random.default_rng(2).uniform(90, 130, (3, 256, 256)))
    net = caffe.Net(model, weights) if year == 2014 else caffe.Net(model, weights, caffe.TEST)
    net_full_conv = caffe.Net(str(full), weights, caffe.TEST)
    params, params_full_conv = ["fc6", "fc7", "fc8"], ["fc6-conv", "fc7-conv", "fc8-conv"]
    fc_params = {pr: (net.params[pr][0].data, net.params[pr][1].data) for pr in params}
    conv_params = {pr: (net_full_conv.params[pr][0].data, net_full_conv.params[pr][1].data) for pr in params_full_conv}
    for pr, pr_conv in zip(params, params_full_conv, strict=True):
        conv_params[pr_conv][1][...] = fc_params[pr][1]
    for pr, pr_conv in zip(params, params_full_conv, strict=True):
        out, in_, h, w = conv_params[pr_conv][0].shape
        conv_params[pr_conv][0][...] = fc_params[pr][0].reshape((out, in_, h, w))
    net_full_conv.save("caffe_imagenet_full_conv")
    saved = caffe.Net(str(full), "caffe_imagenet_full_conv", caffe.TEST)
    im = caffe.io.load_image("cat.jpg")
    if year == 2014:
        net_full_conv.set_mean("data", "mean.npy")
        net_full_conv.set_channel_swap("data", (2, 1, 0))
        net_full_conv.set_input_scale("data", 255.0)
        out = net_full_conv.forward_all(data=np.asarray([net_full_conv.preprocess("data", im)]))
    else:
        transformer = caffe.io.Transformer({"data": net_full_conv.blobs["data"].data.shape})
        transformer.set_mean("data", np.load("mean.npy").mean(1).mean(1))
        transformer.set_transpose("data", (2, 0, 1))
        transformer.set_channel_swap("data", (2, 1, 0))
        transformer.set_raw_scale("data", 255.0)
        out = net_full_conv.forward_all(data=np.asarray([transformer.preprocess("data", im)]))
    found = out["prob"][0].argmax(axis=0)
    assert found.shape == (8, 8)
    assert -140 < net_full_conv.blobs["data"].data.min() < net_full_conv.blobs["data"].data.max() < 170
    again = saved.forward_all(data=net_full_conv.blobs["data"].data.copy())
    np.testing.assert_array_equal(again["prob"][0].argmax(axis=0), found)
    pool5 = net_full_conv.blobs["pool5"].data[0]
    windows = [pool5[:, y : y + 6, x : x + 6] for y in range(8) for x in range(8)]
    net.blobs["data"].reshape(64, 3, 227, 227)
    net.reshape()
    net.blobs["pool5"].data[...] = windows
    net.forward(start="fc6")
    assert (net.blobs["prob"].data.argmax(1).reshape(8, 8) == found).all()


def test_what_the_two_definitions_differ_in() -> None:
    """The fully connected layers became convolutions, the first 6 x 6, as pool5 is; all have new names."""
    plain, full = (path.read_text() for path in (PLAIN, FULL))
    assert re.findall(r'name: "(fc\d[^"]*)"\n\s+type: "(\w+)"', plain) == [
        ("fc6", "InnerProduct"),
        ("fc7", "InnerProduct"),
        ("fc8", "InnerProduct"),
    ]
    assert re.findall(r'name: "(fc\d[^"]*)"\n\s+type: "(\w+)"', full) == [
        ("fc6-conv", "Convolution"),
        ("fc7-conv", "Convolution"),
        ("fc8-conv", "Convolution"),
    ]
    assert re.findall(r"kernel_size: (\d+)", full[full.index('"fc6-conv"') :]) == ["6", "1", "1"]
