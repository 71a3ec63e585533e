"""``--log-file``: the log goes to a file too."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from caffecli import logs
from caffecli.errors import CaffeError
from caffecli.formats.atomic import cannot_write
from caffecli.formats.glog_files import GlogFiles

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


def append_glog(folder: str | os.PathLike[str], program: str) -> GlogFiles:
    """Write the log to glog's files in ``folder`` from now on; returns the handler, for ``logs.hide``."""
    handler = GlogFiles(folder, program)
    _logger.addHandler(handler)
    return handler


def tell_end(handler: logging.Handler, error: CaffeError) -> None:
    """Write the error that ends a run where ``handler`` writes: on stderr, it comes by itself."""
    handler.handle(
        _logger.makeRecord("caffecli", logging.ERROR, "", 0, str(error), (), None, extra={"source": _SOURCE})
    )


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
        tell_end(handler, error)
        raise
    finally:
        logs.hide(handler)


class Outlets(NamedTuple):
    """Where a log goes: the level from which it is shown on stderr (None: it is not), the files it is appended to,
    and glog's, as folder and program.
    """

    shown: int | None
    files: tuple[Path, ...] = ()
    glog: tuple[tuple[Path, str], ...] = ()


def outlets() -> Outlets:
    """Where the log of this process goes: for ``open_outlets`` in another one."""
    ours = FileHandler, GlogFiles, logging.NullHandler
    shown = [handler.level for handler in _logger.handlers if not isinstance(handler, ours)]
    files = tuple(handler.path.resolve() for handler in _logger.handlers if isinstance(handler, FileHandler))
    glog = tuple((h.folder.resolve(), h.program) for h in _logger.handlers if isinstance(h, GlogFiles))
    return Outlets(min(shown, default=None), files, glog)


def open_outlets(given: Outlets) -> None:
    """Send the log of this process where that of another process goes, by its ``outlets``."""
    if given.shown is not None:
        logs.show().setLevel(given.shown)
    for path in given.files:
        append(path)
    for folder, program in given.glog:
        append_glog(folder, program)
