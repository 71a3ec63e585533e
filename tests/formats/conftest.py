"""Where plyvel is missing (Python 3.13 and later have no wheels of it), the tests of LevelDB are skipped,
and say so.
"""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import settings

settings.register_profile(
    "files", deadline=None, max_examples=30
)  # each example syncs a file, on a disk that others use too
settings.load_profile("files")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("plyvel") is None:
        for item in items:
            if "leveldb" in item.nodeid:
                item.add_marker(pytest.mark.skip(reason="LevelDB needs plyvel, which is not installed"))
