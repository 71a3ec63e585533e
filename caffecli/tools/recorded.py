"""The flags that a resumed training goes on with: kept beside each snapshot, and taken from there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from caffecli.formats import form
from caffecli.solver import snapshot
from caffecli.solver.learning_rate import PLAIN, RateOptions
from caffecli.solver.monitor import NO_WATCH, WatchOptions

_WATCH: dict[str, Any] = {
    "monitor": str,
    "early_stop": int,
    "plateau": int,
    "plateau_gamma": (float, None),
    "best": object,
}
_RATE: dict[str, Any] = {"min_lr": float, "warmup": int, "start_lr": float}


@dataclass(frozen=True)
class Flags:
    """``watch``, ``rate``: what to do by a test output, and to the learning rate. ``class_weights``: () for none."""

    watch: WatchOptions = NO_WATCH
    rate: RateOptions = PLAIN
    class_weights: tuple[float, ...] = ()

    def words(self) -> list[str]:
        """The flags as a command has them."""
        weights = ",".join(map(repr, self.class_weights))
        return [*self.watch.flags(), *self.rate.flags(), *([f"--class-weights={weights}"] if weights else [])]

    def as_json(self) -> dict[str, Any]:
        """What a snapshot keeps; nothing where there are none."""
        return asdict(self) if self.words() else {}


def flags(state: Path) -> Flags:
    """The flags of the run that wrote a solverstate; none where it had none, or did not keep them.

    Raises FormatError where they are damaged.
    """
    path = snapshot.position_path(state)
    try:
        kept = json.loads(path.read_bytes()).get("flags")
        if kept is None:
            return Flags()
        form.check(kept, {"watch": _WATCH, "rate": _RATE, "class_weights": [float]}, "flags")
        watch = WatchOptions(**{name: kept["watch"][name] for name in _WATCH})
        rate = RateOptions(**{name: kept["rate"][name] for name in _RATE})
        return Flags(watch, rate, tuple(kept["class_weights"]))
    except FileNotFoundError:
        return Flags()
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise snapshot.damaged_position(state, error) from error
