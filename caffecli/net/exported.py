"""A net as a ``torch.export`` program: plain ATen operations and the weights, which run without caffecli.

The program takes the net's inputs in the order of ``Net.inputs`` and gives a tuple of its outputs in the order of
``Net.outputs``. Its ``state_dict`` has ``<layer>.<blob>``: ``conv1.weight``, ``conv1.bias``, ``bn1.mean``. It keeps
nothing from one run to the next: what an LSTM or RNN carries over is an input and an output of ``exposed`` nets.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.layers import layer_class
from caffecli.layers.base import Layer
from caffecli.layers.data import Input
from caffecli.layers.recurrent import Recurrent
from caffecli.net.graph import by_name
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import LayerParameter, NetParameter

#: the batch size while a net is traced: torch takes sizes of 0 and 1 for constants
TRACED = 2


class PlainNet(nn.Module):
    """A net whose inputs and outputs have places, not names, and whose layers are its own modules,
    under their names.
    """

    def __init__(self, net: Net) -> None:
        super().__init__()
        self.inputs = net.inputs
        self.run = net.forward  # the net itself is no module of this one: its layers are
        for name, layer in net.layers.items():
            self.add_module(name, layer)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.run(dict(zip(self.inputs, inputs, strict=True))).values())


def state(net: Net) -> dict[str, Tensor]:
    """The net's blobs by ``<layer>.<blob>``, layers in the net's order; a blob that layers share stands under each."""
    return {
        f"{name}.{blob_name}": blob.detach()
        for name, layer in net.layers.items()
        if isinstance(layer, Layer)
        for blob_name, blob in zip(layer.blob_names, layer.blobs, strict=True)
    }


def check(param: NetParameter) -> None:
    """Raise SpecError for a definition that no program can be, naming every layer in the way, and why."""
    kinds = [(layer, layer_class(layer.type)) for layer in param.layer]
    refused = [f"layer {x.name!r} ({x.type}) {kind.not_exported}" for x, kind in kinds if kind and kind.not_exported]
    if refused:
        raise SpecError(f"net {param.name!r} cannot be exported: {'; '.join(refused)}")
    if not any(layer.type == "Input" for layer in param.layer):
        raise SpecError(f"net {param.name!r} cannot be exported: it has no Input layer; export the deploy net")


def exposed(net: Net) -> Net:
    """The net with the states that its recurrent layers carry as inputs and outputs: those of ``expose_hidden``.

    Layer lstm1's are called ``lstm1_h_0`` and ``lstm1_c_0`` before the first step, ``lstm1_h_T`` and ``lstm1_c_T``
    after the last, each (1, streams, num_output). A net that carries none is returned as it is. The blobs stay those of
    ``net``.
    """
    param = NetParameter(name=net.param.name, state=net.param.state)
    for definition, node in zip(net.param.layer, net.nodes, strict=True):
        if isinstance(node.layer, Recurrent) and not node.layer.exposed:
            param.layer.extend(_with_states(definition, node.layer.states, streams=net.shapes[node.inputs[0]][1]))
        else:
            param.layer.append(definition)
    if len(param.layer) == len(net.param.layer):
        return net
    with logs.quiet():
        made = Net(param)
    of = by_name(made.nodes)
    for name, layer in by_name(net.nodes).items():
        for blob, stored in zip(of[name].blobs, layer.blobs, strict=True):
            blob.data = stored.data
    return made


def _with_states(definition: LayerParameter, states: Sequence[str], streams: int) -> list[LayerParameter]:
    """Inputs of a recurrent layer's states, and the layer over them."""
    layer = LayerParameter()
    layer.CopyFrom(definition)
    layer.recurrent_param.expose_hidden = True
    inputs = []
    for state in states:
        name = f"{layer.name}_{state}_0"
        made = LayerParameter(name=name, type="Input", top=[name])
        made.input_param.shape.add(dim=(1, streams, layer.recurrent_param.num_output))
        inputs.append(made)
    layer.bottom.extend(made.name for made in inputs)
    layer.top.extend(f"{layer.name}_{state}_T" for state in states)
    return [*inputs, layer]


def program(net: Net) -> ExportedProgram:
    """The net, in its phase, as a program of ATen's core operations. The batch is free where the layers let it.

    Raises SpecError, which names every layer that has no counterpart, and why.
    """
    check(net.param)
    plain = PlainNet(net).eval()
    with torch.no_grad(), quiet():
        try:
            return _trace(plain, [tuple(net.shape(name)) for name in net.inputs])
        except Exception as error:
            raise named(net, lambda layer_program: None, error) from error


def named(net: Net, convert: Callable[[ExportedProgram], object], error: Exception) -> SpecError:
    """The error that names the layers that keep ``net`` from being exported, found by exporting each layer alone."""
    wrong = []
    for node in net.nodes:
        if isinstance(node.layer, Input) or not node.tops:
            continue
        try:
            with torch.no_grad(), quiet():
                convert(_trace(node.layer, [tuple(net.shapes[i]) for i in node.inputs]))
        except Exception as layer_error:  # whatever torch or a converter raises is the reason
            wrong.append(f"layer {node.name!r} ({node.layer.type}): {_line(layer_error)}")
    return SpecError(f"net {net.name!r} cannot be exported: {'; '.join(wrong) or _line(error)}")


def free_batch(made: ExportedProgram) -> list[bool]:
    """For each input, whether its batch (for recurrent layers: the number of streams) may have any size."""
    values = [
        n.meta["val"] for n in made.graph.nodes if n.op == "placeholder" and n.name in made.graph_signature.user_inputs
    ]
    return [not all(isinstance(size, int) for size in value.shape) for value in values]


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the messages that torch's exporters print."""
    logger = logging.getLogger("torch")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def _trace(module: nn.Module, shapes: Sequence[tuple[int, ...]]) -> ExportedProgram:
    """The program of ``module`` for inputs of these shapes, with a free batch if that works out,
    else with the given one.

    The batch is the first input's first axis, or, around recurrent layers, whose first axis is time, its second. Inputs
    that have the same size there share it; others (im_info, say) keep theirs.
    """
    axis = 1 if any(isinstance(part, Recurrent) for part in module.modules()) else 0
    batch = shapes[0][axis] if shapes and len(shapes[0]) > axis else None
    axes = [_axis_of(batch, shape, axis) for shape in shapes]
    size = max(batch or 0, TRACED)
    examples = [
        shape if own is None else (*shape[:own], size, *shape[own + 1 :])
        for own, shape in zip(axes, shapes, strict=True)
    ]
    free = tuple(None if own is None else {own: Dim("batch", min=1)} for own in axes)
    try:
        made = torch.export.export(module, _zeros(examples), dynamic_shapes=(free,), strict=False)
    except (
        Exception
    ):  # a free batch does not work: a reshape to a fixed count, or a layer that reads the batch size as a number
        made = torch.export.export(module, _zeros(shapes), strict=False)
    if not hasattr(torch.export, "default_decompositions"):  # torch before 2.6
        return made.run_decompositions()
    table = torch.export.default_decompositions()
    del table[torch.ops.aten.prelu.default]  # one operation, which ONNX and caffecli import know, not three
    return made.run_decompositions(table)


def _axis_of(batch: int | None, shape: Sequence[int], axis: int) -> int | None:
    """The axis of the batch in ``shape``: ``axis``, or the first for a blob without time;
    None for one without a batch.
    """
    return next((at for at in (axis, 0) if len(shape) > at and shape[at] == batch), None)


def _zeros(shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(shape) for shape in shapes)


def _line(error: BaseException) -> str:
    """An error in one line: the cause inside torch's exporters' error, without their advice and colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
