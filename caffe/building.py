"""The blobs of a net, and which of them share memory, as Caffe has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from caffe.blob import ParamBlob, Weight
from caffecli.layers.base import Layer
from caffecli.layers.blobs import Blob
from caffecli.layers.data import Input
from caffecli.layers.memory import Memory
from caffecli.layers.python import Python
from caffecli.net.graph import Node
from caffecli.net.net import Net


@dataclass(eq=False)
class Step:
    """A layer with its blobs, ready to run."""

    node: Node
    bottoms: tuple[Blob, ...]
    tops: tuple[Blob, ...]
    #: tops whose values a pass takes as they are, what the user wrote among them
    fed: tuple[tuple[str, Blob], ...]
    #: per top, whether the layer's result is written into its blob
    puts: tuple[bool, ...]
    #: the memory of the tops that are written
    makes: tuple[Memory, ...]
    #: whether a pass changes none of the tops, so that the layer is not run
    constant: bool
    in_place: bool
    #: whether the layer is a user's code that works on the blobs' memory
    own_memory: bool
    #: the bottoms' shapes that the layer is set up for
    shapes: tuple[tuple[int, ...], ...]


class Graph(NamedTuple):
    """What a layer's forward leaves for its backward: its bottoms, the version that each blob had, and its tops."""

    bottoms: tuple[Tensor, ...]
    versions: tuple[int, ...]
    tops: tuple[Tensor, ...]


def steps(net: Net) -> tuple[dict[str, Blob], list[Step]]:
    """All blobs in the order in which the layers make them, and the layers on them.

    Loss layers without a named top all have a blob called (automatic); the name finds the last one.
    """
    made: dict[str, Blob] = {}
    planned: list[Step] = []
    for node in net.nodes:
        _add_tops(net, node, made)
        if isinstance(node.layer, Python):
            _tie_bottoms(node.layer, [made[name] for name in node.bottoms])
        planned.append(_step(net, node, made))
    return made, planned


def _add_tops(net: Net, node: Node, made: dict[str, Blob]) -> None:
    """Add the blobs of a layer. The diff of one that counts in the loss is its weight."""
    for name, slot, weight in zip(node.tops, node.outputs, node.loss_weights, strict=True):
        if name in node.bottoms:
            continue  # in place
        blob = made[name] = Blob(net.shapes[slot])
        if isinstance(node.layer, Python):
            blob = made[name] = node.layer.tops[node.tops.index(name)]
        if node.layer.shares_data:
            blob.data_memory = made[node.bottoms[0]].data_memory
        if node.layer.shares_diff:
            blob.diff_memory = made[node.bottoms[0]].diff_memory
        if weight:
            blob.diff_memory.put(torch.full(blob.shape, weight))


def _step(net: Net, node: Node, made: dict[str, Blob]) -> Step:
    """How ``node`` runs on the blobs ``made``."""
    kept = _filled_once(node, made)
    puts = tuple(name not in kept and not node.layer.shares_data for name in node.tops)
    return Step(
        node,
        tuple(made[name] for name in node.bottoms),
        tuple(made[name] for name in node.tops),
        tuple((name, made[name]) for name in kept),
        puts,
        tuple(made[name].data_memory for name, put in zip(node.tops, puts, strict=True) if put),
        isinstance(node.layer, Input) or (bool(kept) and len(kept) == len(node.tops)),
        not set(node.bottoms).isdisjoint(node.tops),
        isinstance(node.layer, Python),
        tuple(tuple(net.shapes[slot]) for slot in node.inputs),
    )


def _filled_once(node: Node, made: dict[str, Blob]) -> tuple[str, ...]:
    """The tops that Caffe fills when it builds the net and never again; fills them."""
    fixed = node.layer.fixed_tops()
    for i, value in fixed.items():
        blob = made[node.tops[i]]
        blob.data_memory.put(torch.full(blob.shape, value))
    return tuple(node.tops[i] for i in fixed)


def learned(weights: Iterable[Weight]) -> dict[Layer, list[Weight]]:
    """Per layer, the weights that it learns, each once."""
    found: dict[Layer, list[Weight]] = {}
    for weight in weights:
        for layer, _ in weight.param.places:
            known = found.setdefault(layer, [])
            if weight not in known:
                known.append(weight)
    return found


def params(net: Net, weights: Iterable[Weight]) -> dict[Layer, list[Blob]]:
    """Per layer, its learned blobs."""
    places: dict[tuple[Layer, int], Weight] = {}
    for weight in weights:
        places |= dict.fromkeys(weight.param.places, weight)
    found: dict[Layer, list[Blob]] = {}
    for node in net.nodes:
        found[node.layer] = [ParamBlob(places[node.layer, i], blob.shape) for i, blob in enumerate(node.layer.blobs)]
        if isinstance(node.layer, Python):
            tie_python_blobs(node.layer, found[node.layer])
    return found


def lay_out(weights: Iterable[Weight], c_order: bool) -> None:
    """Lay out the weights in C order, or channels-last, which is possible only before arrays of them were taken."""
    for weight in weights:
        weight.lay_out(torch.contiguous_format if c_order else torch.channels_last)


def tie_python_blobs(layer: Python, own: Iterable[Blob]) -> None:
    """Make the blobs that a Python layer's code sees those of the net."""
    layer.user.blobs[:] = own


def _tie_bottoms(layer: Python, bottoms: Iterable[Blob]) -> None:
    """Let the bottoms that a Python layer's code sees be the net's memory; arrays taken in its setup too."""
    for theirs, ours in zip(layer.bottoms, bottoms, strict=True):
        ours.data_memory.adopt(theirs.data_memory)
        ours.diff_memory.adopt(theirs.diff_memory)
        theirs.data_memory, theirs.diff_memory = ours.data_memory, ours.diff_memory
