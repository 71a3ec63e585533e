"""What Caffe logs while it builds a net."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caffecli import logs
from caffecli.layers.base import Layer
from caffecli.net.graph import Node
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text


def shape_string(shape: Sequence[int]) -> str:
    """``64 20 24 24 (737280)``."""
    return "".join(f"{d} " for d in shape) + f"({math.prod(shape)})"


def parameters(param: NetParameter) -> None:
    """The definition, as it is before splits are put in."""
    if logs.enabled():
        logs.block("net.cpp:53", "Initializing net from parameters: ", text.format(param).rstrip("\n"))


def creating(layer: Layer) -> None:
    logs.info("layer_factory.hpp:77", f"Creating layer {layer.name}")


def created(layer: Layer) -> None:
    logs.info("net.cpp:86", f"Creating Layer {layer.name}")


def wiring(node: Node) -> None:
    for bottom in node.bottoms:
        logs.info("net.cpp:408", f"{node.name} <- {bottom}")
    for i, top in enumerate(node.tops):
        if i < len(node.bottoms) and node.bottoms[i] == top:
            logs.info("net.cpp:369", f"{node.name} -> {top} (in-place)")
        else:
            logs.info("net.cpp:382", f"{node.name} -> {top}")


def set_up(node: Node, tops: Sequence[Sequence[int]], memory: int) -> None:
    """``memory``: bytes of all tops so far."""
    logs.info("net.cpp:124", f"Setting up {node.name}")
    for shape, weight in zip(tops, node.loss_weights, strict=True):
        logs.info("net.cpp:131", f"Top shape: {shape_string(shape)}")
        if weight:
            logs.info("net.cpp:134", f"    with loss weight {logs.number(weight)}")
    logs.info("net.cpp:139", f"Memory required for data: {memory}")


def backward(nodes: Sequence[Node]) -> None:
    for node in reversed(nodes):
        if node.backward:
            logs.info("net.cpp:200", f"{node.name} needs backward computation.")
        else:
            logs.info("net.cpp:202", f"{node.name} does not need backward computation.")


def finished(outputs: Sequence[str]) -> None:
    for name in outputs:
        logs.info("net.cpp:244", f"This network produces output {name}")
    logs.info("net.cpp:257", "Network initialization done.")
