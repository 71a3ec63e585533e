"""What Caffe shows while it trains and tests: the smoothed loss, the speed, the outputs."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from caffecli import logs
from caffecli.formats import form
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
    return [
        (name, value, weight) for name, weight in pairs for value in outputs[name].detach().float().reshape(-1).tolist()
    ]


def train_outputs(net: Net, outputs: dict[str, Tensor]) -> None:
    for i, line in enumerate(output_lines(flat(net, outputs))):
        logs.info("solver.cpp:258", f"    Train net output #{i}: {line}")


def test_outputs(net: Net, means: dict[str, Tensor]) -> None:
    for i, line in enumerate(output_lines(flat(net, means))):
        logs.info("solver.cpp:414", f"    Test net output #{i}: {line}")


class Speed:
    """Iterations a second of training between two displays; ``rate`` is what the last display showed.

    What a program does between two calls of ``step`` does not count.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._seconds = 0.0
        self._iterations = 0

    def start(self, iteration: int) -> None:
        """Go on at ``iteration``."""
        self._since = time.perf_counter()
        self._first = iteration

    def pause(self, iteration: int) -> None:
        """Keep the time since ``start``, and the iterations up to ``iteration``."""
        self._seconds += time.perf_counter() - self._since
        self._iterations += iteration - self._first

    def line(self, iteration: int, loss: float, display: int) -> str:
        """Caffe's line at a display, which comes every ``display`` iterations; starts the next stretch."""
        self.pause(iteration)
        lapse = self._seconds
        self.rate = self._iterations / lapse if lapse > 0 else 0.0
        self._seconds, self._iterations = 0.0, 0
        self.start(iteration)
        speed = f"{number(self.rate)} iter/s, {number(round(lapse, 3))}s/{display} iters"
        return f"Iteration {iteration} ({speed}), loss = {number(loss)}"


class Losses:
    """The losses of the last ``window`` iterations and their mean, ``smoothed``.

    ``add`` keeps the loss as a tensor, so that on CUDA nothing waits for it; ``settle`` reads the values. ``each``: it
    is due in each iteration, on CUDA too.
    """

    #: on CUDA, the losses are read once in so many iterations, so that a NaN is found soon
    PATIENCE = 100

    def __init__(self, window: int, device: torch.device, each: bool = False) -> None:
        self.window = window
        self.smoothed = 0.0
        self._kept: list[float] = []
        self._next = 0
        self._pending: list[tuple[int, Tensor]] = []
        self._patience = 1 if each or device.type == "cpu" else self.PATIENCE

    def add(self, iteration: int, loss: Tensor) -> None:
        self._pending.append((iteration, loss))

    @property
    def due(self) -> bool:
        """Whether it is time to settle."""
        return len(self._pending) >= self._patience

    def settle(self) -> tuple[int, float] | None:
        """Take all pending losses into the mean; returns iteration and value of the first that is not finite."""
        pending, self._pending = self._pending, []
        losses = [loss for _, loss in pending]
        values = [float(losses[0])] if len(losses) == 1 else torch.stack(losses).tolist() if losses else []
        bad = None
        for (iteration, _), value in zip(pending, values, strict=True):
            if bad is None and not math.isfinite(value):
                bad = iteration, value
            self._take(value)
        return bad

    def _take(self, value: float) -> None:
        if len(self._kept) < self.window:
            self._kept.append(value)
            size = len(self._kept)
            self.smoothed = (self.smoothed * (size - 1) + value) / size
        else:
            self.smoothed += (value - self._kept[self._next]) / self.window
            self._kept[self._next] = value
            self._next = (self._next + 1) % self.window
        if not math.isfinite(self.smoothed):  # until the last such loss has left the window
            self.smoothed = sum(self._kept) / len(self._kept)

    def state(self) -> dict[str, Any]:
        if not math.isfinite(self.smoothed):
            return {"kept": [], "next": 0, "smoothed": 0.0}
        return {"kept": self._kept, "next": self._next, "smoothed": self.smoothed}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo ``state``; a window of another size starts anew. Raises ValueError for what is no state."""
        form.check(state, {"kept": [float], "next": int, "smoothed": float}, "losses")
        if state["next"] >= max(1, len(state["kept"])):
            raise ValueError(f"losses.next is {state['next']}; expected less than the {len(state['kept'])} kept")
        if len(state["kept"]) <= self.window:
            self._kept, self._next, self.smoothed = list(state["kept"]), state["next"], state["smoothed"]
