"""Each update rule on LeNet: iterations a second, and what an update costs beside the passes: ``make bench``.

The solvers take turns in one process, on the same made-up pictures in memory. The share is the median over rounds of
the time within the update to that of a whole iteration.

    python -m scripts.bench_solvers [--rounds 9] [--iterations 60] [--device cpu]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli does, before torch is imported

import torch

from caffecli import host
from caffecli.net.devices import synchronize
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver import rules
from caffecli.solver.solver import Solver
from scripts.bench import solver_param

#: what the rules need beside models/lenet/solver.prototxt
SETTINGS: dict[str, dict[str, Any]] = {
    "SGD": {},
    "Nesterov": {},
    "AdaGrad": {"momentum": 0.0},
    "RMSProp": {"momentum": 0.0, "rms_decay": 0.98},
    "AdaDelta": {"momentum": 0.95, "delta": 1e-6},
    "Adam": {"momentum": 0.9, "momentum2": 0.999},
}


class Clock:
    """A solver whose updates are timed."""

    def __init__(self, solver: Solver) -> None:
        self.solver, self.seconds = solver, 0.0
        update, device = solver.rule.update, solver.device

        def timed(rate: float, iteration: int, report_clipping: bool = True) -> None:
            synchronize(device)
            start = time.perf_counter()
            update(rate, iteration, report_clipping)
            synchronize(device)
            self.seconds += time.perf_counter() - start

        solver.rule.update = timed  # type: ignore[method-assign]

    def round(self, iterations: int) -> tuple[float, float]:
        """Iterations a second, and the share of the updates."""
        self.seconds, start = 0.0, time.perf_counter()
        self.solver.step(iterations)
        synchronize(self.solver.device)
        total = time.perf_counter() - start
        return iterations / total, self.seconds / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    host.keep_memory()  # as caffecli does
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {args.device}", flush=True)
    clocks = {}
    for name in rules.RULES:
        param = solver_param("lenet", None)
        param.MergeFrom(SolverParameter(type=name, **SETTINGS[name]))
        clocks[name] = Clock(Solver(param, args.device))
        clocks[name].round(args.iterations)
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in clocks}
    for _ in range(args.rounds):
        for name, clock in clocks.items():
            rounds[name].append(clock.round(args.iterations))
    for name, measured in rounds.items():
        rate, share = (statistics.median(side) for side in zip(*measured, strict=True))
        print(
            f"{name:10} {rate:7.1f} it/s, update {100 * share:4.1f} % of an iteration (medians of {args.rounds} rounds)"
        )


if __name__ == "__main__":
    main()
