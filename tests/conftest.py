"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli.cli.main does, before torch is imported


@pytest.fixture(scope="session")
def golden() -> Path:
    """The answers recorded from the reference."""
    return Path(__file__).parent / "golden"
