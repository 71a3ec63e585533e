"""Update rules: from gradients to new weights. ``rule.Rule`` has what they share."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from caffecli.errors import SolverError
from caffecli.net.params import Param
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver.rule import Group, Rule


class SGD(Rule):
    """V = momentum * V + rate * g;  W = W - V.

    The rate stands inside the momentum sum, so a lower rate works at once on new gradients alone (torch.optim.SGD multiplies the
    sum instead). History: V.
    """

    remembers_frozen = False

    def _change(self, group: Group, grads: list[Tensor], rate: float, decay: float, iteration: int) -> None:
        """The same in one kernel, where torch's has it: torch multiplies the sum by lr, here 1, and g by 1 - dampening."""
        momentum = self.param.momentum
        if group.changes or not momentum or (decay and self.param.regularization_type == "L1"):
            super()._change(group, grads, rate, decay, iteration)
            return
        sums: list[Tensor | None] = [*group.history[0]]
        sgd(
            group.weights, grads, sums, weight_decay=decay, momentum=momentum, lr=1.0, dampening=1 - rate,
            nesterov=False, maximize=False, foreach=False, fused=True,
        )  # fmt: skip

    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int) -> None:
        (sums,) = history
        torch._foreach_mul_(sums, self.param.momentum)
        torch._foreach_add_(sums, grads, alpha=rate)
        torch._foreach_sub_(weights, sums)


class Nesterov(Rule):
    """V' = momentum * V + rate * g;  W = W - ((1 + momentum) * V' - momentum * V). History: V.

    Source: Nesterov 1983, as in Sutskever et al., ICML 2013.
    """

    remembers_frozen = False

    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int) -> None:
        (sums,) = history
        momentum = self.param.momentum
        torch._foreach_add_(weights, sums, alpha=momentum)
        torch._foreach_mul_(sums, momentum)
        torch._foreach_add_(sums, grads, alpha=rate)
        torch._foreach_add_(weights, sums, alpha=-(1 + momentum))


class AdaGrad(Rule):
    """H = H + g^2;  W = W - rate * g / (sqrt(H) + delta). Takes no momentum. History: H.

    Source: Duchi et al., JMLR 2011.
    """

    def __init__(self, param: SolverParameter, params: Sequence[Param]) -> None:
        super().__init__(param, params)
        if param.momentum:
            raise SolverError(f"momentum: the {param.type} solver takes none, got {param.momentum:g}; set momentum: 0")

    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int) -> None:
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


class AdaDelta(Rule):
    """H = m * H + (1 - m) * g^2;  u = g * sqrt((U + delta) / (H + delta));  U = m * U + (1 - m) * u^2;  W = W - rate * u.

    m is ``momentum``. History: H of all parameters, then U of all. Source: Zeiler 2012.
    """

    slots = 2

    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int) -> None:
        squares, updates = history
        momentum, delta = self.param.momentum, self.param.delta
        torch._foreach_mul_(squares, momentum)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - momentum)
        ratio = torch._foreach_add(squares, delta)
        below = torch._foreach_add(updates, delta)
        torch._foreach_mul_(updates, momentum)  # while the cache has them
        torch._foreach_div_(ratio, below)
        torch._foreach_rsqrt_(ratio)  # upside down, as this takes half the time of sqrt
        torch._foreach_mul_(grads, ratio)
        torch._foreach_addcmul_(updates, grads, grads, value=1 - momentum)
        torch._foreach_add_(weights, grads, alpha=-rate)


class Adam(Rule):
    """M = b1 * M + (1 - b1) * g;  V = b2 * V + (1 - b2) * g^2;  W = W - rate * c * M / (sqrt(V) + delta).

    b1 is ``momentum``, b2 ``momentum2``; c = sqrt(1 - b2^t) / (1 - b1^t) with t counted from 1. The delta stands outside the
    correction, as in the paper's shorter form. History: M of all parameters, then V of all. Source: Kingma and Ba, ICLR 2015.
    """

    slots = 2

    def step(self, weights: list[Tensor], grads: list[Tensor], history: list[list[Tensor]], rate: float, iteration: int) -> None:
        means, squares = history
        first, second = self.param.momentum, self.param.momentum2
        steps = [torch.full((), float(iteration), device=blob.device) for blob in weights]
        adam(
            weights, grads, means, squares, [], steps, beta1=first, beta2=second, lr=rate, weight_decay=0.0,
            eps=self.param.delta / (1 - second ** (iteration + 1)) ** 0.5,  # torch divides sqrt(V) by this root first
            amsgrad=False, maximize=False, foreach=False, fused=True,
        )  # fmt: skip


RULES: dict[str, type[Rule]] = {
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
        near = difflib.get_close_matches(param.type, RULES, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known types: {', '.join(RULES)}"
        raise SolverError(f"solver type {param.type!r} is not known; {hint}")
    return rule(param, params)
