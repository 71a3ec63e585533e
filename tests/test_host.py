"""What a program that computes asks of the machine."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from caffecli import host
if sys.argv[1] == "prepared":
    host.prepare()
for _ in range(3):
    b"x" * 2**26
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    b"x" * 2**26
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(program: str, *args: str, **settings: str) -> str:
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")
    env = {name: value for name, value in os.environ.items() if name not in names} | settings
    return subprocess.run(
        [sys.executable, "-c", program, *args], env=env, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_freed_memory_is_used_again_without_the_system() -> None:
    plain, prepared = (int(run(FAULTS, how)) for how in ("plain", "prepared"))
    if plain < 10_000:
        pytest.skip("this C library keeps freed memory, or its pages are large")
    assert prepared < plain / 4


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_whoever_imports_caffe_keeps_memory_too() -> None:
    shown = "import os; print('MALLOC_TRIM_THRESHOLD_' in os.environ, 'GOMP_SPINCOUNT' in os.environ)"
    assert run(f"import caffe; {shown}") == "True False\n"


def test_what_the_user_has_set_stays() -> None:
    shown = "{n: v for n, v in os.environ.items() if n[:4] in ('GOMP', 'MALL')}"
    program = f"from caffecli import host; import os; host.prepare(); print({shown})"
    assert (
        run(program, GOMP_SPINCOUNT="7", MALLOC_TRIM_THRESHOLD_="8")
        == "{'GOMP_SPINCOUNT': '7', 'MALLOC_TRIM_THRESHOLD_': '8'}\n"
    )
    assert "'GOMP_SPINCOUNT'" not in run(program, OMP_WAIT_POLICY="active")
