"""What conversion rules work with: an ATen operation, its arguments, and the Caffe layers that the rule adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from converters.to_caffe.program import Array, Op, Program, Ref, Shape, as_float32

#: who is to read the net: Caffe and OpenCV both, Caffe alone, Caffe's forks, or OpenCV alone
Audience = Literal["both", "caffe", "forks", "opencv"]
#: a rule adds layers to the builder and returns the values that are the operation's outputs
Rule = Callable[["Builder"], "str | list[str]"]

#: rules by the operation's name without ``aten.``
RULES: dict[str, Rule] = {}


class Unsupported(Exception):
    """An operation that Caffe has no layers for; the message is the reason."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function as the rule of these operations."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass
class NewLayer:
    """A layer that a rule adds. Its bottoms and tops are values of the program, or values that the builder named.

    ``suffix`` tells the layers of one operation apart: the layer's name is the operation's, a slash, and the suffix.
    """

    type: str
    bottoms: list[str]
    tops: list[str]
    settings: dict[str, Any] = field(default_factory=dict)
    blobs: list[Array] = field(default_factory=list)
    suffix: str = ""


class Builder:
    """One operation of a program, and the layers that its rule adds for it."""

    def __init__(self, program: Program, op: Op, audience: Audience, used_outputs: set[str]) -> None:
        self.program, self.op, self.audience = program, op, audience
        #: those of the operation's outputs that a later layer reads, or that the program returns
        self.used_outputs = used_outputs
        self.new_layers: list[NewLayer] = []
        #: what the rule returned: the values that hold the operation's outputs
        self.results: list[str] = []
        self._shapes: dict[str, Shape] = {}

    @property
    def read_by_opencv(self) -> bool:
        """Whether OpenCV's importer is to read the net."""
        return self.audience in ("both", "opencv")

    @property
    def has_permute(self) -> bool:
        """Whether all that are to read the net have Permute."""
        return self.audience in ("forks", "opencv")

    @property
    def has_forks_layers(self) -> bool:
        """Whether the net may have layers that only Caffe's forks have."""
        return self.audience == "forks"

    # -- the operation's arguments ----------------------------------------------------------------------------------

    def arg(self, name: str, default: Any = None) -> Any:
        """An argument's value; a reference to a number becomes that number, one to a tensor stays a Ref."""
        value = self.op.args.get(name, default)
        return [self.program.number(item) for item in value] if isinstance(value, list) else self.program.number(value)

    def bottom(self, name: str) -> str:
        """The tensor that an argument refers to; raises Unsupported for one that does not depend on the net's input."""
        value = self.arg(name)
        if not isinstance(value, Ref):
            raise Unsupported(f"its {name} is {value!r}, not a value of the net")
        if self.constant(value) is not None:
            raise Unsupported(f"its {name} does not depend on the net's input")
        return value.name

    def constant(self, value: Any) -> Array | None:
        """The array of a number or of a constant tensor; None for what depends on the net's input."""
        if isinstance(value, int | float):
            return np.asarray(value, np.float32)
        return self.program.constant(value.name) if isinstance(value, Ref) else None

    def weights(self, name: str) -> Array | None:
        """An argument as a blob's array, None where it is absent; raises Unsupported where it depends on the input."""
        value = self.arg(name)
        if value is None:
            return None
        array = self.constant(value)
        if array is None:
            raise Unsupported(f"its {name} is computed from the net's input; Caffe's weights are fixed")
        return as_float32(array)

    def shape(self, value: str) -> Shape:
        return self._shapes[value] if value in self._shapes else self.program.shapes[value]

    @property
    def top_shape(self) -> Shape:
        """The shape of the operation's first output."""
        return self.program.shapes[self.op.outputs[0]]

    def fixed(self, value: str, axis: int) -> bool:
        """Whether the size of this axis is the same for every input."""
        return axis not in self.program.free_axes.get(value, ())

    def producer(self, value: str, *names: str) -> Op | None:
        """The operation that computes ``value``, if it is one of ``names`` and nothing but this operation reads it."""
        op = self.program.producers.get(value)
        only_reader = len(self.program.readers.get(value, ())) == 1 and value not in self.program.outputs
        return op if op is not None and op.short in names and only_reader else None

    def for_op(self, op: Op) -> Builder:
        """A builder of another operation, to read its arguments."""
        return Builder(self.program, op, self.audience, set(op.outputs))

    # -- the layers -------------------------------------------------------------------------------------------------

    def layer(
        self,
        kind: str,
        *bottoms: str,
        shape: Sequence[int],
        blobs: Sequence[Array] = (),
        suffix: str = "",
        **settings: Any,
    ) -> str:
        """Add a layer with one top of this shape; returns the top."""
        return self.layers(kind, *bottoms, shapes=[shape], blobs=blobs, suffix=suffix, **settings)[0]

    def layers(
        self,
        kind: str,
        *bottoms: str,
        shapes: Sequence[Sequence[int]],
        blobs: Sequence[Array] = (),
        suffix: str = "",
        **settings: Any,
    ) -> list[str]:
        """Add a layer with a top of each of these shapes; returns the tops."""
        tops = []
        for shape in shapes:
            tops.append(f"{self.op.name}:{len(self._shapes)}")
            self._shapes[tops[-1]] = tuple(shape)
        given = {name: value for name, value in settings.items() if value is not None}
        self.new_layers.append(NewLayer(kind, list(bottoms), tops, given, [as_float32(blob) for blob in blobs], suffix))
        return tops

    def silence(self, values: Sequence[str]) -> None:
        """Add a Silence layer for values that nothing reads: Caffe would count them as outputs of the net."""
        if values:
            self.layers("Silence", *values, shapes=[], suffix="silence")
