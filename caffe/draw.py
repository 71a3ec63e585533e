"""Pictures of nets, by graphviz: layers are boxes, blobs octagons.

The text that describes a picture (``.dot``, ``.gv``, ``.raw``) is made here; every other format by graphviz' program
``dot``.
"""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from caffe.errors import ArgumentError
from caffecli.errors import CaffeError
from caffecli.formats.atomic import replacing
from caffecli.layers import layer_class
from caffecli.layers.base import Layer
from caffecli.proto import caffe_pb2
from caffecli.spec.filter import filter_net
from caffecli.spec.upgrade import upgrade_net

LAYER_STYLE_DEFAULT = {"shape": "box", "style": "filled", "fillcolor": Layer.color}
NEURON_LAYER_STYLE = {"shape": "box", "style": "filled", "fillcolor": "#90EE90"}
BLOB_STYLE = {"shape": "octagon", "style": "filled", "fillcolor": "#E0E0E0"}

#: how many nodes stand in a row of a net that is drawn in rows: about 1,400 pixels
ROW = 8

_TEXT = ("raw", "dot", "gv")
_DIRECTIONS = ("TB", "BT", "LR", "RL")


class MissingProgram(CaffeError, OSError):
    """A program that is not installed."""

    __str__ = Exception.__str__


class Graph:
    """A picture of a net: what ``get_pydot_graph`` gives, with the methods of pydot's graph that pycaffe uses."""

    def __init__(self, name: str, rankdir: str) -> None:
        self.name = name
        self.rankdir = rankdir
        self._lines: dict[str, None] = {}  # in order, each once
        self._nodes: list[str] = []
        self._edges: list[tuple[str, str]] = []
        self._rows: list[list[str]] = []

    def add_node(self, node: str, label: str, style: dict[str, str]) -> None:
        """Add a node; ``label`` is in quotes, as ``get_layer_label`` makes it."""
        looks = ", ".join(f"{key}={_quoted(value)}" for key, value in style.items())
        self._lines[f"{_quoted(node)} [label={label}, {looks}];"] = None
        self._nodes.append(node)

    def add_edge(self, src: str, dst: str, label: str) -> None:
        """Add an arrow between two nodes."""
        self._lines[f"{_quoted(src)} -> {_quoted(dst)} [label={label}];"] = None
        self._edges.append((src, dst))

    def fold(self, length: int = ROW) -> None:
        """Lay the longest way through the net in rows of ``length`` nodes, one below the other, where that way is about
        all of the net and longer than a row. Edges must have been added in the order of the layers.
        """
        both = set(self._edges)
        onward = [(src, dst) for src, dst in self._edges if (dst, src) not in both]  # not those of layers in place
        after: dict[str, tuple[int, str]] = {}
        for src, dst in reversed(onward):
            after[src] = max(after.get(src, (0, "")), (1 + after.get(dst, (0, ""))[0], dst))
        way = [max(self._nodes, key=lambda node: after.get(node, (0, ""))[0])] if self._nodes else []
        while way and way[-1] in after:
            way.append(after[way[-1]][1])
        aside = {node for edge in onward for node in edge} - set(way)
        if len(way) > length and 4 * len(aside) <= len(way):
            self._rows = [way[first : first + length] for first in range(0, len(way), length)]

    def _folded(self) -> list[str]:
        """The lines of a graph in rows: the nodes of a row at one height, the first of each below each other, and room
        between for layers in place.
        """
        turns = {f"{_quoted(row[-1])} -> {_quoted(below[0])} [" for row, below in itertools.pairwise(self._rows)}
        lines = [
            line.replace("];", ", constraint=false];") if line.startswith(tuple(turns)) else line
            for line in self._lines
        ]
        lines += [f"{{ rank=same; {'; '.join(map(_quoted, row))} }}" for row in self._rows]
        firsts = [_quoted(row[0]) for row in self._rows]
        return [*lines, *(f"{a} -> {b} [style=invis, weight=100, minlen=2];" for a, b in itertools.pairwise(firsts))]

    def to_string(self) -> str:
        """The graph in graphviz' language."""
        rankdir, drawn = ("TB", self._folded()) if self._rows else (self.rankdir, list(self._lines))
        lines = [f"rankdir={rankdir};", "node [fontname=Helvetica];", "edge [fontname=Helvetica];", *drawn]
        return f"digraph {_quoted(self.name)} {{\n" + "".join(f"  {line}\n" for line in lines) + "}\n"

    def create(self, format: str = "ps") -> bytes:
        """The picture as a file of that format: png, svg, pdf, ...; or its text: dot. Raises CaffeError."""
        if format in _TEXT:
            return self.to_string().encode()
        if not re.fullmatch(r"\w[\w:]*", format):
            raise ArgumentError(f"{format!r} is no picture format; let the file's name end in .png, .svg, .pdf or .dot")
        try:
            done = subprocess.run(
                ["dot", f"-T{format}"], input=self.to_string().encode(), capture_output=True, check=False
            )
        except FileNotFoundError:
            raise MissingProgram(
                f"drawing {format} needs graphviz' program dot; install the package graphviz of your system (apt, "
                "brew, conda), or write the text of the picture to a file that ends in .dot"
            ) from None
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {done.returncode}"]
            raise CaffeError(f"dot cannot draw {format}: {said[-1]}")
        return done.stdout


def get_pooling_types_dict() -> dict[int, str]:
    """Number -> name of the ways to pool."""
    return {value: name for name, value in caffe_pb2.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: Any) -> str:
    """What stands at the arrow to a layer's tops: records of a batch, or channels."""
    return _class(layer.type).drawn_at_tops(layer) or '""'


def get_layer_lr_mult(layer: Any) -> tuple[float, float]:
    """The ``lr_mult`` of weights and bias. Raises ValueError for a layer without them."""
    if not _has_multipliers(layer):
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier")
    if len(layer.param) > 2:
        raise ValueError(
            f"Could not parse the learning rate multiplier: layer {layer.name!r} has {len(layer.param)} param"
        )
    weight, bias = [*(param.lr_mult for param in layer.param), 1.0, 1.0][:2]
    return weight, bias


def get_layer_label(layer: Any, rankdir: str, display_lrm: bool = False) -> str:
    """A layer's label in quotes: its name, type, kernel size, stride and pad, and ``lr_mult`` when ``display_lrm``.

    Its parts stand below each other in a graph that goes sideways, else in one line.
    """
    parts = [layer.name, *_class(layer.type).drawn(layer)]
    if display_lrm and _has_multipliers(layer):
        multipliers = get_layer_lr_mult(layer)
        if any(multipliers):
            parts.append("lr mult: {:.1f}, {:.1f}".format(*multipliers))
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    return f'"{separator.join(map(_escaped, parts))}"'


def _class(type_name: str) -> type[Layer]:
    """The class of a layer type; ``Layer`` itself for an unknown one."""
    return layer_class(type_name) or Layer


def _has_multipliers(layer: Any) -> bool:
    """Whether layers of the type have learned weights and a bias."""
    return _class(layer.type).blob_order[:1] == ("weight",)


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    return _class(layertype).color


def get_pydot_graph(
    caffe_net: Any, rankdir: str, label_edges: bool = True, phase: int | None = None, display_lrm: bool = False
) -> Graph:
    """The graph of a NetParameter of any age, from left to right for ``rankdir`` LR, or RL, TB, BT.

    ``phase`` takes the layers that a net of this phase has, at level 0 and without stages; None takes all.
    """
    if rankdir not in _DIRECTIONS:
        raise ArgumentError(f"rankdir {rankdir!r}: expected one of {', '.join(_DIRECTIONS)}")
    net = caffe_pb2.NetParameter()
    net.MergeFromString(caffe_net.SerializePartialToString())
    net = upgrade_net(net)
    if phase is not None:
        net = filter_net(net, caffe_pb2.NetState(phase=caffe_pb2.Phase.Name(phase)))
    graph = Graph(net.name or "Net", rankdir)
    for blob in _blobs(net.layer):
        graph.add_node(f"blob {blob}", _quoted(blob), BLOB_STYLE)
    for index, layer in enumerate(net.layer):
        node = f"layer {index} {layer.name}"  # a net of all phases has names twice
        neuron = len(layer.bottom) == 1 and list(layer.bottom) == list(layer.top)
        style = (
            NEURON_LAYER_STYLE
            if neuron
            else {**LAYER_STYLE_DEFAULT, "fillcolor": choose_color_by_layertype(layer.type)}
        )
        graph.add_node(node, get_layer_label(layer, rankdir, display_lrm), style)
        for bottom in layer.bottom:
            graph.add_edge(f"blob {bottom}", node, '""')
        for top in layer.top:
            label = get_edge_label(layer) if label_edges else '""'
            graph.add_edge(node, f"blob {top}", _quoted(label.strip('"')))
    return graph


def _blobs(layers: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(blob for layer in layers for blob in [*layer.bottom, *layer.top]))


def draw_net(
    caffe_net: Any, rankdir: str, ext: str = "png", phase: int | None = None, display_lrm: bool = False
) -> bytes:
    """The picture of a NetParameter as a file of the format ``ext``. See ``get_pydot_graph``."""
    return get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm).create(format=ext)


def draw_net_to_file(
    caffe_net: Any,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Write the picture of a NetParameter in the format that the file's name ends in: .png, .svg, .pdf;
    .dot for its text.
    """
    picture = draw_net(caffe_net, rankdir, Path(filename).suffix[1:], phase, display_lrm)
    with replacing(filename) as file:
        file.write(picture)


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
