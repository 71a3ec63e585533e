"""The lines Caffe logs while it trains and tests, and the bar below them on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any

from torch import Tensor

from caffecli import logs
from caffecli.logs import number
from caffecli.net.net import Net


def output_lines(values: Iterable[tuple[str, float, float]]) -> Iterator[str]:
    """``NAME = V (* W = WV loss)`` for each (name, value, loss weight); the bracket for weighted losses only."""
    for name, value, weight in values:
        bracket = f" (* {number(weight)} = {number(weight * value)} loss)" if weight else ""
        yield f"{name} = {number(value)}{bracket}"


def flat(net: Net, outputs: dict[str, Tensor]) -> list[tuple[str, float, float]]:
    """Every value of every output blob as (name, value, loss weight)."""
    pairs = zip(net.outputs, net.output_weights, strict=True)
    return [(name, value, weight) for name, weight in pairs for value in outputs[name].detach().float().reshape(-1).tolist()]


def train_outputs(net: Net, outputs: dict[str, Tensor]) -> None:
    for i, line in enumerate(output_lines(flat(net, outputs))):
        logs.info("solver.cpp:258", f"    Train net output #{i}: {line}")


def test_outputs(net: Net, means: dict[str, Tensor]) -> None:
    for i, line in enumerate(output_lines(flat(net, means))):
        logs.info("solver.cpp:414", f"    Test net output #{i}: {line}")


class Speed:
    """Iterations a second between two displays; ``rate`` is what the last display showed."""

    def __init__(self, display: int, iteration: int) -> None:
        self.display = display
        self.rate = 0.0
        self.restart(iteration)

    def restart(self, iteration: int) -> None:
        self._since = time.perf_counter()
        self._iteration = iteration

    def line(self, iteration: int, loss: float) -> str:
        """Caffe's line at a display; starts the next stretch."""
        lapse = time.perf_counter() - self._since
        self.rate = (iteration - self._iteration) / lapse if lapse > 0 else 0.0
        self.restart(iteration)
        speed = f"{number(self.rate)} iter/s, {number(round(lapse, 3))}s/{self.display} iters"
        return f"Iteration {iteration} ({speed}), loss = {number(loss)}"


class Bar:
    """A tqdm bar on stderr when that is a terminal; nothing otherwise, or when not ``shown``."""

    def __init__(self, total: int, start: int = 0, unit: str = "it", shown: bool = True) -> None:
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=start, unit=unit, dynamic_ncols=True, mininterval=0.2, leave=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        if self._bar is not None:
            self._bar.update(1)

    def note(self, **figures: float) -> None:
        """Show figures (loss, lr) behind the bar, from its next refresh on."""
        if self._bar is not None:
            self._bar.set_postfix({name: number(value) for name, value in figures.items()}, refresh=False)
