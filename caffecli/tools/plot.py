"""plot: losses and scores of trainings in one picture, the losses above, the scores below."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caffecli.errors import CaffeError, DataError
from caffecli.formats import atomic
from caffecli.tools import parse_log
from caffecli.tools.parse_log import Row, TrainingLog
from caffecli.tools.plot_log import FORMATS, MARKED, Curve, curves, run_names

#: the first columns of the files of ``train --csv``
_CSV = "iteration,seconds,"
_PLACES = ("NumIters", "Seconds", "LearningRate")


def plot(paths: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str], *, seconds: bool = False) -> list[Curve]:
    """Draw the losses and the other outputs of trainings into the picture ``out``: a .png, .svg or .pdf.

    ``paths``: logs, or files of ``train --csv``. A loss is what has "loss" in its name; where there are other outputs
    they have a panel of their own. A run has one colour, train and test each their kind of line. Returns the curves.

    Raises CaffeError without matplotlib, DataError for files that tell nothing, FormatError for files that cannot be
    read or written.
    """
    kind = Path(out).suffix[1:].lower()
    if kind not in FORMATS:
        raise DataError(f"cannot draw {os.fspath(out)!r}: its name must end in .{', .'.join(FORMATS)}")
    if Path(out).resolve() in [Path(path).resolve() for path in paths]:
        raise DataError(f"{os.fspath(out)!r} is one of the logs; give -o the name of a picture")
    axis = "Seconds" if seconds else "NumIters"
    drawn: list[Curve] = []
    for path, run in zip(paths, run_names(paths), strict=True):
        log = read(path)
        names = {"train loss": None} if log.shown else {}
        for phase, rows in (("train", log.train), ("test", log.test)):
            names |= {f"{phase} {name}": None for row in rows for name in row if name not in _PLACES}
        drawn += curves(log, run, list(names), axis)
    drawn = [curve for curve in drawn if any(math.isfinite(y) for y in curve.y)]
    if not drawn:
        raise DataError("the files tell of no loss and no score; give logs of trainings, or files of train --csv")
    if seconds and all(math.isnan(x) for curve in drawn for x in curve.x):
        raise DataError("the lines of the logs have no times; draw against iterations")
    figure = _figure(drawn, "Seconds" if seconds else "Iterations")
    with atomic.replacing(out) as file:
        figure.savefig(file, format=kind, dpi=120)
    return drawn


def read(path: str | os.PathLike[str]) -> TrainingLog:
    """The figures of a training's log, or of the file that ``train --csv`` writes. Raises FormatError, DataError."""
    text = atomic.read_bytes(path).decode("utf-8", "replace")
    return _of_csv(path, text) if text.startswith(_CSV) else parse_log.read(path)


def _of_csv(path: str | os.PathLike[str], text: str) -> TrainingLog:
    log = TrainingLog()
    try:
        for line in csv.DictReader(io.StringIO(text)):
            cells = {name: float(cell) for name, cell in line.items() if cell}
            rate = cells.get("lr", math.nan)
            row: Row = {"NumIters": cells["iteration"], "Seconds": cells["seconds"], "LearningRate": rate}
            train, test = dict(row), dict(row)
            for column, value in cells.items():
                net, slash, name = column.partition("/")
                if slash and net == "train":
                    train[name] = value
                elif slash and net.startswith("test"):
                    test[name if net == "test0" else f"{name} (net {net[4:]})"] = value
            log.train += [train] if len(train) > len(row) else []
            log.test += [test] if len(test) > len(row) else []
            log.shown += [row | {"loss": cells["loss"]}] if "loss" in cells else []
            log.rates += [row] if "lr" in cells else []
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise DataError(f"{os.fspath(path)!r} is no CSV of figures that train --csv has written ({error})") from error
    if not (log.train or log.test or log.shown):
        raise DataError(f"{os.fspath(path)!r} has no figures yet; let the training come to its first display")
    return log


def _is_loss(name: str) -> bool:
    return "loss" in name.lower()


def _figure(drawn: list[Curve], x_axis: str) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaffeError("plot needs matplotlib; pip install 'caffecli[plot]'") from error
    parts = [[c for c in drawn if _is_loss(c.name)], [c for c in drawn if not _is_loss(c.name)]]
    panels = [part for part in parts if part]
    runs = list(dict.fromkeys(curve.run for curve in drawn))
    figure = Figure(figsize=(8, 4 * len(panels)), layout="constrained")
    for axes, part in zip(figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True):
        names = list(dict.fromkeys(curve.name for curve in part))
        for curve in part:
            line = names.index(curve.name)
            several = len(runs) > 1
            axes.plot(
                curve.x,
                curve.y,
                label=f"{curve.run}: {curve.name}" if several else curve.name,
                color=f"C{(runs.index(curve.run) if several else line) % 10}",
                linestyle=("-", "--", ":", "-.")[line % 4] if several else "-",
                marker="." if len(curve.x) <= MARKED else "",
                linewidth=1,
            )
        plain = {name.partition(" ")[2] for name in names}
        axes.set_ylabel("loss" if part is parts[0] else plain.pop() if len(plain) == 1 else "score")
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set_xlabel(x_axis)
    figure.suptitle(", ".join(runs), wrap=True)
    return figure
