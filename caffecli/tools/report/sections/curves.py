"""Curves of every figure that the logs tell, and of the learning rate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from caffecli.tools.parse_log import Row
from caffecli.tools.report.charts import Chart, Curve, grouped
from caffecli.tools.report.material import Missing, Report
from caffecli.tools.report.runs import Run

_COLUMNS = ("NumIters", "Seconds", "LearningRate")
#: which line a figure of this kind has
_LINE = {"test": "solid", "train": "dash", "train, each": "dot"}


class Figure(NamedTuple):
    """An output over the iterations; ``kind``: test; train; or train, each, where the log has a mean beside it."""

    output: str
    kind: str
    x: list[float]
    y: list[float]


def figures(run: Run) -> Iterator[Figure]:
    """Every figure of the run's log."""
    log = run.figures
    shown = [row["loss"] for row in log.shown]
    if shown:
        yield Figure("loss", "train", [row["NumIters"] for row in log.shown], shown)
    for kind, rows in (("train", log.train), ("test", log.test)):
        for name in outputs(rows):
            points = [(row["NumIters"], row[name]) for row in rows if name in row]
            x, y = [x for x, _ in points], [y for _, y in points]
            smoothed = kind == "train" and name == "loss" and bool(shown)
            if smoothed and len(shown) >= len(y) and np.allclose(y, shown[: len(y)], 1e-3, 1e-6, equal_nan=True):
                continue  # average_loss is 1; the two differ by rounding
            yield Figure(name, "train, each" if smoothed else kind, x, y)


def outputs(rows: list[Row]) -> list[str]:
    """The names of the outputs in rows of a log."""
    return list(dict.fromkeys(name for row in rows for name in row if name not in _COLUMNS))


def section(report: Report) -> str:
    """A chart for each output, then the learning rate."""
    charts: dict[str, Chart] = {}
    for number, run in enumerate(report.runs):
        for figure in figures(run):
            if figure.output not in charts:
                charts[figure.output] = Chart(f"curve-{len(charts)}", figure.output, "iteration", figure.output)
            chart = charts[figure.output]
            colour = number if report.several else len(chart.curves)
            name = report.of(run, figure.kind)
            chart.curves.append(Curve(name, figure.x, figure.y, colour, _LINE[figure.kind]))
    rate = Chart("curve-rate", "learning rate", "iteration", "learning rate")
    for number, run in enumerate(report.runs):
        if rates := run.figures.rates:
            x, y = [row["NumIters"] for row in rates], [row["LearningRate"] for row in rates]
            rate.curves.append(Curve(report.of(run, "rate"), x, y, number, steps=True))
    drawn = [*charts.values(), *([rate] if rate.curves else [])]
    if not drawn:
        raise Missing("no log that tells of an iteration was given")
    return grouped(drawn, report.pictures_only)
