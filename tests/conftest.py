"""Fixtures that all tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli.cli.main does, before torch is imported


@pytest.fixture(scope="session")
def golden() -> Path:
    """The answers recorded from the reference."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``tutorial`` as scripts/digits.py makes it, with which pages of the documentation begin; to be copied."""
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("digits")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, root / "scripts/digits.py"], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "tutorial"
