"""The learning rate as a pure function of the iteration, by ``lr_policy``.

=========  ==============================================================
fixed      base_lr
step       base_lr * gamma ^ floor(iter / stepsize)
exp        base_lr * gamma ^ iter
inv        base_lr * (1 + gamma * iter) ^ -power
multistep  base_lr * gamma ^ (number of steps so far: one at each stepvalue, at most one an iteration)
poly       base_lr * (1 - iter / max_iter) ^ power
sigmoid    base_lr / (1 + exp(-gamma * (iter - stepsize)))
=========  ==============================================================

``RateOptions`` adds to any of them what Caffe does not have: a floor, and a warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from caffecli.errors import SolverError
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.wording import did_you_mean

POLICIES = ("fixed", "step", "exp", "inv", "multistep", "poly", "sigmoid")
_NEEDED = {
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma",),
    "poly": ("power",),
    "sigmoid": ("gamma", "stepsize"),
}


@dataclass(frozen=True)
class RateOptions:
    """``min_lr``: the policy's rate never falls below it.

    ``warmup``: in so many iterations the rate climbs from ``start_lr``.
    """

    min_lr: float = 0.0
    warmup: int = 0
    start_lr: float = 0.0


PLAIN = RateOptions()


def check(param: SolverParameter, options: RateOptions = PLAIN) -> None:
    """Raise SolverError for an unknown policy, or one whose settings are missing or impossible."""
    policy = param.lr_policy
    if policy == "plateau":
        raise SolverError(
            "lr_policy 'plateau' is SSD's; give lr_policy: \"fixed\", and --plateau N:GAMMA, which watches a test "
            "output"
        )
    if policy not in POLICIES:
        hint = did_you_mean(policy, POLICIES, f"known policies: {', '.join(POLICIES)}")
        raise SolverError(f"lr_policy: unknown policy {policy!r}{hint}")
    if not param.HasField("base_lr"):
        raise SolverError("base_lr is not set; give the solver a learning rate")
    for name in _NEEDED.get(policy, ()):
        if not param.HasField(name):
            raise SolverError(f"lr_policy {policy!r} needs {name}, which is not set")
    if policy in ("step", "sigmoid") and param.stepsize <= 0:
        raise SolverError(f"lr_policy {policy!r}: stepsize must be positive, got {param.stepsize}")
    if policy != "poly" and param.gamma < 0:
        raise SolverError(f"lr_policy {policy!r}: gamma must not be negative, got {param.gamma:g}")
    if policy == "multistep" and list(param.stepvalue) != sorted(param.stepvalue):
        raise SolverError(f"lr_policy 'multistep': stepvalue must rise, got {list(param.stepvalue)}")
    if not options.min_lr <= max(0.0, param.base_lr):
        raise SolverError(f"--min-lr {options.min_lr:g} is above base_lr {param.base_lr:g}; give a smaller one")


def current_step(param: SolverParameter, iteration: int) -> int:
    """How often the rate has been stepped down by ``iteration``; 0 for policies without steps."""
    if param.lr_policy == "step":
        return iteration // param.stepsize
    if param.lr_policy == "multistep":
        step = last = -1
        for step, value in enumerate(param.stepvalue):
            last = max(value, last + 1)
            if iteration < last:
                return step
        return step + 1
    return 0


def learning_rate(param: SolverParameter, iteration: int, options: RateOptions = PLAIN, factor: float = 1.0) -> float:
    """The rate at ``iteration``, counted from 0. ``check`` the settings before.

    ``max(min_lr, factor * policy)``; in the first ``warmup`` iterations
    ``start_lr + (that - start_lr) * (iter + 1) / warmup``.
    """
    rate = factor * _policy(param, iteration)
    if options.min_lr:
        rate = max(options.min_lr, rate)
    if iteration + 1 < options.warmup:
        rate = options.start_lr + (rate - options.start_lr) * (iteration + 1) / options.warmup
    return rate


def _policy(param: SolverParameter, iteration: int) -> float:
    base, gamma, power = param.base_lr, param.gamma, param.power
    match param.lr_policy:
        case "step" | "multistep":
            return base * gamma ** current_step(param, iteration)
        case "exp":
            return base * gamma**iteration
        case "inv":
            return base * (1 + gamma * iteration) ** -power
        case "poly":
            return base * max(0.0, 1 - iteration / param.max_iter) ** power
        case "sigmoid":
            return base / (1 + math.exp(min(-gamma * (iteration - param.stepsize), 700.0)))
        case _:
            return base
