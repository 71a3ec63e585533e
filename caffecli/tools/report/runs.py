"""The runs of a report: what a training's log tells beside its figures, and the snapshots that are there."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from caffecli import logs
from caffecli.errors import CaffeError, DataError, FormatError
from caffecli.formats import atomic, solverstate
from caffecli.proto.caffe_pb2 import TEST, NetParameter, SolverParameter
from caffecli.spec import text
from caffecli.spec.upgrade import upgrade_net, upgrade_solver
from caffecli.tools import parse_log
from caffecli.tools.parse_log import TrainingLog

M = TypeVar("M", NetParameter, SolverParameter)

#: what a run's time goes to
SETUP, TRAINING, TESTING, SNAPSHOTS = "setting up", "training", "testing", "writing snapshots"
#: the endings of weights and states, and the iteration in the name
_SNAPSHOT = re.compile(r"(?P<prefix>.*)_iter_(?P<iteration>\d+)\.(caffemodel|solverstate)(\.h5)?$")
_BINARY = re.compile(r"\.(caffemodel|solverstate)(\.h5)?$")
#: glog's prefix, with the level and what follows it
_LINE = re.compile(r"\s*([IWEF])(?:\d{4})?\d{4} \d+:\d+:\d+\.\d+\s+\d+ [^\]]*\] ?(.*)", re.DOTALL)
_WRITTEN = re.compile(r"Snapshotting to (?:binary proto|HDF5) file (.+)")
_SHOWN = re.compile(r"Iteration (\d+)\b.*, loss = ")
_NET_FILE = re.compile(r"Creating training net from (?:train_)?net file: (.+)")
_NUMBERS = re.compile(r"\d+(\.\d+)?(e[-+]?\d+)?")
#: what a log says of machine and course, with what it is called on the page
_FACTS = (
    ("Machine", re.compile(r"Running on machine: (.+)")),
    ("Device", re.compile(r"(?:Use |Using )(CPU|GPUs? .+?)\.?$")),
    ("Device", re.compile(r"(GPU \d+: .+)")),
    ("Started from", re.compile(r"(?:Finetuning|Resuming) from (.+)")),
    ("Data", re.compile(r"Opened (?:lmdb|leveldb) (.+)")),
)
_ENDS = (
    ("stopped early", re.compile(r"Optimization stopped early")),
    ("finished", re.compile(r"Optimization Done")),
)
#: so many different warnings are kept
_WARNINGS = 200


@dataclass(frozen=True)
class Snapshot:
    """Weights in a file, and the iteration in its name (-1: there is none)."""

    iteration: int
    path: Path


@dataclass
class Warned:
    """A line of level W, E or F: how many there were that differ in numbers alone."""

    level: str
    text: str
    count: int = 1


@dataclass
class Run:
    """A training: ``figures`` of its log, the definitions in it, its snapshots in the order of their iterations.

    ``folders``: where the files that it names may lie, beside the working directory. ``pace``: (iteration, seconds for
    one of training) at each display; ``spent``: seconds by what they went to.
    """

    name: str
    path: Path
    figures: TrainingLog = field(default_factory=TrainingLog)
    solver: SolverParameter | None = None
    train_net: NetParameter | None = None
    test_nets: list[NetParameter] = field(default_factory=list)
    net_file: Path | None = None
    snapshots: list[Snapshot] = field(default_factory=list)
    facts: dict[str, list[str]] = field(default_factory=dict)
    end: str = ""
    pace: list[tuple[float, float]] = field(default_factory=list)
    spent: Counter[str] = field(default_factory=Counter)
    warnings: list[Warned] = field(default_factory=list)
    #: the snapshot of the best test
    best: Path | None = None
    #: what could not be read, in words
    missing: list[str] = field(default_factory=list)
    has_log: bool = True

    @property
    def last(self) -> float:
        """The last iteration that anything tells; -1 where nothing does."""
        rows = [rows[-1]["NumIters"] for rows in (self.figures.train, self.figures.test, self.figures.shown) if rows]
        return max([*rows, *(snapshot.iteration for snapshot in self.snapshots)], default=-1.0)

    def weights(self) -> Path | None:
        """The best snapshot's weights, or the last one's; None where no snapshot is there."""
        return self.best or next((one.path for one in reversed(self.snapshots)), None)

    def labels(self) -> Path | None:
        """The file of the classes' names: the label map that the test net names, or labels.txt beside the net."""
        for layer in (layer for net in self.test_nets for layer in net.layer):
            named = layer.detection_output_param.save_output_param.label_map_file
            named = named or layer.annotated_data_param.label_map_file
            if named and (path := self.find(named)) is not None:
                return path
        beside = None if self.net_file is None else self.net_file.with_name("labels.txt")
        return beside if beside is not None and beside.is_file() else None

    def find(self, name: str) -> Path | None:
        """The file or folder that the run calls so: from the working directory, or one above its log's."""
        for folder in (Path(), *self.path.absolute().parents):
            try:
                if (folder / name).exists():
                    return folder / name
            except (OSError, ValueError):
                return None
        return None


def read_all(paths: Sequence[str | os.PathLike[str]], *, waiting: bool = False) -> list[Run]:
    """The runs of logs and snapshots. Snapshots of a run whose log is given belong to it; others, by their prefix, are
    runs of their own.

    ``waiting``: a log may tell of no iteration yet. Raises FormatError and DataError for what is neither.
    """
    logs_: list[Path] = []
    snapshots: list[Path] = []
    for path in map(Path, paths):
        (snapshots if _BINARY.search(path.name) else logs_).append(path)
    found = [_read_log(path, waiting) for path in logs_]
    for path in snapshots:
        _take_snapshot(found, path)
    for run, name in zip(found, _names([run.path for run in found]), strict=True):
        run.name = name
        run.snapshots.sort(key=lambda snapshot: snapshot.iteration)
    return found


def _names(paths: list[Path]) -> list[str]:
    """A name for each run: its file's, or with folders where files are called alike, or a number."""
    stems = [path.stem if path.suffix in (".log", ".txt") else path.name for path in paths]
    if len(set(stems)) < len(stems):
        stems = [f"{path.absolute().parent.name}/{stem}" for path, stem in zip(paths, stems, strict=True)]
    counts = Counter(stems)
    return [f"{stem} ({i + 1})" if counts[stem] > 1 else stem for i, stem in enumerate(stems)]


def _take_snapshot(found: list[Run], path: Path) -> None:
    """Give a snapshot to its run, a new one if there is none."""
    weights = _weights(path)
    snapshot = _snapshot(weights)
    matched = _SNAPSHOT.match(path.name)
    prefix = path.with_name(matched["prefix"]) if matched else path
    for run in found:
        same = [one for one in run.snapshots if one.path.absolute() == weights.absolute()]
        if same:
            return
        if run.has_log and _prefix_of(run) == prefix.absolute():
            run.snapshots.append(snapshot)
            return
        if not run.has_log and run.path == prefix:
            run.snapshots.append(snapshot)
            return
    found.append(Run(prefix.name, prefix, snapshots=[snapshot], has_log=False))


def _prefix_of(run: Run) -> Path | None:
    """The beginning of the run's snapshots' names."""
    if run.solver is None or not run.solver.snapshot_prefix:
        return None
    name = Path(run.solver.snapshot_prefix)
    folder = run.find(str(name.parent))
    return None if folder is None else (folder / name.name).absolute()


def _weights(path: Path) -> Path:
    """The weights of a snapshot: those beside a solverstate, or which it names."""
    if not path.exists():
        atomic.read_bytes(path)  # raises the error for it
    if ".solverstate" not in path.name:
        return path
    beside = path.with_name(path.name.replace(".solverstate", ".caffemodel"))
    if beside.exists():
        return beside
    named = Path(solverstate.read(path).learned_net)
    if not named.is_file():
        raise FormatError(f"{str(path)!r}: its weights {str(named)!r} are not there; give the caffemodel")
    return named


def _snapshot(path: Path) -> Snapshot:
    matched = _SNAPSHOT.match(path.name)
    return Snapshot(int(matched["iteration"]) if matched else -1, path)


# -- logs -------------------------------------------------------------------------------------------------------------


def _read_log(path: Path, waiting: bool) -> Run:
    run = Run(path.name, path)
    try:
        run.figures = parse_log.read(path)
    except DataError:
        if not waiting:
            raise
    lines = atomic.read_bytes(path).decode("utf-8", "replace").splitlines()
    _definitions(run, lines)
    _course(run, lines)
    _beside(run)
    return run


def _blocks(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each line with a prefix, without it, and the lines without one that follow it."""
    said = ""
    more: list[str] = []
    for line in lines:
        matched = _LINE.match(line)
        if matched is not None:
            if said:
                yield said, more
            said, more = matched[2], []
        elif said:
            more.append(line)
    if said:
        yield said, more


def _definitions(run: Run, lines: list[str]) -> None:
    """The solver and the nets whose text the log has."""
    for said, more in _blocks(lines):
        if said.startswith("Iteration ") and run.last >= 0:
            break  # they come first
        if said.startswith("Initializing solver from parameters") and more:
            solver = _parse(run, more, SolverParameter(), "solver")
            run.solver = run.solver if solver is None else upgrade_solver(solver, str(run.path))
        elif said.startswith("Initializing net from parameters") and more:
            net = _parse(run, more, NetParameter(), "net")
            if net is None:
                continue
            if net.state.phase == TEST:
                run.test_nets.append(net)
            elif run.train_net is None:
                run.train_net = net
        elif (named := _NET_FILE.match(said)) is not None:
            run.net_file = run.find(named[1].strip())
    if run.solver is None:
        run.missing.append("the log does not hold the solver's text")


def _parse(run: Run, lines: list[str], message: M, what: str) -> M | None:
    """The message in lines of the log; None where it cannot be read, which the run tells."""
    try:
        with logs.quiet():
            parsed = text.parse("\n".join(lines), message, str(run.path))
            return upgrade_net(parsed, str(run.path)) if isinstance(parsed, NetParameter) else parsed
    except CaffeError as error:
        run.missing.append(f"the {what}'s text in the log cannot be read: {error}")
        return None


def _course(run: Run, lines: list[str]) -> None:
    """What went on, in which time, and what was warned of."""
    warned: dict[str, Warned] = {}
    facts: dict[str, dict[str, None]] = {}
    clock = _Clock()
    for line in lines:
        matched = _LINE.match(line)
        if matched is None:
            continue
        level, said = matched[1], matched[2].rstrip()
        clock.tick(line, said, run)
        if level != "I":
            _warn(warned, level, said)
            continue
        if (written := _WRITTEN.match(said)) is not None:
            _written(run, written[1])
        for name, pattern in _FACTS:
            if (fact := pattern.match(said)) is not None:
                facts.setdefault(name, {})[fact[1]] = None
        for end, pattern in _ENDS:
            if not run.end and pattern.match(said):
                run.end = end
    run.warnings = list(warned.values())
    run.facts = {name: list(values) for name, values in facts.items()}


def _warn(warned: dict[str, Warned], level: str, said: str) -> None:
    """Count a warning with those that differ from it in numbers alone."""
    kind = level + _NUMBERS.sub("#", said)
    if kind in warned:
        warned[kind].count += 1
    elif len(warned) < _WARNINGS:
        warned[kind] = Warned(level, said)


def _written(run: Run, name: str) -> None:
    path = run.find(name.strip())
    if path is None:
        note = "some of the snapshots that the log names are gone"
        if note not in run.missing:
            run.missing.append(note)
    elif all(one.path != path for one in run.snapshots):
        run.snapshots.append(_snapshot(path))


def _beside(run: Run) -> None:
    """The best snapshot, which has its own name."""
    prefix = _prefix_of(run)
    if prefix is not None:
        for ending in (".caffemodel", ".caffemodel.h5"):
            best = prefix.with_name(f"{prefix.name}_best{ending}")
            if best.is_file():
                run.facts.setdefault("Best snapshot", []).append(str(best))
                run.best = best


class _Clock:
    """Gives the time between two lines to what went on."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._doing = SETUP
        self._told = False
        self._since = 0.0
        self._iteration: float | None = None

    def tick(self, line: str, said: str, run: Run) -> None:
        """A line has come."""
        now = _seconds(line)
        if now is None:
            return
        output = said.lstrip().startswith(("Test net output", "Test score", "Test loss"))
        if self._doing == TESTING and self._told and not output:
            self._doing = TRAINING
        past = 0.0 if self._last is None else now - self._last
        if past < -12 * 3600:
            past += 24 * 3600  # over midnight
        elif past < 0:  # a thread's line, written a moment late
            past, now = 0.0, now - past
        self._last = now
        run.spent[self._doing] += past  # type: ignore[assignment]
        self._since += past if self._doing == TRAINING else 0.0
        if ", Testing net" in said:
            self._doing, self._told = TESTING, False
        elif output:
            self._told = True
        elif said.startswith("Snapshotting to "):
            self._doing = SNAPSHOTS
        elif self._doing == SNAPSHOTS or said.startswith(("Solving ", "Starting Optimization")):
            self._doing = TRAINING
        if (shown := _SHOWN.match(said)) is not None:
            iteration = float(shown[1])
            if self._iteration is not None and iteration > self._iteration:
                run.pace.append((iteration, self._since / (iteration - self._iteration)))
            self._iteration, self._since = iteration, 0.0


_TIME = re.compile(r"\s*[IWEF](?:\d{4})?\d{4} (\d+):(\d+):(\d+\.\d+)")


def _seconds(line: str) -> float | None:
    """The seconds of the day."""
    matched = _TIME.match(line)
    if matched is None:
        return None
    return int(matched[1]) * 3600 + int(matched[2]) * 60 + float(matched[3])


def finite(value: float | None) -> bool:
    """Whether it is a number that can be drawn."""
    return value is not None and math.isfinite(value)
