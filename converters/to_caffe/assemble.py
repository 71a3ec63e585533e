"""Assembles the net of a program: applies the rules, and names the layers and blobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caffecli.errors import SpecError
from caffecli.formats.caffemodel import Weights
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter
from converters.to_caffe import (
    activations,
    arithmetic,
    extrema,
    linear,
    normalization,
    places,
    pooling,
    recurrent,
    resampling,
    shapes,
)
from converters.to_caffe.builder import RULES, Audience, Builder, NewLayer, Unsupported
from converters.to_caffe.program import Op, Program

if TYPE_CHECKING:
    from caffecli.layers import Layer

#: the modules whose rules are registered in RULES
RULE_MODULES = (activations, arithmetic, extrema, linear, normalization, places, pooling, recurrent, resampling, shapes)


@dataclass(frozen=True)
class Imported:
    """A net, its weights, and the names of its input and output blobs in the order of the program's."""

    net: NetParameter
    weights: Weights
    inputs: list[str]
    outputs: list[str]


def assemble(program: Program, name: str, inputs: list[str], audience: Audience) -> Imported:
    """The net of a program, with input blobs called ``inputs``. Raises SpecError, which lists what is unsupported."""
    builders = _plan(program, audience)
    return _Assembly(program, builders).net(name, inputs)


def _plan(program: Program, audience: Audience) -> list[Builder]:
    """A builder with layers for each operation that the outputs depend on, in the order they run."""
    used = set(program.outputs)
    unsupported: dict[str, list[str]] = {}
    refused: set[str] = set()
    planned: list[Builder] = []
    for op in reversed(program.ops):
        if not used.intersection(op.outputs):
            continue
        builder = Builder(program, op, audience, used.intersection(op.outputs))
        try:
            _apply(builder)
            used.update(bottom for layer in builder.new_layers for bottom in layer.bottoms)
            used.update(builder.results)
        except Unsupported as reason:
            refused.add(op.name)
            if op.refusal != "":  # else what stands before it is told
                unsupported.setdefault(f"{op.kind or op.target} ({reason})", []).append(
                    repr(op.place or op.module or op.name)
                )
            used.update(ref for ref in op.refs() if program.constant(ref) is None)
        planned.append(builder)
    if unsupported:
        what = "; ".join(f"{reason} at {_first_few(places[::-1])}" for reason, places in reversed(unsupported.items()))
        raise SpecError(f"cannot be imported, as Caffe has no counterpart: {what}{_way_round(program, refused)}")
    return planned[::-1]


def _way_round(program: Program, refused: set[str]) -> str:
    """The values of a file that names them at which the net can end, before operations that have no counterpart."""
    if program.output_names is None:
        return ""
    behind: set[str] = set()
    ends: list[str] = []
    inside = {output for op in program.ops if op.short not in ("alias",) for output in op.outputs}
    for op in program.ops:
        if op.name in refused or behind.intersection(op.refs()):
            behind.update(op.outputs)
            ends += [name for name in op.refs() if name in inside and name not in behind]
    ends += [name for name in program.outputs if name not in behind and name in inside]
    named = list(dict.fromkeys(name for name in ends if "@" not in name and program.constant(name) is None))
    if not named or len(named) > _MOST_ENDS:
        return ""
    return f"; what is before them: --outputs {','.join(named)}"


#: a way round with more outputs is none
_MOST_ENDS = 8


def _apply(builder: Builder) -> None:
    """Run the rule of the builder's operation; raises Unsupported."""
    if builder.op.refusal is not None:
        raise Unsupported(builder.op.refusal)
    if any(builder.program.constant(name) is not None for name in builder.used_outputs):
        raise Unsupported("it does not depend on the net's input")
    function = RULES.get(builder.op.short)
    if function is None:
        raise Unsupported("no such layer")
    try:
        results = function(builder)
        results = [results] if isinstance(results, str) else list(results)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise Unsupported(f"of arguments that are not known here, {type(error).__name__}: {error}") from error
    if any(
        name == value and name in builder.used_outputs for name, value in zip(builder.op.outputs, results, strict=False)
    ):
        raise Unsupported("more than its first result is read")
    unread = sorted({layer.type for layer in builder.new_layers if not _layer_class(layer).read_by_opencv})
    if unread and builder.audience == "opencv":
        raise Unsupported(f"it takes {', '.join(unread)}, which OpenCV's importer does not read")
    builder.results = results


def _first_few(places: list[str]) -> str:
    return ", ".join(places[:4]) + (f" and {len(places) - 4} more" if len(places) > 4 else "")


class _Assembly:
    """The layers of all operations, and what they and their blobs are called."""

    def __init__(self, program: Program, builders: list[Builder]) -> None:
        self.program, self.builders = program, builders
        aliases: dict[str, str] = {}  # an operation's output -> the value that its rule returned for it
        for builder in builders:
            aliases |= {
                out: value for out, value in zip(builder.op.outputs, builder.results, strict=False) if out != value
            }
        self.layers = [(builder.op, layer) for builder in builders for layer in builder.new_layers]
        for _, layer in self.layers:
            layer.bottoms = [_resolved(value, aliases) for value in layer.bottoms]
        self.returned = [_resolved(value, aliases) for value in program.outputs]
        self.outputs = list(dict.fromkeys(self.returned))
        self.readers = Counter(bottom for _, layer in self.layers for bottom in layer.bottoms)
        self.producers = {top: layer for _, layer in self.layers for top in layer.tops}
        self.names = _layer_names(self.layers)

    def net(self, name: str, inputs: list[str]) -> Imported:
        net, weights = NetParameter(name=name), Weights()
        blobs = dict(zip(self.program.inputs, inputs, strict=True))
        taken = set(inputs)
        self.output_names = self._named_outputs(taken)
        for value, blob in blobs.items():
            layer = net.layer.add(name=blob, type="Input", top=[blob])
            layer.input_param.shape.add(dim=self.program.shapes[value])
        unread = [blob for value, blob in blobs.items() if not self.readers[value] and value not in self.outputs]
        if unread:
            net.layer.add(name="unread", type="Silence", bottom=unread)
        layer_names = _unique(self.names, {layer.name for layer in net.layer})
        for (_, new), layer_name in zip(self.layers, layer_names, strict=True):
            layer = net.layer.add(name=layer_name, type=new.type, bottom=[blobs[bottom] for bottom in new.bottoms])
            blobs |= self._top_blobs(new, layer_name, blobs, taken)
            layer.top.extend(blobs[top] for top in new.tops)
            _fill_in_settings(layer, new)
            if new.blobs:
                weights[layer_name] = new.blobs
        return Imported(net, weights, inputs, self._output_blobs(net, blobs))

    def _top_blobs(self, layer: NewLayer, name: str, blobs: dict[str, str], taken: set[str]) -> dict[str, str]:
        """The names of a layer's tops: the layer's own, or, in place, the bottom's.

        An output of the program is never in place: its blob needs a name of its own, by which OpenCV finds it.
        """
        in_place = (
            _layer_class(layer).usually_in_place and len(layer.bottoms) == 1 and layer.tops[0] not in self.outputs
        )
        if in_place and self._may_be_overwritten(layer.bottoms[0]):
            return {layer.tops[0]: blobs[layer.bottoms[0]]}
        names = [name] if len(layer.tops) == 1 else [f"{name}_{i}" for i in range(len(layer.tops))]
        given = {
            top: self.output_names[top] for top in layer.tops if top in self.output_names and not self._is_split(top)
        }
        return {
            top: given[top] if top in given else _unique([own], taken)[0]
            for top, own in zip(layer.tops, names, strict=True)
        }

    def _named_outputs(self, taken: set[str]) -> dict[str, str]:
        """What the file calls the outputs; adds these names to ``taken``. An output that is an input has its name."""
        named: dict[str, str] = {}
        for value, name in zip(self.returned, self.program.output_names or (), strict=False):
            if value not in named and name not in taken:
                named[value] = name
                taken.add(name)
        return named

    def _may_be_overwritten(self, value: str) -> bool:
        producer = self.producers.get(value)
        if producer is None or _layer_class(producer).shares_data:
            return False
        return self.readers[value] == 1 and value not in self.outputs

    def _output_blobs(self, net: NetParameter, blobs: dict[str, str]) -> list[str]:
        """The names of the output blobs, with a Split layer, whose top nothing reads, for those that need one."""
        names = {layer.name for layer in net.layer}
        outputs = {}
        for value in self.outputs:
            outputs[value] = blobs[value]
            if self._is_split(value):
                outputs[value] = self.output_names.get(value) or _unique([f"{blobs[value]}_out"], set(names))[0]
                (layer_name,) = _unique([outputs[value]], names)
                net.layer.add(name=layer_name, type="Split", bottom=[blobs[value]], top=[outputs[value]])
        return [outputs[value] for value in self.returned]

    def _is_split(self, output: str) -> bool:
        """Whether an output gets a Split layer:

        - one that a layer reads too, or that is an input: Caffe's outputs are the blobs that nothing reads;
        - the last one where a Silence follows it: OpenCV's default output is the top of the last layer.
        """
        before_silence = output == self.outputs[-1] and bool(self.layers) and self.layers[-1][1].type == "Silence"
        return bool(self.readers[output]) or output in self.program.inputs or before_silence


def _layer_class(layer: NewLayer) -> type[Layer]:
    from caffecli.layers import layer_class

    cls = layer_class(layer.type)
    if cls is None:
        raise ValueError(f"a rule made a layer of the unknown type {layer.type!r}")
    return cls


def _resolved(value: str, aliases: dict[str, str]) -> str:
    while value in aliases:
        value = aliases[value]
    return value


def _layer_names(layers: list[tuple[Op, NewLayer]]) -> list[str]:
    """The layers' names: the module's path, followed by the operation where the module has several."""
    modules = {op.module for op, _ in layers}
    parents = {module[:i] for module in modules for i, letter in enumerate(module) if letter == "."}
    kinds = Counter(module for module, _ in {(op.module, op.target) for op, _ in layers})
    bases: dict[str, str] = {}
    taken: set[str] = set()
    for op in {op.name: op for op, _ in layers}.values():
        single = op.module and op.module not in parents and kinds[op.module] == 1
        name = op.module if single else f"{op.module}.{op.short}" if op.module else op.short
        (bases[op.name],) = _unique([name.replace("@", "_")], taken)
    return [f"{bases[op.name]}/{layer.suffix}" if layer.suffix else bases[op.name] for op, layer in layers]


def _unique(names: Iterable[str], taken: set[str]) -> list[str]:
    """The names, with a number appended to those that are taken; adds them to ``taken``."""
    unique = []
    for name in names:
        free, count = name, 1
        while free in taken:
            count += 1
            free = f"{name}_{count}"
        taken.add(free)
        unique.append(free)
    return unique


def _fill_in_settings(layer: LayerParameter, new: NewLayer) -> None:
    """Write the settings of a new layer into its message."""
    for name, value in new.settings.items():
        if isinstance(value, list):
            for item in value:
                getattr(layer, name).add(**item)
        elif value:
            message = getattr(layer, name)
            message.MergeFrom(type(message)(**value))
