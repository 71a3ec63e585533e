"""Fewer snapshots on the disk: ``--keep N``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caffecli import logs
from caffecli.formats import form
from caffecli.solver.callbacks import Callback

if TYPE_CHECKING:
    from caffecli.solver.solver import Solver

#: the files of a snapshot, in the order of removal: what remains of it is never a solverstate without its weights
_TAILS = ("solverstate", "solverstate.h5", "solverstate.json", "solverstate.h5.json", "caffemodel", "caffemodel.h5")


class Keep(Callback):
    """Keeps the newest ``count`` snapshots of a run, and removes the older ones once a newer one is complete.

    It counts the snapshots that this run has written, and those of the run that it resumed; where that run kept no list
    of them, all of its prefix up to its iteration. No other file is touched.
    """

    name = "--keep"

    def __init__(self, count: int) -> None:
        self.count = count
        self._prefix = ""
        self._iterations: list[int] = []

    def restore(self, solver: Solver, state: dict[str, Any]) -> None:
        form.check(state, {"prefix": str, "iterations": [int]}, self.name)
        if state["prefix"] == solver.param.snapshot_prefix:
            self._prefix, self._iterations = state["prefix"], list(state["iterations"])

    def started(self, solver: Solver) -> None:
        known = self._prefix == solver.param.snapshot_prefix
        self._prefix = solver.param.snapshot_prefix
        resumed = solver.last_snapshot.resolve() if solver.last_snapshot is not None else None
        own = resumed in self._solverstates(solver.iter)
        if resumed is None or resumed.parent != Path(self._prefix).resolve().parent or not (known or own):
            self._iterations = []
        elif not known:
            self._iterations = self._existing_iterations(solver.iter)
        elif own and solver.iter not in self._iterations:
            self._iterations.append(solver.iter)

    def snapshotted(self, solver: Solver, model: Path, state: Path) -> None:
        self._iterations = [*(i for i in self._iterations if i != solver.iter), solver.iter]
        old, self._iterations = self._iterations[: -self.count], self._iterations[-self.count :]
        for iteration in old if solver.world.rank == 0 else ():
            for tail in _TAILS:
                _remove(Path(f"{solver.param.snapshot_prefix}_iter_{iteration}.{tail}"))

    def _solverstates(self, iteration: int) -> list[Path]:
        """The names that the solverstate of an iteration can have."""
        return [Path(f"{self._prefix}_iter_{iteration}.{tail}").resolve() for tail in _TAILS[:2]]

    def _existing_iterations(self, last: int) -> list[int]:
        """The iterations up to ``last`` that have a solverstate."""
        prefix = Path(self._prefix)
        pattern = re.compile(re.escape(prefix.name) + r"_iter_(\d+)\.solverstate(\.h5)?")
        found = {int(match[1]) for path in prefix.parent.iterdir() if (match := pattern.fullmatch(path.name))}
        return sorted(iteration for iteration in found if iteration <= last)

    def state(self) -> dict[str, Any]:
        return {"prefix": self._prefix, "iterations": self._iterations}


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logs.warning("solver.cpp:464", f"cannot remove the old snapshot {path}: {error.strerror}")
