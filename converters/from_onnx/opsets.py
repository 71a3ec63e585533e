"""Brings a node into the form that the newest opset has: what was an attribute is an input, and so on.

Everything behind this sees one form of each operator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from converters.to_caffe.program import Array, Shape


@dataclass
class Node:
    """A node: its operator, its name in the file, and the values that it reads and makes; '' for one left out.

    ``misfit`` is why it cannot read what it reads.
    """

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)
    domain: str = ""
    module: str = ""
    misfit: str = ""


@dataclass
class Modern:
    """What a node becomes: nodes in today's form, and the arrays that they read."""

    nodes: list[Node]
    arrays: dict[str, Array] = field(default_factory=dict)


_Change = Callable[[Node, int, Callable[[str], "Shape | None"], dict[str, Array]], "list[Node] | None"]

#: attributes that are inputs since an opset: (opset, (attribute, place among the inputs, type))
_MOVED: dict[str, tuple[int, tuple[tuple[str, int, Any], ...]]] = {
    "Clip": (11, (("min", 1, np.float32), ("max", 2, np.float32))),
    "Pad": (11, (("pads", 1, np.int64), ("value", 2, np.float32))),
    "Slice": (10, (("starts", 1, np.int64), ("ends", 2, np.int64), ("axes", 3, np.int64))),
    "Split": (13, (("split", 1, np.int64),)),
    "Squeeze": (13, (("axes", 1, np.int64),)),
    "TopK": (10, (("k", 1, np.int64),)),
    "Unsqueeze": (13, (("axes", 1, np.int64),)),
    "Upsample": (9, (("scales", 1, np.float32),)),
    "ReduceSum": (13, (("axes", 1, np.int64),)),
    **{
        f"Reduce{kind}": (18, (("axes", 1, np.int64),))
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
    },
}


def modern(node: Node, opset: int, shape: Callable[[str], Shape | None]) -> Modern:
    """The node as nodes of the newest opset. ``shape`` tells a value's."""
    made = Modern([node])
    if node.kind in _MOVED and opset < _MOVED[node.kind][0]:
        _move_attributes(node, made.arrays)
    change = _CHANGES.get(node.kind)
    nodes = None if change is None else change(node, opset, shape, made.arrays)
    if nodes is not None:
        made.nodes = nodes
    return made


def _move_attributes(node: Node, arrays: dict[str, Array]) -> None:
    for name, place, dtype in _MOVED[node.kind][1]:
        if name not in node.attributes:
            continue
        value = node.attributes.pop(name)
        array = np.asarray([value] if name == "k" else value, dtype)
        node.inputs += [""] * (place + 1 - len(node.inputs))
        node.inputs[place] = _constant(node, name, array, arrays)


def _constant(node: Node, name: str, array: Array, arrays: dict[str, Array]) -> str:
    """Keep an array under a name of its own; returns the name."""
    key = f"{node.outputs[0]}@{name}"
    arrays[key] = array
    return key


def _batch_norm(node: Node, opset: int, shape: Any, arrays: dict[str, Array]) -> None:
    if opset < 14:  # the others are outputs of training, or nobody's
        del node.outputs[1:]
    if opset < 9 and node.attributes.pop("spatial", 1) == 0:
        node.attributes["spatial"] = 0
    node.attributes.pop("is_test", None)


def _dropout(node: Node, opset: int, shape: Any, arrays: dict[str, Array]) -> None:
    if opset < 12:
        node.attributes.pop("ratio", None)
        node.attributes.pop("is_test", None)


def _softmax(
    node: Node, opset: int, shape: Callable[[str], Shape | None], arrays: dict[str, Array]
) -> list[Node] | None:
    """Before opset 13 softmax was over all axes from ``axis`` (1) on."""
    before = shape(node.inputs[0])
    if opset >= 13 or before is None:
        return None
    axis = node.attributes.get("axis", 1) % max(len(before), 1)
    longer = [i for i in range(axis, len(before)) if before[i] != 1]
    if len(longer) <= 1:
        node.attributes["axis"] = longer[0] if longer else len(before) - 1
        return None
    flat, normed = f"{node.outputs[0]}@flat", f"{node.outputs[0]}@softmax"
    rows = _constant(node, "rows", np.asarray([0] * axis + [-1]), arrays)
    shape_ = _constant(node, "shape", np.asarray([0] * axis + list(before[axis:])), arrays)
    inner = Node(node.kind, node.name, [flat], [normed], {"axis": axis}, module=node.module)
    return [
        Node("Reshape", node.name, [node.inputs[0], rows], [flat], module=node.module),
        inner,
        Node("Reshape", node.name, [normed, shape_], node.outputs, module=node.module),
    ]


def _split(node: Node, opset: int, shape: Any, arrays: dict[str, Array]) -> None:
    has_sizes = len(node.inputs) > 1 and node.inputs[1]
    if opset < 18 and not has_sizes:
        node.attributes["num_outputs"] = len(node.outputs)


def _upsample(node: Node, opset: int, shape: Any, arrays: dict[str, Array]) -> None:
    """Upsample and Resize of opset 10 ask for the place (i / scale) and, nearest, take the one before it."""
    node.kind = "Resize"
    mode = node.attributes.get("mode", "nearest")
    node.attributes = {
        "mode": "linear" if mode == "bilinear" else mode,
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    node.inputs = [node.inputs[0], "", *node.inputs[1:2]]


def _resize(node: Node, opset: int, shape: Any, arrays: dict[str, Array]) -> None:
    if opset < 11:
        _upsample(node, opset, shape, arrays)
    if len(node.inputs) > 3 and node.inputs[3]:
        node.inputs[2] = ""  # exporters write empty scales beside sizes


def _group_norm(node: Node, opset: int, shape: Callable[[str], Shape | None], arrays: dict[str, Array]) -> None:
    if opset < 21:
        node.attributes["per_group"] = 1


_CHANGES: dict[str, _Change] = {
    "BatchNormalization": _batch_norm,
    "Dropout": _dropout,
    "GroupNormalization": _group_norm,
    "LogSoftmax": _softmax,
    "Resize": _resize,
    "Softmax": _softmax,
    "Split": _split,
    "Upsample": _upsample,
}
