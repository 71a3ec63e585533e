"""merge_bn: BatchNorm and Scale layers folded into the layer before them, for nets that are to run and not to be
trained.

Behind y = w x + c, a layer a y + b for each channel is the same layer with the weights a w and the bias a c + b. For
BatchNorm, a = 1 / sqrt(variance + eps) and b = -mean a, of the statistics it has stored; for Scale they are its blobs;
BN, of two forks, is both. Before w x + c, a x + b goes into the weights w a and the bias c + w b, where no zeros are
padded around x.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.formats import caffemodel
from caffecli.formats.atomic import replacing
from caffecli.formats.caffemodel import Weights
from caffecli.proto import forks
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from caffecli.spec import text
from caffecli.spec.load import load_net

Array = NDArray[Any]
Path_ = str | os.PathLike[str]

FOLDED = ("BatchNorm", "BN", "Scale")
#: what they fold into, by the field with its bias_term
HOLDERS = {
    "Convolution": "convolution_param",
    "ConvolutionDepthwise": "convolution_param",
    "Deconvolution": "convolution_param",
    "DepthwiseConvolution": "convolution_param",
    "InnerProduct": "inner_product_param",
}
_LOG = "merge_bn.py"


@dataclass(frozen=True)
class Merged:
    """A net after the folding: what went into which layer, and what was left, with the reasons."""

    net: NetParameter
    weights: Weights
    folded: dict[str, str]
    left: dict[str, str]


class Unfoldable(Exception):
    """Why a layer stays."""


def merge_bn(net: Path_, weights: Path_, out_net: Path_, out_weights: Path_) -> Merged:
    """Fold what can be folded in the prototxt ``net`` and its caffemodel, and write both anew, or neither.

    A layer that stays is named in a warning, with the reason. Raises SpecError where nothing can be folded;
    FormatError.
    """
    definition, arrays = load_net(net), caffemodel.read(weights)
    holders = [layer.name for layer in definition.layer if layer.type in HOLDERS]
    if holders and not any(arrays.get(name) for name in holders):
        raise SpecError(f"{str(weights)!r} has no weights for any layer of {str(net)!r}, such as {holders[0]!r}; give its own")
    merged = merge(definition, arrays)
    for name, holder in merged.folded.items():
        logs.info(_LOG, f"Folded {name!r} into {holder!r}")
    for name, reason in merged.left.items():
        logs.warning(_LOG, f"Left {name!r}: {reason}")
    if not merged.folded:
        reasons = "; ".join(f"layer {name!r}: {reason}" for name, reason in merged.left.items())
        raise SpecError(
            f"{str(net)!r} with {str(weights)!r}: nothing to fold: {reasons or 'it has no BatchNorm, BN or Scale layer'}"
        )
    with replacing(out_net, "w") as file:
        file.write(text.format(merged.net))
        caffemodel.write(out_weights, merged.net, merged.weights)
    return merged


def merge(net: NetParameter, weights: Weights) -> Merged:
    """``net`` and ``weights`` with each BatchNorm and Scale folded that can be; neither argument is changed."""
    made = NetParameter()
    made.CopyFrom(net)
    names = {layer.name for layer in made.layer}
    kept = {name: list(arrays) for name, arrays in weights.items() if name in names}
    folded: dict[str, str] = {}
    left: dict[str, str] = {}
    index = 0
    while index < len(made.layer):
        layer = made.layer[index]
        if layer.type not in FOLDED:
            index += 1
            continue
        try:
            holder = _holder(made.layer, index)
            _fold(holder, layer, kept)
        except Unfoldable as reason:
            left[layer.name] = str(reason)
            index += 1
            continue
        folded[layer.name] = holder.name
        holder.top[0] = layer.top[0]
        kept.pop(layer.name, None)
        del made.layer[index]
    _merge_forward(made, kept, folded, left)
    return Merged(made, kept, folded, left)


def _merge_forward(made: NetParameter, kept: Weights, folded: dict[str, str], left: dict[str, str]) -> None:
    """Fold those that are ``left`` into the layer behind them, where that can be; the last first, as Scale follows BatchNorm."""
    for index in reversed(range(len(made.layer))):
        layer = made.layer[index]
        if layer.name not in left:
            continue
        follower = _follower(made.layer, index)
        if follower is None:
            continue
        try:
            _check_lone(made.layer, layer, follower)
            _fold_before(follower, layer, kept)
        except Unfoldable as reason:
            left[layer.name] += f"; nor does it fit into {follower.name!r} behind it: {reason}"
            continue
        folded[layer.name] = follower.name
        del left[layer.name]
        follower.bottom[0] = layer.bottom[0]
        kept.pop(layer.name, None)
        del made.layer[index]


def _holder(layers: Sequence[LayerParameter], index: int) -> LayerParameter:
    """The layer that makes what ``layers[index]`` reads, if that may be folded into it."""
    layer = layers[index]
    if len(layer.bottom) != 1:
        raise Unfoldable(f"its factors are the blob {layer.bottom[1]!r}, not weights" if layer.bottom else "it has no bottom")
    bottom = layer.bottom[0]
    makers = [i for i in range(index) if bottom in layers[i].top]
    if not makers:
        raise Unfoldable(f"it stands behind no layer: {bottom!r} is an input")
    holder = layers[makers[-1]]
    if holder.type not in HOLDERS:
        raise Unfoldable(f"it stands behind {holder.name!r} ({holder.type}), which has no weights to take it")
    if len(holder.top) != 1:
        raise Unfoldable(f"{holder.name!r} has {len(holder.top)} tops")
    _check_lone(layers, layer, holder)
    in_place = layer.top[0] == bottom
    readers = layers[makers[-1] + 1 : index] if in_place else layers[makers[-1] + 1 :]
    for other in readers:
        if bottom in other.bottom and other is not layer and other.name != layer.name:
            raise Unfoldable(f"{other.name!r} reads {bottom!r} too, as it is before")
    return holder


def _check_lone(layers: Sequence[LayerParameter], layer: LayerParameter, holder: LayerParameter) -> None:
    """Raise Unfoldable unless the two always run together, each with its weights to itself."""
    if _rules(layer) != _rules(holder):
        raise Unfoldable(f"{holder.name!r} is there under other include and exclude rules")
    for one in (layer, holder):
        if sum(other.name == one.name for other in layers) > 1:
            raise Unfoldable(f"the net has {one.name!r} twice")
        shared = {spec.name for spec in one.param if spec.name}
        for other in layers:
            if other.name != one.name and shared & {spec.name for spec in other.param}:
                raise Unfoldable(f"{one.name!r} shares its weights with {other.name!r}")


def _follower(layers: Sequence[LayerParameter], index: int) -> LayerParameter | None:
    """The layer with weights that alone reads what ``layers[index]`` makes, if there is one."""
    layer = layers[index]
    readers = [i for i in range(index + 1, len(layers)) if layer.top[0] in layers[i].bottom]
    if len(layer.bottom) != 1 or len(readers) != 1:
        return None
    follower, between = layers[readers[0]], layers[index + 1 : readers[0]]
    changed = any(layer.bottom[0] in other.top for other in between)
    if follower.type not in HOLDERS or len(follower.bottom) != 1 or len(follower.top) != 1 or changed:
        return None
    return follower


def _rules(layer: LayerParameter) -> list[bytes]:
    return [rule.SerializeToString(deterministic=True) for rules in (layer.include, layer.exclude) for rule in rules] + [
        b"phase %d" % layer.phase if layer.HasField("phase") else b""
    ]


def _fold(holder: LayerParameter, layer: LayerParameter, weights: Weights) -> None:
    """Multiply ``layer`` into the weights of ``holder``, which gets a bias where it has none."""
    weight, bias = _blobs(holder, weights)
    factor, shift = _AFFINE[layer.type](layer, weights.get(layer.name, []))
    if factor.shape != bias.shape:
        raise Unfoldable(f"it has {factor.size} channel(s), {holder.name!r} has {bias.size}")
    _settle(holder, weights, _multiplied(holder, weight, factor), bias * factor + shift)


def _fold_before(holder: LayerParameter, layer: LayerParameter, weights: Weights) -> None:
    """``_fold`` for a layer that stands before the holder."""
    weight, bias = _blobs(holder, weights)
    factor, shift = _AFFINE[layer.type](layer, weights.get(layer.name, []))
    param = getattr(holder, HOLDERS[holder.type])
    if holder.type == "Deconvolution":
        raise Unfoldable("a Deconvolution's edges get less of the shift than its middle")
    if holder.type == "InnerProduct":
        rows = weight.T if param.transpose else weight  # (outputs, channels * height * width)
        groups, channels = 1, len(factor)
        fits = rows.shape[1] % channels == 0
    else:
        rows, channels = weight, weight.shape[1]  # (outputs, channels of a group, kernel...)
        groups = len(factor) // channels
        fits = (groups * channels == len(factor) and holder.type != "Convolution") or groups == param.group
        if shift.any() and any((*param.pad, param.pad_h, param.pad_w)):
            raise Unfoldable("that pads with zeros, to which no shift is added")
    if not fits:
        raise Unfoldable(f"its {len(factor)} channel(s) are not those of the weights, {weight.shape}")
    parts = rows.reshape(groups, len(bias) // groups, channels, -1)
    bias = bias + (parts * shift.reshape(groups, 1, channels, 1)).sum((2, 3)).ravel()
    scaled = (parts * factor.reshape(groups, 1, channels, 1)).reshape(rows.shape)
    _settle(holder, weights, scaled.T if holder.type == "InnerProduct" and param.transpose else scaled, bias)


def _blobs(holder: LayerParameter, weights: Weights) -> tuple[Array, Array]:
    """Its weights, and its bias, zeros where it has none."""
    param = getattr(holder, HOLDERS[holder.type])
    if param.axis != 1:
        raise Unfoldable(f"{holder.name!r} has its channels on axis {param.axis}, expected 1")
    arrays = weights.get(holder.name, [])
    if len(arrays) != 1 + param.bias_term or any(map(caffemodel.is_absent, arrays)):
        raise Unfoldable(f"the caffemodel has {len(arrays)} blob(s) for {holder.name!r}, expected {1 + param.bias_term}")
    weight, count = arrays[0].astype(np.float64), param.num_output
    if holder.type == "InnerProduct":
        weight = weight.reshape(-1, weight.shape[-1])  # four dimensions in old files
        made = weight.shape[1 if param.transpose else 0]
    else:
        made = weight.shape[1] * param.group if holder.type == "Deconvolution" and weight.ndim > 1 else weight.shape[0]
    if made != count or any(array.size != count for array in arrays[1:]):
        raise Unfoldable(
            f"the caffemodel's {holder.name!r}, of shape {weight.shape}, is that of another net: num_output is {count}"
        )
    return weight, arrays[1].astype(np.float64).reshape(count) if param.bias_term else np.zeros(count)


def _settle(holder: LayerParameter, weights: Weights, weight: Array, bias: Array) -> None:
    weights[holder.name] = [np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)]
    getattr(holder, HOLDERS[holder.type]).ClearField("bias_term")  # true is what it is by default


def _multiplied(holder: LayerParameter, weight: Array, factor: Array) -> Array:
    """The weights with ``factor``, one number for each output channel, multiplied in."""
    if holder.type == "InnerProduct":
        return weight * (factor if holder.inner_product_param.transpose else factor[:, None])
    if holder.type == "Deconvolution":  # (channels, num_output / group, kernel...), one group after another
        group, (channels, outputs, *kernel) = holder.convolution_param.group, weight.shape
        parts = weight.reshape(group, channels // group, outputs, *kernel)
        return (parts * factor.reshape(group, 1, outputs, *(1,) * len(kernel))).reshape(weight.shape)
    return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))


def _batch_norm(layer: LayerParameter, arrays: list[Array]) -> tuple[Array, Array]:
    param = layer.batch_norm_param
    if param.HasField("use_global_stats") and not param.use_global_stats:
        raise Unfoldable("use_global_stats: false makes it take each batch's own statistics")
    if len(arrays) != 3:
        raise Unfoldable(f"the caffemodel has {len(arrays)} blob(s) for it, expected 3")
    mean, variance, count = (array.astype(np.float64).ravel() for array in arrays)
    share = 1 / count[0] if count[0] else 0.0
    factor = 1 / np.sqrt(variance * share + param.eps)
    return factor, -mean * share * factor


def _bn(layer: LayerParameter, arrays: list[Array]) -> tuple[Array, Array]:
    """PSPNet's has scale, shift, mean and variance; SegNet's scale and shift, by ``bn_mode`` with each batch's own statistics."""
    param = forks.named(layer).bn_param
    values = [array.astype(np.float64).ravel() for array in arrays]
    if len(values) == 4:
        factor = values[0] / np.sqrt(values[3] + param.eps)
        return factor, values[1] - values[2] * factor
    if len(values) != 2:
        raise Unfoldable(f"the caffemodel has {len(arrays)} blob(s) for it, expected 2 (SegNet's) or 4 (PSPNet's)")
    if not param.bn_mode:
        raise Unfoldable("bn_mode: LEARN makes it take each batch's own statistics")
    return values[0], values[1]


def _scale(layer: LayerParameter, arrays: list[Array]) -> tuple[Array, Array]:
    param = layer.scale_param
    if param.axis != 1 or param.num_axes != 1:
        raise Unfoldable(f"it scales {param.num_axes} axes from axis {param.axis} on, expected the channels, axis 1, alone")
    if len(arrays) != 1 + param.bias_term:
        raise Unfoldable(f"the caffemodel has {len(arrays)} blob(s) for it, expected {1 + param.bias_term}")
    factor = arrays[0].astype(np.float64).ravel()
    return factor, arrays[1].astype(np.float64).ravel() if param.bias_term else np.zeros(len(factor))


_AFFINE: dict[str, Callable[[LayerParameter, list[Array]], tuple[Array, Array]]] = {
    "BatchNorm": _batch_norm,
    "BN": _bn,
    "Scale": _scale,
}
