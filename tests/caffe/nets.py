"""Small nets that the tests of the package caffe share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import caffe

DEPLOY = """
name: "small"
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 6 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { global_pooling: true pool: AVE } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" 
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "drop" }
layer { name: "prob" type: "Softmax" bottom: "drop" top: "prob" }
"""
LOSS = """
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 } shape { dim: 4 } data_filler { type: "gaussian" }
    data_filler { type: "constant" value: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" 
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 2
  include { stage: "scored" } }
"""


def net_of(folder: Path, text: str = DEPLOY, phase: int = caffe.TEST, **settings: Any) -> caffe.Net:
    path = folder / "net.prototxt"
    path.write_text(text)
    return caffe.Net(str(path), phase, **settings)


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
