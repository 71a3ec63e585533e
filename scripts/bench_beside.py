"""This checkout beside another one of caffecli: seconds to start, and time of a training step, in turns.

    git worktree add ../before COMMIT
    python -m scripts.bench_beside ../before [--nets lenet,cifar10_quick] [--rounds 40] [--iterations 20]

Each checkout trains in a process of its own, a few iterations at a time, while the other waits; the machine's drift
then slows both. Printed are the median times, and the quartiles of this one's time divided by the other's, round by
round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO, cast

from scripts.bench import made_up_database

ROOT = Path(__file__).resolve().parents[1]
STARTS = {
    "caffecli --help": ["-m", "caffecli", "--help"],
    "import caffecli": ["-c", "import caffecli"],
    "import caffe": ["-c", "import caffe"],
    "from caffe.proto import caffe_pb2": ["-c", "from caffe.proto import caffe_pb2"],
    "import caffe, a first net": [
        "-c",
        "import caffe; n = caffe.NetSpec(); n.x = caffe.layers.Input(shape={'dim': [1, 3, 8, 8]});"
        "n.y = caffe.layers.Convolution(n.x, kernel_size=3, num_output=4); n.z = caffe.layers.Eltwise(n.y, n.y);"
        "import tempfile; f = tempfile.NamedTemporaryFile('w', suffix='.prototxt');"
        "f.write(str(n.to_proto())); f.flush(); caffe.Net(f.name, caffe.TEST).forward()",
    ],
}
TRAINING = """
import sys, time
import torch
from pathlib import Path
from caffecli import host
from scripts.bench import solver_of
host.keep_memory()
solver = solver_of(sys.argv[1], Path(sys.argv[2]), torch.device("cpu"))
solver.step(20)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    solver.step(int(line))
    print(time.perf_counter() - start, flush=True)
"""


def environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout), "GOMP_SPINCOUNT": "1000"}


def start_time(checkout: Path, arguments: Sequence[str]) -> float:
    """Seconds that a whole program takes."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment(checkout), capture_output=True, check=True
    )
    return time.perf_counter() - start


class Trainer:
    """A checkout that trains a net in a process of its own, some iterations at each call."""

    def __init__(self, checkout: Path, net: str, database: Path) -> None:
        command = [sys.executable, "-c", TRAINING, net, str(database)]
        self.process = subprocess.Popen(
            command, cwd=checkout, env=environment(checkout), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self.given, self.said = cast("IO[str]", self.process.stdin), cast("IO[str]", self.process.stdout)
        self._answer()

    def step(self, iterations: int) -> float:
        """Milliseconds an iteration."""
        self.given.write(f"{iterations}\n")
        self.given.flush()
        return 1000 * float(self._answer()) / iterations

    def _answer(self) -> str:
        line = self.said.readline()
        if not line:
            raise SystemExit(f"the training in {self.process.args!r} ended")
        return line.strip()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


def compare(title: str, unit: str, this: Callable[[], float], other: Callable[[], float], rounds: int) -> None:
    """Both in turns, whichever began last time being second; prints medians and the ratios' quartiles."""
    pairs = []
    for i in range(rounds):
        if i % 2:
            mine, theirs = this(), other()
        else:
            theirs, mine = other(), this()
        pairs.append((mine, theirs))
    low, middle, high = statistics.quantiles([mine / theirs for mine, theirs in pairs], n=4)
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"{title:35} {theirs:8.3f} -> {mine:8.3f} {unit}   ratio {middle:.3f} ({low:.3f} to {high:.3f})", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--nets", default="lenet,cifar10_quick")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--iterations", type=int, default=20)
    args = parser.parse_args()
    other = args.other.resolve()
    for title, arguments in STARTS.items():
        this, before = partial(start_time, ROOT, arguments), partial(start_time, other, arguments)
        this(), before()
        compare(title, "s", this, before, rounds=7)
    with tempfile.TemporaryDirectory() as folder:
        for net in filter(None, args.nets.split(",")):
            database = made_up_database(Path(folder), net)
            mine, theirs = Trainer(ROOT, net, database), Trainer(other, net, database)
            this, before = partial(mine.step, args.iterations), partial(theirs.step, args.iterations)
            compare(f"{net}, a training step", "ms", this, before, args.rounds)
            mine.close()
            theirs.close()


if __name__ == "__main__":
    main()
