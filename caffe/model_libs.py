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
from caffe.conv_bn import FROZEN, ConvBNLayer, UnpackVariable, learned
from caffe.errors import ArgumentError
from caffe.inception import InceptionTower, InceptionV3Body
from caffe.net_spec import NetSpec, Top
from caffe.proto import caffe_pb2

__all__ = [
    "ConvBNLayer",
    "CreateAnnotatedDataLayer",
    "CreateMultiBoxHead",
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


def _same(kernel_size: int, dilation: int) -> int:
    """The pad that keeps the size."""
    return dilation * (kernel_size - 1) // 2


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
    _there(net, from_layer)
    top, dilation = from_layer, 1
    for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, count + 1):
            top = _conv_relu(net, top, f"{block}_{i}", width, 3, _same(3, dilation), dilation=dilation)
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
        fc6 = {"pad": _same(kernel_size, dilation), "kernel_size": kernel_size, "dilation": dilation}
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
    _there(net, from_layer)
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


def _there(net: NetSpec, layer: str) -> None:
    if layer not in net.tops:
        raise ArgumentError(f"the net has no layer {layer!r}; it has {', '.join(net.keys()) or 'none'}")


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


def ResBody(
    net: NetSpec,
    from_layer: str,
    block_name: str,
    out2a: int,
    out2b: int,
    out2c: int,
    stride: int,
    use_branch1: bool,
    dilation: int = 1,
    **bn_param: Any,
) -> None:
    """A block of a ResNet: 1x1, 3x3 and 1x1 convolutions; beside them the way straight on, or, with ``use_branch1``, a
    convolution.
    """
    names: dict[str, Any] = {
        f"{kind}_{end}": text
        for kind, prefix in (("conv", "res"), ("bn", "bn"), ("scale", "scale"))
        for end, text in (("prefix", f"{prefix}{block_name}_"), ("postfix", ""))
    }
    res = f"res{block_name}"

    def conv(top: str, branch: str, width: int, size: int, pad: int, stride: int, relu: bool, dilation: int = 1) -> str:
        ConvBNLayer(net, top, branch, True, relu, width, size, pad, stride, dilation=dilation, **names, **bn_param)
        return f"{res}_{branch}"

    straight = conv(from_layer, "branch1", out2c, 1, 0, stride, False) if use_branch1 else from_layer
    top = conv(from_layer, "branch2a", out2a, 1, 0, stride, True)
    top = conv(top, "branch2b", out2b, 3, _same(3, dilation), 1, True, dilation)
    top = conv(top, "branch2c", out2c, 1, 0, 1, False)
    net[res] = L.Eltwise(net[straight], net[top])
    net[f"{res}_relu"] = L.ReLU(net[res], in_place=True)


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


def CreateMultiBoxHead(
    net: NetSpec,
    data_layer: str = "data",
    num_classes: int = 0,
    from_layers: Sequence[str] = (),
    use_objectness: bool = False,
    normalizations: Sequence[float] = (),
    use_batchnorm: bool = True,
    lr_mult: float = 1,
    use_scale: bool = True,
    min_sizes: Sequence[Any] = (),
    max_sizes: Sequence[Any] = (),
    prior_variance: Sequence[float] = (0.1,),
    aspect_ratios: Sequence[Any] = (),
    steps: Sequence[Any] = (),
    img_height: int = 0,
    img_width: int = 0,
    share_location: bool = True,
    flip: bool = True,
    clip: bool = True,
    offset: float = 0.5,
    inter_layer_depth: Sequence[int] = (),
    kernel_size: int = 1,
    pad: int = 0,
    conf_postfix: str = "",
    loc_postfix: str = "",
    **bn_param: Any,
) -> list[Top]:
    """SSD's predictions over ``from_layers``: tops mbox_loc, mbox_conf, mbox_priorbox, and with ``use_objectness``
    mbox_objectness.

    Of each layer: its scale to normalize to (-1: none), the sizes in pixels of its priors (``min_sizes``,
    ``max_sizes``: a number or several), their ``aspect_ratios``, ``steps``, and the outputs of a convolution before the
    predictions (``inter_layer_depth``; 0: none). ``use_scale`` has no effect.
    """
    if not num_classes or num_classes < 0:
        raise ArgumentError("give num_classes, the background's among them")
    given = {
        "normalizations": normalizations,
        "min_sizes": min_sizes,
        "max_sizes": max_sizes,
        "aspect_ratios": aspect_ratios,
        "steps": steps,
        "inter_layer_depth": inter_layer_depth,
    }
    for name, values in given.items():
        if len(values) != len(from_layers) and (values or name == "min_sizes"):
            raise ArgumentError(f"{name} has {len(values)} values for {len(from_layers)} from_layers")
    _there(net, data_layer)
    size = {"img_size": img_height} if img_height == img_width else {"img_h": img_height, "img_w": img_width}
    tops: dict[str, list[Top]] = {"loc": [], "conf": [], "priorbox": [], "objectness": []}

    def predicted(top: str, kind: str, postfix: str, width: int) -> None:
        name = f"{top}_mbox_{kind}{postfix}"
        ConvBNLayer(net, top, name, use_batchnorm, False, width, kernel_size, pad, 1, lr_mult=lr_mult, **bn_param)
        net[f"{name}_perm"] = L.Permute(net[name], order=[0, 2, 3, 1])
        net[f"{name}_flat"] = L.Flatten(net[f"{name}_perm"], axis=1)
        tops[kind].append(net[f"{name}_flat"])

    for i, layer in enumerate(from_layers):
        top = layer
        if normalizations and normalizations[i] != -1:
            scale = {"type": "constant", "value": normalizations[i]}
            net[f"{top}_norm"] = L.Normalize(net[top], scale_filler=scale, across_spatial=False, channel_shared=False)
            top = f"{top}_norm"
        if inter_layer_depth and inter_layer_depth[i] > 0:
            depth, before = inter_layer_depth[i], top
            top = f"{top}_inter"
            ConvBNLayer(net, before, top, use_batchnorm, True, depth, 3, 1, 1, lr_mult=lr_mult, **bn_param)
        least, most, ratios = (_listed(values[i]) if values else [] for values in (min_sizes, max_sizes, aspect_ratios))
        if most and len(most) != len(least):
            raise ArgumentError(f"{layer}: expected as many max_sizes as min_sizes, got {most} and {least}")
        priors = len(least) * ((2 if most else 1) + len(ratios) * (2 if flip else 1))
        predicted(top, "loc", loc_postfix, priors * 4 * (1 if share_location else num_classes))
        predicted(top, "conf", conf_postfix, priors * num_classes)
        prior = f"{top}_mbox_priorbox"
        net[prior] = L.PriorBox(
            net[top], net[data_layer], min_size=least, clip=clip, variance=list(prior_variance), offset=offset
        )
        net.update(prior, {"max_size": most} if most else {})
        net.update(prior, {"aspect_ratio": ratios, "flip": flip} if ratios else {})
        net.update(prior, {"step": steps[i]} if steps and steps[i] else {})
        net.update(prior, size if img_height and img_width else {})
        tops["priorbox"].append(net[prior])
        if use_objectness:
            predicted(top, "objectness", "", priors * 2)
    for kind, parts in tops.items():
        if parts:
            net[f"mbox_{kind}"] = L.Concat(*parts, axis=2 if kind == "priorbox" else 1)
    return [net[f"mbox_{kind}"] for kind, parts in tops.items() if parts]


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
