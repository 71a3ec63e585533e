"""Training speed beside a hand-written PyTorch loop of the same net: ``make bench``.

Both sides run in one process, taking turns in an order drawn anew each round, so that a machine whose speed drifts
slows both. The hand-written loop has all that one would do by hand: channels_last, torch.optim.SGD(fused=True), one
batch that already lies in memory. Ours reads an LMDB of made-up pictures through the whole of ``caffecli train``:
database, transformation, read-ahead, layers, Caffe's update rule.

    python scripts/bench.py [--rounds 9] [--iterations 60] [--nets lenet,cifar10_quick] [--threads 0] [--busy 0]
                            [--plain-malloc]

``--busy N`` starts N programs that do nothing but use a core each, to see how training gets along with others.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli does, before torch is imported

import numpy as np
import torch
from torch import Tensor, nn

from caffecli import host
from caffecli.formats import db
from caffecli.proto.caffe_pb2 import Datum, SolverParameter
from caffecli.solver.solver import Solver
from caffecli.spec import load

ROOT = Path(__file__).resolve().parents[1]
SHAPES = {"lenet": (64, 1, 28, 28), "cifar10_quick": (100, 3, 32, 32)}


def by_hand(name: str) -> nn.Module:
    """The net as one would write it in PyTorch."""
    if name == "lenet":
        return nn.Sequential(
            nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.Flatten(),
            nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
        )  # fmt: skip
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10),
    )  # fmt: skip


def hand_loop(name: str, device: torch.device) -> Callable[[int], None]:
    """A function that trains the hand-written net for some iterations."""
    net = by_hand(name).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    data = torch.rand(SHAPES[name], device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (SHAPES[name][0],), device=device)
    rule = torch.optim.SGD(net.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=True)
    entropy = nn.CrossEntropyLoss()

    def run(iterations: int) -> None:
        for _ in range(iterations):
            rule.zero_grad(set_to_none=True)
            loss: Tensor = entropy(net(data), labels)
            loss.backward()  # type: ignore[no-untyped-call]
            rule.step()

    return run


def made_up_database(folder: Path, name: str, records: int = 2000) -> Path:
    """An LMDB of random pictures of the net's size."""
    _, channels, height, width = SHAPES[name]
    path, random = folder / f"{name}_lmdb", np.random.default_rng(0)
    with db.open_writer(path, "lmdb") as out:
        for i in range(records):
            pixels = random.integers(0, 256, (channels, height, width), dtype=np.uint8)
            datum = Datum(channels=channels, height=height, width=width, data=pixels.tobytes(), label=i % 10)
            out.put(b"%08d" % i, datum.SerializeToString())
    return path


def solver_param(name: str, database: Path | None) -> SolverParameter:
    """The solver of ``models/NAME`` on the made-up database, or on constants without one; no tests, no snapshots."""
    param = SolverParameter()
    param.CopyFrom(load.load_solver(ROOT / "models" / name / "solver.prototxt"))
    net = load.load_net(ROOT / param.net)
    for layer in net.layer:
        if layer.type == "Data" and database is None:
            layer.type = "DummyData"
            layer.dummy_data_param.shape.add(dim=SHAPES[name])
            layer.dummy_data_param.shape.add(dim=SHAPES[name][:1])
        elif layer.type == "Data":
            layer.data_param.source = str(database)
            layer.transform_param.ClearField("mean_file")
    param.ClearField("net")
    param.net_param.CopyFrom(net)
    for field in ("test_iter", "test_interval", "display", "snapshot"):
        param.ClearField(field)
    param.snapshot_after_train = False
    param.base_lr = 1e-4
    return param


def solver_of(name: str, database: Path | None, device: torch.device) -> Solver:
    """What ``solver_param`` describes, built."""
    return Solver(solver_param(name, database), device)


def compare(name: str, database: Path, rounds: int, iterations: int, device: torch.device) -> None:
    """Print iterations a second of both, their ratio, and what ours loses to reading data
    (against constants from memory).
    """
    ours, still, theirs = solver_of(name, database, device), solver_of(name, None, device), hand_loop(name, device)

    def clock(run: Callable[[int], None]) -> float:
        start = time.perf_counter()
        run(iterations)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return iterations / (time.perf_counter() - start)

    runs = (ours.step, theirs, still.step)
    for run in runs:
        clock(run)
    turns = random.Random(0)
    rates = []
    for _ in range(rounds):
        rate = {run: clock(run) for run in turns.sample(runs, len(runs))}
        rates.append([rate[run] for run in runs])
    ours.close()
    ratio = statistics.median(a / b for a, b, _ in rates)
    data = 100 * statistics.median(1 - a / c for a, _, c in rates)
    mine, other, _ = (statistics.median(side) for side in zip(*rates, strict=True))
    speeds = f"caffecli {mine:.1f} it/s, by hand {other:.1f} it/s, ratio {ratio:.3f}"
    print(f"{name:15} {speeds}; reading data takes {data:.1f} % (medians of {rounds} rounds)", flush=True)


def memory(name: str, database: Path, device: torch.device) -> None:
    """Print the peak resident memory of a process that does nothing but train."""
    code = f"""
import torch  # noqa: E402
from pathlib import Path
from scripts.bench import solver_of
solver = solver_of({name!r}, Path({str(database)!r}), torch.device({str(device)!r}))
solver.step(50)
solver.close()
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{name:15} peak memory of training {peak:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0: torch's own choice")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--busy", type=int, default=0, help="how many busy programs run beside")
    parser.add_argument("--plain-malloc", action="store_true", help="let freed memory go back to the system")
    args = parser.parse_args()
    if not args.plain_malloc:
        host.keep_memory()  # as caffecli does
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {device}", flush=True)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(args.busy)]
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name in args.nets.split(","):
                database = made_up_database(Path(folder), name)
                memory(name, database, device)
                compare(name, database, args.rounds, args.iterations, device)
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
