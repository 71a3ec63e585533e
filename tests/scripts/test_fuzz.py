"""The program that damages files: what it counts as a fault, and that a case can be repeated."""

from __future__ import annotations

import ast
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import fuzz

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("text", [False, True])
def test_a_mutation_can_be_repeated(text: bool) -> None:
    data = b'name: "net"\nlayer { name: "x" }\n' * 20
    first, again = (fuzz.mutated(data, text, random.Random("0:net:7")) for _ in range(2))
    assert first == again
    assert len({fuzz.mutated(data, text, random.Random(number)) for number in range(100)}) > 90


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ("raise SystemExit(1)", "failed without a word"),
        ("raise RuntimeError('planted')", "printed 'Traceback (most'"),
        ("print('Error: internal: planted'); raise SystemExit(1)", "printed 'internal:'"),
        ("os.abort()", "ended by SIGABRT"),
        ("import time; time.sleep(60)", "took over 1 s"),
        ("x = b'x' * (1 << 28)", "took"),
        ("print('Error: one line'); raise SystemExit(1)", ""),
        ("pass", ""),
    ],
)
def test_what_counts_as_a_fault(body: str, fault: str, tmp_path: Path) -> None:
    """Each in a program of its own: forks of the tests' process would carry its threads' locks."""
    program = f"""
import os
from pathlib import Path
from scripts import fuzz
from caffecli.cli import main
def planted(name):
    global x
    {body}
    raise SystemExit(0)
main.main = planted
fuzz.SECONDS, fuzz.MEMORY = 1.0, 1 << 27
Path("case").mkdir()
print(fuzz.run(Path("case").resolve(), ["train"])[0])
"""
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    found = ast.literal_eval(done.stdout)
    assert [text.startswith(fault) for text in found] == [True] if fault else not found


@pytest.mark.slow
def test_every_kind_of_file_is_read_when_damaged(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.fuzz", "--count", str(8 * len(fuzz.KINDS)), "--keep", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
