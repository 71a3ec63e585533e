"""What translations work with: a node, what it reads, and the operations that it becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from converters.from_onnx.infer import Inferred
from converters.from_onnx.opsets import Node
from converters.to_caffe.builder import Unsupported
from converters.to_caffe.program import Array, Op, Ref, Shape

#: a translation emits operations; the last one has the node's outputs
Translation = Callable[["Reader"], None]

#: translations by the operator's name
TRANSLATIONS: dict[str, Translation] = {}


def translates(*kinds: str) -> Callable[[Translation], Translation]:
    """Register a function as the translation of these operators."""

    def register(function: Translation) -> Translation:
        TRANSLATIONS.update(dict.fromkeys(kinds, function))
        return function

    return register


class Reader:
    """One node of a model, and the operations that its translation emits for it."""

    def __init__(self, inferred: Inferred, node: Node) -> None:
        self.inferred, self.node = inferred, node
        self.ops: list[Op] = []

    @property
    def kind(self) -> str:
        return self.node.kind

    def attr(self, name: str, default: Any = None) -> Any:
        return self.node.attributes.get(name, default)

    def name(self, place: int) -> str:
        """The name of the input at a place; '' where it is left out."""
        return self.node.inputs[place] if place < len(self.node.inputs) else ""

    def input(self, place: int = 0) -> Ref | None:
        """The input at a place; None where it is left out."""
        return Ref(self.name(place)) if self.name(place) else None

    def operand(self, place: int) -> Ref | float:
        """The input at a place; a number where it is one."""
        array = self.array(place)
        if array is not None and array.size == 1 and array.ndim <= len(self.out_shape):
            return float(array.flat[0])
        return Ref(self.name(place))

    def shape(self, place: int = 0) -> Shape:
        return self.inferred.shapes[self.name(place)]

    def shape_of(self, value: Ref) -> Shape:
        return self.inferred.shapes[value.name]

    @property
    def out_shape(self) -> Shape:
        return self.inferred.shapes[self.node.outputs[0]]

    def array(self, place: int) -> Array | None:
        """The array of an input that does not depend on the net's inputs; else None."""
        read = self.inferred.arrays.get(self.name(place))
        return None if read is None else read()

    def fixed(self, place: int, what: str) -> Array:
        """That array; raises Unsupported where there is none."""
        array = self.array(place)
        if array is None:
            raise Unsupported(f"its {what} is computed from the net's input; Caffe's is fixed")
        return array

    def ints(self, place: int, what: str) -> list[int]:
        return [int(number) for number in self.fixed(place, what).reshape(-1)]

    def number(self, place: int, default: float) -> float:
        array = self.array(place) if self.name(place) else None
        return default if array is None or not array.size else float(array.reshape(-1)[0])

    def axes(self, place: int = 1) -> list[int]:
        """The axes in an input, counted from the first; all where it is left out."""
        count = len(self.shape())
        given = self.ints(place, "axes") if self.name(place) else []
        return sorted({axis % count for axis in given}) or list(range(count))

    # -- what it becomes --------------------------------------------------------------------------------------------

    def constant(self, array: Array) -> Ref:
        """A new array as a value."""
        name = f"{self.node.outputs[0]}@array{len(self.inferred.arrays)}"
        self.inferred.arrays[name] = lambda: array
        self.inferred.shapes[name] = array.shape
        return Ref(name)

    def step(self, target: str, shape: Sequence[int], /, **args: Any) -> Ref:
        """Emit an operation whose result, of this shape, is read within the node alone."""
        name = f"{self.node.outputs[0]}@{len(self.ops)}"
        self.inferred.shapes[name] = tuple(shape)
        self._emit(target, name, (name,), args)
        return Ref(name)

    def emit(self, target: str, /, **args: Any) -> None:
        """Emit the operation that makes the node's outputs."""
        self._emit(
            target,
            self.node.name,
            tuple(name or f"{self.node.name}@{i}" for i, name in enumerate(self.node.outputs)),
            args,
        )

    def _emit(self, target: str, name: str, outputs: tuple[str, ...], args: dict[str, Any]) -> None:
        given = {key: value for key, value in args.items() if value is not None}
        full = target if "." in target else f"aten.{target}"
        self.ops.append(Op(name, full, given, outputs, self.node.module, self.kind, self.node.name))

    def reshape(self, value: Ref, shape: Sequence[int]) -> Ref:
        """``value`` in another shape; itself where it has that one."""
        shape = tuple(shape)
        if self.shape_of(value) == shape:
            return value
        return self.step("reshape", shape, self=value, shape=list(shape))

    def emit_reshaped(self, value: Ref) -> None:
        """Emit ``value``, in the shape that the node's output has."""
        if self.shape_of(value) == self.out_shape:
            self.emit("alias", self=value)
        else:
            self.emit("reshape", self=value, shape=list(self.out_shape))


def spatial(shape: Shape) -> Shape:
    """The sizes of a picture's axes, without batch and channels."""
    return shape[2:]


def padding(
    n: Reader, sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> list[tuple[int, int]]:
    """The padding before and after each axis, as ``pads`` or ``auto_pad`` say."""
    count, auto = len(kernel), n.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = n.attr("pads", [0] * 2 * count)
        return list(zip(pads[:count], pads[count:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * count
    found = []
    for size, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        total = max((math.ceil(size / s) - 1) * s + (k - 1) * d + 1 - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def as_float(array: Array) -> Array:
    return np.asarray(array, np.float32)
