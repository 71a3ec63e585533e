"""A training that goes on for long: memory, threads and open files stay what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caffecli.formats import db
from caffecli.proto.caffe_pb2 import Datum

ROOT = Path(__file__).parents[2]

NET = """
name: "long"
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { mirror: true crop_size: 6 scale: 0.004 }
  data_param { source: "records" batch_size: 2 backend: LMDB } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 3 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv" }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
SOLVER = """
net: "net.prototxt" test_iter: 4 test_interval: 250 base_lr: 0.0001 momentum: 0.9 lr_policy: "fixed" display: 100
max_iter: 20000 snapshot: 500 snapshot_prefix: "s" solver_mode: CPU
"""
PROGRAM = """
import os, sys
from pathlib import Path
import caffecli
solver = caffecli.Solver(caffecli.load_solver("solver.prototxt"))
def taken():
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return [int(status["VmRSS"].split()[0]), int(status["Threads"]), len(os.listdir("/proc/self/fd"))]
for _ in range(4):
    solver.step(5000)
    print(*taken(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_20_000_iterations_with_tests_and_snapshots(tmp_path: Path) -> None:
    numbers = np.random.default_rng(0)
    with db.open_writer(tmp_path / "records", "lmdb") as out:
        for i in range(30):
            pixels = numbers.integers(0, 256, 192, dtype=np.uint8).tobytes()
            out.put(b"%d" % i, Datum(channels=3, height=8, width=8, data=pixels, label=i % 3).SerializeToString())
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    samples = [[int(word) for word in line.split()] for line in done.stdout.splitlines()]
    assert len(samples) == 4
    memory, threads, files = zip(*samples, strict=True)
    assert memory[3] - memory[0] < 5000, f"KiB at each 5,000 iterations: {memory}"
    assert threads[3] <= threads[0]
    assert files[3] <= files[0]
