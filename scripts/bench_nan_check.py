"""What it costs to look at every iteration's loss for NaN and Inf: ``python scripts/bench_nan_check.py``.

Trains the nets of ``bench.py`` on constants from memory, in turns with the check and without. The check is ``Losses``:
its ``add``, ``due`` and ``settle``, which also smooth the loss that a display shows. It takes microseconds of
milliseconds, so the turns mostly show how the machine's speed drifts; the calls themselves are timed as well, in a loop
of their own.

    python scripts/bench_nan_check.py [--rounds 30] [--iterations 20] [--nets lenet,cifar10_quick] [--threads 0]
                                      [--device cpu]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from caffecli.solver.progress import Losses
from caffecli.solver.solver import Solver
from scripts.bench import solver_of


def clock(solver: Solver, iterations: int) -> float:
    """Seconds an iteration."""
    start = time.perf_counter()
    solver.step(iterations)
    if solver.device.type == "cuda":
        torch.cuda.synchronize(solver.device)
    return (time.perf_counter() - start) / iterations


def without(solver: Solver, iterations: int) -> float:
    """``clock`` of a solver that never looks at a loss."""
    with mock.patch.object(Losses, "add", lambda *_: None), mock.patch.object(Losses, "due", False):
        return clock(solver, iterations)


def calls(solver: Solver, count: int = 20000) -> float:
    """Seconds that the check of an iteration takes by itself."""
    loss = torch.ones((), device=solver.device)
    start = time.perf_counter()
    for iteration in range(count):
        solver.losses.add(iteration, loss)
        if solver.losses.due:
            solver.settled_loss()
    return (time.perf_counter() - start) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's own choice")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for name in args.nets.split(","):
        solver = solver_of(name, None, torch.device(args.device))
        clock(solver, args.iterations)
        pairs = []
        for turn in range(args.rounds):  # who goes first takes turns too
            if turn % 2:
                off, on = without(solver, args.iterations), clock(solver, args.iterations)
            else:
                on, off = clock(solver, args.iterations), without(solver, args.iterations)
            pairs.append((on, off))
        step = statistics.median(on for on, _ in pairs)
        more = 100 * statistics.median(on / off - 1 for on, off in pairs)
        alone = statistics.median(calls(solver) for _ in range(5))
        solver.close()
        print(
            f"{name:15} {1000 * step:.2f} ms an iteration; the check {1e6 * alone:.2f} µs, {100 * alone / step:.3f} %; "
            f"with and without in turns: {more:+.2f} % (median of {args.rounds} rounds)",
            flush=True,
        )


if __name__ == "__main__":
    main()
