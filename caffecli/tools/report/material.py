"""What the sections of a report are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from caffecli.errors import CaffeError
from caffecli.tools.report import markup
from caffecli.tools.report.runs import Run


class Missing(CaffeError):
    """Why a section, or a part of one, is left out."""


@dataclass(frozen=True)
class ReportOptions:
    """``inputs``: logs and snapshots. ``follow``: serve the page on ``port`` of 127.0.0.1 (0: a free one)."""

    inputs: tuple[Path, ...]
    out: Path
    follow: bool = False
    port: int = 0


@dataclass
class Report:
    """The runs side by side. ``pictures_only``: there is no plotly, curves are pictures."""

    runs: list[Run]
    options: ReportOptions
    pictures_only: bool = False

    @property
    def several(self) -> bool:
        return len(self.runs) > 1

    def of(self, run: Run, name: str) -> str:
        """A name with its run's, where there are several."""
        return f"{run.name}: {name}" if self.several else name

    def for_each(self, part: Callable[[Run], str]) -> str:
        """A part for each run, under its name where there are several; a line where one has nothing to show.

        Raises Missing where none has.
        """
        parts, reasons = [], []
        for run in self.runs:
            head = markup.heading(run.name) if self.several else ""
            try:
                parts.append(head + part(run))
            except CaffeError as error:
                reasons.append(str(error))
                parts.append(head + left_out(error))
        if len(reasons) == len(self.runs):
            raise Missing(self.of(self.runs[0], reasons[0]) if len(set(reasons)) > 1 else reasons[0])
        return "".join(parts)


def left_out(error: CaffeError) -> str:
    """The line in place of what is not there."""
    return markup.paragraph(f"Left out: {' '.join(str(error).split())}", "missing")
