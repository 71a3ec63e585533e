"""Last and best scores."""

from __future__ import annotations

import math

from caffecli.tools.report import markup
from caffecli.tools.report.markup import Cell
from caffecli.tools.report.material import Missing, Report
from caffecli.tools.report.sections.curves import figures

#: outputs whose best value is the lowest
_LOWER = ("loss", "error", "mae", "rmse", "mse")


def lower_is_better(name: str) -> bool:
    """Whether an output of this name is better the lower it is."""
    return any(word in name.lower() for word in _LOWER)


def section(report: Report) -> str:
    """A table: of each output the last value, and the best with its iteration."""
    rows: list[list[Cell]] = []
    for run in report.runs:
        for figure in sorted(figures(run), key=lambda one: one.kind != "test"):
            known = [(y, x) for x, y in zip(figure.x, figure.y, strict=True) if math.isfinite(y)]
            if not known:
                rows.append([run.name, f"{figure.kind} {figure.output}", "nan or infinite", None, None])
                continue
            best = min(known) if lower_is_better(figure.output) else max(known, key=lambda pair: (pair[0], -pair[1]))
            rows.append([run.name, f"{figure.kind} {figure.output}", figure.y[-1], best[0], best[1]])
    if not rows:
        raise Missing("no log that tells of an iteration was given")
    head = ["run", "figure", "last", "best", "at iteration"]
    if not report.several:
        head, rows = head[1:], [row[1:] for row in rows]
    words = ", ".join(_LOWER[:-1]) + f" or {_LOWER[-1]}"
    said = markup.note(f"Best is the lowest where the name has {words} in it, else the highest.")
    return markup.table(head, rows, "Last and best values") + said
