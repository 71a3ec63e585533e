"""Watching a test output: the best snapshot, an early stop, a learning rate that falls where the output stays.

Each watcher keeps, in the position file of a snapshot, the best value so far and the tests since, so that a resumed run
decides as one that was never stopped.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.formats import form
from caffecli.net.net import Net
from caffecli.solver import snapshot
from caffecli.solver.callbacks import Callback, Output
from caffecli.solver.solver import Solver
from caffecli.wording import did_you_mean

#: [#]INDEX:NAME:min or max, of which only the name must be there
_MONITOR = re.compile(r"(?:#?(?P<index>\d+):)?(?P<name>.+?)(?::(?P<goal>min|max))?")


@dataclass(frozen=True)
class WatchOptions:
    """``monitor``: which test output, see ``Monitor.find``.

    ``early_stop``, ``plateau``: tests without a better value, 0: off.

    ``plateau_gamma``: what the rate is multiplied by; None: the solver's ``gamma``. ``best``: keep the best snapshot.
    """

    monitor: str = ""
    early_stop: int = 0
    plateau: int = 0
    plateau_gamma: float | None = None
    best: bool = False

    def flags(self) -> list[str]:
        """The flags that ask for this."""
        gamma = "" if self.plateau_gamma is None else f":{self.plateau_gamma!r}"
        said = [f"--early-stop={self.early_stop}"] if self.early_stop else []
        said += [f"--plateau={self.plateau}{gamma}"] if self.plateau else []
        said += ["--best"] if self.best else []
        return said + ([f"--monitor={self.monitor}"] if self.monitor else [])

    def callbacks(self) -> list[Callback]:
        """The watchers asked for. ``Best`` comes last, so that its snapshots hold what the others have decided."""
        watchers: list[Callback] = []
        if self.plateau:
            watchers.append(Plateau(self.monitor, self.plateau, self.plateau_gamma))
        if self.early_stop:
            watchers.append(EarlyStop(self.monitor, self.early_stop))
        if self.best:
            watchers.append(Best(self.monitor))
        return watchers


NO_WATCH = WatchOptions()


@dataclass(frozen=True)
class Monitor:
    """Output ``name`` of test net ``index``, better when it is nearer to its ``goal``: ``min`` or ``max``."""

    index: int
    name: str
    goal: str

    def __str__(self) -> str:
        return f"{self.index}:{self.name}:{self.goal}"

    def better(self, value: float, than: float | None) -> bool:
        """Whether ``value`` beats ``than``, if there is one yet. What is not a number beats nothing."""
        if math.isnan(value) or than is None:
            return not math.isnan(value)
        return value > than if self.goal == "max" else value < than

    @classmethod
    def find(cls, asked: str, nets: list[Net], figures: list[list[str]] | None = None) -> Monitor:
        """The output that ``INDEX:NAME:GOAL`` asks for; INDEX may be left out for 0, GOAL for losses and accuracies.

        ``""``: the first accuracy of test net #0, else its first loss. ``figures``: the names of the numbers that a
        test of each net gives, by default its outputs of one value. Raises SolverError, naming the outputs that there
        are.
        """
        if not nets:
            raise SolverError(
                "a test output is to be watched, and there is no test net; give the solver test_iter and test_interval"
            )
        parts = _MONITOR.fullmatch(asked)
        index = int(parts["index"] or 0) if parts else 0
        if index >= len(nets):
            known = "there is only #0" if len(nets) == 1 else f"there are #0 to #{len(nets) - 1}"
            raise SolverError(f"--monitor {asked!r}: there is no test net #{index}; {known}")
        net = nets[index]
        single = [name for name in net.outputs if math.prod(net.shape(name)) == 1]
        goals = {name: _goal(net, name) for name in (single if figures is None else figures[index])}
        if parts is None:
            firsts = [name for goal in ("max", "min") for name in goals if goals[name] == goal]
            if not firsts:
                raise SolverError(
                    "test net #0 has neither accuracy nor loss to watch; choose by --monitor NAME:max"
                    + _known_outputs(net.outputs)
                )
            return cls(index, firsts[0], str(goals[firsts[0]]))
        name, goal = parts["name"], parts["goal"]
        there = [*net.outputs, *(figure for figure in goals if figure not in net.outputs)]
        if name not in there:
            raise SolverError(
                f"--monitor {asked!r}: test net #{index} has no output {name!r}{_known_outputs(there, name)}"
            )
        if name not in goals:
            raise SolverError(
                f"--monitor {asked!r}: {name!r} has {math.prod(net.shape(name))} values; watch one that has one"
            )
        goal = goal or goals[name]
        if goal is None:
            raise SolverError(f"--monitor {asked!r}: is more better, or less? give {name}:max or {name}:min")
        return cls(index, name, goal)


def _goal(net: Net, name: str) -> str | None:
    """Whether an output is better when it is larger (max) or smaller (min), by its layer, weight or name; None:
    unclear.
    """
    if name not in net.outputs:
        return "max"  # the average precision of a class
    maker = [node.layer for node in net.nodes if name in node.tops][-1]
    if maker.detection_classes:
        return "max"
    weighted = dict(zip(net.outputs, net.output_weights, strict=True))[name]
    if weighted:
        return "min" if weighted > 0 else "max"
    if maker.greater_is_better is not None:
        return "max" if maker.greater_is_better else "min"
    if re.search("loss|error", name, re.IGNORECASE):
        return "min"
    return "max" if re.search("acc", name, re.IGNORECASE) else None


def _known_outputs(known: list[str], name: str = "") -> str:
    return f"{did_you_mean(name, known) or ';'} its outputs: {', '.join(known) or 'none'}"


class Watcher(Callback):
    """Keeps the best value of a test output, and how many tests ago it was; ``judge`` acts on it."""

    def __init__(self, asked: str) -> None:
        self._asked = asked
        self._monitor: Monitor | None = None
        self._value = math.nan
        self._of = ""
        self.best: float | None = None
        self.best_at = 0
        self.waited = 0

    def monitor(self, solver: Solver) -> Monitor:
        """What is watched. Raises SolverError when there is no such output."""
        if self._monitor is None:
            self._monitor = Monitor.find(
                self._asked, solver.test_nets, list(map(solver.test_figures, range(len(solver.test_nets))))
            )
            index = self._monitor.index
            if solver.param.test_iter[index] < 1:
                raise SolverError(
                    f"{self.name} watches test net #{index}, and test_iter {solver.param.test_iter[index]} scores "
                    "nothing; give a larger test_iter"
                )
            if self._of and self._of != str(self._monitor):
                logs.warning(
                    "solver.cpp:316", f"{self.name} watched {self._of} before, now {self._monitor}: it starts anew"
                )
                self.best, self.waited = None, 0
        return self._monitor

    def started(self, solver: Solver) -> None:
        self.monitor(solver)

    def tested(self, solver: Solver, index: int, means: Mapping[str, Output]) -> None:
        monitor = self.monitor(solver)
        if index == monitor.index:
            self._value = means[monitor.name]  # type: ignore[assignment]  # find() takes outputs of one value only

    def tests_done(self, solver: Solver) -> None:
        improved = self.monitor(solver).better(self._value, self.best)
        if improved:
            self.best, self.best_at, self.waited = self._value, solver.iter, 0
        else:
            self.waited += 1
        self.judge(solver, improved)

    def judge(self, solver: Solver, improved: bool) -> None:
        """Act on a test."""

    def standstill(self, solver: Solver) -> str:
        """How long there has been no better value, in words."""
        best = "a number" if self.best is None else f"{logs.number(self.best)} of iteration {self.best_at}"
        return (
            f"{self.monitor(solver).name} was not better than {best} in {self.waited} "
            f"test{'s' if self.waited > 1 else ''}"
        )

    def state(self) -> dict[str, Any]:
        return {"of": str(self._monitor or ""), "best": self.best, "best_at": self.best_at, "waited": self.waited}

    def restore(self, solver: Solver, state: dict[str, Any]) -> None:
        form.check(state, {"of": str, "best": (float, None), "best_at": int, "waited": int}, self.name)
        self._of, self.best, self.best_at, self.waited = (state[key] for key in ("of", "best", "best_at", "waited"))


class EarlyStop(Watcher):
    """Ends the run after ``patience`` tests without a better value."""

    name = "--early-stop"

    def __init__(self, asked: str, patience: int) -> None:
        super().__init__(asked)
        self.patience = patience

    def started(self, solver: Solver) -> None:
        super().started(solver)
        self.judge(solver, improved=False)

    def judge(self, solver: Solver, improved: bool) -> None:
        if self.waited >= self.patience and solver.iter < solver.param.max_iter:
            solver.stop(f"{self.standstill(solver)}; stopping, as --early-stop {self.patience} asks")


class Plateau(Watcher):
    """Multiplies the learning rate by ``gamma`` after each ``patience`` tests without a better value."""

    name = "--plateau"

    def __init__(self, asked: str, patience: int, gamma: float | None) -> None:
        super().__init__(asked)
        self.patience = patience
        self.gamma = gamma
        self.factor = 1.0

    def started(self, solver: Solver) -> None:
        super().started(solver)
        if self.gamma is None and not solver.param.HasField("gamma"):
            remedy = f"give --plateau {self.patience}:0.1, or gamma in the solver"
            raise SolverError(f"--plateau {self.patience}: by what is the rate multiplied? {remedy}")
        if not 0 < self._gamma(solver) < 1:
            raise SolverError(f"--plateau {self.patience}: gamma must lie between 0 and 1, got {self._gamma(solver):g}")

    def _gamma(self, solver: Solver) -> float:
        return solver.param.gamma if self.gamma is None else self.gamma

    def judge(self, solver: Solver, improved: bool) -> None:
        if self.waited >= self.patience:
            self.factor *= self._gamma(solver)
            solver.lr_factor = self.factor
            rate = f"the policy's learning rate is multiplied by {logs.number(self.factor)} from here on"
            logs.info("sgd_solver.cpp:112", f"Iteration {solver.iter}: {self.standstill(solver)}; {rate}")
            self.waited = 0

    def state(self) -> dict[str, Any]:
        return super().state() | {"factor": self.factor}

    def restore(self, solver: Solver, state: dict[str, Any]) -> None:
        super().restore(solver, state)
        form.check(state, {"factor": float}, self.name)
        self.factor = solver.lr_factor = state["factor"]


class Best(Watcher):
    """Keeps the snapshot of the best test as ``PREFIX_best``. One that stands there already, of another run or of this
    one before it was resumed, is replaced by a better one only.
    """

    name = "--best"

    def started(self, solver: Solver) -> None:
        super().started(solver)
        standing = None
        if solver.world.rank == 0:
            snapshot.check_writable(solver.param.snapshot_prefix)
            standing = self._standing(solver)
        standing = solver.world.gather(standing)[0]
        if standing is not None and self.monitor(solver).better(standing[0], self.best):
            self.best, self.best_at = standing
            told = f"{self.monitor(solver).name} = {logs.number(self.best)} in iteration {self.best_at}"
            path = snapshot.paths(solver.param, 0, "best")[0]
            logs.warning("solver.cpp:464", f"{path} is there, of {told}; only a better one replaces it")

    def _standing(self, solver: Solver) -> tuple[float, int] | None:
        """The best value, and its iteration, of the snapshot that is there; None where there is none.

        Raises SolverError where it cannot be compared with this run's.
        """
        model, state = snapshot.paths(solver.param, 0, "best")
        if not model.exists():
            return None
        try:
            kept = json.loads(snapshot.position_path(state).read_bytes())
            form.check(kept, {"callbacks": {self.name: {"of": str, "best": float, "best_at": int}}})
            found = kept["callbacks"][self.name]
            of = found["of"]
        except (OSError, ValueError, RecursionError):
            of = "an unknown output"
        watched = str(self.monitor(solver))
        if of != watched:
            raise SolverError(
                f"--best: {str(model)!r} is there, the best by {of}, and this run watches {watched}; move it away, "
                "or name another snapshot_prefix"
            )
        return found["best"], found["best_at"]

    def judge(self, solver: Solver, improved: bool) -> None:
        if improved:
            found = f"{self.monitor(solver).name} = {logs.number(self._value)}"
            logs.info("solver.cpp:464", f"Iteration {solver.iter}: {found} is the best so far")
            solver.snapshot("best")
