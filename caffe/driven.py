"""A solver's update rule over weights whose diffs the user sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from caffe.engine import Engine
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import rules
from caffecli.solver.rules import Rule


class DrivenRule(Rule):
    """The rule of ``param`` on ``engine``'s diffs, with the user's callbacks in between.

    Before an update the diffs are the gradients; after it, as in Caffe, what has been subtracted from the weights.
    """

    def __init__(self, param: SolverParameter, engine: Engine) -> None:
        self.on_start: list[Callable[[], Any]] = []
        self.on_gradients_ready: list[Callable[[], Any]] = []
        self._engine = engine
        self.param = param
        noting = SolverParameter()
        noting.CopyFrom(param)
        noting.snapshot_diff = True  # lets the rule note what it changes
        self._rule = rules.create(noting, engine.net.params)
        self.history = self._rule.history

    def diffs(self) -> list[Tensor]:
        return self._rule.diffs() if self.param.snapshot_diff else []

    def clear_diffs(self) -> None:
        """Set all diffs to 0, at the beginning of an iteration."""
        for weight in self._engine.weights:
            weight.diff.clear()
        for callback in self.on_start:
            callback()

    def update(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        """The update that ends an iteration, after the user's callbacks."""
        for callback in self.on_gradients_ready:
            callback()
        self.apply(rate, iteration, report_clipping)

    def apply(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        """One update of all weights from their diffs, and nothing else."""
        self._engine.push()
        weights = self._engine.weights
        for weight in weights:
            tensor = weight.param.tensor
            tensor.grad = weight.diff.tensor(tensor.shape, tensor.device)
        self._rule.update(rate, iteration, report_clipping)
        for weight, change in zip(weights, self._rule.diffs(), strict=True):
            weight.param.tensor.grad = None
            weight.diff.put(change)
        self._engine.pull()

    def to(self, device: torch.device) -> None:
        self._rule.to(device)
        self.history = self._rule.history
