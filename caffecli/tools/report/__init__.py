"""``caffecli report``: one page about a training, or several side by side.

``runs`` reads logs and snapshots; ``findings`` runs the test net over records; ``sections`` make HTML of all that, each
by a function; ``page`` puts it together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from caffecli.errors import DataError, FormatError
from caffecli.formats import atomic
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.spec import text
from caffecli.tools.report import findings, page, runs
from caffecli.tools.report.findings import Findings
from caffecli.tools.report.follow import ADDRESS, Followed, Server
from caffecli.tools.report.material import Missing, Report, ReportOptions
from caffecli.tools.report.runs import Run

__all__ = ["ReportOptions", "follow", "report"]


def report(options: ReportOptions) -> None:
    """Write the page about ``inputs`` to ``out``. Raises FormatError and DataError for inputs that are none."""
    _write(options, Finder(options))


def follow(options: ReportOptions, port: int, say: Callable[[str], object]) -> None:
    """Serve the page on ``port`` (0: a free one) of 127.0.0.1, up to date, until Ctrl-C; then write it to ``out``.

    ``say`` is told the address. Raises FormatError for inputs that are none, and where the port is taken.
    """
    finder = Finder(options)
    gather(options, finder, waiting=True)  # what is wrong with the inputs is told now
    followed = Followed(options, lambda version: page.make(gather(options, finder, waiting=True), version))
    try:
        server = Server(port, followed)
    except OSError as error:
        raise FormatError(f"cannot serve on {ADDRESS}:{port}: {error.strerror}; give another --port") from error
    with server:
        say(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            _write(options, finder, waiting=True)


def _write(options: ReportOptions, finder: Finder, *, waiting: bool = False) -> None:
    with atomic.replacing(
        options.out, "w"
    ) as file:  # first, so that a folder that is not there is told before the work
        file.write(page.make(gather(options, finder, waiting=waiting)))


def gather(options: ReportOptions, finder: Finder, *, waiting: bool = False) -> Report:
    """What the page is made of. ``waiting``: a log may tell of no iteration yet."""
    found = runs.read_all(options.inputs, waiting=waiting)
    classes = _classes(options.labels or next((path for run in found if (path := run.labels())), None))
    return Report(found, options, classes=classes, finder=finder)


def _classes(path: Path | None) -> dict[int, str]:
    """The names in a label map, or in the lines of a file."""
    if path is None:
        return {}
    if path.suffix == ".prototxt":
        return {item.label: item.display_name or item.name for item in text.read(path, LabelMap).item}
    lines = atomic.read_bytes(path).decode("utf-8", "replace").splitlines()
    if not any(line.strip() for line in lines):
        raise DataError(f"{str(path)!r} has no names; expected a line for each class")
    return dict(enumerate(line.strip() for line in lines))


class Finder:
    """Finds what nets make of records, once for the same weights."""

    def __init__(self, options: ReportOptions) -> None:
        self._options = options
        self._known: dict[tuple[object, ...], Findings | Missing] = {}

    def __call__(self, run: Run) -> Findings:
        weights = self._options.weights or run.weights()
        state = weights.stat().st_mtime_ns if weights is not None and weights.exists() else None
        key = (run.path, len(run.test_nets), weights, state)
        if key not in self._known:
            try:
                self._known[key] = findings.find(run, self._options)
            except Missing as error:
                self._known[key] = error
        known = self._known[key]
        if isinstance(known, Missing):
            raise known
        return known
