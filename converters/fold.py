"""BatchNorm, BN and Scale layers of a net folded into a neighbour with weights, for ``merge_bn``.

Which layers fold, and how, their classes say: ``caffecli.layers.folding``. Importing this takes the time of loading
torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffecli.formats import caffemodel
from caffecli.formats.caffemodel import Weights
from caffecli.layers import layer_class
from caffecli.layers.folding import Array, Foldable, FoldTarget, Unfoldable
from caffecli.layers.registry import classes
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter


@dataclass(frozen=True)
class Merged:
    """A net after folding: into which layer each was folded, and why others were left."""

    net: NetParameter
    weights: Weights
    folded: dict[str, str]
    left: dict[str, str]


def merge(net: NetParameter, weights: Weights) -> Merged:
    """``net`` and ``weights`` with each layer folded that can be; neither argument is changed."""
    result = NetParameter()
    result.CopyFrom(net)
    names = {layer.name for layer in result.layer}
    kept = {name: list(arrays) for name, arrays in weights.items() if name in names}
    folded: dict[str, str] = {}
    left: dict[str, str] = {}
    index = 0
    while index < len(result.layer):
        layer = result.layer[index]
        if _foldable_class(layer) is None:
            index += 1
            continue
        try:
            target = _target_before(result.layer, index)
            _fold_behind(target, layer, kept)
        except Unfoldable as reason:
            left[layer.name] = str(reason)
            index += 1
            continue
        folded[layer.name] = target.name
        target.top[0] = layer.top[0]
        kept.pop(layer.name, None)
        del result.layer[index]
    _fold_forward(result, kept, folded, left)
    return Merged(result, kept, folded, left)


def _fold_forward(net: NetParameter, weights: Weights, folded: dict[str, str], left: dict[str, str]) -> None:
    """Fold the layers in ``left`` into the layer after them where possible, the last first: Scale follows BatchNorm."""
    for index in reversed(range(len(net.layer))):
        layer = net.layer[index]
        if layer.name not in left:
            continue
        target = _target_after(net.layer, index)
        if target is None:
            continue
        try:
            _check_pair(net.layer, layer, target)
            _fold_before(target, layer, weights)
        except Unfoldable as reason:
            left[layer.name] += f"; nor does it fit into {target.name!r} behind it: {reason}"
            continue
        folded[layer.name] = target.name
        del left[layer.name]
        target.bottom[0] = layer.bottom[0]
        weights.pop(layer.name, None)
        del net.layer[index]


# -- which layers ---------------------------------------------------------------------------------------------------


def _foldable_class(layer: LayerParameter) -> type[Foldable] | None:
    cls = layer_class(layer.type)
    return cls if cls is not None and issubclass(cls, Foldable) else None


def target_class(layer: LayerParameter) -> type[FoldTarget] | None:
    """The class of a layer that others fold into; None where it is none."""
    cls = layer_class(layer.type)
    return cls if cls is not None and issubclass(cls, FoldTarget) else None


def foldable_types() -> str:
    """The types of layers that fold: ``BatchNorm, BN or Scale``."""
    *others, last = sorted((cls.type for cls in classes() if issubclass(cls, Foldable)), key=str.lower)
    return f"{', '.join(others)} or {last}" if others else last


def _target_before(layers: Sequence[LayerParameter], index: int) -> LayerParameter:
    """The layer whose top ``layers[index]`` reads; raises Unfoldable unless that may be folded into it."""
    layer = layers[index]
    if len(layer.bottom) != 1:
        raise Unfoldable(
            f"its factors are the blob {layer.bottom[1]!r}, not weights" if layer.bottom else "it has no bottom"
        )
    bottom = layer.bottom[0]
    producers = [i for i in range(index) if bottom in layers[i].top]
    if not producers:
        raise Unfoldable(f"it stands behind no layer: {bottom!r} is an input")
    target = layers[producers[-1]]
    if target_class(target) is None:
        raise Unfoldable(f"it stands behind {target.name!r} ({target.type}), which has no weights to take it")
    if len(target.top) != 1:
        raise Unfoldable(f"{target.name!r} has {len(target.top)} tops")
    _check_pair(layers, layer, target)
    in_place = layer.top[0] == bottom
    readers = layers[producers[-1] + 1 : index] if in_place else layers[producers[-1] + 1 :]
    for other in readers:
        if bottom in other.bottom and other is not layer and other.name != layer.name:
            raise Unfoldable(f"{other.name!r} reads {bottom!r} too, as it is before")
    return target


def _target_after(layers: Sequence[LayerParameter], index: int) -> LayerParameter | None:
    """The layer with weights that alone reads the top of ``layers[index]``, if there is one."""
    layer = layers[index]
    readers = [i for i in range(index + 1, len(layers)) if layer.top[0] in layers[i].bottom]
    if len(layer.bottom) != 1 or len(readers) != 1:
        return None
    target, between = layers[readers[0]], layers[index + 1 : readers[0]]
    overwritten = any(layer.bottom[0] in other.top for other in between)
    if target_class(target) is None or len(target.bottom) != 1 or len(target.top) != 1 or overwritten:
        return None
    return target


def _check_pair(layers: Sequence[LayerParameter], layer: LayerParameter, target: LayerParameter) -> None:
    """Raise Unfoldable unless the two always run together, and neither shares its weights."""
    if _rules(layer) != _rules(target):
        raise Unfoldable(f"{target.name!r} is there under other include and exclude rules")
    for one in (layer, target):
        if sum(other.name == one.name for other in layers) > 1:
            raise Unfoldable(f"the net has {one.name!r} twice")
        shared = {spec.name for spec in one.param if spec.name}
        for other in layers:
            if other.name != one.name and shared & {spec.name for spec in other.param}:
                raise Unfoldable(f"{one.name!r} shares its weights with {other.name!r}")


def _rules(layer: LayerParameter) -> list[bytes]:
    return [
        rule.SerializeToString(deterministic=True) for rules in (layer.include, layer.exclude) for rule in rules
    ] + [b"phase %d" % layer.phase if layer.HasField("phase") else b""]


# -- their weights --------------------------------------------------------------------------------------------------


def _fold_behind(target: LayerParameter, layer: LayerParameter, weights: Weights) -> None:
    """Fold ``layer`` into the weights of ``target``, whose top it reads; ``target`` gets a bias where it has none."""
    cls, settings, weight, bias = _weight_and_bias(target, weights)
    factor, shift = _factor_and_shift(layer, weights)
    if factor.shape != bias.shape:
        raise Unfoldable(f"it has {factor.size} channel(s), {target.name!r} has {bias.size}")
    _store(target, settings, weights, cls.fold_behind(settings, weight, factor), bias * factor + shift)


def _fold_before(target: LayerParameter, layer: LayerParameter, weights: Weights) -> None:
    """Fold ``layer`` into the weights of ``target``, which reads its top."""
    cls, settings, weight, bias = _weight_and_bias(target, weights)
    factor, shift = _factor_and_shift(layer, weights)
    weight, more = cls.fold_before(settings, weight, factor, shift)
    _store(target, settings, weights, weight, bias + more)


def _factor_and_shift(layer: LayerParameter, weights: Weights) -> tuple[Array, Array]:
    cls = _foldable_class(layer)
    if cls is None:
        raise Unfoldable(f"a {layer.type} layer does not fold")
    return cls.factor_and_shift(layer, weights.get(layer.name, []))


def _weight_and_bias(target: LayerParameter, weights: Weights) -> tuple[type[FoldTarget], Any, Array, Array]:
    """The class and the settings of a target, its weight, and its bias, zeros where it has none."""
    cls = target_class(target)
    if cls is None:
        raise Unfoldable(f"nothing folds into a {target.type} layer")
    settings = getattr(target, cls.fold_settings)
    if settings.axis != 1:
        raise Unfoldable(f"{target.name!r} has its channels on axis {settings.axis}, expected 1")
    blobs = weights.get(target.name, [])
    if len(blobs) != 1 + settings.bias_term or any(map(caffemodel.is_absent, blobs)):
        raise Unfoldable(
            f"the caffemodel has {len(blobs)} blob(s) for {target.name!r}, expected {1 + settings.bias_term}"
        )
    weight, outputs = cls.fold_weight(settings, blobs[0].astype(np.float64)), settings.num_output
    if cls.fold_outputs(settings, weight) != outputs or any(blob.size != outputs for blob in blobs[1:]):
        what = f"the caffemodel's {target.name!r}, of shape {weight.shape}"
        raise Unfoldable(f"{what}, is that of another net: num_output is {outputs}")
    return (
        cls,
        settings,
        weight,
        blobs[1].astype(np.float64).reshape(outputs) if settings.bias_term else np.zeros(outputs),
    )


def _store(target: LayerParameter, settings: Any, weights: Weights, weight: Array, bias: Array) -> None:
    weights[target.name] = [np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)]
    settings.ClearField("bias_term")  # its default is true
