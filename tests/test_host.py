"""What a program that computes asks of the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import caffe
from caffecli import host
from caffecli.errors import CaffeError
from caffecli.formats import caffemodel, mean, solverstate
from caffecli.solver.snapshot import find_state
from caffecli.spec.load import load_net, load_solver
from converters.from_torch import archive

FAULTS = """
import resource, sys
import caffe
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
def test_whoever_imports_caffe_keeps_memory_and_shares_the_cores_too() -> None:
    shown = "import os; print('MALLOC_TRIM_THRESHOLD_' in os.environ, 'GOMP_SPINCOUNT' in os.environ)"
    assert run(f"import caffe; {shown}") == "True True\n"


def test_what_the_user_has_set_stays() -> None:
    shown = "{n: v for n, v in os.environ.items() if n[:4] in ('GOMP', 'MALL')}"
    program = f"from caffecli import host; import os; host.prepare(); print({shown})"
    assert (
        run(program, GOMP_SPINCOUNT="7", MALLOC_TRIM_THRESHOLD_="8")
        == "{'GOMP_SPINCOUNT': '7', 'MALLOC_TRIM_THRESHOLD_': '8'}\n"
    )
    assert "'GOMP_SPINCOUNT'" not in run(program, OMP_WAIT_POLICY="active")


def test_pipes_devices_and_folders_are_no_files(tmp_path: Path) -> None:
    """They are told before they are opened, which may wait for ever, and by all that reads files."""
    os.mkfifo(tmp_path / "pipe")
    for path, words in ((tmp_path / "pipe", "it is a pipe, expected a file"), (Path("/dev/zero"), "it is a device")):
        with pytest.raises(OSError, match=words):
            host.check_file(path)
        readers: list[Callable[[Path], object]] = [caffemodel.read, solverstate.read, mean.read, load_net, load_solver]
        for read in readers:
            with pytest.raises(CaffeError, match=words):
                read(path)
        for others in (archive.read, caffe.io.load_image):
            with pytest.raises((CaffeError, OSError), match=words):
                others(path)
        with pytest.raises(CaffeError, match=f"--snapshot {path}: that is no file"):
            find_state(path)
    with pytest.raises(CaffeError, match=r"--snapshot \.: that is no file; give a .solverstate"):
        find_state(Path())
    with pytest.raises(IsADirectoryError):
        host.check_file(tmp_path)
    host.check_file(__file__)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb"), os.fdopen(writing, "wb"):  # what a shell makes of <(...)
        host.check_file(f"/dev/fd/{reading}")
