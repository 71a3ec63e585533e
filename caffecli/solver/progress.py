"""The lines Caffe logs while it trains and tests."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

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
