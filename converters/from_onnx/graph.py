"""An ONNX file as a program."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from caffecli.errors import FormatError, SpecError
from converters.from_onnx import elementwise, operations
from converters.from_onnx.infer import Inferred, infer
from converters.from_onnx.model import Input, Model, load, read_by
from converters.from_onnx.node import TRANSLATIONS, Reader
from converters.from_onnx.opsets import Node
from converters.to_caffe.builder import Unsupported
from converters.to_caffe.program import Op, Program, Ref, Shape
from converters.to_caffe.simplify import simplify

Path_ = str | os.PathLike[str]

#: the modules whose translations are registered
TRANSLATION_MODULES = (elementwise, operations)

_FLOAT, _HALVES, _TEXT = 1, (10, 16), 8
_FLOATS = (1, 10, 11, 16)

#: what reading a damaged file may raise
_READ_ERRORS = (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError, OverflowError)

_FIXED = "Caffe's nets have no branches and loops; export the model with what it decides by fixed"
_OUTSIDE = "compute it behind the net"
_QUANTIZED = "it computes with integers (int8), Caffe with single precision; take the model from before quantization"
#: why operators without a translation have no counterpart
_REASONS = {
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), _FIXED),
    **dict.fromkeys(("NonMaxSuppression", "NonZero", "Unique", "Compress", "TopK"), _OUTSIDE),
    **dict.fromkeys(
        (
            *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"),
            *("ConvInteger", "MatMulInteger", "QGemm", "QLinearAdd"),
        ),
        _QUANTIZED,
    ),
    "Attention": "Caffe has no product of two blobs",
    "Einsum": "Caffe has no product of two blobs; write it with MatMul by fixed weights",
}


def read(
    path: Path_,
    batch: int | None = None,
    shapes: Sequence[Shape] | None = None,
    outputs: Sequence[str] | None = None,
) -> Program:
    """The program of an ONNX file.

    A free batch axis gets the size ``batch`` (1). ``shapes`` are those of the inputs, in the model's order, for models
    whose pictures have no fixed size. ``outputs`` are the values to end at, by default the model's outputs.

    Raises FormatError for a file that is damaged, SpecError for what Caffe cannot say.
    """
    model = load(path)
    if outputs:
        _end_at(model, outputs)
    try:
        return _program(model, 1 if batch is None else batch, shapes)
    except _READ_ERRORS as error:
        raise FormatError(
            f"{str(path)!r}: the model is damaged, or of a kind that is not known here ({type(error).__name__}: "
            f"{' '.join(str(error).split())})"
        ) from error


def _program(model: Model, batch: int, shapes: Sequence[Shape] | None) -> Program:
    given = _input_shapes(model, batch, shapes)
    inferred, ops = _translate(model, given)
    _check_types(model, inferred)
    fixed = [name for name in model.outputs if name in inferred.arrays]
    if fixed:
        raise SpecError(f"cannot be imported: its output {fixed[0]!r} does not depend on its inputs")
    return simplify(
        Program(
            inputs=[one.name for one in model.inputs],
            outputs=model.outputs,
            ops=ops,
            shapes=inferred.shapes,
            free_axes=_free_axes(model, inferred, given),
            integral=frozenset(name for name, type_ in inferred.types.items() if type_ not in _FLOATS),
            arrays=inferred.arrays,
            output_names=model.outputs,
        )
    )


def _end_at(model: Model, outputs: Sequence[str]) -> None:
    """Make values the outputs of a model, and leave out the nodes that these do not need. Raises SpecError."""
    made = {name for node in model.nodes for name in node.output}
    unknown = [name for name in outputs if name not in made]
    if unknown or len(set(outputs)) != len(outputs):
        raise SpecError(
            f"has no value {(unknown or list(outputs))[0]!r} to end at; name outputs of its nodes, each once"
        )
    wanted, kept = set(outputs), []
    for node in reversed(model.nodes):
        if wanted.intersection(node.output):
            wanted.update(read_by(node))
            kept.append(node)
    model.nodes, model.outputs = kept[::-1], list(outputs)


def _translate(model: Model, inputs: Mapping[str, Shape]) -> tuple[Inferred, list[Op]]:
    inferred = infer(model, inputs)
    return inferred, [op for node in inferred.nodes for op in _translated(inferred, node)]


def _input_shapes(model: Model, batch: int, shapes: Sequence[Shape] | None) -> dict[str, Shape]:
    """The shape of each input. Raises SpecError where a size other than the batch's is not known."""
    if shapes is not None and len(shapes) != len(model.inputs):
        raise SpecError(f"has {len(model.inputs)} input(s); give a shape for each, not {len(shapes)}")
    found: dict[str, Shape] = {}
    for i, one in enumerate(model.inputs):
        if shapes is None:
            unknown = [str(axis) or "?" for axis in one.axes[1:] if isinstance(axis, str)]
            if unknown:
                sizes = [axis if isinstance(axis, int) else 224 for axis in one.axes[1:]]
                raise SpecError(
                    f"has an input {one.name!r} of {_written(one)}, whose sizes are free, Caffe's are fixed; give "
                    f"them as in --shape {','.join(map(str, [batch, *sizes]))}"
                )
            found[one.name] = tuple(batch if isinstance(axis, str) else axis for axis in one.axes)
            continue
        shape = tuple(shapes[i])
        if len(shape) != len(one.axes) or any(
            isinstance(axis, int) and axis != size for axis, size in zip(one.axes, shape, strict=False)
        ):
            raise SpecError(f"has an input {one.name!r} of {_written(one)}, not {list(shape)}")
        found[one.name] = shape
    return found


def _written(one: Input) -> str:
    return f"[{', '.join(str(axis) or '?' for axis in one.axes)}]"


def _check_types(model: Model, inferred: Inferred) -> None:
    """Raise SpecError where the model computes in half precision."""
    computed = {name for node in inferred.nodes for name in node.outputs} | {one.name for one in model.inputs}
    halves = sorted(name for name in computed if inferred.types.get(name) in _HALVES)
    if halves:
        raise SpecError(
            f"cannot be imported: it computes in half precision (float16, at {halves[0]!r}), Caffe in single; export "
            f"the model in float32, before it is converted"
        )
    for one in model.inputs:
        if one.type == _TEXT:
            raise SpecError(f"cannot be imported: its input {one.name!r} is text")


def _free_axes(model: Model, inferred: Inferred, given: dict[str, Shape]) -> dict[str, frozenset[int]]:
    """The axes whose sizes are others with another batch, where the batch is free."""
    free_inputs = [one.name for one in model.inputs if one.axes and isinstance(one.axes[0], str)]
    if not free_inputs:
        return {name: frozenset() for name in inferred.shapes}
    more = {name: (shape[0] + 1, *shape[1:]) if name in free_inputs else shape for name, shape in given.items()}
    try:
        other = _translate(model, more)[0].shapes
    except (FormatError, SpecError):  # a shape within says the batch's size
        other = {}
    found = {}
    for name, shape in inferred.shapes.items():
        second = other.get(name, shape)
        same_rank = len(second) == len(shape)
        found[name] = (
            frozenset(i for i, (a, b) in enumerate(zip(shape, second, strict=True)) if a != b)
            if same_rank
            else frozenset()
        )
    return found


def _translated(inferred: Inferred, node: Node) -> list[Op]:
    """The operations of a node; one that tells why, where there are none."""
    reader = Reader(inferred, node)
    known = all(name in inferred.shapes for name in node.inputs if name)
    kind = f"{node.domain}.{node.kind}" if node.domain else node.kind
    translation = TRANSLATIONS.get(kind)
    try:
        if translation is None:
            raise Unsupported(_REASONS.get(node.kind, "no such layer"))
        if node.misfit or not known:
            raise Unsupported(node.misfit)
        if any(name and name not in inferred.shapes for name in node.outputs):
            raise Unsupported("its size depends on values; Caffe's are fixed")
        translation(reader)
        return reader.ops
    except Unsupported as reason:
        refusal = str(reason)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        refusal = f"of arguments that are not known here, {type(error).__name__}: {error}"
    args = {str(i): Ref(name) for i, name in enumerate(node.inputs) if name}
    outputs = tuple(name for name in node.outputs if name)
    return [Op(node.name, f"onnx.{kind}", args, outputs, node.module, kind, node.name, refusal)]
