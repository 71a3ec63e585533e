"""What the rules, each from one of ATen's operations to layers, are written with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from converters.from_torch.program import Array, Op, Program, Ref, Shape, as_float32

Audience = Literal["both", "caffe", "forks"]
Rule = Callable[["Builder"], "str | list[str]"]

#: rules by the operation's name without ``aten.``
RULES: dict[str, Rule] = {}


class Unsayable(Exception):
    """Why an operation has no counterpart among Caffe's layers."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function as the rule of these operations."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


@dataclass
class Made:
    """A layer to be: its bottoms and tops are values of the program, or the builder's own."""

    type: str
    bottoms: list[str]
    tops: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    blobs: list[Array] = field(default_factory=list)
    note: str = ""


class Builder:
    """An operation, what is known of its arguments, and the layers that a rule makes for it."""

    def __init__(self, program: Program, op: Op, audience: Audience, wanted: set[str]) -> None:
        self.program, self.op, self.audience = program, op, audience
        #: which of the outputs are read
        self.wanted = wanted
        self.made: list[Made] = []
        #: the values that are its outputs
        self.results: list[str] = []
        self._shapes: dict[str, Shape] = {}

    # what the operation says

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument; a reference only where it is a tensor."""
        value = self.op.args.get(name, default)
        return [self.program.number(item) for item in value] if isinstance(value, list) else self.program.number(value)

    def bottom(self, name: str) -> str:
        """The value that an argument is; raises Unsayable for one that is the same for every input."""
        value = self.arg(name)
        if not isinstance(value, Ref):
            raise Unsayable(f"its {name} is {value!r}, not a value of the net")
        if self.constant(value) is not None:
            raise Unsayable(f"its {name} does not depend on the net's input")
        return value.name

    def constant(self, value: Any) -> Array | None:
        """The array that an argument is, numbers included, or None for what depends on the net's input."""
        if isinstance(value, int | float):
            return np.asarray(value, np.float32)
        return self.program.constant(value.name) if isinstance(value, Ref) else None

    def weights(self, name: str) -> Array | None:
        """The argument as the array of a blob, None where it is left out; raises Unsayable for what is computed from inputs."""
        value = self.arg(name)
        if value is None:
            return None
        array = self.constant(value)
        if array is None:
            raise Unsayable(f"its {name} is computed from the net's input; Caffe's weights are fixed")
        return as_float32(array)

    def shape(self, value: str) -> Shape:
        return self._shapes[value] if value in self._shapes else self.program.shapes[value]

    @property
    def top(self) -> Shape:
        """The shape of the operation's first output."""
        return self.program.shapes[self.op.outputs[0]]

    def fixed(self, value: str, axis: int) -> bool:
        """Whether the size of this axis is the same for every input."""
        return axis not in self.program.free.get(value, ())

    def maker(self, value: str, *names: str) -> Op | None:
        """The operation that makes ``value`` for this one alone, if it is one of ``names``."""
        op = self.program.makers.get(value)
        alone = len(self.program.readers.get(value, ())) == 1 and value not in self.program.outputs
        return op if op is not None and op.short in names and alone else None

    def of(self, op: Op) -> Builder:
        """The same for another operation, to look at its arguments."""
        return Builder(self.program, op, self.audience, set(op.outputs))

    # what it becomes

    def layer(
        self, kind: str, *bottoms: str, shape: Sequence[int], blobs: Sequence[Array] = (), note: str = "", **settings: Any
    ) -> str:
        """Add a layer with one top of this shape; returns the top."""
        return self.layers(kind, *bottoms, shapes=[shape], blobs=blobs, note=note, **settings)[0]

    def layers(
        self,
        kind: str,
        *bottoms: str,
        shapes: Sequence[Sequence[int]],
        blobs: Sequence[Array] = (),
        note: str = "",
        **settings: Any,
    ) -> list[str]:
        """Add a layer with a top for each shape."""
        tops = []
        for shape in shapes:
            tops.append(f"{self.op.name}:{len(self._shapes)}")
            self._shapes[tops[-1]] = tuple(shape)
        kept = {name: value for name, value in settings.items() if value is not None}
        self.made.append(Made(kind, list(bottoms), tops, kept, [as_float32(blob) for blob in blobs], note))
        return tops

    def silence(self, values: Sequence[str]) -> None:
        """Keep values that nothing reads from being outputs of the net."""
        if values:
            self.layers("Silence", *values, shapes=[], note="silence")
