"""What the logs warn of."""

from __future__ import annotations

from caffecli.tools.report import markup
from caffecli.tools.report.markup import Cell
from caffecli.tools.report.material import Report

_LEVELS = {"W": "warning", "E": "error", "F": "fatal"}


def section(report: Report) -> str:
    """A table of warnings and errors; lines that differ in numbers alone are one."""
    rows: list[list[Cell]] = [
        [run.name, _LEVELS[one.level], one.text, one.count] for run in report.runs for one in run.warnings
    ]
    if not any(run.has_log for run in report.runs):
        return markup.paragraph("No log was given.")
    if not rows:
        return markup.paragraph("The logs have no warnings.")
    head = ["run", "level", "what", "times"]
    if not report.several:
        head, rows = head[1:], [row[1:] for row in rows]
    return markup.table(head, rows, "Warnings and errors of the logs")
