"""A copy of the repository's scripts, nets and data folders,
so that the tests write nothing into the repository itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Script = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A folder with ``scripts``, ``models`` and ``data`` as a fresh clone has them."""
    copy = tmp_path / "a clone"  # a blank in the path on purpose
    shutil.copytree(ROOT / "scripts", copy / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "models", copy / "models", ignore=shutil.ignore_patterns("*_iter_*"))
    for path in (ROOT / "data").glob("*/*.sh"):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return copy


@pytest.fixture
def script(repository: Path, tmp_path: Path) -> Script:
    """``script("scripts/create_mnist.sh", ...)`` runs a script of the copy from another working directory."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    def run(name: str, *args: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "CAFFECLI": f"{sys.executable} -m caffecli",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "no_proxy": "127.0.0.1",
            **env,
        }
        return subprocess.run(
            ["bash", str(repository / name), *map(str, args)],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            timeout=100,
        )

    return run
