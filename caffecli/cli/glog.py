"""glog's flags, and the variables ``GLOG_*`` that stand for them: where a command's log goes.

As in Caffe's programs, all of it goes to stderr; commands that are quiet show warnings, errors and their results there,
and the rest with ``-v``. ``--log_dir`` writes all to files too, ``--logtostderr`` to none;
``--noalsologtostderr`` shows on stderr only levels from ``--stderrthreshold`` (2, errors) on; ``--minloglevel`` drops
the levels below it everywhere. Levels: 0 I, 1 W, 2 E, 3 F.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from caffecli import logs
from caffecli.errors import CaffeError

_META = "caffecli.glog"
_LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
#: the commands of Caffe's one program
_BREWS = ("train", "test", "time", "device_query")


def options() -> list[click.Parameter]:
    """The flags, hidden; what they say is kept with the context, for ``shown``."""
    more: dict[str, Any] = {"hidden": True, "expose_value": False, "callback": keep}
    level = click.IntRange(0, 3)
    return [
        click.Option(["--logtostderr/--nologtostderr"], is_flag=True, **more),
        click.Option(["--alsologtostderr/--noalsologtostderr"], is_flag=True, **more),
        click.Option(["--stderrthreshold"], type=level, **more),
        click.Option(["--minloglevel"], type=level, **more),
        click.Option(["--log_dir"], **more),
    ]


def keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if ctx.get_parameter_source(param.name or "") is click.core.ParameterSource.COMMANDLINE:
        ctx.meta.setdefault(_META, {})[f"GLOG_{param.name}"] = str(int(value) if isinstance(value, bool) else value)


@contextlib.contextmanager
def shown(ctx: click.Context, results: Sequence[str] | None = None) -> Iterator[None]:
    """While entered, the log goes where the flags and variables say.

    ``results``: the command is quiet: of level I stderr shows only lines whose source begins with one of them, unless
    ``-v``, a ``minloglevel`` or the name of Caffe's own program asks for all.
    """
    with _variables(ctx.meta.get(_META, {})):
        stderr = logs.show()
        if results is not None and not _wants_all(ctx):
            stderr.addFilter(logs.Quiet(results))
        handlers: list[logging.Handler] = [stderr]
        if not _is_on("GLOG_alsologtostderr", True) and not _is_on("GLOG_logtostderr", False):
            stderr.setLevel(_LEVELS[_level("GLOG_stderrthreshold", 2)])
        folder = os.environ.get("GLOG_log_dir")  # noqa: SIM112 - glog's own spelling
        if folder and not _is_on("GLOG_logtostderr", False):
            from caffecli.formats import log_file

            handlers.append(log_file.append_glog(folder, _program(ctx)))
        try:
            yield
            if stderr.failed is not None:
                raise CaffeError(f"lines of the log on stderr are lost: {stderr.failed.strerror}")
        except CaffeError as error:
            for handler in handlers[1:]:
                log_file.tell_end(handler, error)
            raise
        finally:
            for handler in handlers:
                logs.hide(handler)


@contextlib.contextmanager
def _variables(values: dict[str, str]) -> Iterator[None]:
    """While entered, these variables are set: processes that the command starts log as it does."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _wants_all(ctx: click.Context) -> bool:
    """Whether a quiet command shall show all of its log."""
    asked = os.environ.get("GLOG_minloglevel") or os.environ.get("GLOG_v", "0") not in ("", "0")  # noqa: SIM112 - glog's own spelling
    return is_caffes(ctx) or bool(asked)


def is_caffes(ctx: click.Context) -> bool:
    """Whether the command was called as Caffe's own program of that name, whose log scripts know."""
    program, name = Path(sys.argv[0]).name.removesuffix(".bin"), ctx.command.name
    return program == name or (program == "caffe" and name in _BREWS)


def _is_on(variable: str, default: bool) -> bool:
    """A variable as glog reads it: true by its first letter."""
    value = os.environ.get(variable)
    return default if not value else value[0] in "tTyY1"


def _level(variable: str, default: int) -> int:
    try:
        return max(0, min(3, int(os.environ.get(variable, default))))
    except ValueError:
        return default


def _program(ctx: click.Context) -> str:
    """What glog's files are named after: the program, caffe for the commands that are Caffe's."""
    called = Path(sys.argv[0]).name
    if called and not called.startswith(("caffecli", "__main__", "-")):
        return called
    name = ctx.command.name or "caffe"
    return "caffe" if name in _BREWS else name
