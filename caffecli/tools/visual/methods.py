"""Methods that show what is in a net; each returns arrays.

Layers are named; a unit is a channel of the layer's top, or one of its values where it has no height and width.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli.errors import ShapeError, SpecError
from caffecli.tools.visual.inspector import Array, Inspector

#: pictures that go through a net at once
_BATCH = 32


class Strongest(NamedTuple):
    """What made the strongest activations of a layer: one entry each, the strongest first."""

    units: list[int]
    values: list[float]
    #: (entries, channels, height, width): the reconstruction in the picture's place
    pictures: Array


class Occlusion(NamedTuple):
    """A unit's value while a square hides part of the picture."""

    unit: int
    whole: float
    #: (rows, columns): the value for each place of the square
    values: Array
    #: the square's side, and the (top, left) corners by row and column
    size: int
    tops: list[int]
    lefts: list[int]


def filters(inspector: Inspector, layer: str, unit: int | None = None) -> Array:
    """A layer's weights as small pictures: (filters, height, width, channels) for filters with 3 channels (or 1, as 1),
    else each channel of each filter by itself, (filters * channels, height, width, 1). ``unit``: those of one channel
    of the top.

    The rows of an InnerProduct over a blob of (channels, height, width) are filters of that shape; weights without
    height and width, 1x1 ones or those over a blob of values, are one picture, (1, outputs, inputs, 1). Raises
    ShapeError, SpecError.
    """
    node = inspector.net.nodes[inspector.index(layer)]
    weight = node.layer.filters(inspector.net.shapes[node.inputs[0]] if node.inputs else ())
    if weight is None:
        raise ShapeError(
            f"layer {layer!r} ({node.layer.type}) has no filters; name one with weights, a Convolution or InnerProduct"
        )
    if unit is not None:
        check_unit(unit, len(weight), layer)
        weight = weight[unit : unit + 1]
    if weight.dim() == 4 and tuple(weight.shape[2:]) == (1, 1):
        weight = weight.flatten(1)
    if weight.dim() == 2:
        weight = weight[None, None]
    if weight.dim() != 4:
        raise ShapeError(
            f"layer {layer!r}: weights of shape {tuple(weight.shape)} are no pictures; expected four dimensions"
        )
    if weight.shape[1] != 3:
        weight = weight.reshape(-1, 1, *weight.shape[2:])
    return weight.permute(0, 2, 3, 1).numpy().copy()


def activations(inspector: Inspector, layer: str, picture: Array) -> Array:
    """The layer's top for a picture (channels, height, width): (channels, height, width), or (values,)."""
    with torch.no_grad():
        top = inspector.top(inspector.run(picture[None], layer), layer)
    return top[0].detach().reshape(top.shape[1:] or (1,)).numpy().copy()


def histogram(values: Array, bins: int = 50) -> tuple[Array, Array]:
    """How many values lie between one edge and the next: (bins,), and the edges, (bins + 1,)."""
    counts, edges = np.histogram(values[np.isfinite(values)], bins)
    return counts.astype(np.float32), edges.astype(np.float32)


def deconv(inspector: Inspector, layer: str, picture: Array, top: int = 9, unit: int | None = None) -> Strongest:
    """ZFNet's deconvolution: the strongest value of each of the ``top`` strongest units, or of ``unit`` alone,
    sent back down.

    All other values of the layer are 0. On the way down, max pooling puts what comes where its maximum was
    (the switches), a ReLU lets what is positive pass, a convolution applies its filters transposed. Source: Zeiler and
    Fergus, ECCV 2014.
    """
    values, places = _peaks(inspector.top(inspector.run(picture[None], layer), layer))
    if unit is not None:
        check_unit(unit, len(values), layer)
    chosen = [unit] if unit is not None else values.argsort(descending=True, stable=True)[:top].tolist()
    pictures = []
    for part in (chosen[i : i + _BATCH] for i in range(0, len(chosen), _BATCH)):
        step = inspector.run(np.repeat(picture[None], len(part), 0), layer)
        diff = torch.zeros_like(inspector.top(step, layer))
        for row, number in enumerate(part):
            diff.view(len(part), len(values), -1)[row, number, places[number]] = values[number]
        pictures.append(inspector.back(step, layer, diff, deconv=True))
    return Strongest(chosen, [float(values[u]) for u in chosen], np.concatenate(pictures))


def saliency(inspector: Inspector, layer: str, picture: Array, unit: int | None = None) -> tuple[int, Array]:
    """How much each pixel sways a unit (the strongest, unless given): the unit's number, and (height, width), the
    largest over the channels of \\|d unit / d pixel\\|. A Softmax that is sure has next to no gradient: take the layer
    before it.

    Source: Simonyan, Vedaldi and Zisserman, 2013.
    """
    step = inspector.run(picture[None], layer)
    now = inspector.top(step, layer)
    values, places = _peaks(now)
    number = int(values.argmax()) if unit is None else unit
    check_unit(number, len(values), layer)
    diff = torch.zeros_like(now)
    diff.view(1, len(values), -1)[0, number, places[number]] = 1
    return number, np.abs(inspector.back(step, layer, diff)[0]).max(0)


def occlusion(
    inspector: Inspector,
    layer: str,
    picture: Array,
    unit: int | None = None,
    size: int | None = None,
    stride: int | None = None,
    fill: float = 0.0,
) -> Occlusion:
    """A unit's value (the strongest unit of the whole picture,
    unless given) while a square of ``fill`` hides part of it.

    The square has the side ``size`` (a quarter of the picture's shorter one) and moves by ``stride``
    (a quarter of its side); 0 is the mean, where one is subtracted. Where the value falls is what the unit goes by.
    Source: Zeiler and Fergus, 2014.
    """
    height, width = picture.shape[1:]
    size = size or max(1, min(height, width) // 4)
    stride = stride or max(1, size // 4)
    if size > min(height, width):
        raise SpecError(f"a square of {size} hides more than the picture of {height} x {width}; choose a smaller one")
    whole, _ = _peaks(inspector.top(inspector.run(picture[None], layer), layer))
    number = int(whole.argmax()) if unit is None else unit
    check_unit(number, len(whole), layer)
    tops, lefts = ([*range(0, side - size, stride), side - size] for side in (height, width))
    hidden = np.repeat(picture[None], len(tops) * len(lefts), 0)
    for row, (y, x) in enumerate((y, x) for y in tops for x in lefts):
        hidden[row, :, y : y + size, x : x + size] = fill
    with torch.no_grad():
        parts = [
            inspector.top(inspector.run(hidden[i : i + _BATCH], layer), layer) for i in range(0, len(hidden), _BATCH)
        ]
    values = torch.cat([part.reshape(len(part), len(whole), -1)[:, number].amax(1) for part in parts])
    return Occlusion(number, float(whole[number]), values.numpy().reshape(len(tops), len(lefts)), size, tops, lefts)


def _peaks(top: Tensor) -> tuple[Tensor, Tensor]:
    """Each unit's largest value for the first picture, and its place within the unit."""
    units = top.shape[1] if top.dim() > 1 else 1
    values, places = top[0].detach().reshape(units, -1).max(1)
    return values, places


def check_unit(unit: int, count: int, layer: str) -> None:
    """Raise SpecError unless the layer has a unit of that number."""
    if not 0 <= unit < count:
        raise SpecError(f"layer {layer!r} has the units 0 to {count - 1}, not {unit}")


def heat(found: Occlusion, shape: tuple[int, ...]) -> Array:
    """At each pixel of a picture (height, width), the mean value of the squares that hid it;
    where none did, the whole's.
    """
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for top, row in zip(found.tops, found.values, strict=True):
        for left, value in zip(found.lefts, row, strict=True):
            total[top : top + found.size, left : left + found.size] += value
            count[top : top + found.size, left : left + found.size] += 1
    return np.divide(total, count, out=np.full(shape, found.whole, np.float32), where=count > 0)


def vis_square(pictures: Array, pad: int = 1) -> Array:
    """Pictures (count, height, width, ...) side by side in a square, brought to 0 to 1 together, white between them."""
    low, high = float(pictures.min()), float(pictures.max())
    return tiled((pictures - low) / (high - low) if high > low else np.zeros_like(pictures), pad)


def tiled(pictures: NDArray[Any], pad: int = 1, white: float = 1) -> NDArray[Any]:
    """Pictures (count, height, width, ...) side by side in a square, rows first, ``pad`` white ones between them."""
    side = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / side)
    rest = [(0, 0)] * (pictures.ndim - 3)
    padded = np.pad(pictures, [(0, rows * side - len(pictures)), (0, pad), (0, pad), *rest], constant_values=white)
    _, height, width, *channels = padded.shape
    square = padded.reshape(rows, side, height, width, *channels).swapaxes(1, 2)
    return square.reshape(rows * height, side * width, *channels)[: rows * height - pad, : side * width - pad]
