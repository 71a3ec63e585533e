"""``caffecli summarize``: a net's shapes, parameters, multiply-adds and memory, found without running it.

Multiply-adds are those of a forward pass over the whole batch: one for each product that is added to a sum.

    Convolution           weights × batch × the top's positions
    Deconvolution         weights × batch × the bottom's positions
    InnerProduct          weights × inner products taken (batch, where axis is 1)
    RNN, LSTM             weights × time steps × streams; those of a static input × streams

Biases, and all other types, count none: what they cost goes by the size of their blobs. Memory is that of the tops,
four bytes a value; a layer run in place needs none.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.layers import layer_class
from caffecli.layers.base import Shape
from caffecli.layers.data import SourceLayer
from caffecli.net import weights as net_weights
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import BlobShape, LayerParameter, NetParameter, ResizeParameter, TransformationParameter
from caffecli.spec.filter import takes_part
from caffecli.tools.open import build_net, read_net
from caffecli.wording import dimensions

_UNITS = ("", "k", "M", "G", "T", "P")


@dataclass(frozen=True)
class LayerSummary:
    """A layer: its tops' shapes, its parameters (shared ones count in their first layer), multiply-adds,
    bytes of its tops.

    With weights also their mean, standard deviation and share of zeros.
    """

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


class Outline(Net):
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
    layers: Sequence[str] = (),
) -> NetSummary:
    """Sum up the net of a prototxt. ``batch`` takes the place of its batch size.

    Missing records are taken for pictures of ``picture`` (channels, height, width), or of three channels (one, by
    ``force_gray``) and the size that ``transform_param`` gives them. With ``weights``, the summary tells of the values
    of the blobs too.
    ``layers``: modules of the user's own that register layers.
    Raises SpecError, ShapeError and FormatError as building the net and loading the weights do.
    """
    return summarize_net(read_net(path, phase, level, stages, layers=layers), path, batch, picture, weights)


def summarize_net(
    whole: NetParameter,
    path: Path,
    batch: int | None = None,
    picture: Sequence[int] | None = None,
    weights: Path | None = None,
) -> NetSummary:
    """``summarize`` of a definition, up to date and with the state to build it for, from the file ``path``; changes
    it.
    """
    for layer in whole.layer:
        if not takes_part(layer, whole.state, log=False):
            continue
        if batch is not None:
            _set_batch(layer, batch)
        if not Path(layer.detection_evaluate_param.name_size_file).exists():  # as the records that it goes with
            layer.detection_evaluate_param.ClearField("name_size_file")
        _stand_in(layer, picture)
    with logs.quiet():
        net = build_net(whole, path, kind=Outline if weights is None else Net)
    with contextlib.closing(net):
        if weights is not None:
            net_weights.load(net, str(weights))
        return _summary(net, whole, weights is not None)


def _set_batch(layer: LayerParameter, batch: int) -> None:
    kind = layer_class(layer.type)
    if kind is not None and issubclass(kind, SourceLayer) and kind.settings_name:
        getattr(layer, kind.settings_name).batch_size = batch
    for shapes in (layer.input_param.shape, layer.dummy_data_param.shape):
        for shape in shapes:
            if shape.dim:
                shape.dim[0] = batch
    if layer.dummy_data_param.num:
        layer.dummy_data_param.num[:] = [batch] * len(layer.dummy_data_param.num)


def _stand_in(layer: LayerParameter, picture: Sequence[int] | None) -> None:
    """Turn a layer that reads records into an Input layer of their shape, where the records are missing."""
    kind = layer_class(layer.type)
    if kind is None or not issubclass(kind, SourceLayer) or not kind.settings_name:
        return
    reads, source = getattr(layer, kind.settings_name), kind.source_of(layer)
    if source is None or Path(source).exists():
        return
    transform = layer.transform_param
    size = _size(transform, getattr(reads, "crop_size", 0), picture)
    if size is None:
        raise SpecError(
            f"layer {layer.name!r}: there is no {source!r}; give its pictures' shape, --input 3,256,256 say"
        )
    shape = (picture[0] if picture else 1 if transform.force_gray else 3, *size)
    logs.warning("net.cpp:53", f"layer {layer.name!r}: there is no {source!r}; taken for {dimensions(shape)}")
    layer.type = "Input"
    dims = [(reads.batch_size, *shape), *[kind.label_shape(layer, reads.batch_size)] * (len(layer.top) - 1)]
    layer.input_param.shape.extend(BlobShape(dim=dim) for dim in dims)


def _size(transform: TransformationParameter, crop: int, picture: Sequence[int] | None) -> tuple[int, int] | None:
    """The height and width that ``transform_param`` gives pictures; None where it leaves them as they are, unknown."""
    if crop := transform.crop_size or crop:
        return crop, crop
    if transform.crop_h and transform.crop_w:
        return transform.crop_h, transform.crop_w
    resize = transform.resize_param
    if resize.height and resize.width and resize.resize_mode != ResizeParameter.FIT_SMALL_SIZE:
        return resize.height, resize.width
    return (picture[1], picture[2]) if picture is not None else None


def _summary(net: Net, definition: NetParameter, valued: bool) -> NetSummary:
    known = {layer.name for layer in definition.layer}
    owned: dict[int, int] = {}
    for param in net.params:
        owned[id(param.owner)] = owned.get(id(param.owner), 0) + math.prod(param.tensor.shape)
    found = []
    for node in net.nodes:
        if node.name in known:  # the others are splits, whose tops share the bottom's memory
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
    return LayerSummary(
        node.name, node.layer.type, shapes, parameters, products, memory, float(values.mean()), spread, zeros
    )


# -- as text ----------------------------------------------------------------------------------------------------------


def to_json(net: NetSummary) -> str:
    sums = {"parameters": net.parameters, "multiply_adds": net.multiply_adds, "memory": net.memory}
    layers = [
        {key: value for key, value in dataclasses.asdict(layer).items() if value is not None} for layer in net.layers
    ]
    return json.dumps({"name": net.name, **sums, "layers": layers}, indent=1)


def to_csv(net: NetSummary) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    values = any(layer.mean is not None for layer in net.layers)
    more = ["mean", "deviation", "zeros"] if values else []
    writer.writerow(["layer", "type", "tops", "shapes", "parameters", "multiply_adds", "memory", *more])
    for layer in net.layers:
        shapes = ";".join("x".join(map(str, shape)) for shape in layer.tops.values())
        row = [
            layer.name,
            layer.type,
            ";".join(layer.tops),
            shapes,
            layer.parameters,
            layer.multiply_adds,
            layer.memory,
        ]
        writer.writerow(row + [getattr(layer, name) for name in more])
    return out.getvalue().rstrip("\n")


def to_table(net: NetSummary) -> str:
    values = any(layer.mean is not None for layer in net.layers)
    head = [
        "layer",
        "type",
        "top",
        "shape",
        "parameters",
        "multiply-adds",
        "memory",
        *(["mean", "std", "zeros"] if values else []),
    ]
    rows = [head]
    for layer in net.layers:
        rows += _rows(layer, values)
    rows.append(
        ["total", "", "", "", f"{net.parameters:,}", f"{net.multiply_adds:,}", f"{net.memory:,}"] + [""] * 3 * values
    )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = [
        "  ".join(c.ljust(w) if i < 4 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        for row in rows
    ]
    lines = [line.rstrip() for line in lines]
    rule = "-" * max(map(len, lines))
    sums = [_short(net.parameters, " parameters"), _short(net.multiply_adds, " multiply-adds")]
    sums += [_short(net.memory, "B of blobs"), _short(4 * net.parameters, "B of weights")]
    return "\n".join([f"{net.name or 'net'}: {', '.join(sums)}", "", lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _rows(layer: LayerSummary, values: bool) -> list[list[str]]:
    """A layer's line, and one for each further top."""
    more = [f"{v:.4g}" if v is not None else "" for v in (layer.mean, layer.deviation, layer.zeros)] if values else []
    rows = []
    for number, (top, shape) in enumerate(layer.tops.items() or [("", ())]):
        figures = [f"{n:,}" if n else "" for n in (layer.parameters, layer.multiply_adds, layer.memory)]
        named = [layer.name, layer.type] if number == 0 else ["", ""]
        spelled = dimensions(shape) or "()"
        rows.append([*named, top, spelled, *(figures + more if number == 0 else [""] * (3 + len(more)))])
    return rows


def _short(count: float, what: str) -> str:
    """Three digits and a unit: ``61 M parameters``, ``244 MB of weights``."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            break
        count /= 1000
    return f"{count:.3g} {unit}{what}".replace("  ", " ")
