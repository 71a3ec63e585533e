"""What the converters' tests share."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator

import pytest
from hypothesis import settings

from caffecli import logs

settings.register_profile(
    "files", deadline=None, max_examples=30
)  # each example syncs a file, on a disk that others use too
settings.load_profile("files")


class Log:
    """The log lines so far, as ``I source] text``: without date, time and process, which differ from run to run."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def lines(self) -> list[str]:
        return bare(self.stream.getvalue())


def bare(text: str) -> list[str]:
    """Log lines without date, time and process."""
    return [re.sub(r"^([IWEF])\d+ [\d:.]+ +\d+ ", r"\1 ", line) for line in text.splitlines()]


@pytest.fixture
def log() -> Iterator[Log]:
    log = Log()
    handler = logs.show(log.stream)
    yield log
    logs.hide(handler)
