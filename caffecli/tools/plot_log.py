"""Pictures of training logs: curves of loss, accuracy and learning rate.

Source: Caffe's ``plot_training_log.py.example``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caffecli.errors import CaffeError, DataError
from caffecli.formats import atomic
from caffecli.tools import parse_log
from caffecli.tools.parse_log import TrainingLog

#: the chart types by their numbers in Caffe: what is drawn
CHARTS = ("test accuracy", "test loss", "train learning rate", "train loss")
_AXES = {"NumIters": "Iterations", "Seconds": "Seconds"}
FORMATS = ("png", "svg", "pdf")
#: what tells outputs of one name apart
_NUMBERED = re.compile(r"(?<!score)( \d+)?( \(net \d+\))?$")
#: what the scores of 2014 are taken for, as by Caffe's scripts of that time
_OF_2014 = {"score #0": "accuracy", "score #1": "loss"}
#: with more points, markers would hide the line
MARKED = 60


@dataclass(frozen=True)
class Curve:
    """A line of the picture: one output of one run. ``name`` is its phase and output, as ``test accuracy``."""

    run: str
    name: str
    x: list[float]
    y: list[float]


def chart(text: str) -> tuple[list[str], str | None]:
    """The names that a chart type means, and its x axis where it settles that.

    ``0`` to ``7`` are Caffe's: accuracy and loss of the test net, learning rate and loss of the training, each against
    iterations (even) and seconds (odd). Others are names parted by commas. Raises DataError for another number.
    """
    if not text.lstrip("-").isdigit():
        return [name.strip() for name in text.split(",") if name.strip()], None
    if int(text) not in range(2 * len(CHARTS)):
        listed = "; ".join(f"{2 * i}, {2 * i + 1}: {name}" for i, name in enumerate(CHARTS))
        raise DataError(f"there is no chart type {text}; there are {listed} (against iterations, against seconds)")
    return [CHARTS[int(text) // 2]], "Seconds" if int(text) % 2 else "NumIters"


def curves(log: TrainingLog, run: str, names: Sequence[str], axis: str) -> list[Curve]:
    """The curves of a log that ``names`` ask for: an output's name, or ``train`` or ``test`` and part of a name.

    ``train loss`` is the loss that each display tells, averaged over ``average_loss``; ``learning rate`` or ``lr`` the
    rate.
    """
    found: dict[str, Curve] = {}
    for asked in names:
        for name, rows, column in _matches(log, asked):
            points = [(row[axis], row[column]) for row in rows if column in row]
            found.setdefault(name, Curve(run, name, [x for x, _ in points], [y for _, y in points]))
    return list(found.values())


def _matches(log: TrainingLog, asked: str) -> list[tuple[str, list[parse_log.Row], str]]:
    phase, _, rest = asked.partition(" ")
    phases = [phase] if phase in ("train", "test") and rest else ["train", "test"]
    wanted = rest if phase in ("train", "test") and rest else asked
    if wanted.lower() in ("lr", "learning rate", "learningrate"):
        return [("learning rate", log.rates, "LearningRate")]
    found = []
    for name in phases:
        rows = log.train if name == "train" else log.test
        outputs = [
            column for row in rows[:1] for column in row if column not in ("NumIters", "Seconds", "LearningRate")
        ]
        if name == "train" and wanted == "loss" and log.shown:
            found.append(("train loss", log.shown, "loss"))
            continue
        plain = {column: _NUMBERED.sub("", column) for column in outputs}
        exact = [column for column in outputs if wanted in (column, plain[column], _OF_2014.get(plain[column]))]
        found += [(f"{name} {column}", rows, column) for column in exact or [c for c in outputs if wanted in c]]
    return found


def plot_log(
    what: str,
    out: str | os.PathLike[str],
    logs: Sequence[str | os.PathLike[str]],
    *,
    seconds: bool = False,
    log_scale: bool = False,
) -> list[Curve]:
    """Draw ``what`` (see ``chart`` and ``curves``) of all ``logs`` into the picture ``out``: a .png, .svg or .pdf.

    A run has one colour; where several things are drawn, each has its own kind of line. Returns the curves.
    Raises CaffeError without matplotlib, DataError when no log has what is asked for, FormatError for files that cannot
    be read or written.
    """
    kind = Path(out).suffix[1:].lower()
    if kind not in FORMATS:
        raise DataError(f"cannot draw {os.fspath(out)!r}: its name must end in .{', .'.join(FORMATS)}")
    names, axis = chart(what)
    axis = axis or ("Seconds" if seconds else "NumIters")
    read = [parse_log.read(path) for path in logs]
    drawn = [curve for log, run in zip(read, run_names(logs), strict=True) for curve in curves(log, run, names, axis)]
    if not any(curve.x for curve in drawn):
        known = {
            f"{phase} {name}"
            for log in read
            for phase in ("train", "test")
            for row in getattr(log, phase)[:1]
            for name in row
        }
        known = {name for name in known if name.split()[1] not in ("NumIters", "Seconds", "LearningRate")}
        raise DataError(
            f"no log tells {what!r}; there are {', '.join([*sorted(known), 'train loss', 'learning rate'])}"
        )
    if axis == "Seconds" and all(math.isnan(x) for curve in drawn for x in curve.x):
        raise DataError("the lines of the logs have no times; draw against iterations")
    figure = _figure(drawn, axis, log_scale)
    with atomic.replacing(out) as file:
        figure.savefig(file, format=kind, dpi=120)
    return drawn


def run_names(logs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A name for each run: its file's, or the folder's too where files are called alike."""
    paths = [Path(log) for log in logs]
    stems = [path.stem if path.suffix == ".log" else path.name for path in paths]
    if len(set(stems)) == len(stems):
        return stems
    return [f"{path.absolute().parent.name}/{stem}" for path, stem in zip(paths, stems, strict=True)]


def _figure(drawn: list[Curve], axis: str, log_scale: bool) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise CaffeError("plot_log needs matplotlib; pip install 'caffecli[plot]'") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    runs = list(dict.fromkeys(curve.run for curve in drawn))
    names = list(dict.fromkeys(curve.name for curve in drawn))
    for curve in drawn:
        line = names.index(curve.name)
        label = curve.name if len(runs) == 1 else curve.run if len(names) == 1 else f"{curve.run}: {curve.name}"
        colour = f"C{(runs.index(curve.run) if len(runs) > 1 else line) % 10}"
        style = ("-", "--", ":", "-.")[line % 4] if len(runs) > 1 else "-"
        marker = "." if len(curve.x) <= MARKED else ""
        axes.plot(curve.x, curve.y, label=label, color=colour, linestyle=style, marker=marker, linewidth=1)
    axes.set_title(", ".join(names) if len(runs) > 1 else f"{runs[0]}: {', '.join(names)}", wrap=True)
    axes.set_xlabel(_AXES[axis])
    axes.set_ylabel(names[0] if len(names) == 1 else "value")
    if log_scale:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if len(drawn) > 1:
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the curves, not over them
    return figure
