"""``caffecli report``: one page about a training, or several side by side.

``runs`` reads logs and snapshots; ``sections`` make HTML of them, each by a function; ``page`` puts it together.
"""

from __future__ import annotations

from caffecli.formats import atomic
from caffecli.tools.report import page, runs
from caffecli.tools.report.material import Report, ReportOptions

__all__ = ["ReportOptions", "report"]


def report(options: ReportOptions) -> None:
    """Write the page about ``inputs`` to ``out``. Raises FormatError and DataError for inputs that are none."""
    with atomic.replacing(
        options.out, "w"
    ) as file:  # first, so that a folder that is not there is told before the work
        file.write(page.make(Report(runs.read_all(options.inputs), options)))
