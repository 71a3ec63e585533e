"""From a program to a net: which operations are needed, what layers they become, and what those and their blobs are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from caffecli.errors import SpecError
from caffecli.formats.caffemodel import Weights
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from converters.from_torch import activations, arithmetic, largest, normalized, permuted, pooled, recurrent, shaped, weighted
from converters.from_torch.builder import RULES, Audience, Builder, Made, Unsayable
from converters.from_torch.program import Op, Program

#: whose rules are entered in RULES
FAMILIES = (activations, arithmetic, largest, normalized, permuted, pooled, recurrent, shaped, weighted)

#: layers that write over their bottom where nothing else reads it, and what makes bottoms that share another blob's memory
_IN_PLACE = ("BatchNorm", "PReLU", "ReLU", "Scale")
_SHARING = ("Flatten", "Input", "Reshape", "Split")


@dataclass(frozen=True)
class Imported:
    """A net and its weights, with the blobs that are the program's inputs and outputs, in the program's order."""

    net: NetParameter
    weights: Weights
    inputs: list[str]
    outputs: list[str]


def assemble(program: Program, name: str, inputs: list[str], audience: Audience) -> Imported:
    """The net of a program, its inputs called ``inputs``. Raises SpecError that names every operation without counterpart."""
    builders = _plan(program, audience)
    return _Assembly(program, builders).net(name, inputs)


def _plan(program: Program, audience: Audience) -> list[Builder]:
    """The operations that are needed, each with its layers, in the order they run."""
    wanted = set(program.outputs)
    wrong: dict[str, list[str]] = {}
    planned: list[Builder] = []
    for op in reversed(program.ops):
        if not wanted.intersection(op.outputs):
            continue
        builder = Builder(program, op, audience, wanted.intersection(op.outputs))
        try:
            _apply(builder)
            wanted.update(bottom for made in builder.made for bottom in made.bottoms)
            wanted.update(builder.results)
        except Unsayable as reason:
            wrong.setdefault(f"{op.target} ({reason})", []).append(repr(op.module or op.name))
            wanted.update(ref for ref in op.refs() if program.constant(ref) is None)
        planned.append(builder)
    if wrong:
        what = "; ".join(f"{reason} at {_some(places[::-1])}" for reason, places in reversed(wrong.items()))
        raise SpecError(f"cannot be imported, as Caffe has no counterpart: {what}")
    return planned[::-1]


def _apply(builder: Builder) -> None:
    if any(builder.program.constant(name) is not None for name in builder.wanted):
        raise Unsayable("it does not depend on the net's input")
    function = RULES.get(builder.op.short)
    if function is None:
        raise Unsayable("no such layer")
    try:
        results = function(builder)
        results = [results] if isinstance(results, str) else list(results)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Unsayable(f"of arguments that are not known here, {type(error).__name__}: {error}") from error
    if any(name == value and name in builder.wanted for name, value in zip(builder.op.outputs, results, strict=False)):
        raise Unsayable("more than its first result is read")
    builder.results = results


def _some(places: list[str]) -> str:
    return ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")


class _Assembly:
    def __init__(self, program: Program, builders: list[Builder]) -> None:
        self.program, self.builders = program, builders
        same: dict[str, str] = {}
        for builder in builders:
            same |= {out: value for out, value in zip(builder.op.outputs, builder.results, strict=False) if out != value}
        self.layers = [(builder.op, made) for builder in builders for made in builder.made]
        for _, made in self.layers:
            made.bottoms = [_end(value, same) for value in made.bottoms]
        self.returned = [_end(value, same) for value in program.outputs]
        self.outputs = list(dict.fromkeys(self.returned))
        self.readers = Counter(bottom for _, made in self.layers for bottom in made.bottoms)
        self.makers = {top: made for _, made in self.layers for top in made.tops}
        self.names = _layer_names(self.layers)

    def net(self, name: str, inputs: list[str]) -> Imported:
        net, weights = NetParameter(name=name), Weights()
        blobs = dict(zip(self.program.inputs, inputs, strict=True))
        taken = set(inputs)
        for value, blob in blobs.items():
            layer = net.layer.add(name=blob, type="Input", top=[blob])
            layer.input_param.shape.add(dim=self.program.shapes[value])
        unread = [blob for value, blob in blobs.items() if not self.readers[value] and value not in self.outputs]
        if unread:
            net.layer.add(name="unread", type="Silence", bottom=unread)
        layer_names = _unique(self.names, {layer.name for layer in net.layer})
        for (_, made), layer_name in zip(self.layers, layer_names, strict=True):
            layer = net.layer.add(name=layer_name, type=made.type, bottom=[blobs[bottom] for bottom in made.bottoms])
            blobs |= self._tops(made, layer_name, blobs, taken)
            layer.top.extend(blobs[top] for top in made.tops)
            _set(layer, made)
            if made.blobs:
                weights[layer_name] = made.blobs
        return Imported(net, weights, inputs, self._hand_out(net, blobs))

    def _tops(self, made: Made, name: str, blobs: dict[str, str], taken: set[str]) -> dict[str, str]:
        """What the layer's tops are called: as the layer, or as the bottom that it writes over. Outputs have their own, by
        which OpenCV finds them."""
        in_place = made.type in _IN_PLACE and len(made.bottoms) == 1 and made.tops[0] not in self.outputs
        if in_place and self._may_be_overwritten(made.bottoms[0]):
            return {made.tops[0]: blobs[made.bottoms[0]]}
        wanted = [name] if len(made.tops) == 1 else [f"{name}_{i}" for i in range(len(made.tops))]
        return dict(zip(made.tops, _unique(wanted, taken), strict=True))

    def _may_be_overwritten(self, value: str) -> bool:
        maker = self.makers.get(value)
        return maker is not None and maker.type not in _SHARING and self.readers[value] == 1 and value not in self.outputs

    def _hand_out(self, net: NetParameter, blobs: dict[str, str]) -> list[str]:
        """The outputs' names. Those that layers read, which Caffe would not count as outputs, stand there once more; so does one
        that a Silence follows, as what is last is OpenCV's output."""
        names = {layer.name for layer in net.layer}
        found = {}
        for value in self.outputs:
            found[value] = blobs[value]
            last = value == self.outputs[-1] and net.layer[-1].type == "Silence"
            if self.readers[value] or value in self.program.inputs or last:
                (found[value],) = _unique([f"{blobs[value]}_out"], names)
                net.layer.add(name=found[value], type="Split", bottom=[blobs[value]], top=[found[value]])
        return [found[value] for value in self.returned]


def _end(value: str, same: dict[str, str]) -> str:
    while value in same:
        value = same[value]
    return value


def _layer_names(layers: list[tuple[Op, Made]]) -> list[str]:
    """The path of the module that a layer comes from, where it does one thing only; else that and what is done."""
    modules = {op.module for op, _ in layers}
    outer = {module[:i] for module in modules for i, letter in enumerate(module) if letter == "."}
    kinds = Counter(module for module, _ in {(op.module, op.target) for op, _ in layers})
    bases: dict[str, str] = {}
    taken: set[str] = set()
    for op in {op.name: op for op, _ in layers}.values():
        one = op.module and op.module not in outer and kinds[op.module] == 1
        name = op.module if one else f"{op.module}.{op.short}" if op.module else op.short
        (bases[op.name],) = _unique([name.replace("@", "_")], taken)
    return [f"{bases[op.name]}/{made.note}" if made.note else bases[op.name] for op, made in layers]


def _unique(names: Iterable[str], taken: set[str]) -> list[str]:
    """The names, with a number behind where there is one already; they are entered into ``taken``."""
    found = []
    for name in names:
        free, count = name, 1
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        found.append(free)
    return found


def _set(layer: LayerParameter, made: Made) -> None:
    """Fill in what a layer is set to."""
    for name, value in made.settings.items():
        if isinstance(value, list):
            for item in value:
                getattr(layer, name).add(**item)
        elif value:
            message = getattr(layer, name)
            message.MergeFrom(type(message)(**value))
