"""The files that glog writes: ``caffe.HOST.USER.log.INFO.DATE-TIME.PID``, and ``caffe.INFO``, a link to the newest."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform
import time
from pathlib import Path
from typing import TextIO

from caffecli import logs
from caffecli.formats.atomic import cannot_write

#: each level has a file, which holds its lines and those of the levels above
_LEVELS = {logging.INFO: "INFO", logging.WARNING: "WARNING", logging.ERROR: "ERROR", logging.CRITICAL: "FATAL"}


class GlogFiles(logging.Handler):
    """Writes the log to files in ``folder``, named after ``program``, each begun with the first line that it holds.

    When one cannot be written, says so once and writes no more: the run goes on, as under glog.
    """

    def __init__(self, folder: str | os.PathLike[str], program: str) -> None:
        super().__init__()
        self.folder, self.program = Path(folder), program
        self._files: dict[int, TextIO] = {}
        self._failed = False
        self.setFormatter(logs.GlogFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        if self._failed:
            return
        try:
            line = self.format(record) + "\n"
            for level in _LEVELS:
                if record.levelno >= level:
                    file = self._files.get(level) or self._begin(level)
                    file.write(line)
                    file.flush()
        except OSError as error:
            self._failed = True
            where = error.filename or self.folder
            logs.warning("logging.cc:1072", f"{cannot_write(where, error)}; the run goes on without its log there")

    def _begin(self, level: int) -> TextIO:
        host = platform.node() or "(unknown)"
        now = time.localtime()
        name = (
            f"{self.program}.{host}.{_user()}.log.{_LEVELS[level]}.{time.strftime('%Y%m%d-%H%M%S', now)}.{os.getpid()}"
        )
        path = self.folder / name
        file = self._files[level] = path.open("a", encoding="utf-8", errors="backslashreplace")
        file.write(
            f"Log file created at: {time.strftime('%Y/%m/%d %H:%M:%S', now)}\nRunning on machine: {host}\n"
            "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
        )
        link = self.folder / f"{self.program}.{_LEVELS[level]}"
        with contextlib.suppress(OSError):  # without the link, the log is whole; nothing but a link is replaced
            if link.is_symlink():
                link.unlink()
            link.symlink_to(name)
        return file

    def close(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._files.clear()
        super().close()


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        return "invalid-user"
