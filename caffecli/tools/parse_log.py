"""Training logs, Caffe's and ours, as rows of figures. Source: Caffe's ``tools/extra/parse_log.py``."""

from __future__ import annotations

import contextlib
import csv
import io
import math
import os
import re
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from caffecli.errors import DataError
from caffecli.formats import atomic

#: ``NumIters``, ``Seconds`` since the start of the run, ``LearningRate``, then the net's outputs as the log lists them
Row = dict[str, float]

_NUMBER = r"([-+]?(?:nan|inf)\b|[-+.\deE]+)"
_ITERATION = re.compile(r"Iteration (\d+)")
_TESTING = re.compile(r"Iteration \d+, Testing net(?: \(#(\d+)\))?")
_OUTPUT = re.compile(rf"(Train|Test) net output #(\d+): (\S+) = {_NUMBER}")
#: as the outputs of test nets were told until August 2014, without their names
_SCORE = re.compile(rf"Test (score) #(\d+): {_NUMBER}")
_RATE = re.compile(rf"lr = {_NUMBER}")
_LOSS = re.compile(rf"Iteration \d+.*, loss = {_NUMBER}")
#: a line of a log that keeps no prefixes, as DIGITS's
_BARE = re.compile(rf"\s*(Iteration \d+.*, (loss|lr) = |{_TESTING.pattern}|{_OUTPUT.pattern}|{_SCORE.pattern})")
#: DIGITS's prefix
_DIGITS = re.compile(r"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d) \[[A-Z]+ *\] ")
#: glog's prefix: newer versions put the year before month and day
_DATE = re.compile(r"\s*[IWEF](\d{4})?(\d\d)(\d\d) (\d+):(\d+):(\d+)\.(\d{1,6})\s")


@dataclass
class TrainingLog:
    """The content of a log: outputs of the train and test nets;
    the (averaged) ``loss`` and the rate at each display.
    """

    train: list[Row] = field(default_factory=list)
    test: list[Row] = field(default_factory=list)
    shown: list[Row] = field(default_factory=list)
    rates: list[Row] = field(default_factory=list)


def read(path: str | os.PathLike[str]) -> TrainingLog:
    """The figures of a training log, row by row.

    A row is one display or test; its learning rate is the last one logged before it. Seconds count from the line that
    has ``Solving``, or the first dated line; they are NaN before a line with a date. Lines without a date count if
    they begin with what Caffe says; a month that goes back begins another year.

    Of outputs of one name, the second is called ``NAME 2``; those of a second test net, ``NAME (net 1)``. The scores of
    2014, which have no names, are ``score #0``, ``score #1``.

    Raises FormatError when the file cannot be read, DataError when it tells nothing.
    """
    lines = atomic.read_bytes(path).decode("utf-8", "replace").splitlines()
    year = datetime.fromtimestamp(Path(path).stat().st_ctime).year
    start = next((number for number, line in enumerate(lines) if "Solving" in line and _date(line, year)), 0)
    log = TrainingLog()
    tables = {"Train": _Table(log.train), "Test": _Table(log.test)}
    iteration, rate, net = -1.0, math.nan, 0
    begin = last = None
    for line in lines[start:]:
        time = _date(line, year)
        if time is None and not _BARE.match(line):
            continue
        if time is not None:
            if last is not None and time.month < last.month:
                year += 1
                time = _date(line, year) or time
            begin, last = begin or time, time
        if (found := _ITERATION.search(line)) is not None:
            iteration = float(found[1])
        if iteration < 0:
            continue
        if (found := _TESTING.search(line)) is not None:
            net = int(found[1] or 0)
        row = {"NumIters": iteration, "Seconds": math.nan, "LearningRate": rate}
        if begin is not None and last is not None:
            row["Seconds"] = (last - begin).total_seconds()
        if (found := _RATE.search(line)) is not None:
            row["LearningRate"] = rate = _float(found[1])
            _append(log.rates, dict(row))
        if (found := _OUTPUT.search(line)) is not None:
            of_net = net if found[1] == "Test" else 0
            tables[found[1]].add(row, (of_net, int(found[2]), found[3]), _float(found[4]))
        elif (found := _SCORE.search(line)) is not None:
            tables["Test"].add(row, (net, int(found[2]), f"{found[1]} #{found[2]}"), _float(found[3]))
        elif (found := _LOSS.search(line)) is not None:
            _append(log.shown, row | {"loss": _float(found[1])})
    for table in tables.values():
        table.end()
    if not (log.train or log.test or log.shown or log.rates):
        what = "of no iteration" if iteration < 0 else "no loss, no learning rate and no test"
        raise DataError(f"{os.fspath(path)!r} tells {what}; expected the log of a training, as train writes on stderr")
    _first_rates(log)
    return log


def _append(rows: list[Row], row: Row) -> None:
    """Add a row, in place of one of the same iteration right before: DIGITS writes some lines twice."""
    if rows and rows[-1]["NumIters"] == row["NumIters"]:
        rows.pop()
    rows.append(row)


#: the net of an output, its number there, and its name
_Output = tuple[int, int, str]


class _Table:
    """Rows that outputs are added to, one by one.

    The first row ends with its iteration; others when they are as long.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows = rows
        self.row: Row | None = None
        self._columns: dict[_Output, str] = {}

    def _column(self, output: _Output) -> str:
        """The column of an output, another one for each."""
        if output not in self._columns:
            net, _, name = output
            earlier = sum(1 for other in self._columns if (other[0], other[2]) == (net, name))
            self._columns[output] = name + (f" {earlier + 1}" if earlier else "") + (f" (net {net})" if net else "")
        return self._columns[output]

    def add(self, start: Row, output: _Output, value: float) -> None:
        name = self._column(output)
        if self.row is None or self.row["NumIters"] != start["NumIters"]:
            self._push()
            self.row = dict(start)
        self.row[name] = value
        if self.rows and len(self.row) == len(self.rows[0]):
            self._push()

    def end(self) -> None:
        """Drop the last row if the log ends within it, unless it is the only one."""
        if not self.rows:
            self._push()

    def _push(self) -> None:
        if self.row is not None:
            self.rows.append(self.row)
            self.row = None


def _first_rates(log: TrainingLog) -> None:
    """Set the rates of the first test and display, before the log has a rate, to that of the next row."""
    for rows in (log.train, log.test, log.shown):
        if len(rows) > 1 and math.isnan(rows[0]["LearningRate"]):
            rows[0]["LearningRate"] = rows[1]["LearningRate"]


def _date(line: str, year: int) -> datetime | None:
    if (digits := _DIGITS.match(line)) is not None:
        with contextlib.suppress(ValueError):
            year, month, day, hour, minute, second = map(int, digits.groups())
            return datetime(year, month, day, hour, minute, second)
        return None
    found = _DATE.match(line)
    if found is None:
        return None
    month, day, hour, minute, second = (int(part) for part in found.groups()[1:-1])
    try:
        return datetime(int(found[1] or year), month, day, hour, minute, second, int(found[7].ljust(6, "0")))
    except ValueError:
        return None


def _float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def to_csv(rows: list[Row], delimiter: str = ",") -> str:
    """The rows as a table, a column for each name in the order in which they first come, lines ending in CR LF."""
    out = io.StringIO()
    writer = csv.DictWriter(
        out, list(dict.fromkeys(name for row in rows for name in row)), restval="", delimiter=delimiter
    )
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def parse_log(log: str | os.PathLike[str], folder: str | os.PathLike[str], delimiter: str = ",") -> dict[Path, int]:
    """Write the figures of ``log`` to ``folder/LOG.train`` and ``folder/LOG.test``; returns the rows of each.

    A file without rows is not written. Where the log has no outputs of the train net, as in 2014, the rows of training
    are the losses that it shows. Raises as ``read``, and FormatError when a file cannot be written.
    """
    figures = read(log)
    counts = {}
    for end, rows in (("train", figures.train or figures.shown), ("test", figures.test)):
        path = Path(folder) / f"{Path(log).name}.{end}"
        counts[path] = len(rows)
        if rows:
            with atomic.replacing(path) as file:
                file.write(to_csv(rows, delimiter).encode())
    return counts
