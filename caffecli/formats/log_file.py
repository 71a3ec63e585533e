"""``--log-file``: the log goes to a file too."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from caffecli import logs
from caffecli.errors import CaffeError
from caffecli.formats.atomic import cannot_write

_logger = logging.getLogger("caffecli")
#: the place in Caffe's source that lines about the file name: where train starts its solver
_SOURCE = "caffe.cpp:239"


class FileHandler(logging.Handler):
    """Appends to a file, line by line; when that fails, says so once and writes no more. Raises FormatError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        self.setFormatter(logs.GlogFormatter())
        try:
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise cannot_write(path, error) from error

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._file.write(self.format(record) + "\n")
            self._file.flush()
        except OSError as error:
            _logger.removeHandler(self)
            logs.warning(_SOURCE, f"{cannot_write(self.path, error)}; the run goes on without its log there")

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file.close()
        super().close()


def append(path: str | os.PathLike[str]) -> FileHandler:
    """Append the log to a file from now on; returns the handler, for ``logs.hide``. Raises FormatError."""
    handler = FileHandler(path)
    if _logger.level == logging.NOTSET:
        _logger.setLevel(logging.INFO)
    _logger.addHandler(handler)
    return handler


@contextlib.contextmanager
def appending(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """While entered, append the log to ``path``, and at the end the error that ended the block. Not in a process whose
    log is off.
    """
    if path is None or _logger.disabled:
        yield
        return
    handler = append(path)
    try:
        yield
    except CaffeError as error:
        handler.handle(
            _logger.makeRecord("caffecli", logging.ERROR, "", 0, str(error), (), None, extra={"source": _SOURCE})
        )
        raise
    finally:
        logs.hide(handler)


def outlets() -> tuple[bool, tuple[Path, ...]]:
    """Whether the log is shown, and the files that it is appended to: for ``open_outlets`` in another process."""
    files = tuple(handler.path.resolve() for handler in _logger.handlers if isinstance(handler, FileHandler))
    return any(not isinstance(h, logging.NullHandler | FileHandler) for h in _logger.handlers), files


def open_outlets(shown: bool, files: Iterable[Path]) -> None:
    """Send the log of this process where that of another process goes, by its ``outlets``."""
    if shown:
        logs.show()
    for path in files:
        append(path)
