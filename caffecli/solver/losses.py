"""The losses of past iterations, smoothed as Caffe shows them, read from the device only when someone looks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


class Losses:
    """A running mean over the last ``window`` iterations.

    ``add`` takes a tensor and, on CUDA, does not wait for it; ``settle`` does.
    """

    #: on CUDA, iterations between two looks at the losses, so that a NaN does not go on unseen
    PATIENCE = 100

    def __init__(self, window: int, device: torch.device) -> None:
        self.window = window
        self.smoothed = 0.0
        self._kept: list[float] = []
        self._next = 0
        self._pending: list[tuple[int, Tensor]] = []
        self._patience = 1 if device.type == "cpu" else self.PATIENCE

    def add(self, iteration: int, loss: Tensor) -> None:
        self._pending.append((iteration, loss))

    @property
    def due(self) -> bool:
        """Whether it is time to settle."""
        return len(self._pending) >= self._patience

    def settle(self) -> tuple[int, float] | None:
        """Take all pending losses into the mean. Stops at the first that is not finite and returns its iteration and value."""
        pending, self._pending = self._pending, []
        losses = [loss for _, loss in pending]
        values = [float(losses[0])] if len(losses) == 1 else torch.stack(losses).tolist() if losses else []
        for (iteration, _), value in zip(pending, values, strict=True):
            if not math.isfinite(value):
                return iteration, value
            self._take(value)
        return None

    def _take(self, value: float) -> None:
        if len(self._kept) < self.window:
            self._kept.append(value)
            size = len(self._kept)
            self.smoothed = (self.smoothed * (size - 1) + value) / size
        else:
            self.smoothed += (value - self._kept[self._next]) / self.window
            self._kept[self._next] = value
            self._next = (self._next + 1) % self.window

    def state(self) -> dict[str, Any]:
        return {"kept": self._kept, "next": self._next, "smoothed": self.smoothed}

    def restore(self, state: dict[str, Any]) -> None:
        """Undo ``state``; a window of another size starts anew."""
        if len(state["kept"]) <= self.window:
            self._kept, self._next, self.smoothed = list(state["kept"]), state["next"], state["smoothed"]
