"""A run killed at any moment goes on from a whole snapshot."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

#: trains in children of a warm process, kills each at a random moment, and resumes the next from the newest solverstate
KILLER = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from caffecli.tools.train import TrainOptions, train

kills, random_state = int(sys.argv[1]), random.Random(5)
resumed = 0
for kill in range(kills):
    states = sorted(Path().glob("s_iter_*.solverstate"), key=lambda p: int(p.stem.split("_")[-1]))
    newest = states[-1] if states else None
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            from caffecli.solver.solver import Solver
            restore = Solver.restore
            def restored(self, path):
                restore(self, path)
                os.write(write, b"r")
            Solver.restore = restored
            train(TrainOptions(Path("solver.prototxt"), snapshot=newest))
            os._exit(0)
        except BaseException as error:
            print("child failed:", error, flush=True)
            os._exit(1)
    if newest:
        assert os.read(read, 1) == b"r", f"{newest} could not be resumed from"
        resumed += 1
    else:
        while not list(Path().glob("s_iter_*.solverstate")):
            time.sleep(0.01)
    time.sleep(random_state.random() * 0.08)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"the child ended by itself: {status}"
    os.close(read), os.close(write)
print(f"resumed {resumed} times, up to iteration {newest.stem.split('_')[-1]}")
"""


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_while_it_writes_snapshots(run_folder: Path, edit: Callable[[str, str, str], None], kills: int) -> None:
    edit("solver.prototxt", "snapshot: 10", "snapshot: 1")
    edit("solver.prototxt", "max_iter: 20", "max_iter: 1000000")
    edit("solver.prototxt", "test_interval: 10", "test_interval: 1000000")
    done = subprocess.run([sys.executable, "-c", KILLER, str(kills)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    match = re.search(r"resumed (\d+) times, up to iteration (\d+)", done.stdout)
    assert match, done.stdout
    assert int(match[1]) == kills - 1
    assert int(match[2]) > 1
