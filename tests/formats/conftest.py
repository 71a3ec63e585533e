"""Settings of the tests of files."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile(
    "files", deadline=None, max_examples=30
)  # each example syncs a file, on a disk that others use too
settings.load_profile("files")
