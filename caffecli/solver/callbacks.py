"""Callbacks of a training: recorders write figures, watchers stop a run or change its learning rate.

Every process of a run calls the hooks at the same points with the same figures, so that all take the same decisions;
what writes files does so where ``solver.world.rank`` is 0. Without callbacks no hook is called, and a run is Caffe's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from caffecli.errors import SolverError, in_a_line
from caffecli.formats import form

if TYPE_CHECKING:
    from caffecli.solver.solver import Solver

#: an output blob: its value, or its values where it has several
Output = float | list[float]


class Callback:
    """A callback of ``Solver(..., callbacks=[...])``; override the hooks that you need.

    A CaffeError raised in one ends the run.
    """

    #: the key of its ``state`` in the position file, one of its own for each callback of a run
    name = ""

    def started(self, solver: Solver) -> None:
        """``solve`` begins, after a restore; ``solver.stop`` ends it before the first iteration."""

    def displayed(self, solver: Solver, figures: Mapping[str, float], outputs: Mapping[str, Output]) -> None:
        """A display in iteration ``solver.iter``: figures ``loss`` (smoothed), ``lr``, ``iter/s``;
        the train net's outputs.
        """

    def tested(self, solver: Solver, index: int, means: Mapping[str, Output]) -> None:
        """Test net ``index`` has been scored at ``solver.iter``; not called for a test that was interrupted."""

    def tests_done(self, solver: Solver) -> None:
        """All test nets have been scored: the time to decide. A snapshot from here on resumes after the tests."""

    def snapshotted(self, solver: Solver, model: Path, state: Path) -> None:
        """The snapshot of ``solver.iter`` is complete; not called for one kept under a name of its own (``--best``)."""

    def finished(self, solver: Solver) -> None:
        """``solve`` ends, at ``max_iter`` or early, not by an error."""

    def close(self) -> None:
        """The solver is closed, after an error too."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to go on exactly, for JSON; rank 0's is kept. Empty: nothing is kept."""
        return {}

    def restore(self, solver: Solver, state: dict[str, Any]) -> None:
        """Undo ``state``; called when there is one, before ``started``."""


def checked(callbacks: Sequence[Callback]) -> tuple[Callback, ...]:
    """``callbacks``. Raises SolverError for what is none, and for two that keep a state under one name."""
    names: dict[str, Callback] = {}
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise SolverError(f"{callback!r:.60} is no callback: give objects of subclasses of caffecli.Callback")
        if type(callback).state is not Callback.state and names.setdefault(callback.name, callback) is not callback:
            raise SolverError(
                f"two callbacks that keep a state are called {callback.name!r}; give each a name of its own"
            )
    return tuple(callbacks)


def plain(outputs: Mapping[str, Tensor]) -> dict[str, Output]:
    """Output blobs as numbers."""
    lists = {name: value.detach().float().reshape(-1).tolist() for name, value in outputs.items()}
    return {name: values[0] if len(values) == 1 else values for name, values in lists.items()}


def callback_states(solver: Solver) -> dict[str, Any]:
    """What the position file keeps of a run with callbacks."""
    kept = {callback.name: state for callback in solver.callbacks if (state := _state(callback))}
    return {"tested": solver.tested, "callbacks": kept} if solver.callbacks else {}


def _state(callback: Callback) -> dict[str, Any]:
    """What ``callback`` keeps; raises SolverError where JSON has no form for it."""
    state = callback.state()
    try:
        json.dumps(state)
    except (TypeError, ValueError, RecursionError) as error:
        raise SolverError(f"callback {callback.name!r}: JSON has no form for its state ({in_a_line(error)})") from error
    return state


def restore_callbacks(solver: Solver, position: Mapping[str, Any]) -> list[str]:
    """Undo ``callback_states``; returns the names of callbacks that the run had and now has not.

    Raises ValueError for states that are none.
    """
    form.check(position.get("callbacks", {}), {str: object}, "callbacks")
    kept, tested = dict(position.get("callbacks", {})), position.get("tested", -1)
    if tested != -1:
        form.check(tested, int, "tested")
    for callback in solver.callbacks:
        solver.tested = tested
        if callback.name in kept:
            callback.restore(solver, kept.pop(callback.name))
    return list(kept)
