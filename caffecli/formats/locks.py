"""Locks on files, as POSIX has them: given back when the process ends, however it ends."""

from __future__ import annotations

from typing import IO, Any

from caffecli.errors import CaffeError

try:
    import fcntl
except ImportError as error:
    raise CaffeError("caffecli locks files as POSIX does: it runs on Linux, macOS, and on Windows in WSL") from error


def take(file: int | IO[Any]) -> None:
    """Lock an open file against other processes; raises BlockingIOError where one of them has it."""
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
