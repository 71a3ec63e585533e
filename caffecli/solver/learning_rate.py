"""The learning rate as a function of the iteration, by ``lr_policy``.

==========  ==============================================================
fixed       base_lr
step        base_lr * gamma ^ floor(iter / stepsize)
exp         base_lr * gamma ^ iter
inv         base_lr * (1 + gamma * iter) ^ -power
multistep   base_lr * gamma ^ (number of steps so far: one at each stepvalue, at most one an iteration)
poly        base_lr * (1 - iter / max_iter) ^ power
sigmoid     base_lr / (1 + exp(-gamma * (iter - stepsize)))
multifixed  stagelr of the first stage whose stageiter is iter or more, or of the last; the ports' of YOLO
plateau     base_lr * gamma ^ (number of steps so far, by the loss: ``LossPlateau``); SSD's
cosine      base_lr * (1 + cos(pi * iter / max_iter)) / 2; ours, not Caffe's
==========  ==============================================================

A setting that is not given is 0, as in Caffe. ``RateOptions`` adds to any of them what Caffe does not have: a floor,
and a warm-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.formats.solverstate import SolverState
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.wording import did_you_mean

#: the policies, and the settings that each makes a factor of
POLICIES: dict[str, tuple[str, ...]] = {
    "fixed": (),
    "step": ("gamma", "stepsize"),
    "exp": ("gamma",),
    "inv": ("gamma", "power"),
    "multistep": ("gamma",),
    "poly": ("power",),
    "sigmoid": ("gamma", "stepsize"),
    "multifixed": (),
    "plateau": ("gamma",),
    "cosine": (),
}


@dataclass(frozen=True)
class RateOptions:
    """``min_lr``: the policy's rate never falls below it.

    ``warmup``: in so many iterations the rate climbs from ``start_lr``.
    """

    min_lr: float = 0.0
    warmup: int = 0
    start_lr: float = 0.0

    def flags(self) -> list[str]:
        """The flags that ask for this."""
        said = [f"--min-lr={self.min_lr!r}"] if self.min_lr else []
        return said + ([f"--warmup={self.warmup}:{self.start_lr!r}"] if self.warmup else [])


PLAIN = RateOptions()


@dataclass
class LossPlateau:
    """``lr_policy: "plateau"``: the rate steps down where the smoothed loss has had no new minimum for
    ``plateau_winsize`` iterations, of which each step has its own; after the last one it stays.

    ``event``: the iteration of the last minimum or step. Source: SSD's ``sgd_solver.cpp``.
    """

    step: int = 0
    minimum: float = 3.4028234663852886e38  # the largest float32, as SSD begins with
    event: int = 0

    @classmethod
    def of(cls, state: SolverState) -> LossPlateau:
        """Where a solverstate says that it stands; without its fields it begins anew, at the state's step."""
        if state.minimum_loss is None:
            return cls(state.current_step)
        return cls(state.current_step, state.minimum_loss, state.iter_last_event or 0)

    def update(self, param: SolverParameter, iteration: int, loss: float) -> None:
        """Look at the smoothed loss of an iteration, the rate's; in float32, as a solverstate keeps it."""
        loss = float(np.float32(loss))
        if loss < self.minimum:
            self.minimum, self.event = loss, iteration
        windows = param.plateau_winsize
        if self.step < len(windows) and iteration >= self.event + windows[self.step]:
            self.step, self.event = self.step + 1, iteration
            logs.info("sgd_solver.cpp:76", f"Plateau Status: Iteration {iteration}, step = {self.step}")
        if param.display and iteration % param.display == 0 and self.event > iteration - abs(param.display):
            minimum = f"current minimum_loss = {logs.number(self.minimum)}"
            logs.info("sgd_solver.cpp:83", f"Plateau Status: Iteration {iteration}, {minimum}")


def check(param: SolverParameter, options: RateOptions = PLAIN) -> None:
    """Raise SolverError for an unknown policy, or settings that no rate can be made of.

    Those that the policy reads and that are not given are named in the log: they are 0.
    """
    policy = param.lr_policy
    if policy not in POLICIES:
        hint = did_you_mean(policy, POLICIES, f"known policies: {', '.join(POLICIES)}")
        raise SolverError(f"lr_policy: unknown policy {policy!r}{hint}")
    if policy == "step" and param.stepsize <= 0:
        raise SolverError(f"lr_policy 'step': stepsize must be positive, got {param.stepsize}")
    if policy == "multifixed" and (not param.stagelr or len(param.stagelr) != len(param.stageiter)):
        raise SolverError(
            f"lr_policy 'multifixed': expected a stagelr and a stageiter for each stage, got {len(param.stagelr)} and "
            f"{len(param.stageiter)}"
        )
    if policy == "cosine" and not param.max_iter:
        raise SolverError("lr_policy 'cosine' goes down to 0 at max_iter, which is not set; give it")
    _warn_of_missing(param)
    most, what = max(0.0, param.base_lr), f"base_lr {param.base_lr:g}"
    if policy == "multifixed":
        most, what = max(param.stagelr), f"each stagelr, of at most {max(param.stagelr):g}"
    if not options.min_lr <= most:
        raise SolverError(f"--min-lr {options.min_lr:g} is above {what}; give a smaller one")


def _warn_of_missing(param: SolverParameter) -> None:
    """Log what the rate is made of and is not given: Caffe takes 0 without a word."""
    given = {field.name for field, _ in param.ListFields()}
    base = () if param.lr_policy == "multifixed" else ("base_lr",)
    missing = [name for name in (*base, *POLICIES[param.lr_policy]) if name not in given]
    if missing:
        what = "the learning rate is 0, and nothing is learned" if "base_lr" in missing else "they count as 0"
        what = what if len(missing) > 1 or "base_lr" in missing else "it counts as 0"
        if missing == ["gamma"] and param.lr_policy in ("step", "exp"):
            what += ", so that the learning rate falls to 0 at the first step"
        logs.warning(
            "sgd_solver.cpp:27", f"lr_policy {param.lr_policy!r} reads {' and '.join(missing)}, not set: {what}"
        )
    if param.lr_policy == "plateau" and not param.plateau_winsize:
        logs.warning("sgd_solver.cpp:70", "lr_policy 'plateau' has no plateau_winsize: the rate stays at base_lr")
    if param.lr_policy == "multistep" and list(param.stepvalue) != sorted(param.stepvalue):
        logs.warning(
            "sgd_solver.cpp:50",
            f"stepvalue does not rise: {list(param.stepvalue)}; each step waits for those before it",
        )


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


def learning_rate(
    param: SolverParameter, iteration: int, options: RateOptions = PLAIN, factor: float = 1.0, step: int = 0
) -> float:
    """The rate at ``iteration``, counted from 0. ``check`` the settings before. ``step`` is that of ``plateau``.

    ``max(min_lr, factor * policy)``; in the first ``warmup`` iterations
    ``start_lr + (that - start_lr) * (iter + 1) / warmup``.
    """
    rate = factor * _policy(param, iteration, step)
    if options.min_lr:
        rate = max(options.min_lr, rate)
    if iteration + 1 < options.warmup:
        rate = options.start_lr + (rate - options.start_lr) * (iteration + 1) / options.warmup
    return rate


def _policy(param: SolverParameter, iteration: int, step: int) -> float:
    base, gamma, power = param.base_lr, param.gamma, param.power
    match param.lr_policy:
        case "step" | "multistep":
            return base * _power(gamma, current_step(param, iteration))
        case "multifixed":
            ahead = [rate for rate, last in zip(param.stagelr, param.stageiter, strict=True) if iteration <= last]
            return [*ahead, param.stagelr[-1]][0]
        case "plateau":
            return base * _power(gamma, step)
        case "exp":
            return base * _power(gamma, iteration)
        case "inv":
            return base * _power(1 + gamma * iteration, -power)
        case "poly":
            return base * _power(1 - _done(param, iteration), power)
        case "sigmoid":
            return base / (1 + math.exp(min(-gamma * (iteration - param.stepsize), 700.0)))
        case "cosine":
            return base * (1 + math.cos(math.pi * _done(param, iteration))) / 2
        case _:
            return base


def _done(param: SolverParameter, iteration: int) -> float:
    """The part of ``max_iter`` that is done, at most 1."""
    return min(1.0, iteration / param.max_iter) if param.max_iter else 1.0


def _power(base: float, exponent: float) -> float:
    """C's ``pow``: infinite or no number where Python raises an error."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan
