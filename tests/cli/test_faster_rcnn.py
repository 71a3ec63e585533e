"""A small Faster R-CNN from the command line: py-faster-rcnn's layers over a database of convert_annoset."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffecli.formats import caffemodel
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import AnnotatedDatum, NetParameter
from caffecli.tools.score_detections import ScoreOptions, score_detections

FILLED = 'weight_filler { type: "gaussian" std: 0.01 }'
NET = f"""
layer {{ name: "input-data" type: "Python" top: "data" top: "im_info" top: "gt_boxes" python_param {{
  module: "roi_data_layer.layer" layer: "RoIDataLayer"
  param_str: "'num_classes': 3, 'source': 'objects_lmdb', 'SCALES': [64], 'MAX_SIZE': 100" }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param {{ num_output: 8 kernel_size: 5 pad: 2 stride: 4 {FILLED} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "rpn_cls_score" type: "Convolution" bottom: "conv" top: "rpn_cls_score"
  convolution_param {{ num_output: 6 kernel_size: 1 {FILLED} }} }}
layer {{ name: "rpn_bbox_pred" type: "Convolution" bottom: "conv" top: "rpn_bbox_pred"
  convolution_param {{ num_output: 12 kernel_size: 1 {FILLED} }} }}
layer {{ name: "rpn_cls_score_reshape" type: "Reshape" bottom: "rpn_cls_score" top: "rpn_cls_score_reshape"
  reshape_param {{ shape {{ dim: 0 dim: 2 dim: -1 dim: 0 }} }} }}
layer {{ name: "rpn-data" type: "Python" bottom: "rpn_cls_score" bottom: "gt_boxes" bottom: "im_info" bottom: "data"
  top: "rpn_labels" top: "rpn_bbox_targets" top: "rpn_bbox_inside_weights" top: "rpn_bbox_outside_weights"
  python_param {{ module: "rpn.anchor_target_layer" layer: "AnchorTargetLayer"
    param_str: "'feat_stride': 4, 'scales': [1]" }} }}
layer {{ name: "rpn_loss_cls" type: "SoftmaxWithLoss" bottom: "rpn_cls_score_reshape" bottom: "rpn_labels"
  top: "rpn_cls_loss" propagate_down: true propagate_down: false loss_param {{ ignore_label: -1 normalize: true }} }}
layer {{ name: "rpn_loss_bbox" type: "SmoothL1Loss" bottom: "rpn_bbox_pred" bottom: "rpn_bbox_targets"
  bottom: "rpn_bbox_inside_weights" bottom: "rpn_bbox_outside_weights" top: "rpn_loss_bbox"
  smooth_l1_loss_param {{ sigma: 3 }} }}
layer {{ name: "rpn_cls_prob" type: "Softmax" bottom: "rpn_cls_score_reshape" top: "rpn_cls_prob" }}
layer {{ name: "rpn_cls_prob_reshape" type: "Reshape" bottom: "rpn_cls_prob" top: "rpn_cls_prob_reshape"
  reshape_param {{ shape {{ dim: 0 dim: 6 dim: -1 dim: 0 }} }} }}
layer {{ name: "proposal" type: "Python" bottom: "rpn_cls_prob_reshape" bottom: "rpn_bbox_pred" bottom: "im_info"
  top: "rpn_rois" python_param {{ module: "rpn.proposal_layer" layer: "ProposalLayer"
    param_str: "'feat_stride': 4, 'scales': [1], 'RPN_MIN_SIZE': 2, 'RPN_POST_NMS_TOP_N': 40" }} }}
layer {{ name: "roi-data" type: "Python" bottom: "rpn_rois" bottom: "gt_boxes" top: "rois" top: "labels"
  top: "bbox_targets" top: "bbox_inside_weights" top: "bbox_outside_weights" python_param {{
  module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "'num_classes': 3, 'BATCH_SIZE': 32" }} }}
layer {{ name: "roi_pool5" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool5"
  roi_pooling_param {{ pooled_w: 3 pooled_h: 3 spatial_scale: 0.25 }} }}
layer {{ name: "cls_score" type: "InnerProduct" bottom: "pool5" top: "cls_score"
  inner_product_param {{ num_output: 3 {FILLED} }} }}
layer {{ name: "bbox_pred" type: "InnerProduct" bottom: "pool5" top: "bbox_pred"
  inner_product_param {{ num_output: 12 {FILLED} }} }}
layer {{ name: "loss_cls" type: "SoftmaxWithLoss" bottom: "cls_score" bottom: "labels" top: "loss_cls"
  propagate_down: true propagate_down: false }}
layer {{ name: "loss_bbox" type: "SmoothL1Loss" bottom: "bbox_pred" bottom: "bbox_targets"
  bottom: "bbox_inside_weights" bottom: "bbox_outside_weights" top: "loss_bbox" }}
"""


SOLVER = (
    'net: "train.prototxt" base_lr: 0.001 momentum: 0.9 lr_policy: "fixed" display: 24 average_loss: 5 '
    'snapshot_prefix: "rcnn" solver_mode: CPU random_seed: 3'
)
Command = Callable[..., tuple[int, str]]


def draw(database: Path, count: int, seed: int) -> None:
    """Write pictures, each with a square of class 1 or 2."""
    draws = np.random.default_rng(seed)
    with open_writer(database) as writer:
        for i in range(count):
            pixels = draws.integers(60, 90, (3, 64, 80)).astype(np.uint8)
            record = AnnotatedDatum(type=AnnotatedDatum.BBOX)
            x, y, kind = int(draws.integers(2, 50)), int(draws.integers(2, 40)), int(draws.integers(1, 3))
            pixels[kind - 1, y : y + 16, x : x + 16] = 250
            box = record.annotation_group.add(group_label=kind).annotation.add(instance_id=0).bbox
            box.xmin, box.ymin, box.xmax, box.ymax = x / 80, y / 64, (x + 16) / 80, (y + 16) / 64
            record.datum.CopyFrom(from_array(pixels, -1))
            writer.put(b"%08d_pictures/%d.jpg" % (i, i), record.SerializeToString())


@pytest.fixture
def net(folder: Path) -> NetParameter:
    """The net, and its database."""
    draw(folder / "objects_lmdb", 8, 0)
    return text_format.Parse(NET, NetParameter())


def write(net: NetParameter, names: Iterable[str], inputs: str = "", file: str = "train.prototxt") -> None:
    """Write the layers of these names; for use behind the Input layer ``inputs``: what is proposed is not sampled then,
    and classes have probabilities.
    """
    layers = [layer for layer in net.layer if layer.name in names]
    lines = [inputs, *(f"layer {{ {text_format.MessageToString(layer, as_one_line=True)} }}" for layer in layers)]
    lines += [PROBABILITY] if inputs and "cls_score" in names else []
    Path(file).write_text("\n".join(lines).replace("rpn_rois", "rois" if inputs else "rpn_rois"))


def losses(said: str) -> list[float]:
    return [float(line.rpartition("= ")[2]) for line in said.splitlines() if "), loss =" in line]


PROPOSING = ("conv", "relu", "rpn_cls_score", "rpn_bbox_pred", "rpn_cls_score_reshape", "rpn_cls_prob",
             "rpn_cls_prob_reshape", "proposal")  # fmt: skip
INPUT = 'layer {{ name: "input" type: "Input" top: "data" top: "{}" input_param {{'
INPUT += " shape {{ dim: 1 dim: 3 dim: 64 dim: 80 }} shape {{ dim: 1 dim: {} }} }} }}"
PROBABILITY = 'layer { name: "cls_prob" type: "Softmax" bottom: "cls_score" top: "cls_prob" }'


def test_training_end_to_end_and_detecting(net: NetParameter, command: Command) -> None:
    write(net, [layer.name for layer in net.layer])
    Path("rcnn.prototxt").write_text(SOLVER + " max_iter: 25")
    code, said = command("train", "--solver=rcnn.prototxt")
    assert code == 0, said
    first, last = losses(said)
    assert last < 0.8 * first, said[-2000:]
    write(net, [*PROPOSING, "roi_pool5", "cls_score", "bbox_pred"], INPUT.format("im_info", 3), "test.prototxt")
    flags = ("--model_def=test.prototxt", "--pretrained_model=rcnn_iter_25.caffemodel")
    code, said = command("detect", "objects_lmdb", "found.json", *flags, "--draw=seen")
    assert code == 0 and "shorter side 64, the longer one at most 100" in said, said[-2000:]
    found = json.loads(Path("found.json").read_text())
    assert [each["picture"] for each in found] == [f"pictures/{i}.jpg" for i in range(8)]
    assert all(0 <= one["xmin"] <= one["xmax"] <= 79 for each in found for one in each["objects"])
    assert len(list(Path("seen/pictures").iterdir())) == 8
    code, said = command("score_detections", "found.json", "objects_lmdb")
    assert code == 0 and "are not in" not in said, said[-2000:]


@pytest.mark.slow
def test_drawn_squares_are_found_in_new_pictures(net: NetParameter, folder: Path, command: Command) -> None:
    draw(folder / "many_lmdb", 60, 1)
    draw(folder / "new_lmdb", 40, 2)
    net.layer[0].python_param.param_str = net.layer[0].python_param.param_str.replace("objects", "many")
    net.layer[1].convolution_param.num_output = 16
    write(net, [layer.name for layer in net.layer])
    solver = SOLVER.replace("0.001", "0.0003").replace("fixed", "multistep")
    Path("rcnn.prototxt").write_text(solver + " max_iter: 3000 stepvalue: 2400 gamma: 0.1")
    code, said = command("train", "--solver=rcnn.prototxt")
    assert code == 0, said
    write(net, [*PROPOSING, "roi_pool5", "cls_score", "bbox_pred"], INPUT.format("im_info", 3), "test.prototxt")
    flags = ("--model_def=test.prototxt", "--pretrained_model=rcnn_iter_3000.caffemodel")
    assert command("detect", "new_lmdb", "found.json", *flags)[0] == 0
    precision = score_detections(ScoreOptions(results="found.json", truth="new_lmdb")).mean.figures["AP"]
    assert precision is not None and precision >= 0.85


SCORED = """
layer { name: "found" type: "Python" bottom: "rois" bottom: "cls_prob" bottom: "bbox_pred" bottom: "im_info"
  bottom: "gt_boxes" top: "found" top: "truth" python_param { module: "fast_rcnn.detection_layer"
    layer: "DetectionLayer" param_str: "'thresh': 0.01, 'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True" } }
layer { name: "mAP" type: "DetectionEvaluate" bottom: "found" bottom: "truth" top: "mAP"
  detection_evaluate_param { num_classes: 3 } }
"""


def test_scores_while_training(net: NetParameter, folder: Path, command: Command) -> None:
    """The test net reads the database, and is scored as detect and score_detections score its weights."""
    draw(folder / "new_lmdb", 6, 2)
    roi_data = next(layer for layer in net.layer if layer.name == "roi-data")
    roi_data.python_param.param_str += ", 'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True"
    write(net, [layer.name for layer in net.layer])
    of_use = [*PROPOSING, "roi_pool5", "cls_score", "bbox_pred"]
    data = text_format.MessageToString(net.layer[0], as_one_line=True).replace("objects_lmdb", "new_lmdb")
    write(net, of_use, f"layer {{ {data} }}", "score.prototxt")
    with Path("score.prototxt").open("a") as file:
        file.write(SCORED)
    Path("rcnn.prototxt").write_text(
        SOLVER.replace("net:", 'test_net: "score.prototxt" train_net:').replace("0.001", "0.0003")
        + ' max_iter: 30 test_iter: 6 test_interval: 15 test_initialization: false eval_type: "detection" '
        "show_per_class_result: true"
    )
    code, said = command("train", "--solver=rcnn.prototxt", "--best", "--csv=a.csv")
    assert code == 0 and "mAP = " in said and Path("rcnn_best.caffemodel").exists(), said[-3000:]
    with Path("a.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["test0/mAP"]]
    assert 0 < float(rows[-1]["test0/mAP"]) < 1
    code, said = command("test", "--model=score.prototxt", "--weights=rcnn_iter_30.caffemodel", "--iterations=6")
    assert code == 0 and said.split("mAP = ")[-1].split()[0] == f"{float(rows[-1]['test0/mAP']):g}", said[-2000:]
    write(net, of_use, INPUT.format("im_info", 3), "test.prototxt")
    flags = ("--model_def=test.prototxt", "--pretrained_model=rcnn_iter_30.caffemodel")
    code, said = command("detect", "new_lmdb", "found.json", *flags)
    assert code == 0, said
    score = score_detections(ScoreOptions(results="found.json", truth="new_lmdb", ap_version="Integral"))
    assert score.mean.figures["AP"] == pytest.approx(float(rows[-1]["test0/mAP"]), abs=1e-4)


def test_training_in_stages(net: NetParameter, command: Command) -> None:
    """A region proposal network, then a Fast R-CNN on what it proposes, which begins with its weights."""
    write(net, [layer.name for layer in net.layer if "rpn" in layer.name] + ["input-data", "conv", "relu"])
    Path("rcnn.prototxt").write_text(SOLVER + " max_iter: 2")
    code, said = command("train", "--solver=rcnn.prototxt")
    assert code == 0, said
    write(net, PROPOSING, INPUT.format("im_info", 3), "rpn_test.prototxt")
    weights = "--pretrained_model=rcnn_iter_2.caffemodel"
    code, said = command("detect", "objects_lmdb", "proposals.h5", "--model_def=rpn_test.prototxt", weights)
    assert code == 0, said[-2000:]
    stage = next(layer for layer in net.layer if layer.name == "input-data")
    stage.top[:] = ["data", "rois", "labels", "bbox_targets", "bbox_inside_weights", "bbox_outside_weights"]
    normalized = ", 'proposals': 'proposals.h5', 'BATCH_SIZE': 16, 'BBOX_NORMALIZE_TARGETS': True"
    stage.python_param.param_str += normalized
    of_regions = ("roi_pool5", "cls_score", "bbox_pred")
    write(net, ["input-data", "conv", "relu", *of_regions, "loss_cls", "loss_bbox"])
    Path("rcnn.prototxt").write_text(SOLVER + " max_iter: 3")
    code, said = command("train", "--solver=rcnn.prototxt", "--weights=rcnn_iter_2.caffemodel")
    assert code == 0, said
    trained = caffemodel.read_net("rcnn_iter_3.caffemodel").layer[0].python_param.param_str
    assert "'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True, 'BBOX_NORMALIZE_MEANS': [0.0, 0.0, 0.0, 0.0, 0.0, " in trained
    write(net, ["conv", "relu", *of_regions], INPUT.format("rois", 5), "test.prototxt")
    flags = ("--model_def=test.prototxt", "--pretrained_model=rcnn_iter_3.caffemodel", "--proposals=proposals.h5")
    code, said = command("detect", "objects_lmdb", "found.csv", *flags)
    assert code == 0 and "Layer bbox_pred learned normalized changes: its weights are scaled" in said, said[-2000:]
    assert len(Path("found.csv").read_text().splitlines()) > 8


def test_options_for_another_kind_of_net(net: NetParameter, command: Command) -> None:
    write(net, PROPOSING, INPUT.format("im_info", 3), "rpn_test.prototxt")
    caffe.Net("rpn_test.prototxt", caffe.TEST).save("w.caffemodel")
    flags = ("--model_def=rpn_test.prototxt", "--pretrained_model=w.caffemodel")
    for more, wanted, words in (
        (["--resize_mode=WARP"], 1, "--resize_mode is not for 'rpn_test.prototxt', which takes pictures as they are"),
        (["--proposals=p.h5"], 1, "proposes its regions itself"),
        (["--side=0"], 2, "--side"),
    ):
        code, said = command("detect", "objects_lmdb", "found.json", *flags, *more)
        assert code == wanted and words in said, said[-600:]
