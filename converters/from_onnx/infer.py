"""Walks the nodes of a model: the shape of every value, and the arrays that do not depend on the inputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from caffecli.errors import FormatError, SpecError
from converters.from_onnx.model import Model, Stored, to_array
from converters.from_onnx.names import module_of
from converters.from_onnx.opsets import Node, modern
from converters.to_caffe.program import Array, Shape

#: larger arrays are not looked into for shapes
_SMALL = 4096
#: folded arrays may have as many numbers, and values of the net: Caffe counts a blob's in 32 bits
_MOST_FOLDED, _MOST = 2**28, 2**31 - 1
_RANDOM = ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial")
#: operators whose result's size is at most that of what they read
_SHRINKING = ("Compress", "NonZero", "Unique")
#: operators for which onnx does not infer that the result has the shape of what it reads
_SAME_SHAPE = ("GroupNormalization", "MeanVarianceNormalization")
#: the types of attributes that are graphs
_GRAPHS = (5, 10)


@dataclass
class Inferred:
    """The nodes in today's form, in order, and what is known of their values.

    ``shapes`` and ``types`` have no value whose size depends on numbers. ``arrays`` are the values that do not depend
    on the inputs.
    """

    nodes: list[Node] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)
    types: dict[str, int] = field(default_factory=dict)
    arrays: dict[str, Callable[[], Array]] = field(default_factory=dict)


def infer(model: Model, inputs: Mapping[str, Shape]) -> Inferred:
    """The walk, with inputs of these shapes. Raises FormatError where shapes do not fit one another."""
    return _Walk(model, inputs).walk()


class _Walk:
    def __init__(self, model: Model, inputs: Mapping[str, Shape]) -> None:
        from onnx import defs

        self.model, self.made = model, Inferred()
        self.opset = model.opsets.get("", 0)
        self.newest = defs.onnx_opset_version()
        for given in model.inputs:
            self.made.shapes[given.name], self.made.types[given.name] = inputs[given.name], given.type
        for name, stored in model.arrays.items():
            self._keep(name, stored)

    def walk(self) -> Inferred:
        pending = list(reversed(self.model.nodes))
        while pending:
            proto = pending.pop()
            branch = self._branch(proto)
            if branch is not None:
                pending += reversed(branch)
                continue
            node = self._node(proto)
            ours = node.domain == "" and not any(one.type in _GRAPHS for one in proto.attribute)
            if ours and self._known(node):
                new = modern(node, self.opset, self.made.shapes.get)
                for name, array in new.arrays.items():
                    self.constant(name, array)
                for one in new.nodes:
                    self._step(one)
            else:
                self.made.nodes.append(node)
        return self.made

    def _known(self, node: Node) -> bool:
        return all(name in self.made.shapes for name in node.inputs if name)

    def _node(self, proto: Any) -> Node:
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        attributes = {one.name: self._attribute(one) for one in proto.attribute if one.type not in _GRAPHS}
        name = proto.name or next(filter(None, proto.output), "") or proto.op_type
        outputs = list(proto.output) or [f"{name}@none"]
        return Node(proto.op_type, name, list(proto.input), outputs, attributes, domain, module_of(proto))

    def _attribute(self, attribute: Any) -> Any:
        from onnx import helper

        value = helper.get_attribute_value(attribute)
        if attribute.type == 4:
            return to_array(self.model.path, value, f"attribute {attribute.name!r}")
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if attribute.type in (6, 7, 8):
            return [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in value]
        return value

    def _branch(self, proto: Any) -> list[Any] | None:
        """The nodes of an If whose condition does not depend on the inputs; else None."""
        condition = self.made.arrays.get(proto.input[0]) if proto.op_type == "If" and proto.input else None
        if condition is None:
            return None
        wanted = "then_branch" if np.all(condition()) else "else_branch"
        graph = next((one.g for one in proto.attribute if one.name == wanted), None)
        if graph is None or graph.input or len(graph.output) != len(proto.output):
            return None
        from onnx import helper

        for tensor in graph.initializer:
            self.constant(tensor.name, to_array(self.model.path, tensor, f"weight {tensor.name!r}"))
        ends = [
            helper.make_node("Identity", [inner.name], [outer], name=f"{proto.name}/{i}")
            for i, (inner, outer) in enumerate(zip(graph.output, proto.output, strict=True))
        ]
        return [*graph.node, *ends]

    # -- one node ---------------------------------------------------------------------------------------------------

    def _step(self, node: Node) -> None:
        if node.kind == "Constant":
            self.constant(node.outputs[0], _constant_of(node))
            return
        if node.kind in ("Shape", "Size"):
            shape = self.made.shapes[node.inputs[0]]
            part = shape[slice(node.attributes.get("start"), node.attributes.get("end"))]
            value = part if node.kind == "Shape" else math.prod(shape)
            self.constant(node.outputs[0], np.asarray(value, np.int64))
            return
        if node.kind == "Range" and self._is_constant(node):  # onnx does not know sizes of those with arrays of one
            dtype = self.made.arrays[node.inputs[0]]().dtype
            start, limit, step = (float(self.made.arrays[name]().reshape(())) for name in node.inputs)
            if step and abs((limit - start) / step) < _MOST_FOLDED:
                self.constant(node.outputs[0], np.arange(start, limit, step).astype(dtype))
                return
        shapes = self._output_shapes(node)
        if self._is_constant(node) and self._fold(node, shapes):
            return
        self.made.nodes.append(node)
        for name, (made, type_) in shapes.items():
            if made is None:
                continue
            if math.prod(made) > _MOST:
                raise SpecError(
                    f"cannot be imported: {name!r}, of node {node.name!r} ({node.kind}), has the shape {list(made)}; "
                    f"Caffe's blobs have up to {_MOST} numbers"
                )
            self.made.shapes[name], self.made.types[name] = made, type_

    def _output_shapes(self, node: Node) -> dict[str, tuple[Shape | None, int]]:
        """Shape and type of each output; no shape where it depends on numbers, none at all of unknown operators."""
        from onnx import checker, defs, helper, shape_inference

        if node.kind == "Resize":
            return self._resized(node)
        try:
            schema = defs.get_schema(node.kind, self.newest, "")
        except defs.SchemaError:
            return {}
        if node.kind in _SAME_SHAPE:
            source = node.inputs[0]
            return {node.outputs[0]: (self.made.shapes[source], self.made.types[source])}
        types = {
            name: helper.make_tensor_type_proto(self.made.types[name], self.made.shapes[name])
            for name in node.inputs
            if name
        }
        data = {name: self._tensor(name) for name in node.inputs if name in self.made.arrays and self._is_small(name)}
        try:
            found = shape_inference.infer_node_outputs(
                schema, self._proto(node), types, data, opset_imports=[helper.make_opsetid("", self.newest)]
            )
        except (shape_inference.InferenceError, checker.ValidationError, ValueError, TypeError) as error:
            lines = str(error).splitlines() or [repr(error)]
            node.misfit = f"it does not fit what it reads: {lines[0]}"
            return {}
        shapes: dict[str, tuple[Shape | None, int]] = {}
        for name, type_ in found.items():
            tensor = type_.tensor_type
            dims = tensor.shape.dim
            known = tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in dims)
            shapes[name] = (tuple(dim.dim_value for dim in dims) if known else None, tensor.elem_type)
        return shapes

    def _resized(self, node: Node) -> dict[str, tuple[Shape | None, int]]:
        """onnx leaves out sizes of some forms."""
        source = node.inputs[0]
        shape = list(self.made.shapes[source])
        inputs = [*node.inputs, "", "", ""]
        axes = [axis % len(shape) for axis in node.attributes.get("axes") or range(len(shape))]
        given = self.made.arrays.get(inputs[3] or inputs[2])
        if given is None:
            return {node.outputs[0]: (None, self.made.types[source])}
        numbers = given()
        if len(numbers) != len(axes):
            raise FormatError(
                f"{str(self.model.path)!r}: the model is damaged: node {node.name!r} (Resize) has {len(numbers)} "
                f"numbers for {len(axes)} axes"
            )
        policy = node.attributes.get("keep_aspect_ratio_policy", "stretch")
        scales = (
            [float(n) / shape[a] for n, a in zip(numbers, axes, strict=True)]
            if inputs[3]
            else list(map(float, numbers))
        )
        if inputs[3] and policy != "stretch":
            scales = [(min if policy == "not_larger" else max)(scales)] * len(axes)
        for axis, scale, number in zip(axes, scales, numbers, strict=True):
            if inputs[3]:
                shape[axis] = int(number) if policy == "stretch" else math.floor(scale * shape[axis] + 0.5)
            else:
                shape[axis] = math.floor(shape[axis] * scale)
        return {node.outputs[0]: (tuple(shape), self.made.types[source])}

    def _proto(self, node: Node) -> Any:
        from onnx import helper, numpy_helper

        attributes = {
            key: numpy_helper.from_array(value) if isinstance(value, np.ndarray) else value
            for key, value in node.attributes.items()
            if key not in ("per_group", "spatial")
        }
        return helper.make_node(node.kind, node.inputs, node.outputs, **attributes)

    # -- constants --------------------------------------------------------------------------------------------------

    def constant(self, name: str, array: Array) -> None:
        from onnx import helper

        type_ = helper.np_dtype_to_tensor_dtype(array.dtype)
        self._keep(name, Stored(array.shape, type_, lambda: array))

    def _keep(self, name: str, stored: Stored) -> None:
        self.made.shapes[name], self.made.types[name] = stored.shape, stored.type
        self.made.arrays[name] = stored.read

    def _is_small(self, name: str) -> bool:
        return math.prod(self.made.shapes[name]) <= _SMALL

    def _tensor(self, name: str) -> Any:
        from onnx import numpy_helper

        return numpy_helper.from_array(np.ascontiguousarray(self.made.arrays[name]()), name)

    def _is_constant(self, node: Node) -> bool:
        return node.kind not in _RANDOM and all(name in self.made.arrays for name in node.inputs if name)

    def _fold(self, node: Node, shapes: dict[str, tuple[Shape | None, int]]) -> bool:
        """Compute a node that reads constants alone; whether it could be."""
        wanted = [name for name in node.outputs if name]
        sizes = [self._folded_size(node, shapes.get(name, (None, 0))[0]) for name in wanted]
        if any(size is None or size > _MOST_FOLDED for size in sizes):
            return False
        arrays = {name: self.made.arrays[name]() for name in node.inputs if name}
        try:
            results = _evaluate(self._proto(node), arrays, self.newest)
        except Exception:  # onnx's reference raises what it likes; what is not folded is refused by its own rule
            return False
        for name, array in zip(node.outputs, results, strict=False):
            if name:
                self.constant(name, np.asarray(array))
        return True

    def _folded_size(self, node: Node, shape: Shape | None) -> int | None:
        if shape is not None:
            return math.prod(shape)
        if node.kind in _SHRINKING:
            return sum(math.prod(self.made.shapes[name]) for name in node.inputs if name) * 8
        return None


def _evaluate(proto: Any, arrays: dict[str, Array], opset: int) -> list[Array]:
    from onnx.reference import ReferenceEvaluator

    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(proto, opsets={"": opset}).run(None, arrays))


def _constant_of(node: Node) -> Array:
    ((kind, value),) = node.attributes.items()
    if isinstance(value, np.ndarray):
        return value
    dtype = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if kind not in dtype:
        raise SpecError(f"cannot be imported: the constant {node.name!r} is {kind.removeprefix('value_')}")
    return np.asarray(value, dtype[kind])
