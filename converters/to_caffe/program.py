"""A model's graph as plain data: operations by ATen's names, shapes, and arrays that are read on demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """A reference to a value of the program, by its name."""

    name: str


@dataclass(frozen=True)
class Op:
    """One operation, ``aten.conv2d`` say; ``args`` are by ATen's names, without those at their defaults.

    ``module`` is the path of the innermost nn.Module that called it (``features.0``), empty for the outermost.
    ``kind`` and ``place`` are what the file calls the operation and where it stands, where that differs. ``refusal`` is
    why Caffe has no counterpart, where the reader knows: '' where another operation before it has none.
    """

    name: str
    target: str
    args: dict[str, Any]
    outputs: tuple[str, ...]
    module: str = ""
    kind: str = ""
    place: str = ""
    refusal: str | None = None

    @property
    def short(self) -> str:
        """``conv2d`` for ``aten.conv2d``; operations of other namespaces keep theirs."""
        return self.target.removeprefix("aten.")

    def refs(self) -> Iterator[str]:
        """The names of the values that it reads."""
        for value in self.args.values():
            yield from (item.name for item in (value if isinstance(value, list) else [value]) if isinstance(item, Ref))


@dataclass
class Program:
    """A graph of operations in the order they run.

    ``shapes`` are those of the traced example, with the batch size that was asked for; ``free_axes`` has the axes of a
    value whose size is not fixed. ``integral`` are the values of integers or booleans. ``numbers`` are the values that
    are single numbers. ``arrays`` reads the parameters, buffers and constants; ``paths`` has their names in the module.
    ``output_names`` are the outputs' blobs, where the file has names for them.
    """

    inputs: list[str]
    outputs: list[str]
    ops: list[Op]
    shapes: dict[str, Shape]
    free_axes: dict[str, frozenset[int]] = field(default_factory=dict)
    integral: frozenset[str] = frozenset()
    numbers: dict[str, float] = field(default_factory=dict)
    arrays: dict[str, Callable[[], Array]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    output_names: list[str] | None = None

    def __post_init__(self) -> None:
        self.producers = {output: op for op in self.ops for output in op.outputs}
        self.readers: dict[str, list[Op]] = {}
        for op in self.ops:
            for name in op.refs():
                self.readers.setdefault(name, []).append(op)
        self._folded: dict[str, Array | None] = {}

    def constant(self, name: str) -> Array | None:
        """The array of a value that is the same for every input; None where it depends on the input."""
        if name not in self._folded:
            self._folded[name] = None if name in self.inputs else self._fold(name)
        return self._folded[name]

    def _fold(self, name: str) -> Array | None:
        from converters.to_caffe import constant_folding

        if name in self.arrays:
            return self.arrays[name]()
        op = self.producers.get(name)
        if op is None or op.short not in constant_folding.FUNCTIONS or len(op.outputs) != 1:
            return None
        args: dict[str, Any] = {}
        for key, value in op.args.items():
            items = [self._value(item) for item in value] if isinstance(value, list) else [self._value(value)]
            if any(item is None and isinstance(old, Ref) for item, old in zip(items, _listed(value), strict=True)):
                return None
            args[key] = items if isinstance(value, list) else items[0]
        return constant_folding.fold(op.short, args)

    def _value(self, value: Any) -> Any:
        if not isinstance(value, Ref):
            return value
        return self.numbers[value.name] if value.name in self.numbers else self.constant(value.name)

    def number(self, value: Any) -> Any:
        """``value``; the number itself where it is a reference to one."""
        return self.numbers.get(value.name, value) if isinstance(value, Ref) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_float32(array: Array) -> Array:
    """An array as a blob holds it; other types of numbers are rounded to the nearest float32."""
    return np.ascontiguousarray(array, np.float32) if array.ndim else np.asarray(array, np.float32)
