"""What a net consists of: its layers' shapes, parameters, multiply-adds and memory, found without running it.

Multiply-adds are those of a forward pass over the whole batch: one for each product that is added to a sum.

    Convolution           weights × batch × the top's positions
    Deconvolution         weights × batch × the bottom's positions
    InnerProduct          weights × inner products taken (batch, where axis is 1)
    RNN, LSTM             weights × time steps × streams; those of a static input × streams

Biases, and all other types, count none: what they cost goes by the size of their blobs. Memory is that of the tops, four bytes a
value; a layer run in place needs none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.layers import layer_class
from caffecli.layers.base import Context, Shape
from caffecli.layers.data import SourceLayer
from caffecli.net import weights as net_weights
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import BlobShape, LayerParameter, NetParameter
from caffecli.spec import load
from caffecli.spec.filter import filter_net


@dataclass(frozen=True)
class LayerSummary:
    """A layer: its tops with their shapes, how many parameters it holds (shared ones count where they stand first), the
    multiply-adds of a forward pass, the bytes of its tops; with weights, their mean, standard deviation and share of zeros."""

    name: str
    type: str
    tops: dict[str, tuple[int, ...]]
    parameters: int
    multiply_adds: int
    memory: int
    mean: float | None = None
    deviation: float | None = None
    zeros: float | None = None


@dataclass(frozen=True)
class NetSummary:
    """A net's layers, in order, and their sums."""

    name: str
    layers: tuple[LayerSummary, ...]

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def memory(self) -> int:
        return sum(layer.memory for layer in self.layers)


class _Outline(Net):
    """A net whose blobs have shapes and no memory."""

    def _materialize(self) -> None:
        pass


def summarize(
    path: Path,
    phase: int,
    *,
    batch: int | None = None,
    picture: Sequence[int] | None = None,
    weights: Path | None = None,
    level: int = 0,
    stages: Sequence[str] = ("",),
) -> NetSummary:
    """Sum up the net of a prototxt. ``batch`` takes the place of its batch size.

    Records that are not there are taken for pictures of ``picture`` (channels, height, width), or of three channels (one, by
    ``force_gray``) and ``crop_size``. With ``weights``, the summary tells of the values of the blobs too.
    Raises SpecError, ShapeError and FormatError as building the net and loading the weights do.
    """
    param = load.load_net(path)
    param.state.phase = phase  # type: ignore[assignment]
    param.state.level = level
    param.state.stage.extend(stages)
    with logs.quiet():
        load.prepare_net(param, phase, level, stages)  # whose errors know of the layers that are left out
        param = filter_net(param, param.state)
    for layer in param.layer:
        if batch is not None:
            _set_batch(layer, batch)
        _stand_in(layer, picture)
    with logs.quiet():
        net = (_Outline if weights is None else Net)(param, Context(folders=(path.parent,)))
    try:
        if weights is not None:
            net_weights.load(net, str(weights))
        return _summary(net, param, weights is not None)
    finally:
        net.close()


def _set_batch(layer: LayerParameter, batch: int) -> None:
    kind = layer_class(layer.type)
    if kind is not None and issubclass(kind, SourceLayer):
        getattr(layer, kind.settings_name).batch_size = batch
    for shapes in (layer.input_param.shape, layer.dummy_data_param.shape):
        for shape in shapes:
            if shape.dim:
                shape.dim[0] = batch
    if layer.dummy_data_param.num:
        layer.dummy_data_param.num[:] = [batch] * len(layer.dummy_data_param.num)


def _stand_in(layer: LayerParameter, picture: Sequence[int] | None) -> None:
    """Make an Input layer of one whose records are not there."""
    kind = layer_class(layer.type)
    if kind is None or not issubclass(kind, SourceLayer):
        return
    reads = getattr(layer, kind.settings_name)
    if not hasattr(reads, "source") or Path(reads.source).exists():
        return
    transform = layer.transform_param
    crop = transform.crop_size or getattr(reads, "crop_size", 0)
    if picture is None and not crop:
        raise SpecError(f"layer {layer.name!r}: there is no {reads.source!r}; give its pictures' shape, --input 3,256,256 say")
    shape = tuple(picture or (1 if transform.force_gray else 3, crop, crop))
    if picture is not None and crop:
        shape = (shape[0], crop, crop)
    logs.warning("net.cpp:53", f"layer {layer.name!r}: there is no {reads.source!r}; taken for {' × '.join(map(str, shape))}")
    layer.type = "Input"
    dims = [(reads.batch_size, *shape), *[(reads.batch_size,)] * (len(layer.top) - 1)]
    layer.input_param.shape.extend(BlobShape(dim=dim) for dim in dims)


def _summary(net: Net, definition: NetParameter, valued: bool) -> NetSummary:
    known = {layer.name for layer in definition.layer}
    owned: dict[int, int] = {}
    for param in net.params:
        owned[id(param.owner)] = owned.get(id(param.owner), 0) + math.prod(param.tensor.shape)
    found = []
    for node in net.nodes:
        if node.name in known:  # the others are splits, whose tops are their bottom
            found.append(_layer(net, node, owned.get(id(node.layer), 0), valued))
    return NetSummary(net.name, tuple(found))


def _layer(net: Net, node: Node, parameters: int, valued: bool) -> LayerSummary:
    bottoms: list[Shape] = [tuple(net.shapes[i]) for i in node.inputs]
    tops: list[Shape] = [tuple(net.shapes[i]) for i in node.outputs]
    memory = sum(4 * math.prod(shape) for name, shape in zip(node.tops, tops, strict=True) if name not in node.bottoms)
    shapes = {name: tuple(shape) for name, shape in zip(node.tops, tops, strict=True)}
    products = node.layer.multiply_adds(bottoms, tops)
    blobs = node.layer.blobs if valued else []
    if not blobs:
        return LayerSummary(node.name, node.layer.type, shapes, parameters, products, memory)
    values = torch.cat([blob.detach().flatten() for blob in blobs])
    spread = float(values.std(correction=0))
    zeros = float((values == 0).float().mean())
    return LayerSummary(node.name, node.layer.type, shapes, parameters, products, memory, float(values.mean()), spread, zeros)
