"""Update rules: from gradients to new weights.

Before each rule, as Caffe does: clip the gradients by their global L2 norm, divide them by iter_size, add the
regularizer (L2: decay * w; L1: decay * sign w). A rule's ``history`` is what the solverstate keeps, in Caffe's order.

All rules work on whole lists of tensors at once, one kernel for many parameters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.net.params import Param
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.wording import did_you_mean


class Rule(ABC):
    """What a solver asks of its update rule."""

    #: the solver's settings
    param: SolverParameter
    #: what the solverstate keeps
    history: list[Tensor]

    @abstractmethod
    def clear_diffs(self) -> None:
        """Forget the gradients of the last iteration."""

    @abstractmethod
    def update(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        """One update of all parameters from their gradients at learning rate ``rate``; ``iteration`` counts from 0."""

    @abstractmethod
    def diffs(self) -> list[Tensor]:
        """What snapshots keep beside the weights: with ``snapshot_diff`` the last update, else nothing."""

    @abstractmethod
    def to(self, device: torch.device) -> None:
        """Go on with parameters that have been moved to ``device``."""


#: blobs of at least so many values are updated alone on the CPU: torch's threads share such a blob, and stay awake from
#: one of its kernels to the next
_SHARED_AMONG_THREADS = 32768


@dataclass
class Group:
    """Parameters that are updated together: those of one lr_mult and decay_mult; on the CPU, large ones one by one."""

    lr_mult: float
    decay_mult: float
    weights: list[Tensor] = field(default_factory=list)
    #: a list a slot
    history: list[list[Tensor]] = field(default_factory=list)
    #: with ``snapshot_diff`` alone: what the last update has added to the weights
    changes: list[Tensor] = field(default_factory=list)


class GroupedRule(Rule):
    """Base of the rules that take the gradients from ``.grad``, and update what has the same multipliers together.

    ``history`` holds ``slots`` tensors a parameter: those of the first slot for all parameters, then those of the
    second.
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
        self._changes = (
            [torch.zeros_like(blob, requires_grad=False) for blob in self.blobs] if param.snapshot_diff else []
        )

    @abstractmethod
    def step(
        self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int
    ) -> None:
        """Change ``weights`` and ``history`` (a list a slot) by ``grads``, which it may overwrite.

        ``rate`` has lr_mult in it. What is added to the weights depends on the other arguments alone.
        """

    def diffs(self) -> list[Tensor]:
        """What the last update has subtracted from each parameter, zeros before the first, as in Caffe's snapshots."""
        return [0 - change for change in self._changes]

    def clear_diffs(self) -> None:
        for blob in self.blobs:
            blob.grad = None

    def to(self, device: torch.device) -> None:
        self.blobs = [p.tensor for p in self.params]
        self.history = [blob.to(device) for blob in self.history]
        self._changes = [blob.to(device) for blob in self._changes]
        self._groups = None

    def update(self, rate: float, iteration: int, report_clipping: bool = True) -> None:
        if self._groups is None:
            self._groups = self._grouped()
        for group in self._groups:
            for blob in group.weights:
                if blob.grad is None:
                    blob.grad = torch.zeros_like(blob)
        with torch.inference_mode():  # as no_grad, with less overhead for each kernel
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
        """The parameters to update: without frozen ones, unless their history changes."""
        groups: dict[tuple[float, float, int | None], Group] = {}
        for i, p in enumerate(self.params):
            history = self.history[i :: len(self.params)]
            decays = self.remembers_frozen and self.param.weight_decay * p.decay_mult != 0
            if not (p.tensor.requires_grad or decays or any(bool(blob.any()) for blob in history)):
                continue
            alone = p.tensor.device.type == "cpu" and p.tensor.numel() >= _SHARED_AMONG_THREADS
            group = groups.setdefault((p.lr_mult, p.decay_mult, i if alone else None), Group(p.lr_mult, p.decay_mult))
            group.weights.append(p.tensor)
            group.history = [
                [*kept, blob] for kept, blob in zip(group.history or [[]] * self.slots, history, strict=True)
            ]
            group.changes += self._changes[i : i + 1]
        return list(groups.values())

    def _clip(self, log: bool) -> None:
        limit = self.param.clip_gradients
        if limit < 0:
            return
        grads: list[Tensor] = [blob.grad for group in self._groups or () for blob in group.weights]  # type: ignore[misc]
        if not grads:
            return
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        if norm.device.type != "cpu" and not log:
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


class SGD(GroupedRule):
    """V = momentum * V + rate * g;  W = W - V.

    The rate stands inside the momentum sum, so a lower rate works at once on new gradients alone (torch.optim.SGD
    multiplies the sum instead). History: V.
    """

    remembers_frozen = False

    def _change(self, group: Group, grads: list[Tensor], rate: float, decay: float, iteration: int) -> None:
        """The same in one kernel, where torch's has it: it multiplies the sum by lr, here 1, and g by 1 - dampening."""
        momentum = self.param.momentum
        if group.changes or not momentum or (decay and self.param.regularization_type == "L1"):
            super()._change(group, grads, rate, decay, iteration)
            return
        sums: list[Tensor | None] = [*group.history[0]]
        sgd(
            group.weights, grads, sums, weight_decay=decay, momentum=momentum, lr=1.0, dampening=1 - rate,
            nesterov=False, maximize=False, foreach=False, fused=True,
        )  # fmt: skip

    def step(
        self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int
    ) -> None:
        (sums,) = history
        torch._foreach_mul_(sums, self.param.momentum)
        torch._foreach_add_(sums, grads, alpha=rate)
        torch._foreach_sub_(weights, sums)


class Nesterov(GroupedRule):
    """V' = momentum * V + rate * g;  W = W - ((1 + momentum) * V' - momentum * V). History: V.

    Source: Nesterov 1983, as in Sutskever et al., ICML 2013.
    """

    remembers_frozen = False

    def step(
        self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int
    ) -> None:
        (sums,) = history
        momentum = self.param.momentum
        torch._foreach_add_(weights, sums, alpha=momentum)
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, grads, alpha=rate)
        torch._foreach_add_(weights, sums, alpha=-(1 + momentum))


class AdaGrad(GroupedRule):
    """H = H + g^2;  W = W - rate * g / (sqrt(H) + delta). Takes no momentum. History: H.

    Source: Duchi et al., JMLR 2011.
    """

    def __init__(self, param: SolverParameter, params: Sequence[Param]) -> None:
        super().__init__(param, params)
        if param.momentum:
            raise SolverError(f"momentum: the {param.type} solver takes none, got {param.momentum:g}; set momentum: 0")

    def step(
        self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int
    ) -> None:
        (squares,) = history
        self.remember(squares, grads)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_add_(roots, self.param.delta)
        torch._foreach_addcdiv_(weights, grads, roots, value=-rate)

    def remember(self, squares: list[Tensor], grads: list[Tensor]) -> None:
        """Take the gradients into H."""
        torch._foreach_addcmul_(squares, grads, grads)


class RMSProp(AdaGrad):
    """H = rms_decay * H + (1 - rms_decay) * g^2;  W = W - rate * g / (sqrt(H) + delta). Takes no momentum. History: H.

    Source: Tieleman and Hinton, lecture 6.5, 2012.
    """

    def __init__(self, param: SolverParameter, params: Sequence[Param]) -> None:
        super().__init__(param, params)
        if not 0 <= param.rms_decay < 1:
            raise SolverError(f"rms_decay: expected at least 0 and below 1, got {param.rms_decay:g}")

    def remember(self, squares: list[Tensor], grads: list[Tensor]) -> None:
        torch._foreach_mul_(squares, self.param.rms_decay)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - self.param.rms_decay)


class AdaDelta(GroupedRule):
    """H = m * H + (1 - m) * g^2;  u = g * sqrt((U + delta) / (H + delta));  U = m * U + (1 - m) * u^2;
    W = W - rate * u.

    m is ``momentum``. History: H of all parameters, then U of all. Source: Zeiler 2012.
    """

    slots = 2

    def step(
        self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int
    ) -> None:
        squares, updates = history
        momentum, delta = self.param.momentum, self.param.delta
        torch._foreach_mul_(squares, momentum)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - momentum)
        ratio = torch._foreach_add(squares, delta)
        below = torch._foreach_add(updates, delta)
        torch._foreach_mul_(updates, momentum)  # while they are in the cache
        torch._foreach_div_(ratio, below)
        torch._foreach_rsqrt_(ratio)  # the reciprocal, as rsqrt takes half the time of sqrt
        torch._foreach_mul_(grads, ratio)
        torch._foreach_addcmul_(updates, grads, grads, value=1 - momentum)
        torch._foreach_add_(weights, grads, alpha=-rate)


class Adam(GroupedRule):
    """M = b1 * M + (1 - b1) * g;  V = b2 * V + (1 - b2) * g^2;  W = W - rate * c * M / (sqrt(V) + delta).

    b1 is ``momentum``, b2 ``momentum2``; c = sqrt(1 - b2^t) / (1 - b1^t) with t counted from 1. The delta stands
    outside the correction, as in the paper's shorter form. History: M of all parameters, then V of all.
    Source: Kingma and Ba, ICLR 2015.
    """

    slots = 2

    def step(
        self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int
    ) -> None:
        means, squares = history
        first, second = self.param.momentum, self.param.momentum2
        steps = [torch.full((), float(iteration), device=blob.device) for blob in weights]
        adam(
            weights, grads, means, squares, [], steps, beta1=first, beta2=second, lr=rate, weight_decay=0.0,
            eps=self.param.delta / (1 - second ** (iteration + 1)) ** 0.5,  # torch divides sqrt(V) by this root first
            amsgrad=False, maximize=False, foreach=False, fused=True,
        )  # fmt: skip


RULES: dict[str, type[GroupedRule]] = {
    "SGD": SGD,
    "Nesterov": Nesterov,
    "AdaGrad": AdaGrad,
    "RMSProp": RMSProp,
    "AdaDelta": AdaDelta,
    "Adam": Adam,
}


def create(param: SolverParameter, params: Sequence[Param]) -> Rule:
    """The rule of ``param.type``; raises SolverError for one that is not known."""
    rule = RULES.get(param.type)
    if rule is None:
        hint = did_you_mean(param.type, RULES, f"known types: {', '.join(RULES)}")
        raise SolverError(f"solver type {param.type!r} is not known{hint}")
    return rule(param, params)
