"""Reads ONNX files: nodes, and arrays that are read when they are needed, from the file or from files beside it."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from caffecli.errors import CaffeError, FormatError, SpecError
from caffecli.formats.atomic import cannot_read, read_file
from caffecli.formats.bounds import check_unpacked
from caffecli.formats.foreign import describe
from caffecli.host import check_file
from converters.to_caffe.program import Array, Shape

Path_ = str | os.PathLike[str]
Proto = Any

#: the first opset whose operators are those of today, by and large
OLDEST = 7
#: more nodes than any net has; a few nested functions could unfold to more than there is memory
_MOST_NODES = 200_000
_DEPTH = 50


@dataclass(frozen=True)
class Stored:
    """An array of the file: its shape, ONNX's number of its type, and what reads it."""

    shape: Shape
    type: int
    read: Callable[[], Array]


@dataclass(frozen=True)
class Input:
    """An input of a model; an axis that has a name, or no size, is its name, or ''."""

    name: str
    type: int
    axes: tuple[int | str, ...]


@dataclass
class Model:
    """The graph of a file, without functions; ``opsets`` by domain, '' for ONNX's own."""

    path: Path
    nodes: list[Proto]
    inputs: list[Input]
    outputs: list[str]
    opsets: dict[str, int]
    arrays: dict[str, Stored] = field(default_factory=dict)


def require_onnx() -> None:
    """Raise CaffeError where the package ``onnx`` is not there."""
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise CaffeError("to read ONNX takes the package onnx; pip install 'caffecli[onnx]'") from error


def load(path: Path_) -> Model:
    """The model in an ONNX file. Raises FormatError for a file that is none, or damaged; SpecError for its opset."""
    require_onnx()
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        check_file(path)
        data = read_file(path)
    except OSError as error:
        raise cannot_read(path, error) from error
    try:
        proto = ModelProto.FromString(data)
    except DecodeError as error:
        if data[:1] == b"\x08" and b"\x12" in data[:64]:  # ir_version comes first, and the producer's name soon
            raise FormatError(f"{str(path)!r} is an ONNX model that is cut off or damaged; copy it again") from error
        raise describe(path, data, "an ONNX model") from error
    if not proto.ir_version or not (proto.graph.node or proto.graph.output):
        raise (
            describe(path, data, "an ONNX model")
            if not proto.ir_version
            else FormatError(f"{str(path)!r} is an ONNX model without a graph; copy it again, and compare its size")
        )
    return _model(Path(path), proto)


def _model(path: Path, proto: Proto) -> Model:
    from onnx import defs

    opsets: dict[str, int] = {}
    for entry in proto.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        opsets[domain] = max(entry.version, opsets.get(domain, 0))
    version, newest = opsets.get("", 0), defs.onnx_opset_version()
    if proto.functions:
        proto = _without_functions(proto)
    graph = proto.graph
    uses_onnx = any(node.domain in ("", "ai.onnx") for node in graph.node)
    if version > newest:
        raise SpecError(
            f"has opset {version}, the package onnx here knows up to {newest}; pip install -U onnx, or export it with "
            f"opset_version={newest}"
        )
    if uses_onnx and version < OLDEST:
        raise SpecError(
            f"has opset {version}; {OLDEST} and later are read: onnx.version_converter.convert_version(model, 13)"
        )
    if graph.sparse_initializer:
        raise SpecError("cannot be imported: it has sparse weights; save it with dense ones")
    arrays = {}
    for tensor in graph.initializer:
        arrays[tensor.name] = _stored(path, tensor, f"weight {tensor.name!r}")
    inputs = [_input(value) for value in graph.input if value.name not in arrays]
    outputs = [value.name for value in graph.output]
    names = [value.name for value in inputs]
    if len(set(names)) != len(names) or len(set(outputs)) != len(outputs):
        raise FormatError(f"{str(path)!r}: the model is damaged: two inputs, or outputs, have one name")
    return Model(path, _ordered(path, graph, {*arrays, *names}), inputs, outputs, opsets, arrays)


def _input(value: Proto) -> Input:
    if not value.type.HasField("tensor_type"):
        kind = value.type.WhichOneof("value") or "of no type"
        raise SpecError(f"cannot be imported: its input {value.name!r} is {kind.removesuffix('_type')}, not a tensor")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        raise SpecError(f"cannot be imported: its input {value.name!r} has no shape; export it with one")
    axes: list[int | str] = []
    for dim in tensor.shape.dim:
        fixed = dim.HasField("dim_value") and dim.dim_value > 0
        axes.append(dim.dim_value if fixed else dim.dim_param)
    return Input(value.name, tensor.elem_type, tuple(axes))


def _ordered(path: Path, graph: Proto, known: set[str]) -> list[Proto]:
    """The nodes, each behind those that make what it reads; raises FormatError where there is a cycle."""
    if len(graph.node) > _MOST_NODES:
        raise SpecError(f"cannot be imported: it has {len(graph.node)} nodes; {_MOST_NODES} are the bound")
    made: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in made or name in known:
                raise FormatError(f"{str(path)!r}: the model is damaged: {name!r} is made twice")
            made[name] = index
    missing = [value.name for value in graph.output if value.name not in made and value.name not in known]
    waits: dict[int, set[int]] = {}
    readers: dict[int, list[int]] = {}
    for index, node in enumerate(graph.node):
        reads = {name for name in read_by(node) if name not in known}
        missing += [name for name in reads if name not in made]
        waits[index] = {made[name] for name in reads if name in made}
        for source in waits[index]:
            readers.setdefault(source, []).append(index)
    if missing:
        raise FormatError(f"{str(path)!r}: the model is damaged: nothing makes {missing[0]!r}")
    ready = [index for index in reversed(range(len(graph.node))) if not waits[index]]
    order: list[int] = []
    while ready:
        index = ready.pop()
        order.append(index)
        for reader in reversed(readers.get(index, [])):
            waits[reader].discard(index)
            if not waits[reader]:
                ready.append(reader)
    if len(order) < len(graph.node):
        stuck = next(node for index, node in enumerate(graph.node) if waits[index])
        raise FormatError(f"{str(path)!r}: the model is damaged: {_called(stuck)!r} waits for what is made of it")
    return [graph.node[index] for index in order]


def _called(node: Proto) -> str:
    return str(node.name or next(iter(node.output), "") or node.op_type)


def read_by(node: Proto) -> list[str]:
    """The values that a node reads; those of the graphs within it, which are others', too."""
    names = [name for name in node.input if name]
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
            own = {value.name for value in (*graph.input, *graph.initializer)}
            own |= {name for inner in graph.node for name in inner.output}
            names += [name for inner in graph.node for name in read_by(inner) if name not in own]
    return names


def _without_functions(proto: Proto) -> Proto:
    """The model with the nodes of its functions in place of their calls."""
    from onnx import inliner

    functions = {(f.domain, f.name): f for f in proto.functions}
    counts: dict[tuple[str, str], int] = {}

    def count(node: Proto, above: tuple[tuple[str, str], ...]) -> int:
        key = (node.domain, node.op_type)
        if key not in functions:
            inner = [n for a in node.attribute for g in (a.g, *a.graphs) for n in g.node]
            return 1 + sum(count(one, above) for one in inner)
        if key in above or len(above) > _DEPTH:
            raise SpecError(f"cannot be imported: its function {node.op_type!r} calls itself")
        if key not in counts:
            counts[key] = sum(count(one, (*above, key)) for one in functions[key].node)
        return counts[key]

    if sum(count(node, ()) for node in proto.graph.node) > _MOST_NODES:
        raise SpecError(f"cannot be imported: its functions unfold to more than {_MOST_NODES} nodes")
    return inliner.inline_local_functions(proto)


# -- arrays --------------------------------------------------------------------------------------------------------


def _stored(path: Path, tensor: Proto, what: str) -> Stored:
    """An array of the file or beside it, checked without being read. Raises FormatError."""
    from onnx import TensorProto

    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0:
        raise FormatError(f"{str(path)!r}: the model is damaged: its {what} has the shape {list(shape)}")
    if tensor.data_type == TensorProto.STRING:
        return Stored(shape, tensor.data_type, lambda: np.asarray([], object))
    if tensor.data_location != TensorProto.EXTERNAL:
        if tensor.HasField("raw_data") and len(tensor.raw_data) < math.prod(shape) * _bits(path, tensor, what) // 8:
            raise FormatError(
                f"{str(path)!r}: the model is damaged: its {what} has {len(tensor.raw_data)} bytes for the shape "
                f"{list(shape)}"
            )
        return Stored(shape, tensor.data_type, functools.partial(to_array, path, tensor, what))
    entries = {entry.key: entry.value for entry in tensor.external_data}
    size = math.prod(shape) * _item_size(path, tensor, what)
    file, offset = _beside(path, entries.get("location", ""), what), _number(path, entries.get("offset", "0"), what)
    length = _number(path, entries.get("length", str(size)), what)
    if length < size or offset + size > file.stat().st_size:
        raise FormatError(
            f"{str(path)!r}: its {what} takes {size} bytes from {offset} on in {file.name!r}, which has "
            f"{file.stat().st_size}; copy that file again"
        )
    dtype = _dtype(path, tensor, what).newbyteorder("<")

    def read() -> Array:
        return np.fromfile(file, dtype, math.prod(shape), offset=offset).reshape(shape)

    return Stored(shape, tensor.data_type, read)


def _beside(path: Path, location: str, what: str) -> Path:
    """The file of this name in the model's folder. Raises FormatError where it is elsewhere, or is none."""
    folder = path.parent.resolve()
    file = (folder / location).resolve()
    if not location or folder not in file.parents:
        raise FormatError(
            f"{str(path)!r}: its {what} is said to be in {location!r}, outside of the model's folder, where nothing is "
            f"read; save the model with its data beside it"
        )
    try:
        check_file(file)
    except OSError as error:
        raise FormatError(
            f"{str(path)!r}: its {what} is in {location!r}, which is not there; copy it beside the model"
        ) from error
    return file


def _number(path: Path, written: str, what: str) -> int:
    if not (written.isascii() and written.isdigit() and len(written) < 19):
        raise FormatError(f"{str(path)!r}: the model is damaged: its {what} is at {written!r}")
    return int(written)


def _dtype(path: Path, tensor: Proto, what: str) -> np.dtype[Any]:
    from onnx import helper

    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except KeyError as error:
        raise FormatError(f"{str(path)!r}: the model is damaged: its {what} has type {tensor.data_type}") from error


def _bits(path: Path, tensor: Proto, what: str) -> int:
    """How many bits a number takes in the file: 4 of some types, which take 8 in memory."""
    from onnx import TensorProto

    name = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type < 30 else ""
    if name.endswith("INT2"):
        return 2
    return 4 if name.endswith(("INT4", "FLOAT4E2M1")) else 8 * _item_size(path, tensor, what)


def _item_size(path: Path, tensor: Proto, what: str) -> int:
    return _dtype(path, tensor, what).itemsize


def to_array(path: Path, tensor: Proto, what: str) -> Array:
    """The array of a tensor in the file. Raises FormatError where its bytes are not as many as its shape takes."""
    from onnx import TensorProto, numpy_helper

    if tensor.data_location == TensorProto.EXTERNAL:
        return _stored(path, tensor, what).read()
    if tensor.data_type == TensorProto.STRING:
        raise SpecError(f"cannot be imported: its {what} is text")
    check_unpacked(path, math.prod(tensor.dims) * _item_size(path, tensor, what))
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise FormatError(
            f"{str(path)!r}: the model is damaged: its {what} has not {list(tensor.dims)} numbers"
        ) from error
