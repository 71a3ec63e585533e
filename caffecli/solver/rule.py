"""What the update rules share: what is updated together, clipping, regularization.

Before each rule, as Caffe does: clip the gradients by their global L2 norm, divide them by iter_size, add the regularizer
(L2: decay * w; L1: decay * sign w). A rule's ``history`` is what the solverstate keeps, in Caffe's order.

All rules work on whole lists of tensors at once, one kernel for many parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.net.params import Param
from caffecli.proto.caffe_pb2 import SolverParameter

#: a blob of so many values is one that torch's threads share on the CPU: one kernel after another over it alone finds them awake
_SHARED_AMONG_THREADS = 32768


@dataclass
class Group:
    """Parameters that are updated together: those of one lr_mult and decay_mult; on the CPU, each large one for itself."""

    lr_mult: float
    decay_mult: float
    weights: list[Tensor] = field(default_factory=list)
    #: a list a slot
    history: list[list[Tensor]] = field(default_factory=list)
    #: with ``snapshot_diff`` alone: what the last update has added to the weights
    changes: list[Tensor] = field(default_factory=list)


class Rule(ABC):
    """Base of the update rules over the learnable parameters of a net.

    ``history`` holds ``slots`` tensors a parameter: those of the first slot for all parameters, then those of the second.
    """

    slots = 1
    #: whether the history of a frozen parameter (lr_mult 0) changes too, by its weight decay
    remembers_frozen = True

    def __init__(self, param: SolverParameter, params: Sequence[Param]) -> None:
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(f"regularization_type: expected 'L1' or 'L2', got {param.regularization_type!r}")
        self.param = param
        self.params = list(params)
        self.blobs = [p.tensor for p in self.params]
        self.history = [torch.zeros_like(blob, requires_grad=False) for _ in range(self.slots) for blob in self.blobs]
        self._groups: list[Group] | None = None
        #: with ``snapshot_diff`` alone: what the last update has added to each parameter
        self._changes = [torch.zeros_like(blob, requires_grad=False) for blob in self.blobs] if param.snapshot_diff else []

    @abstractmethod
    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int) -> None:
        """Change ``weights`` and ``history`` (a list a slot) by ``grads``, which it may overwrite. ``rate`` has lr_mult in it.

        What is added to the weights depends on the other arguments alone.
        """

    def diffs(self) -> list[Tensor]:
        """What the last update has subtracted from each parameter, zeros before the first: Caffe's diffs at a snapshot."""
        return [0 - change for change in self._changes]

    def clear_diffs(self) -> None:
        """Forget the gradients of the last iteration."""
        for blob in self.blobs:
            blob.grad = None

    def update(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        """One update of all parameters from their ``.grad`` at learning rate ``rate``; ``iteration`` counts from 0."""
        if self._groups is None:
            self._groups = self._grouped()
        for group in self._groups:
            for blob in group.weights:
                if blob.grad is None:
                    blob.grad = torch.zeros_like(blob)
        with torch.inference_mode():  # no_grad, and with less to do for each kernel
            self._clip(report_clipping)
            for group in self._groups:
                grads: list[Tensor] = [blob.grad for blob in group.weights]  # type: ignore[misc]
                if self.param.iter_size > 1:
                    torch._foreach_mul_(grads, 1.0 / self.param.iter_size)
                self._change(group, grads, rate * group.lr_mult, self.param.weight_decay * group.decay_mult, iteration)

    def _change(self, group: Group, grads: list[Tensor], rate: float, decay: float, iteration: int) -> None:
        """Regularize, and take a step."""
        if decay:
            added = group.weights if self.param.regularization_type == "L2" else [w.sign() for w in group.weights]
            torch._foreach_add_(grads, added, alpha=decay)
        if group.changes:
            torch._foreach_zero_(group.changes)
        self.step(group.changes or group.weights, grads, group.history, rate, iteration)
        if group.changes:
            torch._foreach_add_(group.weights, group.changes)

    def _grouped(self) -> list[Group]:
        """The parameters to update: all but the frozen ones to which nothing can happen."""
        groups: dict[tuple[float, float, int | None], Group] = {}
        for i, p in enumerate(self.params):
            history = self.history[i :: len(self.params)]
            decays = self.remembers_frozen and self.param.weight_decay * p.decay_mult != 0
            if not (p.tensor.requires_grad or decays or any(bool(blob.any()) for blob in history)):
                continue
            alone = p.tensor.device.type == "cpu" and p.tensor.numel() >= _SHARED_AMONG_THREADS
            group = groups.setdefault((p.lr_mult, p.decay_mult, i if alone else None), Group(p.lr_mult, p.decay_mult))
            group.weights.append(p.tensor)
            group.history = [[*kept, blob] for kept, blob in zip(group.history or [[]] * self.slots, history, strict=True)]
            group.changes += self._changes[i : i + 1]
        return list(groups.values())

    def _clip(self, report: bool) -> None:
        limit = self.param.clip_gradients
        if limit < 0:
            return
        grads: list[Tensor] = [blob.grad for group in self._groups or () for blob in group.weights]  # type: ignore[misc]
        if not grads:
            return
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        if norm.device.type != "cpu" and not report:
            torch._foreach_mul_(grads, (limit / norm).clamp(max=1.0))
            return
        if (value := float(norm)) > limit:
            scale = limit / value
            logs.info(
                "sgd_solver.cpp:99",
                f"Gradient clipping: scaling down gradients (L2 norm {logs.number(value)} > {logs.number(limit)}) "
                f"by scale factor {logs.number(scale)}",
            )
            torch._foreach_mul_(grads, scale)
