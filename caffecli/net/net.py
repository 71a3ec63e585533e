"""A net: the layers of a prototxt, wired, as one ``nn.Module``.

The net is the graph; ``caffecli.net.runners`` are the ways to run it, of which ``forward`` takes the plainest,
``Whole``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from caffecli import host
from caffecli import layers as _all_layers  # noqa: F401  registers every layer type
from caffecli.errors import CaffeError, SpecError, in_a_line
from caffecli.layers import outside, registry
from caffecli.layers.base import Context, Layer, Shape, as_tuple
from caffecli.layers.data import Input, SourceLayer
from caffecli.net import build_log, crops
from caffecli.net import params as net_params
from caffecli.net.graph import Node, Wiring, check_names, force_backward, last_read, mark_backward
from caffecli.net.precision import FULL, PrecisionPolicy
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TRAIN, LayerParameter, NetParameter, Phase
from caffecli.spec import support
from caffecli.spec.filter import filter_net
from caffecli.spec.splits import insert_splits

host.compute_alone_after_fork()

#: a blob's values are counted in 32 bits, as in Caffe
MAX_COUNT = 2**31 - 1


class Net(nn.Module):
    """The net that ``param`` defines, for the phase, level and stages in its ``state``.

    Layers that the state leaves out are dropped and splits put in first. Each layer is set up and says the shapes of
    its tops; then the parameters get memory and their fillers' values. All layers have the one ``context``.

    Raises SpecError and ShapeError, naming the layer.
    """

    def __init__(self, param: NetParameter, context: Context | None = None) -> None:
        super().__init__()
        if not isinstance(param, NetParameter):
            raise SpecError(f"a Net takes a NetParameter, as load_net(path) gives it; not {param!r:.60}")
        self.context = replace(context) if context else Context()  # of its own: the net moves between devices
        filtered = filter_net(param, param.state)
        if not filtered.layer:
            raise SpecError(_no_layers(param))
        support.check(filtered, registry.types(), param)
        build_log.parameters(filtered)
        self.param = insert_splits(filtered, param)
        known = {layer.name for layer in filtered.layer}
        #: tops of the splits put in -> the blob that they are
        self._split = {
            top: layer.bottom[0] for layer in self.param.layer if layer.name not in known for top in layer.top
        }
        self.name = param.name
        self.phase = self.param.state.phase
        self.train(self.phase == TRAIN)
        self.shapes: list[torch.Size] = []
        self._values = 0  # of all tops so far
        self.nodes: list[Node] = []
        self._wiring = Wiring()
        #: the learnable parameters, a shared one where its owner stands
        self.params: list[net_params.Param] = []
        self._named_params: dict[str, net_params.Param] = {}
        self._cropped: list[Layer] = []
        for layer_param in self.param.layer:
            self.nodes.append(self._append(layer_param))
        crops.log_found(self._cropped)
        check_names(self.nodes)
        mark_backward(self.nodes)
        build_log.backward(self.nodes)
        if self.param.force_backward:
            force_backward(self.nodes)
        self.slot_names = self._wiring.slot_names
        self.layers = nn.ModuleDict(_module_names(self.nodes))
        self._check_memory()
        self._materialize()
        self.inputs = [name for n in self.nodes if isinstance(n.layer, Input) for name in n.tops]
        #: names of the blobs that no layer consumes, sorted as Caffe does
        self.outputs = sorted(self._wiring.unused)
        self.output_slots = [self._wiring.current[name] for name in self.outputs]
        #: the slots that count in the loss, with their weights
        self.losses = [(slot, w) for n in self.nodes for slot, w in zip(n.outputs, n.loss_weights, strict=True) if w]
        weights = dict(self.losses)
        self.output_weights = [weights.get(slot, 0.0) for slot in self.output_slots]
        self.sources = tuple(self.source_layers.values())
        reported = {*self.output_slots, *weights}
        for node in self.nodes:
            node.reported = not reported.isdisjoint(node.outputs)
        #: per layer, the slots that are not needed after it
        self.last_read = last_read(self.nodes, keep=reported)
        build_log.finished(self.outputs)

    # -- running ---------------------------------------------------------------------------------------------------

    def forward(self, inputs: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
        """The output blobs by name. ``inputs`` feeds ``Input`` layers, by blob name."""
        return Whole(self).forward(inputs).outputs

    def run_layer(
        self, node: Node, bottoms: Sequence[Tensor], fed: Mapping[str, Tensor], precision: PrecisionPolicy = FULL
    ) -> tuple[Tensor, ...]:
        """The tops of one layer; errors inside it are named after it."""
        if not bottoms:
            return self._run_source(node, fed)
        try:
            return as_tuple(precision.run(node, node.cut(bottoms)))
        except CaffeError:
            raise
        except (Exception, SystemExit) as error:
            raise self.refusal(node, bottoms, error) from error

    def refusal(self, node: Node, bottoms: Sequence[Tensor], error: BaseException) -> CaffeError:
        """The error that says which layer torch could not run, and on what, or which layer of a user's own failed.

        Raises ``error`` itself where it is neither.
        """
        return _refusal(node.layer, [bottom.shape for bottom in bottoms], "forward", error)

    def _run_source(self, node: Node, fed: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The tops of a layer without bottoms: what it was ``fed``, or makes."""
        if isinstance(node.layer, Input) and all(name in fed for name in node.tops):
            tops = tuple(fed[name] for name in node.tops)
        else:
            try:
                tops = as_tuple(node.layer())
            except CaffeError:
                raise
            except (Exception, SystemExit) as error:
                if isinstance(error, RuntimeError) and not outside.is_outside(type(node.layer)):
                    raise node.layer.shape_error(f"cannot make its tops: {_first_line(error)}") from error
                raise self.refusal(node, (), error) from error
            if fed:
                tops = tuple(fed.get(n, t) for n, t in zip(node.tops, tops, strict=True))
        if self.param.force_backward and torch.is_grad_enabled():
            tops = tuple(t if t.requires_grad else t.detach().requires_grad_() for t in tops)
        return tops

    def check_inputs(self, inputs: Mapping[str, Tensor]) -> None:
        unknown = [name for name in inputs if name not in self._wiring.current]
        if unknown:
            raise SpecError(
                f"net {self.name!r} has no input blob {unknown[0]!r}; its inputs: {', '.join(self.inputs) or 'none'}"
            )

    # -- looking things up -----------------------------------------------------------------------------------------

    def layer(self, name: str) -> Layer:
        """The layer called ``name``; raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node.layer
        raise KeyError(name)

    def shape(self, blob: str) -> torch.Size:
        """The shape of a blob, as the definition gives it."""
        return self.shapes[self._wiring.current[blob]]

    @property
    def source_layers(self) -> dict[str, SourceLayer]:
        """The layers that read records, by name."""
        return {n.name: n.layer for n in self.nodes if isinstance(n.layer, SourceLayer)}

    def place(self, device: torch.device | str) -> Net:
        """Move the net to ``device``, four-dimensional weights laid out channels-last,
        where convolutions run fastest.
        """
        self.to(device)
        for blob in self.parameters():
            if blob.dim() == 4:
                blob.data = blob.data.to(memory_format=torch.channels_last)
        self.context.device = torch.device(device)
        return self

    def close(self) -> None:
        """Let the layers give back what they hold: threads that read ahead, databases, files they write."""
        for node in self.nodes:
            node.layer.close()

    # -- building --------------------------------------------------------------------------------------------------

    def _append(self, layer_param: LayerParameter) -> Node:
        layer = registry.create(layer_param, self.phase, self.context)
        layer.bottom_names = [self._split.get(name, name) for name in layer_param.bottom]
        build_log.creating(layer)
        with outside.guarded(type(layer), layer.name, "open"):
            layer.open()
        build_log.created(layer)
        node = self._wiring.connect(layer, layer_param)
        build_log.wiring(node)
        shapes: list[Shape] = [self.shapes[i] for i in node.inputs]
        if crops.find_offset(node, self.nodes, self.shapes):
            self._cropped.append(layer)
        layer.placed_in(self.param)
        with outside.guarded(type(layer), layer.name, "setup"):
            layer.setup(shapes)
        outside.check_blobs(layer)
        if layer.makes_inner_layer:
            build_log.creating(layer)
        tops = top_shapes(layer, shapes)
        if len(tops) != len(node.tops):
            raise layer.spec_error(f"makes {len(tops)} top(s), the net names {len(node.tops)}")
        for name, shape in zip(node.tops, tops, strict=True):
            if math.prod(shape) > MAX_COUNT:
                raise layer.shape_error(
                    f"top {name!r} of shape {tuple(shape)} has {math.prod(shape):,} values, over 2^31 - 1"
                )
        self.shapes += tops
        self._values += sum(map(math.prod, tops))
        specs = layer_param.param
        if any(i >= len(specs) or specs[i].lr_mult != 0 for i in range(len(layer.blob_names))):
            self._wiring.learns(node)
        build_log.set_up(node, tops, 4 * self._values)
        net_params.add(self.params, self._named_params, layer, self.param.force_backward)
        return node

    def _check_memory(self) -> None:
        for node in self.nodes:
            for name, blob in zip(node.layer.blob_names, node.layer.blobs, strict=True):
                if blob.numel() > MAX_COUNT:
                    text = f"{name} of shape {tuple(blob.shape)} has {blob.numel():,} values, over 2^31 - 1"
                    raise node.layer.shape_error(text)

    def _materialize(self) -> None:
        for node in self.nodes:
            try:
                node.layer.materialize()
            except RuntimeError as error:
                shapes = ", ".join(str(tuple(blob.shape)) for blob in node.layer.blobs)
                raise node.layer.shape_error(f"cannot make blobs of shape {shapes}: {_first_line(error)}") from error
        net_params.tie(self.params)


def top_shapes(layer: Layer, bottoms: list[Shape]) -> list[torch.Size]:
    """``layer.reshape``, with what torch refuses as ShapeErrors that name the layer, and a user's own layer checked."""
    try:
        return outside.reshaped(layer, bottoms) if outside.is_outside(type(layer)) else layer.reshape(bottoms)
    except CaffeError:
        raise
    except (Exception, SystemExit) as error:
        raise _refusal(layer, bottoms, "reshape", error) from error


def _refusal(layer: Layer, bottoms: list[Shape], what: str, error: BaseException) -> CaffeError:
    """The error for what the layer's method ``what`` raised; raises ``error`` itself where it is a fault of ours."""
    first = _first_line(error)
    if outside.is_outside(type(layer)) and first != _NO_MEMORY:
        remark = f"; on {layer.listing(bottoms)}" if isinstance(error, RuntimeError) and bottoms else ""
        if what == "reshape" and type(layer).reshape is Layer.reshape:
            what = "forward, run without values to find the tops' shapes,"
            remark += "; write a reshape, or say keeps_shape = True" if "meta" in first else ""
        return outside.failed(type(layer), layer.name, what, error, remark)
    if not isinstance(error, RuntimeError):
        raise error
    if first != _NO_MEMORY and any(0 in shape for shape in bottoms):
        first = "it needs values, and a dimension is 0"
    return layer.shape_error(f"cannot run on {layer.listing(bottoms)}: {first}")


_NO_MEMORY = "out of memory; lower batch_size, or the size of the layer"


def _first_line(error: BaseException) -> str:
    """What torch says, in a line; of memory that is short, no more than that."""
    first = in_a_line(error)
    if isinstance(error, torch.OutOfMemoryError) or "not enough memory" in first or "allocate memory" in first:
        return _NO_MEMORY
    return first


def _no_layers(param: NetParameter) -> str:
    if not param.layer:
        return f"net {param.name!r} has no layers"
    state = (
        f"phase {Phase.Name(param.state.phase)}, level {param.state.level}, stages "
        f"{list(filter(None, param.state.stage))}"
    )
    return f"net {param.name!r}: no layer is left for {state}; check --level, --stage and the layers' include rules"


_NOT_IN_MODULES = frozenset(".\"'\\")


def _module_names(nodes: list[Node]) -> dict[str, nn.Module]:
    """The layers under their names as module names: torch allows no dots, no empty name, no words of its own,
    no name twice; and its programs no line breaks, quotes or backslashes.
    """
    modules: dict[str, nn.Module] = {}
    words = nn.ModuleDict()
    for index, node in enumerate(nodes):
        name = "".join(c if c.isprintable() and c not in _NOT_IN_MODULES else "_" for c in node.name)
        name = name or f"layer{index}"
        while name in modules or hasattr(words, name):
            name += "_"
        modules[name] = node.layer
    return modules
