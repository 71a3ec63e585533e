"""A net with layers of forks: read, built, trained, snapshot, loaded and printed again,
by the commands that people use.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.cli.main import load_command
from caffecli.formats import caffemodel
from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.net.weights import load
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from caffecli.spec import text
from caffecli.spec.load import load_net, prepare_net

NET = """
name: "ssd"
layer { name: "data" type: "DummyData" top: "data" top: "target" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 dim: 24 dim: 32 } shape { dim: 2 dim: 576 } shape { dim: 2 dim: 144 }
  data_filler { type: "uniform" } data_filler { type: "gaussian" std: 0.5 }
    data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 4 stride: 4 weight_filler { type: "xavier" } } }
layer { name: "relu6" type: "ReLU6" bottom: "conv" top: "conv" }
layer { name: "norm" type: "Normalize" bottom: "conv" top: "norm"
  norm_param { across_spatial: false scale_filler { type: "constant" value: 20 } channel_shared: false } }
layer { name: "loc" type: "Convolution" bottom: "norm" top: "loc"
  convolution_param { num_output: 12 kernel_size: 3 pad: 1 weight_filler { type: "gaussian" std: 0.001 } } }
layer { name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }
layer { name: "conf" type: "Convolution" bottom: "norm" top: "conf"
  convolution_param { num_output: 9 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm"
  permute_param { order: 0 order: 2 order: 3 order: 1 } }
layer { name: "conf_rows" type: "Reshape" bottom: "conf_perm" top: "conf_rows"
  reshape_param { shape { dim: 0 dim: -1 dim: 3 } } }
layer { name: "loss_loc" type: "SmoothL1Loss" bottom: "loc_flat" bottom: "target" top: "loss_loc"
  smooth_l1_loss_param { sigma: 2 } include { phase: TRAIN } }
layer { name: "loss_conf" type: "SoftmaxWithLoss" bottom: "conf_rows" bottom: "label" top: "loss_conf"
  softmax_param { axis: 2 } include { phase: TRAIN } }
layer { name: "prior" type: "PriorBox" bottom: "conv" bottom: "data" top: "prior" include { phase: TEST }
  prior_box_param { min_size: 8 aspect_ratio: 2 flip: true clip: true variance: 0.1 variance: 0.1 variance: 0.2
    variance: 0.2 } }
layer { name: "prob" type: "Softmax" bottom: "conf_rows" top: "prob" softmax_param { axis: 2 } include { phase: TEST } }
layer { name: "prob_flat" type: "Flatten" bottom: "prob" top: "prob_flat" include { phase: TEST } }
layer { name: "out" type: "DetectionOutput" bottom: "loc_flat" bottom: "prob_flat" bottom: "prior" top: "out"
  include { phase: TEST } detection_output_param { num_classes: 3 code_type: CENTER_SIZE keep_top_k: 50
    confidence_threshold: 0.01
    nms_param { nms_threshold: 0.45 top_k: 100 } } }
layer { name: "mute" type: "Silence" bottom: "target" bottom: "label" include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" base_lr: 0.0001 lr_policy: "fixed" max_iter: 3 display: 1 snapshot_prefix: "s" solver_mode: CPU
  random_seed: 1
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(name: str, *args: str) -> None:
    load_command(name).main(list(args), standalone_mode=False)


def test_an_ssd_is_trained_and_run(folder: Path) -> None:
    run("train", "--solver", "solver.prototxt")
    weights = caffemodel.read("s_iter_3.caffemodel")
    assert weights["norm"][0].shape == (8,)
    assert not np.array_equal(weights["norm"][0], np.full(8, 20, np.float32)), "the scale has not learned"

    net = Net(prepare_net(load_net("net.prototxt"), TEST))
    load(net, folder / "s_iter_3.caffemodel")
    with torch.no_grad():
        out = net()["out"]
    assert out.shape == (1, 1, 100, 7)
    assert out[0, 0, :, 0].tolist() == [0] * 50 + [1] * 50
    assert set(out[0, 0, :, 1].tolist()) <= {1, 2}


def test_a_snapshot_keeps_the_settings_of_forks(folder: Path) -> None:
    run("train", "--solver", "solver.prototxt")
    saved = caffemodel.read_net("s_iter_3.caffemodel")
    layers = {layer.name: layer for layer in saved.layer}
    assert list(layers["loc_perm"].permute_param.order) == [0, 2, 3, 1]
    assert layers["norm"].norm_param.scale_filler.value == 20
    printed = text.format(saved)
    assert "  permute_param {\n    order: 0\n" in printed
    assert text.parse(printed, NetParameter()) == saved


def test_the_upgrade_tool_keeps_them_too(folder: Path) -> None:
    run("upgrade_net_proto_text", "net.prototxt", "new.prototxt")
    assert load_net("new.prototxt") == load_net("net.prototxt")
    (folder / "old.binaryproto").write_bytes(load_net("net.prototxt").SerializeToString())
    run("upgrade_net_proto_binary", "old.binaryproto", "new.binaryproto")
    binary = NetParameter.FromString((folder / "new.binaryproto").read_bytes())
    assert text.format(binary) == text.format(load_net("net.prototxt"))


def test_the_upgrade_tool_leaves_segnets_numbers_alone(folder: Path) -> None:
    """upsample_param { scale: 2 scale_w: 3 pad_out_h: false } under embed_param's number, where 3 was cut to a bool."""
    layer = b"\x0a\x01u\x12\x08Upsample\xca\x08\x06\x08\x02\x18\x03\x20\x00"
    data = b"\xa2\x06" + bytes([len(layer)]) + layer
    (folder / "old.caffemodel").write_bytes(data)
    run("upgrade_net_proto_binary", "old.caffemodel", "new.caffemodel")
    assert (folder / "new.caffemodel").read_bytes() == data


BN = """
layer { name: "data" type: "DummyData" top: "data" top: "target"
  dummy_data_param { shape { dim: 4 dim: 3 dim: 5 dim: 6 }
  shape { dim: 4 dim: 3 dim: 5 dim: 6 } data_filler { type: "gaussian" } data_filler { type: "gaussian" } } }
layer { name: "each" type: "ConvolutionDepthwise" bottom: "data" top: "each"
  convolution_param { kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BN" bottom: "each" top: "each"
  bn_param { slope_filler { value: 1 } bias_filler { value: 0 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "each" bottom: "target" top: "loss" }
"""


def test_a_net_with_bn_is_trained_and_its_statistics_are_kept(folder: Path) -> None:
    (folder / "net.prototxt").write_text(BN)
    run("train", "--solver", "solver.prototxt")
    blobs = caffemodel.read("s_iter_3.caffemodel")["bn"]
    assert [blob.shape for blob in blobs] == [(1, 3, 1, 1)] * 4
    assert (blobs[0] != 1).all() and (blobs[3] > 0).all()
    saved = caffemodel.read_net("s_iter_3.caffemodel").layer[2]
    assert [param.lr_mult for param in saved.param] == [1, 1, 0, 0]
    assert saved.bn_param.slope_filler.value == 1
    run("train", "--solver", "solver.prototxt", "--weights", "s_iter_3.caffemodel")


def test_gradients_flow_back_to_the_first_layer(folder: Path) -> None:
    net = Net(prepare_net(load_net("net.prototxt"), TRAIN))
    Whole(net).forward().loss.backward()
    grads = [blob.grad for blob in net.layer("conv").blobs]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
