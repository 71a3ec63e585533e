"""Update rules: from gradients to new weights.

Before each rule, as Caffe does: clip the gradients by their global L2 norm, divide them by iter_size, add the regularizer
(L2: decay * w; L1: decay * sign w). A rule's ``history`` is what the solverstate keeps, in Caffe's order.

All rules work on whole lists of tensors at once, one kernel for many parameters.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.net.params import Param
from caffecli.proto.caffe_pb2 import SolverParameter


class Rule(ABC):
    """Base of the update rules over the learnable parameters of a net."""

    def __init__(self, param: SolverParameter, params: Sequence[Param]) -> None:
        if param.regularization_type not in ("L1", "L2"):
            raise SolverError(f"regularization_type: expected 'L1' or 'L2', got {param.regularization_type!r}")
        self.param = param
        self.params = list(params)
        self.history = [torch.zeros_like(p.tensor, requires_grad=False) for p in self.params]
        groups: dict[tuple[float, float], list[int]] = defaultdict(list)
        for i, p in enumerate(self.params):
            if p.tensor.requires_grad:
                groups[p.lr_mult, p.decay_mult].append(i)
        self._groups = dict(groups)

    @abstractmethod
    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[Tensor], rate: float) -> None:
        """Change ``weights`` (and ``history``) by ``grads``; may overwrite ``grads``. ``rate`` has lr_mult in it."""

    @torch.no_grad()
    def update(self, rate: float, report_clipping: bool = True) -> None:
        """One update of all parameters from their ``.grad`` at learning rate ``rate``."""
        for indices in self._groups.values():
            for i in indices:
                tensor = self.params[i].tensor
                if tensor.grad is None:
                    tensor.grad = torch.zeros_like(tensor)
        self._clip(report_clipping)
        for (lr_mult, decay_mult), indices in self._groups.items():
            weights = [self.params[i].tensor for i in indices]
            grads: list[Tensor] = [w.grad for w in weights]  # type: ignore[misc]
            if self.param.iter_size > 1:
                torch._foreach_mul_(grads, 1.0 / self.param.iter_size)
            decay = self.param.weight_decay * decay_mult
            if decay:
                added = weights if self.param.regularization_type == "L2" else [w.sign() for w in weights]
                torch._foreach_add_(grads, added, alpha=decay)
            self.step(weights, grads, [self.history[i] for i in indices], rate * lr_mult)

    def _clip(self, report: bool) -> None:
        limit = self.param.clip_gradients
        if limit < 0:
            return
        grads: list[Tensor] = [self.params[i].tensor.grad for g in self._groups.values() for i in g]  # type: ignore[misc]
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


class SGD(Rule):
    """V = momentum * V + rate * g;  W = W - V.

    The rate stands inside the momentum sum, so a lower rate works at once on new gradients alone (torch.optim.SGD multiplies the
    sum instead). History: one V a parameter.
    """

    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[Tensor], rate: float) -> None:
        torch._foreach_mul_(history, self.param.momentum)
        torch._foreach_add_(history, grads, alpha=rate)
        torch._foreach_sub_(weights, history)


RULES: dict[str, type[Rule]] = {"SGD": SGD}


def create(param: SolverParameter, params: Sequence[Param]) -> Rule:
    """The rule of ``param.type``; raises SolverError for one that is not known."""
    rule = RULES.get(param.type)
    if rule is None:
        near = difflib.get_close_matches(param.type, RULES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known types: {', '.join(RULES)}"
        raise SolverError(f"solver type {param.type!r} is not known; {hint}")
    return rule(param, params)
