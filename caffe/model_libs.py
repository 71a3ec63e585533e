"""The parts of which SSD's scripts put their nets together, under the names that they import.

Each function adds layers to a ``NetSpec``, named as the published weights are. ``from caffe.model_libs import *`` also
gives ``L``, ``P``, ``caffe``, ``caffe_pb2`` and ``os``, as scripts expect. Source: Liu et al., ECCV 2016 (SSD); the
bodies: Simonyan and Zisserman 2014 (VGG-16, reduced as in Chen et al. 2015), Zeiler and Fergus 2014 (ZFNet), He et al.
2016 (ResNet), Szegedy et al. 2016 (Inception v3).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.conv_bn import (
    FROZEN,
    ConvBNLayer,
    DeconvBNLayer,
    EltwiseLayer,
    ResBody,
    UnpackVariable,
    learned,
    same,
    there,
)
from caffe.heads import CreateMultiBoxHead, CreateRefineDetHead
from caffe.inception import InceptionTower, InceptionV3Body
from caffe.net_spec import NetSpec
from caffe.proto import caffe_pb2

__all__ = [
    "ConvBNLayer",
    "CreateAnnotatedDataLayer",
    "CreateMultiBoxHead",
    "CreateRefineDetHead",
    "DeconvBNLayer",
    "EltwiseLayer",
    "InceptionTower",
    "InceptionV3Body",
    "L",
    "P",
    "ResBody",
    "ResNet101Body",
    "ResNet152Body",
    "UnpackVariable",
    "VGGNetBody",
    "ZFNetBody",
    "caffe",
    "caffe_pb2",
    "check_if_exist",
    "make_if_not_exist",
    "os",
]


def check_if_exist(path: str) -> bool:
    """Whether something lies at ``path``."""
    return Path(path).exists()


def make_if_not_exist(path: str) -> None:
    """Make the folder, and those above it, unless it is there."""
    Path(path).mkdir(parents=True, exist_ok=True)


# -- VGG and ZFNet -------------------------------------------------------------------------------------------------


def VGGNetBody(
    net: NetSpec,
    from_layer: str,
    need_fc: bool = True,
    fully_conv: bool = False,
    reduced: bool = False,
    dilated: bool = False,
    nopool: bool = False,
    dropout: bool = True,
    freeze_layers: Sequence[str] = (),
    dilate_pool4: bool = False,
) -> NetSpec:
    """VGG-16: conv1_1 to conv5_3, and with ``need_fc`` pool5, fc6 and fc7.

    ``fully_conv``: those are convolutions, ``reduced``: of 1024 outputs, ``dilated``: pool5 keeps the size. ``nopool``:
    convolutions of stride 2 in place of poolings. ``dilate_pool4``: pool4 keeps the size, conv5 is dilated. The layers
    in ``freeze_layers`` do not learn.
    """
    there(net, from_layer)
    top, dilation = from_layer, 1
    for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, count + 1):
            top = _conv_relu(net, top, f"{block}_{i}", width, 3, same(3, dilation), dilation=dilation)
        if block == 5 and not need_fc:
            break
        keeps = (block == 4 and dilate_pool4) or (block == 5 and dilated)
        name = f"conv{block}_{count + 1}" if nopool else f"pool{block}"
        if nopool:
            stride = 1 if block == 5 and dilated else 2
            net[name] = L.Convolution(net[top], num_output=width, pad=1, kernel_size=3, stride=stride, **learned())
        elif keeps:
            net[name] = L.Pooling(net[top], pool=P.Pooling.MAX, kernel_size=3, stride=1, pad=1)
        else:
            net[name] = L.Pooling(net[top], pool=P.Pooling.MAX, kernel_size=2, stride=2)
        top, dilation = name, 2 if block == 4 and dilate_pool4 and not nopool else dilation
    if need_fc and fully_conv:
        kernel_size = 3 if reduced else 7
        dilation *= {(True, True): 6, (True, False): 2, (False, True): 3, (False, False): 1}[dilated, reduced]
        fc6 = {"pad": same(kernel_size, dilation), "kernel_size": kernel_size, "dilation": dilation}
        _fully_connected(net, top, 1024 if reduced else 4096, fc6, dropout)
    elif need_fc:
        _fully_connected(net, "pool5", 4096, None, dropout)
    _freeze(net, freeze_layers)
    return net


def ZFNetBody(
    net: NetSpec,
    from_layer: str,
    need_fc: bool = True,
    fully_conv: bool = False,
    reduced: bool = False,
    dilated: bool = False,
    dropout: bool = True,
    need_fc8: bool = False,
    freeze_layers: Sequence[str] = (),
) -> NetSpec:
    """ZFNet: conv1 to conv5, with ``need_fc`` pool5, fc6 and fc7, with ``need_fc8`` the thousand classes.

    The other settings are as of ``VGGNetBody``.
    """
    there(net, from_layer)
    top = from_layer
    for i, (width, kernel_size) in enumerate(((96, 7), (256, 5)), 1):
        top = _conv_relu(net, top, str(i), width, kernel_size, kernel_size // 2, stride=2)
        net[f"norm{i}"] = L.LRN(
            net[top],
            local_size=3,
            alpha=0.00005,
            beta=0.75,
            norm_region=P.LRN.WITHIN_CHANNEL,
            engine=P.LRN.CAFFE,
        )
        top = f"pool{i}"
        net[top] = L.Pooling(net[f"norm{i}"], pool=P.Pooling.MAX, pad=1, kernel_size=3, stride=2)
    for i, width in ((3, 384), (4, 384), (5, 256)):
        top = _conv_relu(net, top, str(i), width, 3, 1)
    if need_fc:
        net.pool5 = L.Pooling(net[top], pool=P.Pooling.MAX, pad=1, kernel_size=3, stride=1 if dilated else 2)
        fc6: dict[str, Any] | None = None
        if fully_conv:
            dilation = {(True, True): 5, (True, False): 2, (False, True): 2, (False, False): 1}[dilated, reduced]
            fc6 = {"pad": 5 if dilated else 2, "kernel_size": 3 if reduced else 6}
            fc6 |= {"dilation": dilation} if dilation > 1 else {}
        _fully_connected(net, "pool5", 1024 if fully_conv and reduced else 4096, fc6, dropout)
    if need_fc8:
        last = net[net.keys()[-1]]
        net.fc8 = (
            L.Convolution(last, num_output=1000, kernel_size=1, **learned())
            if fully_conv
            else L.InnerProduct(last, num_output=1000)
        )
        net.prob = L.Softmax(net.fc8)
    _freeze(net, freeze_layers)
    return net


def _conv_relu(
    net: NetSpec, top: str, name: str, width: int, kernel_size: int, pad: int, stride: int = 1, dilation: int = 0
) -> str:
    """conv and relu of this name, behind ``top``; returns relu's."""
    further = ({"stride": stride} if stride > 1 else {}) | (
        {"dilation": dilation} if name[0] == "5" and dilation else {}
    )
    net[f"conv{name}"] = L.Convolution(
        net[top], num_output=width, pad=pad, kernel_size=kernel_size, **further, **learned()
    )
    net[f"relu{name}"] = L.ReLU(net[f"conv{name}"], in_place=True)
    return f"relu{name}"


def _fully_connected(net: NetSpec, top: str, width: int, fc6: Mapping[str, Any] | None, dropout: bool) -> None:
    """fc6 and fc7 with their ReLUs and Dropouts; convolutions where ``fc6`` has the first one's window."""
    for i, window in ((6, fc6), (7, None if fc6 is None else {"kernel_size": 1})):
        net[f"fc{i}"] = (
            L.InnerProduct(net[top], num_output=width)
            if window is None
            else L.Convolution(net[top], num_output=width, **window, **learned())
        )
        top = f"relu{i}"
        net[top] = L.ReLU(net[f"fc{i}"], in_place=True)
        if dropout:
            net[f"drop{i}"] = L.Dropout(net[top], dropout_ratio=0.5, in_place=True)


def _freeze(net: NetSpec, layers: Sequence[str]) -> None:
    for layer in layers:
        if layer in net.tops:
            net.update(layer, {**learned(), "param": [FROZEN] * 2})


# -- ResNet --------------------------------------------------------------------------------------------------------


def ResNet101Body(
    net: NetSpec, from_layer: str, use_pool5: bool = True, use_dilation_conv5: bool = False, **bn_param: Any
) -> NetSpec:
    """ResNet-101: conv1 to res5c, and with ``use_pool5`` the mean over all places.

    ``use_dilation_conv5``: res5 keeps res4's size.
    """
    return _resnet(net, from_layer, 3, 22, use_pool5, use_dilation_conv5, bn_param)


def ResNet152Body(
    net: NetSpec, from_layer: str, use_pool5: bool = True, use_dilation_conv5: bool = False, **bn_param: Any
) -> NetSpec:
    """ResNet-152; see ``ResNet101Body``."""
    return _resnet(net, from_layer, 7, 35, use_pool5, use_dilation_conv5, bn_param)


def _resnet(
    net: NetSpec, from_layer: str, blocks3: int, blocks4: int, use_pool5: bool, dilated: bool, bn_param: dict[str, Any]
) -> NetSpec:
    names: dict[str, Any] = {"bn_prefix": "bn_", "bn_postfix": "", "scale_prefix": "scale_", "scale_postfix": ""}
    ConvBNLayer(net, from_layer, "conv1", True, True, 64, 7, 3, 2, **names, **bn_param)
    net.pool1 = L.Pooling(net.conv1, pool=P.Pooling.MAX, kernel_size=3, stride=2)
    top = "pool1"
    stages = {
        2: ["2a", "2b", "2c"],
        3: ["3a", *(f"3b{i}" for i in range(1, blocks3 + 1))],
        4: ["4a", *(f"4b{i}" for i in range(1, blocks4 + 1))],
        5: ["5a", "5b", "5c"],
    }
    for stage, blocks in stages.items():
        width = 16 * 2**stage
        dilation = 2 if stage == 5 and dilated else 1
        for block in blocks:
            first = block == blocks[0]
            stride = 2 if first and stage > 2 and dilation == 1 else 1
            ResBody(net, top, block, width, width, 4 * width, stride, first, dilation, **bn_param)
            top = f"res{block}"
    if use_pool5:
        net.pool5 = L.Pooling(net.res5c, pool=P.Pooling.AVE, global_pooling=True)
    return net


# -- SSD -----------------------------------------------------------------------------------------------------------


def CreateAnnotatedDataLayer(
    source: str,
    batch_size: int = 32,
    backend: int = P.Data.LMDB,
    output_label: bool = True,
    train: bool = True,
    label_map_file: str = "",
    anno_type: str | None = None,
    transform_param: Mapping[str, Any] | None = None,
    batch_sampler: Sequence[Mapping[str, Any]] = ({},),
) -> Any:
    """An AnnotatedData layer of phase TRAIN or TEST: its top ``data``, or that and the labels."""
    annotated = {"label_map_file": label_map_file, "batch_sampler": list(batch_sampler)}
    return L.AnnotatedData(
        name="data",
        annotated_data_param=annotated if anno_type is None else {**annotated, "anno_type": anno_type},
        data_param={"batch_size": batch_size, "backend": backend, "source": source},
        ntop=2 if output_label else 1,
        include={"phase": caffe_pb2.Phase.Value("TRAIN" if train else "TEST")},
        transform_param=transform_param or {},
    )
