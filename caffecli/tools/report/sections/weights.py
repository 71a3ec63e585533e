"""What the weights look like: filters, feature maps, histograms over snapshots, units that are never on."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffecli.formats import caffemodel
from caffecli.tools.report import markup
from caffecli.tools.report.charts import Chart, Curve, grouped
from caffecli.tools.report.findings import enlarged
from caffecli.tools.report.markup import Cell
from caffecli.tools.report.material import Missing, Report
from caffecli.tools.report.runs import Run
from caffecli.tools.report.sections.classes import over
from caffecli.tools.visual import methods, sheet

_FILTERED, _TILES = 2, 256
#: histograms of so many layers and snapshots
_LAYERS, _SNAPSHOTS, _BINS = 12, 6, 60


@functools.lru_cache(16)
def _read(path: Path, state: int) -> caffemodel.Weights:
    return caffemodel.read(path)


def _weights(path: Path) -> caffemodel.Weights:
    """The weights in a file, read once for each state of it."""
    return _read(path, path.stat().st_mtime_ns if path.exists() else 0)


def filters(report: Report) -> str:
    """The filters of the first layers that have some, and what they make of the first picture of the test."""
    return report.for_each(lambda run: _filters(report, run) + _maps(report, run))


def _filters(report: Report, run: Run) -> str:
    last = report.snapshots(run)[-1]
    shown: list[str] = []
    for name, blobs in _weights(last.path).items():
        if len(shown) < _FILTERED and blobs and blobs[0].ndim == 4 and max(blobs[0].shape[2:]) > 1:
            shown.append(_of_layer(name, blobs[0]))
    if not shown:
        raise Missing("no layer has filters of more than a point")
    return markup.note(f"With the weights {last.path}.") + markup.gallery(shown)


def _of_layer(name: str, weight: NDArray[np.float32]) -> str:
    count, channels, height, width = weight.shape
    if not np.isfinite(weight).all():
        return markup.paragraph(f"{name}: some of the weights are nan or infinite", "bad")
    colour = channels == 3
    tiles = weight.transpose(0, 2, 3, 1) if colour else weight.reshape(-1, height, width)
    said = f"{name}: {count} filters of {height} × {width}"
    said += ", in the colours of what they see" if colour else f" for each of {channels} channels" * (channels > 1)
    if len(tiles) > _TILES:
        said += f"; the first {_TILES} of {len(tiles):,}"
        tiles = tiles[:_TILES]
    return _tiled(tiles, f"{said}; {weight.min():.3g} to {weight.max():.3g}")


def _tiled(tiles: NDArray[np.float32], caption: str) -> str:
    pixels = sheet.pixels(methods.vis_square(tiles))
    factor = max(1, math.ceil(360 / pixels.shape[1]))
    return markup.figure(markup.picture(pixels, caption, pixels.shape[1] * factor), caption)


def _maps(report: Report, run: Run) -> str:
    try:
        found = report.findings(run)
    except Missing as error:
        return markup.paragraph(f"Left out, what they make of a picture: {error}", "missing")
    if found.picture is None or not found.maps:
        return ""
    shown = [markup.figure(markup.picture(found.picture, "the picture", enlarged(found.picture, 192)), "the picture")]
    for name, values in found.maps.items():
        if np.isfinite(values).all():
            more = f", the first {_TILES} of {len(values):,}" if len(values) > _TILES else ""
            said = f"{name}: {len(values)} channels{more}; {values.min():.3g} to {values.max():.3g}"
            shown.append(_tiled(values[:_TILES], said))
    return markup.heading("What the first layers make of the test's first picture") + markup.gallery(shown)


def histograms(report: Report) -> str:
    """How the weights of each layer are spread, in each of a few snapshots; and units that are 0 for all records."""
    return report.for_each(lambda run: _histograms(report, run) + _dead(report, run))


def _histograms(report: Report, run: Run) -> str:
    snapshots = report.snapshots(run)
    step = max(1, math.ceil(len(snapshots) / _SNAPSHOTS))
    chosen = snapshots[::-1][::step][::-1]
    by_snapshot = [_weights(one.path) for one in chosen]
    names = [name for name, blobs in by_snapshot[-1].items() if blobs and blobs[0].size > 1]
    charts: list[Chart] = []
    for name in _some(names):
        values = [found[name][0].ravel() if found.get(name) else np.empty(0) for found in by_snapshot]
        known = [one[np.isfinite(one)] for one in values]
        if not any(len(one) for one in known):
            continue
        low = min(float(one.min()) for one in known if len(one))
        high = max(float(one.max()) for one in known if len(one))
        edges = np.linspace(low, high if high > low else low + 1e-6, _BINS + 1)
        key = f"weights-{report.runs.index(run)}-{len(charts)}"
        chart = Chart(key, f"{name}: {known[-1].size:,} weights", "value", "part of the weights")
        for number, (snapshot, one) in enumerate(zip(chosen, known, strict=True)):
            if len(one):
                shares = np.histogram(one, edges)[0] / len(one)
                label = f"iteration {snapshot.iteration:,}" if snapshot.iteration >= 0 else snapshot.path.name
                chart.curves.append(Curve(label, edges[:-1].tolist(), shares.tolist(), number, steps=True))
        charts.append(chart)
    if not charts:
        raise Missing("the snapshots have no weights")
    left = f"Of {len(names)} layers with weights {len(charts)} are shown. " if len(charts) < len(names) else ""
    some = f"Of {len(snapshots)} snapshots {len(chosen)} are shown." if step > 1 else ""
    return (markup.note(left + some) if left or some else "") + grouped(charts, report.pictures_only)


def _some(names: list[str]) -> list[str]:
    """The first, the last, and some between them."""
    if len(names) <= _LAYERS:
        return names
    return [names[round(i * (len(names) - 1) / (_LAYERS - 1))] for i in range(_LAYERS)]


def _dead(report: Report, run: Run) -> str:
    head = markup.heading("Units that are never on")
    try:
        found = report.findings(run)
    except Missing as error:
        return head + markup.paragraph(f"Left out: {error}", "missing")
    if not found.dead:
        return head + markup.paragraph(f"There are none. {over(found)}")
    rows: list[list[Cell]] = []
    for name, (units, dead) in found.dead.items():
        listed = ", ".join(map(str, dead[:20])) + (", ..." if len(dead) > 20 else "")
        rows.append([name, units, len(dead), markup.bar(len(dead) / units, f"{len(dead) / units:.1%}"), listed])
    caption = "Channels of a layer that are 0 at every place for every record"
    return head + markup.note(over(found)) + markup.table(["layer", "units", "dead", "share", "which"], rows, caption)
