"""Time for an iteration, and what the time went to."""

from __future__ import annotations

from caffecli.tools.report import markup
from caffecli.tools.report.charts import Chart, Curve, grouped
from caffecli.tools.report.markup import Cell, bar, duration
from caffecli.tools.report.material import Missing, Report
from caffecli.tools.report.runs import SETUP, SNAPSHOTS, TESTING, TRAINING


def section(report: Report) -> str:
    """A table of what the time went to, and the pace over the iterations."""
    rows: list[list[Cell]] = []
    for run in report.runs:
        total = sum(run.spent.values())
        for what in (SETUP, TRAINING, TESTING, SNAPSHOTS):
            if total > 0 and run.spent[what]:
                spent = float(run.spent[what])
                rows.append([run.name, what, spent, bar(spent / total, f"{spent / total:.1%}")])
    if not rows:
        raise Missing("the lines of the logs have no times, or no log was given")
    head = ["run", "what", "seconds", "share"]
    if not report.several:
        head, rows = head[1:], [row[1:] for row in rows]
    said = markup.table(head, rows, "What the time went to")
    chart = Chart("pace", "time of an iteration of training, without tests", "iteration", "seconds")
    for number, run in enumerate(report.runs):
        if run.pace:
            x, y = [x for x, _ in run.pace], [y for _, y in run.pace]
            chart.curves.append(Curve(report.of(run, "seconds"), x, y, number))
            mean = sum(y) / len(y)
            said += markup.note(report.of(run, f"{duration(mean)} an iteration in the mean of the displays."))
    return said + (grouped([chart], report.pictures_only) if chart.curves else "")
