"""Every figure of a run in files for other programs: CSV, lines of JSON, TensorBoard's event files.

A record is made at each display, after each test, and of the loss at the end. Rank 0 writes. Where the file holds
records already, those of iterations that this run does (anew) are dropped and the others kept: a resumed run goes on
with its file, another starts anew.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from caffecli.errors import FormatError, SolverError
from caffecli.formats import atomic
from caffecli.net.net import Net
from caffecli.solver.callbacks import Callback, Output

if TYPE_CHECKING:
    from caffecli.solver.solver import Solver

#: the figures of a display, in the order of columns
_FIGURES = ("lr", "loss", "iter/s")


@dataclass(frozen=True)
class Record:
    """The figures of a display (``net`` is ``train``) or a test (``test0``, ...),
    ``seconds`` after the run's first start.
    """

    iteration: int
    seconds: float
    net: str
    figures: Mapping[str, float]
    outputs: Mapping[str, Output]


class Recorder(Callback, ABC):
    """Base of what writes records; ``open`` before the first one, and again at each ``started``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zero: float | None = None

    @abstractmethod
    def open(self, solver: Solver) -> float:
        """Make ready for records from ``solver.iter`` on; returns the seconds of the last one that is kept."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write one record; the caller reports OSErrors."""

    def started(self, solver: Solver) -> None:
        self.close()
        if solver.world.rank == 0:
            self._zero = time.monotonic() - self.open(solver)

    def displayed(self, solver: Solver, figures: Mapping[str, float], outputs: Mapping[str, Output]) -> None:
        self._record(solver, "train", {name: figures[name] for name in _FIGURES}, outputs)

    def tested(self, solver: Solver, index: int, means: Mapping[str, Output]) -> None:
        self._record(solver, f"test{index}", {}, means)

    def finished(self, solver: Solver) -> None:
        if not solver.stopped and solver.param.display and solver.iter % solver.param.display == 0:
            self._record(solver, "train", {"loss": solver.losses.smoothed}, {})

    def _record(self, solver: Solver, net: str, figures: Mapping[str, float], outputs: Mapping[str, Output]) -> None:
        if solver.world.rank:
            return
        if self._zero is None:
            self.started(solver)
        seconds = round(time.monotonic() - (self._zero or 0.0), 3)
        try:
            self.write(Record(solver.iter, seconds, net, figures, outputs))
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error

    def close(self) -> None:
        self._zero = None


class Lines(Recorder):
    """Base of the files of lines: each is written out at once."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: IO[str] | None = None
        self._alone = contextlib.ExitStack()

    @abstractmethod
    def head(self, solver: Solver) -> str:
        """The file's first line, if it has one that is no record."""

    @abstractmethod
    def line(self, record: Record) -> str:
        """A record as a line."""

    @abstractmethod
    def parse(self, lines: list[str], head: str, resumed: bool) -> Iterator[tuple[int, float, str, str]]:
        """(iteration, seconds, net, line) of the records in a file; raises ValueError, saying what else it holds."""

    def open(self, solver: Solver) -> float:
        head = self.head(solver)
        seconds, kept = 0.0, head
        plain = self.path.is_file() or not self.path.exists()  # not a pipe
        if plain:
            self._alone.enter_context(atomic.alone(self.path, repr(str(self.path))))
        try:
            lines = self.path.read_text("utf-8", "replace").splitlines(keepends=True) if self.path.is_file() else []
            for iteration, second, net, line in self.parse(lines, head, solver.iter > 0) if lines else ():
                done = solver.iter if net == "train" or solver.tested != solver.iter else solver.iter + 1
                if iteration < done:
                    seconds, kept = second, kept + line
            if plain:
                with atomic.replacing(self.path, "w") as file:
                    file.write(kept)
            self._file = self.path.open("a", encoding="utf-8")
            self._file.write("" if plain else head)
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error
        except ValueError as error:
            raise FormatError(f"{str(self.path)!r} is there and {error}; name another file, or remove it") from error
        return seconds

    def write(self, record: Record) -> None:
        if self._file is not None:
            self._file.write(self.line(record))
            self._file.flush()

    def close(self) -> None:
        super().close()
        file, self._file = self._file, None
        self._alone.close()
        try:
            if file is not None:
                file.close()
        except OSError as error:  # of what is still to be written
            raise atomic.cannot_write(self.path, error) from error


class Csv(Lines):
    """``iteration,seconds,lr,loss,iter/s,train/loss,test0/accuracy,test0/loss``: what a record does not tell is empty.

    ``loss`` is the smoothed one. An output of several values has a column for each: ``test0/accuracy/1``.
    """

    def head(self, solver: Solver) -> str:
        outputs = {"train": _outputs(solver.net, [])}
        outputs |= {f"test{i}": _outputs(net, solver.test_figures(i)) for i, net in enumerate(solver.test_nets)}
        columns = [f"{name}/{output}" for name, listed in outputs.items() for output in listed]
        self._columns = ["iteration", "seconds", *_FIGURES, *columns]
        return _csv_line(self._columns)

    def line(self, record: Record) -> str:
        cells = {"iteration": str(record.iteration), "seconds": f"{record.seconds:g}"}
        cells |= {name: _number(value) for name, value in record.figures.items()}
        cells |= {f"{record.net}/{name}": _number(value) for name, value in _flat(record.outputs)}
        return _csv_line([cells.get(column, "") for column in self._columns])

    def parse(self, lines: list[str], head: str, resumed: bool) -> Iterator[tuple[int, float, str, str]]:
        if not lines[0].startswith("iteration,seconds,"):
            raise ValueError("is no CSV of figures that a training has written")
        if not resumed:
            return
        if lines[0] != head:
            raise ValueError(f"has other columns than this run: {lines[0].strip()} instead of {head.strip()}")
        for number, line in enumerate(lines[1:], 2):
            cells = line.split(",")
            try:
                yield int(cells[0]), float(cells[1]), "train" if cells[3] else "test", line
            except (ValueError, IndexError):
                if line.endswith("\n"):  # a machine that crashed leaves half a line
                    raise ValueError(f"its line {number} is no record that a training has written") from None


class JsonLines(Lines):
    """``{"iteration": 100, "seconds": 1.5, "net": "train", "lr": 0.01, "loss": 0.3, "iter/s": 90.1, "outputs": {"loss":
    0.2}}``.

    After a test: ``{"iteration": 500, "seconds": 8.1, "net": "test0", "outputs": {"accuracy": 0.98, "loss":
    0.06}}``. ``loss`` is the smoothed one; what is no finite number is null.
    """

    def head(self, solver: Solver) -> str:
        return ""

    def line(self, record: Record) -> str:
        numbers = {name: _finite(value) for name, value in record.figures.items()}
        said = {"iteration": record.iteration, "seconds": record.seconds, "net": record.net, **numbers}
        return json.dumps({**said, "outputs": {name: _finite(value) for name, value in record.outputs.items()}}) + "\n"

    def parse(self, lines: list[str], head: str, resumed: bool) -> Iterator[tuple[int, float, str, str]]:
        for number, line in enumerate(lines):
            try:
                said = json.loads(line)
                yield int(said["iteration"]), float(said["seconds"]), str(said["net"]), line
            except (ValueError, KeyError, TypeError):
                if number == 0 or line.endswith("\n"):
                    raise ValueError(f"its line {number + 1} is no record that a training has written") from None


class TensorBoard(Recorder):
    """Event files in the folder ``path``, with the names of ``Csv`` as tags.

    Raises SolverError where there is no tensorboard.

    A resumed run writes a file of its own; TensorBoard then leaves out what older ones say of its iterations.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise SolverError("--tensorboard needs the package tensorboard: pip install tensorboard") from error
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def open(self, solver: Solver) -> float:
        try:
            self._writer = self._make(str(self.path), purge_step=solver.iter or None, flush_secs=10)
        except OSError as error:
            raise atomic.cannot_write(self.path, error) from error
        return 0.0

    def write(self, record: Record) -> None:
        values = [*record.figures.items(), *((f"{record.net}/{name}", value) for name, value in _flat(record.outputs))]
        for tag, value in values:
            self._writer.add_scalar(tag, value, record.iteration)

    def snapshotted(self, solver: Solver, model: Path, state: Path) -> None:
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        super().close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _outputs(net: Net, figures: list[str]) -> list[str]:
    """A name for each value of each output blob; those of ``figures`` have one."""
    names = []
    for blob in net.outputs:
        names += [blob] if blob in figures else _names(blob, math.prod(net.shape(blob)))
        names += [figure for figure in figures if figure.startswith(f"{blob}/") and figure not in net.outputs]
    return names


def _flat(outputs: Mapping[str, Output]) -> Iterator[tuple[str, float]]:
    for blob, output in outputs.items():
        values = output if isinstance(output, list) else [output]
        yield from zip(_names(blob, len(values)), values, strict=True)


def _names(blob: str, count: int) -> list[str]:
    return [blob] if count == 1 else [f"{blob}/{i}" for i in range(count)]


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _number(value: float) -> str:
    """The shortest text that gives the float32."""
    return str(np.float32(value))


def _finite(value: Output) -> Any:
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return float(_number(value)) if math.isfinite(value) else None
