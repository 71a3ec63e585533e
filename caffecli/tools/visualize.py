"""``caffecli visualize``: PNG pictures of what ``visual.methods`` finds in a net, with titles and scales."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from caffecli.errors import CaffeError, DataError
from caffecli.formats.atomic import replacing
from caffecli.tools import preprocessing
from caffecli.tools.visual import methods, sheet
from caffecli.tools.visual.inspector import Array, Inspector, Path_
from caffecli.tools.visual.picture import fit_picture, prepare_picture
from caffecli.tools.visual.sheet import Pixels

Kind = Literal["filters", "activations", "histogram", "deconv", "occlusion", "saliency"]

#: a picture of more values than that is refused
_LARGEST = 2**26
_HEAT = cv2.COLORMAP_VIRIDIS


@dataclass(frozen=True)
class VisualizeOptions:
    """What to look at. The picture ``image`` becomes (pixels - mean) * scale, as ``transform_param`` has it; what is
    None of them is as the net was trained, as the prototxt ``like`` or else the weights' file tells.
    """

    kind: Kind
    net: Path_
    weights: Path_ | None
    layer: str
    out: Path_
    image: Path_ | None = None
    #: a file, or numbers, one or one a channel, separated by ',', "" for nothing
    mean: str | None = None
    scale: float | None = None
    like: str | None = None
    unit: int | None = None
    top: int = 9
    size: int | None = None
    stride: int | None = None
    fill: float = 0.0
    #: the net takes red first; else blue, as most do
    rgb: bool = False
    #: modules of the user's own that register layers
    layers: tuple[str, ...] = ()


def visualize(options: VisualizeOptions) -> str:
    """Draw what the options ask for into ``options.out``, a PNG; returns a line about it. Raises CaffeError."""
    if not os.fspath(options.out).lower().endswith(".png"):
        raise DataError(f"cannot draw {os.fspath(options.out)!r}: its name must end in .png")
    if options.image is None and options.kind not in ("filters", "histogram"):
        raise DataError(f"{options.kind} needs a picture: give --image")
    with replacing(options.out) as file:  # first, so that a folder that is not there is reported before the work
        inspector = Inspector.open(options.net, options.weights, options.layers)
        inspector.index(options.layer)
        picture = None
        if options.image is not None:
            picture = _prepared(inspector, options)
        drawn, caption = _DRAW[options.kind](inspector, options, picture)
        if isinstance(drawn, np.ndarray):
            title = f"{_title(inspector, options)}: {caption}"
            file.write(cv2.imencode(".png", sheet.sheet(title, drawn))[1].tobytes())
        else:
            drawn.savefig(file, format="png", dpi=100)
    return caption


def _prepared(inspector: Inspector, options: VisualizeOptions) -> Array:
    """The picture as the net takes it; the log tells how that is."""
    weights = "" if options.weights is None else os.fspath(options.weights)
    told = preprocessing.trained(weights, options.like, inspector.input)
    picture, words = prepare_picture(inspector, options.image or "", options.mean, options.scale, options.rgb, told)
    typed = options.mean is not None and options.scale is not None
    if told is not None:
        whence = f"where not told, as {told.whence} has it"
        preprocessing.warn_of_sizes("the net's input is", picture.shape[1:], told.crop or told.source_size, told.whence)
    else:
        whence = f"nothing says how the net was trained: {preprocessing.hint(weights)}"
    preprocessing.tell(f"Picture: {words}; {'as told' if typed else whence}", known=typed or told is not None)
    return picture


def _title(inspector: Inspector, options: VisualizeOptions) -> str:
    """The net, by its name or its file's, and the layer."""
    layer = inspector.net.nodes[inspector.index(options.layer)].layer
    return f"{inspector.net.name or Path(options.net).name}, {options.layer} ({layer.type})"


def _filters(inspector: Inspector, options: VisualizeOptions, picture: Array | None) -> tuple[Pixels, str]:
    found = methods.filters(inspector, options.layer, options.unit)
    count, height, width, channels = found.shape
    if count == 1 and channels == 1 and min(height, width) == 1:
        return _bars(found.ravel(), options.layer, "weights"), f"{found.size} weights"
    caption = f"{count} filters of" if count > 1 else "weights,"
    return _tiles(options, found), f"{caption} {height} x {width}{', in colour' if channels == 3 else ''}"


def _activations(inspector: Inspector, options: VisualizeOptions, picture: Array) -> tuple[Pixels, str]:
    found = methods.activations(inspector, options.layer, picture)
    first = options.unit or 0
    if options.unit is not None:
        methods.check_unit(options.unit, len(found), options.layer)
        found = found[first : first + 1]
    caption = f"activations of shape {found.shape}, {found.min():.3g} to {found.max():.3g}"
    if found.size == len(found):
        drawn = _bars(found.ravel(), options.layer, "units", first)
        return drawn, f"{caption}, the largest of unit {found.argmax() + first}"
    return _tiles(options, found[None] if found.ndim == 2 else found.reshape(-1, *found.shape[-2:])), caption


def _bars(values: Array, layer: str, what: str, first: int = 0) -> Pixels:
    """One value beside another."""
    _check_finite(values, layer)
    return sheet.captioned(sheet.bars(values), f"{what} {first} to {first + len(values) - 1}")


def _tiles(options: VisualizeOptions, found: Array) -> Pixels:
    """Pictures (count, height, width, ...) side by side, with the scale they share."""
    _check_finite(found, options.layer)
    count, height, width = found.shape[:3]
    if count * (height + 1) * (width + 1) > _LARGEST:
        raise DataError(
            f"layer {options.layer!r}: {count:,} pictures of {height} x {width} are too many; choose --unit"
        )
    shown = found[..., ::-1] if options.rgb and found.ndim == 4 else found
    tiled = methods.vis_square(shown)
    return sheet.with_scale(
        sheet.pixels(tiled, sheet.factor_for(tiled.shape[1])), float(found.min()), float(found.max())
    )


def _histogram(inspector: Inspector, options: VisualizeOptions, picture: Array | None) -> tuple[Any, str]:
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise CaffeError("visualize histogram needs matplotlib; pip install 'caffecli[plot]'") from error
    layer = inspector.net.nodes[inspector.index(options.layer)].layer
    parts = {name: blob.detach().numpy() for name, blob in zip(layer.blob_names, layer.blobs, strict=True)}
    if picture is not None:
        parts["activations"] = methods.activations(inspector, options.layer, picture)
    if not parts:
        raise DataError(f"layer {options.layer!r} has no weights; give --image to see its activations")
    figure = Figure(figsize=(5 * len(parts), 4), layout="constrained")
    figure.suptitle(_title(inspector, options), parse_math=False)
    for axes, (name, values) in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts.items(), strict=True):
        _check_finite(values, options.layer)
        counts, edges = methods.histogram(values, min(50, round(2 * values.size ** (1 / 3))))  # Rice's rule
        axes.stairs(counts, edges, fill=True)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(
            f"{name}: {values.size:,} values, mean {values.mean():.3g}, deviation {values.std():.3g}", fontsize=9
        )
        axes.set_xlabel("value")
        axes.set_ylabel("how many")
    return figure, f"histograms of {', '.join(parts)}"


def _deconv(inspector: Inspector, options: VisualizeOptions, picture: Array) -> tuple[Pixels, str]:
    found = methods.deconv(inspector, options.layer, picture, options.top, options.unit)
    pixels, back = _shown(inspector, options), found.pictures[:, ::-1] if options.rgb else found.pictures
    factor = sheet.factor_for(int(np.ceil(np.sqrt(len(back)))) * (pixels.shape[1] + 1))
    where, what = [], []
    for unit, value, one in zip(found.units, found.values, back, strict=True):
        _check_finite(one, options.layer)
        tile = sheet.pixels(_around_grey(one.transpose(1, 2, 0)), factor)
        what.append(sheet.captioned(tile, f"unit {unit}: {value:.3g}"))
        where.append(sheet.captioned(sheet.pixels(_patch(pixels, np.abs(one).max(0) > 0), factor), f"unit {unit}"))
    left, right = (np.asarray(methods.tiled(np.stack(part), 4, 255), np.uint8) for part in (where, what))
    caption = ", ".join(f"{unit} ({value:.3g})" for unit, value in zip(found.units, found.values, strict=True))
    drawn = sheet.beside(
        sheet.captioned(left, "what each unit saw"), sheet.captioned(right, "what in it made the unit strong")
    )
    return drawn, f"units and their activations: {caption}"


def _occlusion(inspector: Inspector, options: VisualizeOptions, picture: Array) -> tuple[Pixels, str]:
    found = methods.occlusion(
        inspector, options.layer, picture, options.unit, options.size, options.stride, options.fill
    )
    heat = methods.heat(found, picture.shape[1:])
    _check_finite(heat, options.layer)
    factor = sheet.factor_for(picture.shape[2])
    left = sheet.captioned(sheet.pixels(_shown(inspector, options), factor), "the picture")
    right = sheet.with_scale(sheet.pixels(_range(heat), factor, _HEAT), float(heat.min()), float(heat.max()), _HEAT)
    drawn = sheet.beside(
        left, sheet.captioned(right, f"unit {found.unit}, the mean of the squares that hide the place")
    )
    return drawn, (
        f"unit {found.unit}: {found.whole:.3g} for the whole picture, {heat.min():.3g} to {heat.max():.3g} where "
        f"squares of {found.size} hide it"
    )


def _saliency(inspector: Inspector, options: VisualizeOptions, picture: Array) -> tuple[Pixels, str]:
    unit, found = methods.saliency(inspector, options.layer, picture, options.unit)
    _check_finite(found, options.layer)
    factor = sheet.factor_for(picture.shape[2])
    left = sheet.captioned(sheet.pixels(_shown(inspector, options), factor), "the picture")
    right = sheet.with_scale(sheet.pixels(_range(found), factor), float(found.min()), float(found.max()))
    drawn = sheet.beside(left, sheet.captioned(right, f"|d unit {unit} / d pixel|, the largest of the channels"))
    return drawn, f"unit {unit}: gradients up to {found.max():.3g}"


_DRAW: dict[Kind, Any] = {
    "filters": _filters,
    "activations": _activations,
    "histogram": _histogram,
    "deconv": _deconv,
    "occlusion": _occlusion,
    "saliency": _saliency,
}


def _shown(inspector: Inspector, options: VisualizeOptions) -> Array:
    """The picture as people see it, no mean taken from it: (height, width, 1 or 3), 0 to 1, blue first."""
    return fit_picture(inspector, options.image or "").transpose(1, 2, 0) / np.float32(255)


def _patch(picture: Array, seen: Any) -> Array:
    """The picture, grey outside the smallest rectangle around what is ``seen``."""
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    patch = np.full_like(picture, 0.5)
    if rows.size:
        place = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        patch[place] = picture[place]
    return patch


def _range(array: Array) -> Array:
    """Brought to 0 to 1."""
    return methods.vis_square(array[None])


def _around_grey(array: Array) -> Array:
    """Brought to 0 to 1 with 0 at 0.5, so that what is not in a reconstruction is grey."""
    return array / (2 * max(float(np.abs(array).max()), 1e-30)) + np.float32(0.5)


def _check_finite(array: Array, layer: str) -> None:
    wrong = int(array.size - np.isfinite(array).sum())
    if wrong:
        raise DataError(
            f"layer {layer!r}: {wrong:,} of {array.size:,} values are nan or infinite; give weights of a sound training"
        )
