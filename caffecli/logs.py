"""Caffe's log lines: ``I1121 06:51:39.610826 20433 solver.cpp:239] text`` on stderr.

Level (I, W, E, F), month and day, time with microseconds, process id, the reference's source name and line, then the
text. Programs that read training logs rely on each of these. ``GLOG_minloglevel`` (0 to 3) hides the levels below it.

The lines go through the standard logger ``caffecli``; a program that uses caffecli as a library sees nothing until it
calls ``show()`` or sets a handler of its own. ``import caffe`` shows them unasked, as glog does: ``show_by_default()``.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, TextIO

_LEVELS = {logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
_logger = logging.getLogger("caffecli")
_logger.addHandler(logging.NullHandler())
_logger.propagate = False


def info(source: str, text: str) -> None:
    """Log ``text`` as Caffe's ``source`` (``solver.cpp:239``) does at level I."""
    _logger.info(text, extra={"source": source})


def block(source: str, title: str, lines: str) -> None:
    """``info`` of a text of several lines. In the others a line break, in a layer's name say, is written ``\\n``."""
    _logger.info(f"{title}\n{lines}", extra={"source": source, "block": True})


@functools.cache
def info_once(source: str, text: str) -> None:
    """``info``, but each line only once in this process."""
    info(source, text)


def warning(source: str, text: str) -> None:
    """Log ``text`` at level W."""
    _logger.warning(text, extra={"source": source})


def error(source: str, text: str) -> None:
    """Log ``text`` at level E."""
    _logger.error(text, extra={"source": source})


def enabled() -> bool:
    """Whether level I is shown anywhere; lets callers skip making long texts."""
    return _logger.isEnabledFor(logging.INFO)


def number(value: float) -> str:
    """``value`` as a C++ stream prints it: six significant digits, ``%g``."""
    return f"{value:g}"


#: control characters, and those at which programs break lines, as they are written in one line
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), 127, *range(128, 160), 0x2028, 0x2029) if code != 9}


class GlogFormatter(logging.Formatter):
    """Puts glog's prefix before the message, which is one line, or a block of lines."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.localtime(record.created)
        micro = int(record.created % 1 * 1e6)
        source = getattr(record, "source", f"{record.filename}:{record.lineno}")
        prefix = (
            f"{_LEVELS.get(record.levelno, 'I')}{time.strftime('%m%d %H:%M:%S', at)}.{micro:06d} {os.getpid()} "
            f"{source}] "
        )
        text = record.getMessage()
        return prefix + (text if getattr(record, "block", False) else text.translate(_ESCAPES))


class StderrHandler(logging.Handler):
    """Writes to the current ``sys.stderr``, above a progress bar if one is shown."""

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self.stream = stream
        #: why lines have been lost, if they have: a full disk; the run goes on
        self.failed: OSError | None = None
        self.setFormatter(GlogFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
            stream = self.stream or sys.stderr
            bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
            if bars is not None and getattr(bars, "_instances", None):
                bars.write(line, file=stream, end="")
            else:
                stream.write(line)
                stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            self.failed = error
        except Exception:
            self.handleError(record)


class Quiet(logging.Filter):
    """Lets warnings and errors through, and lines from the sources whose names begin with one of ``results``."""

    def __init__(self, results: Sequence[str] = ()) -> None:
        super().__init__()
        self._results = tuple(results)

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING or getattr(record, "source", "").startswith(self._results)


class _Default(StderrHandler):
    """Shows the log on stderr while ``show`` does not."""

    def emit(self, record: logging.LogRecord) -> None:
        if not _shown():
            super().emit(record)


_default = _Default()


def show(stream: TextIO | None = None) -> StderrHandler:
    """Send the log to stderr (or ``stream``) from now on; returns the handler, for ``hide``."""
    _logger.setLevel(_lowest_level())
    handler = StderrHandler(stream)
    _logger.addHandler(handler)
    return handler


def show_by_default(shown: bool = True) -> None:
    """Send the log to stderr wherever ``show`` does not send it; not ``shown``: no longer."""
    if shown:
        _logger.addHandler(_default)
    else:
        _logger.removeHandler(_default)
    _settle_level()


def _lowest_level() -> int:
    """The level that ``GLOG_minloglevel`` names."""
    levels = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
    try:
        return levels[max(0, min(3, int(os.environ.get("GLOG_minloglevel", "0"))))]  # noqa: SIM112 - glog's own spelling
    except ValueError:
        return logging.INFO


def _shown() -> bool:
    return any(isinstance(handler, StderrHandler) and handler is not _default for handler in _logger.handlers)


def _settle_level() -> None:
    """Set the logger's level when a handler has come or gone."""
    if not _shown() and _default in _logger.handlers:
        _logger.setLevel(_lowest_level())
    elif all(isinstance(handler, logging.NullHandler) for handler in _logger.handlers):
        _logger.setLevel(logging.NOTSET)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Log nothing below a warning while the block runs."""
    level = _logger.level
    _logger.setLevel(max(level, logging.WARNING))
    try:
        yield
    finally:
        _logger.setLevel(level)


def hide(handler: logging.Handler) -> None:
    """Remove a handler that ``show`` or another function has set, and close it."""
    _logger.removeHandler(handler)
    handler.close()
    _settle_level()


class Bar:
    """A progress bar on stderr when that is a terminal; nothing otherwise, or when not ``shown``.

    ``total``: how many there are, None where that is not known; ``start``: how many were there before; ``unit``: of
    what, "B" for bytes, which are shown in powers of 1024.
    """

    def __init__(self, total: int | None, start: int = 0, unit: str = "it", shown: bool = True) -> None:
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            form: dict[str, Any] = (
                {"unit": unit, "unit_scale": True, "unit_divisor": 1024} if unit == "B" else {"unit": f" {unit}"}
            )
            self._bar = tqdm(total=total, initial=start, dynamic_ncols=True, mininterval=0.2, leave=False, **form)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, count: int = 1) -> None:
        if self._bar is not None:
            self._bar.update(count)

    def note(self, **figures: float) -> None:
        """Show figures (loss, lr) behind the bar, from its next refresh on."""
        if self._bar is not None:
            self._bar.set_postfix({name: number(value) for name, value in figures.items()}, refresh=False)
