"""A solver's update rule over weights whose diffs the user sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from caffe.engine import Engine
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import rules


class DrivenRule:
    """What a solver's loop does with its rule, done with ``engine``'s diffs, and with the user's callbacks in between.

    Before an update the diffs are the gradients; after it, as in Caffe, what has been subtracted from the weights.
    """

    def __init__(self, param: SolverParameter, engine: Engine) -> None:
        self.on_start: list[Callable[[], Any]] = []
        self.on_gradients_ready: list[Callable[[], Any]] = []
        self._engine = engine
        self._tells = param.snapshot_diff
        self._param = SolverParameter()
        self._param.CopyFrom(param)
        self._param.snapshot_diff = True  # lets the rule note what it changes
        self._rule = rules.create(self._param, engine.net.params)

    @property
    def history(self) -> list[Tensor]:
        """What the solverstate keeps."""
        return self._rule.history

    def diffs(self) -> list[Tensor]:
        """What snapshots hold beside the weights: with ``snapshot_diff`` the last update."""
        return self._rule.diffs() if self._tells else []

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
        """One update of all weights from their diffs."""
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

    def renew(self) -> None:
        """Go on where the weights are now, after a move to another device."""
        made = rules.create(self._param, self._engine.net.params)
        for blob, before in zip(made.history, self._rule.history, strict=True):
            blob.copy_(before)
        self._rule = made
