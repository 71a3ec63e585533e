"""Curves: for plotly where there is JavaScript, and as pictures by matplotlib where there is none."""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np

from caffecli.tools.report import markup
from caffecli.tools.report.markup import escape

#: the colours of curves on white, which matplotlib's pictures have too; page.html has those on black
COLOURS = ("#0060a8", "#b34700", "#00734d", "#8f3d87", "#7a5c00", "#5a5a5a", "#b3002d", "#006d7a")
#: plotly's and matplotlib's words for kinds of lines
LINES = {"solid": "-", "dash": "--", "dot": ":"}
#: a curve of more points is thinned
POINTS = 2000


@dataclass(frozen=True)
class Curve:
    """A line: points whose y is not finite are gaps. ``colour`` is a number, curves of one are of one run."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 0
    line: str = "solid"
    #: y stays as it is until the next x
    steps: bool = False


@dataclass(frozen=True)
class Chart:
    """Curves over one pair of axes. ``key`` tells it from the other charts of the page."""

    key: str
    title: str
    x_axis: str
    y_axis: str
    curves: list[Curve] = field(default_factory=list)
    log_y: bool = False
    y_range: tuple[float, float] | None = None


def thinned(x: Sequence[float], y: Sequence[float], most: int = POINTS) -> tuple[list[float], list[float]]:
    """At most about so many of the points: of each stretch the lowest and the highest, so that no peak is lost."""
    if len(x) <= most:
        return list(x), list(y)
    values = np.asarray(y, np.float64)
    kept = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), most // 2):
        known = part[np.isfinite(values[part])]
        if len(known):
            kept |= {int(known[values[known].argmin()]), int(known[values[known].argmax()])}
        if len(known) < len(part):
            kept.add(int(part[~np.isfinite(values[part])][0]))
    places = sorted(kept)
    return [x[i] for i in places], [y[i] for i in places]


def script() -> str | None:
    """Plotly's own code, whole; None where it is not installed."""
    try:
        return resources.files("plotly.package_data").joinpath("plotly.min.js").read_text("utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        return None


def render(chart: Chart, alone: bool = False) -> str:
    """The HTML of a chart. ``alone``: there is no plotly, the picture takes its place."""
    drawn = _picture(chart)
    if alone:
        shown = drawn or markup.note("Curves need plotly or matplotlib: pip install 'caffecli[report]'")
    else:
        lacking = markup.note("Without JavaScript the curves need matplotlib: pip install 'caffecli[report]'")
        spoken = escape(_spoken(chart))
        shown = (
            f'<div class="chart" id="{escape(chart.key)}" tabindex="0" role="img" aria-label="{spoken}"></div>'
            f'<script type="application/json" class="chart-data">{markup.embedded(_plotly(chart))}</script>'
            f"<noscript>{drawn or lacking}</noscript>"
        )
    return f'<figure class="curves"><figcaption>{escape(chart.title)}</figcaption>{shown}{_lost(chart)}</figure>'


def _lost(chart: Chart) -> str:
    lost = sum(not math.isfinite(y) for curve in chart.curves for y in curve.y)
    return markup.note(f"{lost:,} values that are nan or infinite are not drawn.") if lost else ""


def _spoken(chart: Chart) -> str:
    """The chart in words, for those who do not see it."""
    said = [f"{chart.title}: {chart.y_axis} against {chart.x_axis}."]
    for curve in chart.curves:
        known = [y for y in curve.y if math.isfinite(y)]
        if known:
            said.append(
                f"{curve.name}: {len(known)} values, {markup.number(known[0])} at first, "
                f"{markup.number(known[-1])} at last, {markup.number(min(known))} to {markup.number(max(known))}."
            )
    return " ".join([*said, "Arrow keys walk along the values, plus and minus zoom, 0 shows all."])


def _plotly(chart: Chart) -> dict[str, Any]:
    """What plotly draws; colours by their number, which the page turns into those of dark or light."""
    traces = []
    for curve in chart.curves:
        x, y = thinned(curve.x, curve.y)
        traces.append({
            "name": _plain(curve.name), "colour": curve.colour, "dash": curve.line,
            "x": [_finite(value) for value in x], "y": [_finite(value) for value in y],
            "shape": "hv" if curve.steps else "linear", "markers": len(x) <= 60,
        })  # fmt: skip
    return {
        "x": chart.x_axis, "y": chart.y_axis, "log": chart.log_y, "range": chart.y_range, "traces": traces,
    }  # fmt: skip


def _plain(name: str) -> str:
    """A name as plotly shows it unchanged: it reads a few tags and entities."""
    return html.escape(markup.printable(name), quote=False)


def _finite(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _picture(chart: Chart) -> str | None:
    """An SVG of the chart as an image; None without matplotlib."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        return None
    settings: Any = {
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "svg.hashsalt": "caffecli",
        "text.parse_math": False,
    }
    with rc_context(settings):
        figure = Figure(figsize=(7, 3.4), layout="constrained")
        axes = figure.subplots()
        for curve in chart.curves:
            x, y = thinned(curve.x, curve.y, 400)
            shown = [value if math.isfinite(value) else math.nan for value in y]
            style = "steps-post" if curve.steps else "default"
            axes.plot(
                x, shown, label=_drawable(curve.name), color=COLOURS[curve.colour % len(COLOURS)],
                linestyle=LINES[curve.line], linewidth=1.2, drawstyle=style, marker="." if len(x) <= 60 else "",
            )  # fmt: skip
        axes.set_xlabel(_drawable(chart.x_axis))
        axes.set_ylabel(_drawable(chart.y_axis))
        axes.grid(alpha=0.3)
        if chart.y_range is not None:
            axes.set_ylim(*chart.y_range)
        if chart.log_y:
            axes.set_yscale("log")
        if len(chart.curves) > 1:
            axes.legend(fontsize=8)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None})
    encoded = base64.b64encode(out.getvalue().encode()).decode()
    return f'<img class="drawn" src="data:image/svg+xml;base64,{encoded}" alt="{escape(_spoken(chart))}">'


_UNDRAWABLE = re.compile(r"[^\x20-\x7e\xa0-\u024f]")


def _drawable(name: str) -> str:
    """A name in signs that matplotlib's fonts have, cut where it is long; one that begins with ``_`` is shown too."""
    short = name if len(name) <= 60 else f"{name[:57]}..."
    return _UNDRAWABLE.sub("?", f" {short}" if short.startswith("_") else short)


def grouped(charts: Iterable[Chart], alone: bool) -> str:
    """Charts side by side, as many as there is room for."""
    return f'<div class="charts">{"".join(render(chart, alone) for chart in charts)}</div>'
