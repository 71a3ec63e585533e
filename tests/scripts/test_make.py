"""The Makefile and the demo."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(*args: str) -> str:
    done = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), *args], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_help_lists_every_target():
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = re.findall(r"^  make (\S+)", make("help"), re.MULTILINE)
    assert phony is not None
    assert sorted(listed) == sorted(phony[1].split())


def test_every_target_installs_first():
    for target in ("demo", "test", "test-all", "check", "bench", "docs"):
        assert "pip install" in make("--dry-run", "--always-make", target), target


def test_install_is_made_anew_only_when_its_files_change(tmp_path):
    clone = tmp_path / "clone"
    (clone / ".venv/bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "setup.py", "constraints.txt"):
        shutil.copy(ROOT / name, clone)
    pip = clone / ".venv/bin/pip"
    pip.write_text('#!/bin/sh\necho pip "$@"\n')
    pip.chmod(0o755)

    def install() -> str:
        command = ["make", "-C", str(clone), ".venv", f"PYTHON={sys.executable}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert "pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]" in install()
    assert "pip install" not in install()
    later = (clone / ".venv/installed").stat().st_mtime + 5
    os.utime(clone / "constraints.txt", (later, later))
    assert "pip install" in install()


def test_an_old_python_is_named(tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = -V ] && echo Python 3.8.1 || exit 1\n')
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "setup.py", "constraints.txt"):
        (tmp_path / name).touch()
    done = subprocess.run(["make", "-C", str(tmp_path), "demo", f"PYTHON={old}"], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"caffecli needs Python 3.10 or newer, {old} is Python 3.8.1" in done.stderr


@pytest.mark.slow
def test_the_demo_trains_scores_stops_and_resumes():
    pytest.importorskip("sklearn")
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # on a busy machine several wait for each other
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/demo.py")], capture_output=True, text=True, timeout=300, env=one_thread
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    found = re.search(r"Held-out accuracy: (\S+) on 360 digits", done.stdout)
    assert found is not None
    assert float(found[1]) >= 0.97
    assert "the same weights, bit for bit" in done.stdout
