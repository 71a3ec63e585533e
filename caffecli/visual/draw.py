"""PNG pictures of what ``look`` finds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from caffecli.errors import CaffeError, DataError
from caffecli.formats import mean as mean_files
from caffecli.formats.atomic import replacing
from caffecli.visual import look
from caffecli.visual.inside import Array, Inside, Path_

Kind = Literal["filters", "activations", "histogram", "deconv", "occlusion", "saliency"]

#: smaller pictures are enlarged to about this width, each value a square
_WIDTH = 600
_GAP = 12


@dataclass(frozen=True)
class DrawOptions:
    """What to look at. The picture ``image`` becomes (pixels - mean) * scale, as ``transform_param`` has it."""

    kind: Kind
    net: Path_
    weights: Path_ | None
    layer: str
    out: Path_
    image: Path_ | None = None
    #: a mean.binaryproto, or numbers, one or one a channel, separated by ','
    mean: str = ""
    scale: float = 1.0
    unit: int | None = None
    top: int = 9
    size: int | None = None
    stride: int | None = None
    fill: float = 0.0


def draw(options: DrawOptions) -> str:
    """Draw what the options ask for into ``options.out``, a PNG; returns a line about it. Raises CaffeError."""
    if not os.fspath(options.out).lower().endswith(".png"):
        raise DataError(f"cannot draw {os.fspath(options.out)!r}: its name must end in .png")
    if options.image is None and options.kind not in ("filters", "histogram"):
        raise DataError(f"{options.kind} needs a picture: give --image")
    inside = Inside.open(options.net, options.weights)
    inside.index(options.layer)
    picture = None if options.image is None else load_picture(inside, options.image, options.mean, options.scale)
    pixels, told = _DRAW[options.kind](inside, options, picture)
    encoded = cv2.imencode(".png", pixels)[1] if isinstance(pixels, np.ndarray) else pixels
    with replacing(options.out) as file:
        if isinstance(encoded, np.ndarray):
            file.write(encoded.tobytes())
        else:
            encoded.savefig(file, format="png", dpi=100)
    return told


def load_picture(inside: Inside, path: Path_, mean: str = "", scale: float = 1.0) -> Array:
    """The picture in ``path`` as the net takes it: its size and channels (grey or blue first), (pixels - mean) * scale."""
    channels, height, width = inside.picture_shape
    if channels not in (1, 3):
        raise DataError(f"the net takes pictures of {channels} channels; expected 1 or 3")
    pixels = cv2.imread(os.fspath(path), cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR)
    if pixels is None:
        raise DataError(f"{str(path)!r} cannot be read as a picture; give a PNG or JPEG")
    fitted = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if pixels.shape[0] > height else cv2.INTER_LINEAR)
    array = np.ascontiguousarray(fitted.reshape(height, width, channels).transpose(2, 0, 1), np.float32)
    return (array - _mean(mean, (channels, height, width))) * np.float32(scale)


def _mean(text: str, shape: tuple[int, ...]) -> Any:
    try:
        values = [float(value) for value in text.split(",")] if text else [0.0]
    except ValueError:
        array = mean_files.read(text)
        if array.shape[0] != shape[0] or min(array.shape[1:]) < min(shape[1:]):
            raise DataError(f"{text!r}: a mean of shape {array.shape} does not fit pictures of {shape}") from None
        y, x = ((have - want) // 2 for have, want in zip(array.shape[1:], shape[1:], strict=True))
        return array[:, y : y + shape[1], x : x + shape[2]]
    if len(values) not in (1, shape[0]):
        raise DataError(f"--mean {text!r} has {len(values)} numbers; expected 1, or one for each of {shape[0]} channel(s)")
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _filters(inside: Inside, options: DrawOptions, picture: Array | None) -> tuple[NDArray[np.uint8], str]:
    found = look.filters(inside, options.layer)
    return _pixels(look.vis_square(found)), f"{len(found)} filters of {found.shape[1]} x {found.shape[2]}"


def _activations(inside: Inside, options: DrawOptions, picture: Array) -> tuple[NDArray[np.uint8], str]:
    found = look.activations(inside, options.layer, picture)
    maps = found if found.ndim == 3 else found.reshape(-1, 1, 1)
    return _pixels(look.vis_square(maps)), f"activations of shape {found.shape}, {found.min():g} to {found.max():g}"


def _histogram(inside: Inside, options: DrawOptions, picture: Array | None) -> tuple[Any, str]:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaffeError("visualize histogram needs matplotlib; pip install 'caffecli[plot]'") from error
    layer = inside.net.nodes[inside.index(options.layer)].layer
    parts = {name: blob.detach().numpy() for name, blob in zip(layer.blob_names, layer.blobs, strict=True)}
    if picture is not None:
        parts["activations"] = look.activations(inside, options.layer, picture)
    if not parts:
        raise DataError(f"layer {options.layer!r} has no weights; give --image to see its activations")
    figure = Figure(figsize=(5 * len(parts), 4), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        counts, edges = look.histogram(values)
        axes.stairs(counts, edges, fill=True)
        axes.set_title(f"{options.layer}: {name}, mean {values.mean():.3g}, deviation {values.std():.3g}", fontsize=9)
        axes.set_xlabel("value")
        axes.set_ylabel("how many")
    return figure, f"histograms of {', '.join(parts)}"


def _deconv(inside: Inside, options: DrawOptions, picture: Array) -> tuple[NDArray[np.uint8], str]:
    found = look.deconv(inside, options.layer, picture, options.top, options.unit)
    back = np.stack([_unit_range(one.transpose(1, 2, 0)) for one in found.pictures])
    seen = np.abs(found.pictures).max(1)[..., None] > 0
    whole = _range(picture.transpose(1, 2, 0))
    left, right = look.vis_square(np.where(seen, whole, 0.5).astype(np.float32), 2), look.vis_square(back, 2)
    told = ", ".join(f"{unit} ({value:.3g})" for unit, value in zip(found.units, found.values, strict=True))
    return _beside(_pixels(left), _pixels(right)), f"units and their activations: {told}"


def _occlusion(inside: Inside, options: DrawOptions, picture: Array) -> tuple[NDArray[np.uint8], str]:
    found = look.occlusion(inside, options.layer, picture, options.unit, options.size, options.stride, options.fill)
    heat = _heat(found, picture.shape[1:])
    told = f"unit {found.unit}: {found.whole:g} for the whole picture, {found.values.min():g} to {found.values.max():g} with"
    return _beside(_pixels(_range(picture.transpose(1, 2, 0))), heat), f"{told} a square of {found.size} in it"


def _saliency(inside: Inside, options: DrawOptions, picture: Array) -> tuple[NDArray[np.uint8], str]:
    unit, found = look.saliency(inside, options.layer, picture, options.unit)
    left = _pixels(_range(picture.transpose(1, 2, 0)))
    return _beside(left, _pixels(_range(found[..., None]))), f"unit {unit}: gradients up to {found.max():g}"


_DRAW: dict[Kind, Any] = {
    "filters": _filters,
    "activations": _activations,
    "histogram": _histogram,
    "deconv": _deconv,
    "occlusion": _occlusion,
    "saliency": _saliency,
}


def _range(array: Array) -> Array:
    """Brought to 0 to 1."""
    return look.vis_square(array[None])


def _unit_range(array: Array) -> Array:
    """Brought to 0 to 1 with 0 at 0.5, so that what is not in a reconstruction is grey."""
    return array / (2 * max(float(np.abs(array).max()), 1e-30)) + np.float32(0.5)


def _pixels(array: Array) -> NDArray[np.uint8]:
    """A picture of numbers from 0 to 1, (height, width) or (height, width, 1 or 3), as bytes, enlarged where it is small."""
    picture = (array * 255 + 0.5).astype(np.uint8)
    factor = max(1, round(_WIDTH / picture.shape[1]))
    large = picture.repeat(factor, 0).repeat(factor, 1)
    large = large[..., None] if large.ndim == 2 else large
    return np.ascontiguousarray(large.repeat(3, 2) if large.shape[2] == 1 else large)


def _heat(found: look.Occlusion, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """At each pixel of a picture of ``shape``, the mean value of the squares over it, from blue (the lowest) to red."""
    total, count = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for top, row in zip(found.tops, found.values, strict=True):
        for left, value in zip(found.lefts, row, strict=True):
            total[top : top + found.size, left : left + found.size] += value
            count[top : top + found.size, left : left + found.size] += 1
    heat = np.divide(total, count, out=np.full(shape, found.whole, np.float32), where=count > 0)
    return np.asarray(cv2.applyColorMap(_pixels(_range(heat[..., None])), cv2.COLORMAP_JET), np.uint8)


def _beside(left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Two pictures, white between them."""
    height = max(len(left), len(right))
    fit = [np.pad(one, [(0, height - len(one)), (0, 0), (0, 0)], constant_values=255) for one in (left, right)]
    return np.concatenate([fit[0], np.full((height, _GAP, 3), 255, np.uint8), fit[1]], 1)
