"""A small Faster R-CNN from the command line: py-faster-rcnn's layers over a database of convert_annoset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import AnnotatedDatum

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


def test_training(folder: Path, command: Callable[..., tuple[int, str]]) -> None:
    draws = np.random.default_rng(0)
    with open_writer(folder / "objects_lmdb") as writer:
        for i in range(8):
            pixels = draws.integers(60, 90, (3, 64, 80)).astype(np.uint8)
            record = AnnotatedDatum(type=AnnotatedDatum.BBOX)
            x, y, kind = int(draws.integers(2, 50)), int(draws.integers(2, 40)), int(draws.integers(1, 3))
            pixels[kind - 1, y : y + 16, x : x + 16] = 250
            box = record.annotation_group.add(group_label=kind).annotation.add(instance_id=0).bbox
            box.xmin, box.ymin, box.xmax, box.ymax = x / 80, y / 64, (x + 16) / 80, (y + 16) / 64
            record.datum.CopyFrom(from_array(pixels, -1))
            writer.put(b"%08d" % i, record.SerializeToString())
    (folder / "train.prototxt").write_text(NET)
    (folder / "rcnn.prototxt").write_text(
        'net: "train.prototxt" base_lr: 0.001 momentum: 0.9 lr_policy: "fixed" max_iter: 40 display: 39 '
        'average_loss: 5 snapshot_prefix: "rcnn" solver_mode: CPU random_seed: 3'
    )
    code, said = command("train", "--solver=rcnn.prototxt")
    assert code == 0, said
    losses = [float(line.rpartition("= ")[2]) for line in said.splitlines() if "), loss =" in line]
    assert len(losses) == 2 and losses[1] < 0.7 * losses[0], said[-2000:]
    assert (folder / "rcnn_iter_40.caffemodel").exists()
