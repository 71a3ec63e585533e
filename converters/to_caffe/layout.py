"""Takes permutations out of a program: what lies between two that undo each other is computed in the other layout.

Models keep pictures with the channels last for a while (ConvNeXt's blocks, all of TensorFlow's), for which Caffe has no
layers. A permuted value stays unpermuted as long as what reads it can be said of the other layout as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from converters.to_caffe.program import Array, Op, Program, Ref
from converters.to_caffe.shapes import order_of_axes

_PERMUTES = ("permute", "transpose", "movedim")
#: operations of one value, each place by itself
_UNARY = frozenset(
    {
        *("abs", "alias", "clamp", "elu", "erf", "exp", "gelu", "gt", "hardsigmoid", "hardswish", "hardtanh"),
        *("leaky_relu", "log", "mish", "neg", "pow", "reciprocal", "relu", "relu6", "rsqrt", "selu", "sigmoid"),
        *("silu", "softplus", "softsign", "sqrt", "tanh", "to"),
    }
)
_BINARY = frozenset(["add", "sub", "mul", "div", "maximum", "minimum"])
_REDUCTIONS = frozenset(["mean", "sum", "amax", "amin"])


@dataclass(frozen=True)
class _Permuted:
    """A value that is ``source`` with its axes in this order, and the operation that says so."""

    source: str
    order: tuple[int, ...]
    op: Op


def sink_permutes(program: Program) -> Program:
    """The program with permutations moved towards its end, where they cancel; as it is where none does."""
    made = _Sinking(program).program()
    return made if _count(made) < _count(program) else program


def _count(program: Program) -> int:
    return sum(op.short in _PERMUTES for op in program.ops)


class _Unmovable(Exception):
    """An operation that reads permuted values as they are."""


class _Sinking:
    def __init__(self, program: Program) -> None:
        self.old = program
        self.shapes, self.arrays = dict(program.shapes), dict(program.arrays)
        self.free_axes = dict(program.free_axes)
        self.permuted: dict[str, _Permuted] = {}
        self.same: dict[str, str] = {}  # a value -> the one that it is equal to
        self.ops: list[Op] = []

    def program(self) -> Program:
        for op in self.old.ops:
            args = {key: self._renamed(value) for key, value in op.args.items()}
            op = replace(op, args=args)
            if not (self._permute(op) or self._moved(op)):
                for name in op.refs():
                    self._place(name)
                self.ops.append(op)
        outputs = [self.same.get(name, name) for name in self.old.outputs]
        for name in outputs:
            self._place(name)
        return replace(
            self.old,
            ops=self.ops,
            outputs=outputs,
            shapes=self.shapes,
            arrays=self.arrays,
            free_axes=self.free_axes,
        )

    def _renamed(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._renamed(item) for item in value]
        return Ref(self.same.get(value.name, value.name)) if isinstance(value, Ref) else value

    def _place(self, name: str) -> None:
        """Emit the permutation that makes a value."""
        found = self.permuted.pop(name, None)
        if found is not None:
            args = {"self": Ref(found.source), "dims": list(found.order)}
            self.ops.append(replace(found.op, name=name, target="aten.permute", args=args, outputs=(name,)))

    def _permute(self, op: Op) -> bool:
        """Whether the operation is a permutation, of which note is taken."""
        value = op.args.get("self")
        if op.short not in _PERMUTES or not isinstance(value, Ref) or self.old.constant(value.name) is not None:
            return False
        order = order_of_axes(op, len(self.shapes[value.name]))
        source, before = value.name, self.permuted.get(value.name)
        if before is not None:
            source, order = before.source, [before.order[axis] for axis in order]
        (output,) = op.outputs
        if order == sorted(order):
            self.same[output] = source
        else:
            self.permuted[output] = _Permuted(source, tuple(order), op)
        return True

    def _moved(self, op: Op) -> bool:
        """Whether the operation is emitted for the values before they are permuted."""
        orders = {self.permuted[name].order for name in op.refs() if name in self.permuted}
        if len(orders) != 1 or len(op.outputs) != 1 or len(self.shapes[op.outputs[0]]) > len(min(orders)):
            return False
        (order,) = orders
        try:
            self._emit(op, order)
        except _Unmovable:
            return False
        return True

    def _emit(self, op: Op, order: tuple[int, ...]) -> None:
        kind, args = op.short, dict(op.args)
        if kind in _UNARY and len(list(op.refs())) == 1 and "self" in args:
            self._add(op, order, args | {"self": self._source(args["self"], order)})
        elif kind in _BINARY:
            both = {key: self._source(args[key], order) for key in ("self", "other")}
            self._add(op, order, args | both)
        elif kind == "cat":
            parts = [self._source(value, order) for value in args["tensors"]]
            self._add(op, order, {"tensors": parts, "dim": order[args.get("dim", 0) % len(order)]})
        elif kind in ("softmax", "_softmax", "log_softmax", "_log_softmax"):
            dim = order[args["dim"] % len(order)]
            self._add(op, order, args | {"self": self._source(args["self"], order), "dim": dim})
        elif kind in _REDUCTIONS and "dim" in args:
            self._reduce(op, order)
        elif kind == "layer_norm" and len(args["normalized_shape"]) == 1 and order[-1] == 1:
            value = self._source(args.pop("input"), order)
            self._add(op, order, {"self": value, **args}, "caffe.channel_norm")
        elif kind == "linear" and order[-1] == 1 and len(order) > 2:
            self._linear(op, order)
        else:
            raise _Unmovable

    def _source(self, value: Any, order: tuple[int, ...]) -> Any:
        """What a value is before it is permuted; a fixed array is permuted back."""
        if not isinstance(value, Ref):
            return value
        if value.name in self.permuted:
            return Ref(self.permuted[value.name].source)
        array = self.old.constant(value.name)
        if array is None:
            raise _Unmovable
        if array.size == 1:
            return value
        full = array.reshape((1,) * (len(order) - array.ndim) + array.shape)
        return self._constant(value.name, order, full.transpose(np.argsort(order)))

    def _constant(self, name: str, order: Sequence[int], array: Array) -> Ref:
        key = f"{name}@{''.join(map(str, order))}x{len(self.arrays)}"
        self.arrays[key] = lambda: array
        self.shapes[key] = array.shape
        self.free_axes[key] = frozenset()
        return Ref(key)

    def _add(self, op: Op, order: tuple[int, ...], args: dict[str, Any], target: str | None = None) -> None:
        """Emit an operation in the layout before the permutation; its output is permuted."""
        (output,) = op.outputs
        name = f"{output}@unpermuted"
        shape = self.shapes[output]
        self.shapes[name] = tuple(shape[order.index(axis)] for axis in range(len(order)))
        self.free_axes[name] = frozenset(order[axis] for axis in self.free_axes.get(output, ()))
        self.ops.append(replace(op, target=target or op.target, args=args, outputs=(name,)))
        self.permuted[output] = _Permuted(name, order, op)

    def _reduce(self, op: Op, order: tuple[int, ...]) -> None:
        dims = op.args["dim"]
        axes = [order[d % len(order)] for d in ([dims] if isinstance(dims, int) else dims)]
        args = op.args | {"self": self._source(op.args["self"], order), "dim": sorted(axes)}
        if op.args.get("keepdim"):
            self._add(op, order, args)
            return
        kept = [axis for axis in order if axis not in axes]
        if kept != sorted(kept):
            raise _Unmovable
        self.ops.append(replace(op, args=args))

    def _linear(self, op: Op, order: tuple[int, ...]) -> None:
        """A matrix over the channels: a convolution of one place."""
        weight = self.old.constant(op.args["weight"].name)
        if weight is None or weight.ndim != 2:
            raise _Unmovable
        axes = len(order) - 2
        kernel = self._constant(op.args["weight"].name, order, weight.reshape(*weight.shape, *[1] * axes))
        args = {"input": self._source(op.args["input"], order), "weight": kernel, "bias": op.args.get("bias")}
        given = {"stride": [1] * axes, "padding": [0] * axes, "dilation": [1] * axes, "transposed": False, "groups": 1}
        args = {key: value for key, value in args.items() if value is not None}
        self._add(op, order, {**args, **given}, "aten.convolution")
