"""A net as a ``torch.export`` program: plain ATen operations and the weights, which run without caffecli.

The program takes the net's inputs in the order of ``Net.inputs`` and gives a tuple of its outputs in the order of
``Net.outputs``. Its ``state_dict`` has ``<layer>.<blob>``: ``conv1.weight``, ``conv1.bias``, ``bn1.mean``.
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

from caffecli.errors import SpecError
from caffecli.layers.base import Layer
from caffecli.layers.data import Input
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter

#: what the batch has while a net is traced: torch takes sizes of 0 and 1 for constants
TRACED = 2

_RECORDS = "reads records; export the deploy net, whose inputs are Input layers"
#: why layers of a type have no place in a program
_REASONS = {
    "Data": _RECORDS,
    "ImageData": _RECORDS,
    "HDF5Data": _RECORDS,
    "MemoryData": _RECORDS,
    "WindowData": _RECORDS,
    "DummyData": "makes its own values; put an Input layer in its place",
    "HDF5Output": "writes a file",
    "Python": "runs Python code of your own",
}


class PlainNet(nn.Module):
    """A net whose inputs and outputs have places, not names, and whose layers are its own modules, under their names."""

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
    refused = [f"layer {x.name!r} ({x.type}) {_REASONS[x.type]}" for x in param.layer if x.type in _REASONS]
    if refused:
        raise SpecError(f"net {param.name!r} cannot be exported: {'; '.join(refused)}")
    if not any(layer.type == "Input" for layer in param.layer):
        raise SpecError(f"net {param.name!r} cannot be exported: it has no Input layer; export the deploy net")


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
    """What keeps ``net`` from being exported, after ``error``: each layer's own program is made and converted, to see."""
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
    """For each input, whether its first axis may have any size."""
    values = [n.meta["val"] for n in made.graph.nodes if n.op == "placeholder" and n.name in made.graph_signature.user_inputs]
    return [value.dim() > 0 and not isinstance(value.shape[0], int) for value in values]


@contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters say of themselves."""
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
    """The program of ``module`` for inputs of these shapes, with a free batch if that works out, else with the given one.

    Inputs that have the first input's batch share it; others (im_info, say) keep theirs.
    """
    batch = shapes[0][0] if shapes and shapes[0] else None
    follows = [bool(shape) and shape[0] == batch for shape in shapes]
    examples = [(max(batch or 0, TRACED), *shape[1:]) if own else shape for own, shape in zip(follows, shapes, strict=True)]
    free = tuple({0: Dim("batch", min=1)} if own else None for own in follows)
    try:
        made = torch.export.export(module, _zeros(examples), dynamic_shapes=(free,), strict=False)
    except Exception:  # whatever stands against it: a reshape to a fixed count, a batch that a layer reads as a number
        made = torch.export.export(module, _zeros(shapes), strict=False)
    return made.run_decompositions()


def _zeros(shapes: Sequence[tuple[int, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(shape) for shape in shapes)


def _line(error: BaseException) -> str:
    """What an error is about, in a line: the cause that torch's exporters wrap, without their advice and colours."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
