"""What --amp, --compile and a second process do to the speed of training.

    python scripts/bench_modes.py amp compile [--nets lenet,cifar10_quick] [--rounds 9] [--iterations 40]
    python scripts/bench_modes.py processes [--nets lenet] [--rounds 5] [--iterations 100]

``amp`` and ``compile`` train a net with and without the flag, in turns, in one process. ``processes`` trains with one
process of two threads on the whole batch, then with two of one thread on half of it each, in turns; it also tells how
long an iteration of the two waits for their diffs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli does, before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the processes that this one starts

import torch

from caffecli import host
from caffecli.net.precision import BFLOAT16, FULL
from caffecli.net.runners.compiled import Compiled
from caffecli.net.runners.whole import Whole
from caffecli.solver.launch import launch
from caffecli.solver.parallel import World
from caffecli.solver.solver import Solver
from scripts.bench import made_up_database, solver_param

CPU = torch.device("cpu")
Job = tuple[str, Path, int, int, Path]


def clock(solver: Solver, iterations: int) -> float:
    """Iterations a second."""
    start = time.perf_counter()
    solver.step(iterations)
    return iterations / (time.perf_counter() - start)


def flags(name: str, mode: str, database: Path, rounds: int, iterations: int) -> None:
    """Print the speed with and without a flag, and the median of their ratios."""
    param = solver_param(name, database)
    how = Compiled if mode == "compile" else partial(Whole, precision=BFLOAT16 if mode == "amp" else FULL)
    with_flag = Solver(param, CPU, runner=how)
    plain = Solver(param, CPU)
    start = time.perf_counter()
    with_flag.step(1)
    first = time.perf_counter() - start
    for solver in (with_flag, plain):
        clock(solver, iterations)
    rates = [(clock(with_flag, iterations), clock(plain, iterations)) for _ in range(rounds)]
    with_flag.close()
    plain.close()
    ratios = sorted(a / b for a, b in rates)
    fast, slow = (statistics.median(side) for side in zip(*rates, strict=True))
    told = f"{name:15} --{mode} {fast:.1f} it/s, without {slow:.1f} it/s, ratio {statistics.median(ratios):.3f}"
    print(f"{told} ({ratios[0]:.2f} to {ratios[-1]:.2f}); first iteration {first:.1f} s", flush=True)


def one_of_several(world: World, found: list[torch.device], job: Job) -> bool:
    """The part of one process: writes its speed, and the milliseconds an iteration waits, to a file."""
    name, database, iterations, threads, out = job
    torch.set_num_threads(threads)
    param = solver_param(name, database)
    for layer in param.net_param.layer:
        layer.data_param.batch_size //= world.size
    solver = Solver(param, found[0], world=world)
    waited = 0.0
    if solver.averaging is not None:
        finish = solver.averaging.finish

        def timed() -> None:
            nonlocal waited
            start = time.perf_counter()
            finish()
            waited += time.perf_counter() - start

        solver.averaging.finish = timed  # type: ignore[method-assign]
    clock(solver, iterations)
    waited = 0.0
    rate = clock(solver, iterations)
    if world.rank == 0:
        out.write_text(f"{rate} {1e3 * waited / iterations}")
    solver.close()
    return True


def processes(name: str, database: Path, rounds: int, iterations: int) -> None:
    """Print the speed of one process of two threads and of two of one thread."""
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rate"
        for _ in range(rounds):
            for count in (1, 2):
                launch(one_of_several, [CPU] * count, (name, database, iterations, 3 - count, out))
                rate, wait = map(float, out.read_text().split())
                found[count].append((rate, wait))
    ratio = statistics.median(two[0] / one[0] for one, two in zip(found[1], found[2], strict=True))
    one, two = (statistics.median(rate for rate, _ in found[count]) for count in (1, 2))
    wait = statistics.median(wait for _, wait in found[2])
    print(
        f"{name:15} two processes {two:.1f} it/s, one {one:.1f} it/s, ratio {ratio:.3f}; "
        f"{wait:.1f} ms an iteration in finish()"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modes", nargs="+", choices=["amp", "compile", "processes"])
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    args = parser.parse_args()
    host.keep_memory()  # as caffecli does
    with tempfile.TemporaryDirectory() as folder:
        for name in args.nets.split(","):
            database = made_up_database(Path(folder), name)
            for mode in args.modes:
                if mode == "processes":
                    processes(name, database, args.rounds, args.iterations)
                else:
                    flags(name, mode, database, args.rounds, args.iterations)


if __name__ == "__main__":
    main()
