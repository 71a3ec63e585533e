"""What the commands share: flags in each of Caffe's spellings, the log on stderr, and each flag that several take.

``CaffeCommand`` is a Click command that also reads its options as gflags would: ``-solver x``, ``-solver=x``,
``--gray=false``, ``--nogray``, ``--resize-width 3`` for ``--resize_width 3``.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

from caffecli import __version__, logs
from caffecli.cli import glog
from caffecli.errors import CaffeError

F = TypeVar("F", bound=Callable[..., Any])

_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)(=(?P<value>.*))?", re.DOTALL)
_TRUE, _FALSE = ("true", "t", "1", "yes", "y"), ("false", "f", "0", "no", "n")


#: the flags of Caffe's one program: each of its commands takes all, and leaves alone what it has no use for
_BREW_FLAGS = (
    "gpu", "solver", "model", "phase", "level", "stage", "snapshot", "weights", "iterations", "sigint_effect",
    "sighup_effect",
)  # fmt: skip


def caffe_command(
    name: str, *, brew: bool = False, empty: Iterable[str] = (), quiet: bool = False, results: Sequence[str] = ()
) -> Callable[..., click.Command]:
    """Like ``click.command(name)``: the function becomes a ``CaffeCommand``, its docstring the help.

    ``brew``: a command of Caffe's program ``caffe``, which ignores the flags of the others, with a word. ``empty``: the
    parameters for which an empty value says something, beside those whose default is one. ``quiet``: of its log stderr
    shows warnings, errors and the lines of the sources ``results``, unless ``-v``.
    """
    settings = {"help_option_names": ["--help", "-h"]}
    shown = tuple(results) if quiet else None
    return click.command(name, cls=CaffeCommand, context_settings=settings, brew=brew, empty=empty, results=shown)


class Option(click.Option):
    """An option with further names, ``aliases``, that no help shows; and with a value, ``bare``, that it has where none
    follows: where the next argument is not all of the pattern ``fits``.
    """

    def __init__(self, *args: Any, aliases: Iterable[str] = (), bare: str = "", fits: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.aliases, self.bare, self.fits = tuple(aliases), bare, re.compile(fits)


class CaffeCommand(click.Command):
    """A command that reads flags as gflags does, takes glog's flags, and logs to stderr while it runs."""

    def __init__(
        self,
        *args: Any,
        brew: bool = False,
        empty: Iterable[str] = (),
        results: tuple[str, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._empty, self._results = frozenset(empty), results
        for param in self.params:
            if isinstance(param, click.Option) and not param.required and not param.is_flag and param.default != "":
                param.show_default = param.show_default or True
        self.params += _common_options(results is not None)
        if brew:
            taken = {opt for param in self.params for opt in param.opts}
            self.params += [_ignored(flag) for flag in _BREW_FLAGS if f"--{flag}" not in taken]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = {
            opt[2:].replace("-", "_"): param
            for param in self.get_params(ctx)
            if isinstance(param, click.Option)
            for opt in (*param.opts, *(f"--{alias}" for alias in getattr(param, "aliases", ())))
            if opt.startswith("--")
        }
        args = _without_gflags(args, named, ctx)
        ctx.meta[_GIVEN] = tuple(args)
        self._refuse_empty(ctx, args)
        return super().parse_args(ctx, args)

    def _refuse_empty(self, ctx: click.Context, args: list[str]) -> None:
        """Stop at an empty value, as a script's unset variable leaves it, unless it says something."""
        given, _, _ = self.make_parser(ctx).parse_args(list(args))
        for param in self.get_params(ctx):
            values: Any = given.get(param.name or "")
            several = isinstance(values, list | tuple)
            if "" not in (values if several else (values,)) or param.default == "" or param.name in self._empty:
                continue
            name = _long(param) if isinstance(param, click.Option) else param.make_metavar(ctx=ctx)
            leave = "" if param.required or several else ", or leave it out"
            raise click.UsageError(f"{name} is empty; give it a value{leave}")

    def invoke(self, ctx: click.Context) -> Any:
        os.environ.setdefault(
            "OPENCV_LOG_LEVEL", "ERROR"
        )  # our own error names a bad picture; OpenCV's lines are not needed
        _check_working_folder()
        with glog.shown(ctx, self._results):
            for flag in ctx.meta.get(_IGNORED, ()):
                logs.info("caffe.cpp:404", f"{ctx.command.name} has no use for --{flag}, which is ignored")
            return super().invoke(ctx)


def command_without(ctx: click.Context, *names: str) -> tuple[str, ...]:
    """The words of the command as it was given, without some of its options, which have values."""
    left_out = tuple(f"--{name}=" for name in names)
    words = ctx.command_path.split(" ")
    return (*words, *(arg for arg in ctx.meta.get(_GIVEN, ()) if not arg.startswith(left_out)))


def _check_working_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise CaffeError("the working directory is there no more; change to another") from error


def _without_gflags(args: list[str], named: dict[str, click.Option], ctx: click.Context) -> list[str]:
    """``args`` in Click's spelling: ``--name=value`` for an option with a value, ``--name`` for a flag that is on."""
    clicks: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            return [*clicks, arg, *rest]
        found = _FLAG.fullmatch(arg)
        if found is None:
            clicks.append(arg)
            continue
        name, value = found["name"].replace("-", "_"), found["value"]
        param = named.get(name)
        off = named.get(name.removeprefix("no").removeprefix("_")) if name.startswith("no") and value is None else None
        if param is None and off is not None and off.is_flag:
            _set_flag(clicks, off, False)
        elif param is None:
            clicks.append(
                arg if arg.startswith("--") or len(name) == 1 else f"-{arg}"
            )  # left to Click, which reports it
        elif param.is_flag:
            _set_flag(clicks, param, value is None or _truth(param, value, ctx))
        elif value is not None:
            clicks.append(f"{_long(param)}={value}")
        elif isinstance(param, Option) and param.bare and not (rest and param.fits.fullmatch(rest[0])):
            clicks.append(f"{_long(param)}={param.bare}")
        elif rest:
            if isinstance(param, Option) and param.bare:
                ctx.meta.setdefault(_APART, []).append(rest[0])
            clicks.append(f"{_long(param)}={_value(param, rest.pop(0), named, ctx)}")
        else:
            clicks.append(_long(param))
    return clicks


#: the values that stood apart from flags that may be bare
_APART = "caffecli.apart"


def _set_flag(clicks: list[str], param: click.Option, on: bool) -> None:
    """Turn a flag on, or remove what turned it on before: the last occurrence counts."""
    clicks[:] = [arg for arg in clicks if arg not in param.opts + param.secondary_opts]
    clicks += [_long(param)] if on else param.secondary_opts[:1]


def _value(param: click.Option, value: str, named: dict[str, click.Option], ctx: click.Context) -> str:
    """The argument after an option is its value, unless it is an option itself."""
    flag = _FLAG.fullmatch(value)
    if flag is not None and flag["name"].replace("-", "_") in named:
        raise click.UsageError(f"Option '{_long(param)}' requires a value, but {value!r} follows it.", ctx)
    return value


def _truth(param: click.Option, value: str, ctx: click.Context) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        raise click.BadParameter(f"{value!r} is neither true nor false.", ctx, param)
    return value.lower() in _TRUE


def _long(param: click.Option) -> str:
    return next(opt for opt in param.opts if opt.startswith("--"))


def _common_options(quiet: bool) -> list[click.Parameter]:
    """``--debug``, ``--version``, glog's flags; of these ``-v``, also called ``--verbose``, has help if ``quiet``."""
    verbose = Option(
        ["v", "-v", "--verbose" if quiet else "--v"],
        aliases=["v"],
        bare="1",
        fits=r"\d+",
        type=int,
        metavar="",
        hidden=not quiet,
        expose_value=False,
        callback=glog.keep,
        help="Show all of the log on stderr.",
    )
    hidden: dict[str, Any] = {"is_flag": True, "hidden": True, "expose_value": False}
    return [
        click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."),
        verbose,
        click.Option(["--version"], is_eager=True, callback=_tell_version, **hidden),
        *glog.options(),
    ]


def _tell_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        click.echo(f"caffecli, version {__version__}")
        ctx.exit()


#: keys of a context's ``meta``: the arguments in Click's spelling, the flags that are ignored
_GIVEN = "caffecli.given"
_IGNORED = "caffecli.ignored"


def _ignored(flag: str) -> click.Option:
    """A flag that the command has no use for."""

    def note(ctx: click.Context, _param: click.Parameter, value: str | None) -> None:
        if value:
            ctx.meta.setdefault(_IGNORED, []).append(flag)

    return click.Option([f"--{flag}"], hidden=True, expose_value=False, default="", callback=note)


def _check_gpu(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value and value != "all" and not re.fullmatch(r"\d+(,\d+)*", value):
        raise click.BadParameter(f"{value!r} is neither 'all' nor device numbers such as 0 or 0,1.", ctx, param)
    return value or None


gpu_option = click.option(
    "--gpu", default="", callback=_check_gpu, help="CUDA devices: 0, or several as in 0,1, or all."
)


def _check_one_gpu(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The number of a GPU, which may stand apart from the flag: then a file of that name may be meant."""
    named = _check_gpu(ctx, param, value)
    if named is not None and named in ctx.meta.get(_APART, ()) and os.path.lexists(named):
        raise click.UsageError(
            f"--gpu {named}: is {named} the GPU or the file {named!r} that is here? Write --gpu={named}, or ./{named} "
            "after --gpu=0",
            ctx,
        )
    return named


#: a GPU for commands whose ``--gpu`` had no number in Caffe's scripts: it may be left out
bare_gpu_option = click.option(
    "--gpu",
    cls=Option,
    bare="0",
    fits=r"all|\d+(,\d+)*",
    default="",
    metavar="[N]",
    callback=_check_one_gpu,
    help="Use CUDA device N, 0 if no number follows.",
)
cpu_option = click.option("--cpu", is_flag=True, help="Use the CPU, whatever --gpu says.")


def model_option(help: str = "The net definition (prototxt).", **more: Any) -> Callable[[F], F]:
    """``--model``, as ``model``."""
    return click.option("--model", cls=Option, aliases=["model_def"], help=help, **more)


def weights_option(help: str = "The trained weights.", **more: Any) -> Callable[[F], F]:
    """``--weights``, as ``weights``."""
    return click.option("--weights", cls=Option, aliases=["pretrained_model"], help=help, **more)


def net_and_outputs(
    words: Sequence[Path],
    model: Path | None,
    weights: Path | None,
    outputs: Sequence[str],
    weighted: Literal["never", "maybe", "always"] = "maybe",
) -> tuple[Path, Path | None, tuple[Path, ...]]:
    """The net, its weights, and the files ``outputs`` of the arguments ``words``, of which the first may be the net and
    its weights in place of ``--model`` and ``--weights``. Raises UsageError.
    """
    rest = list(words)
    found, trained = model, weights
    if found is None and len(rest) > len(outputs):
        found = rest.pop(0)
    if trained is None and len(rest) > len(outputs) and weighted != "never":
        trained = rest.pop(0)
    if found is None or len(rest) != len(outputs) or (trained is None and weighted == "always"):
        flags, net = {
            "never": ("--model", ["NET"]),
            "maybe": ("--model (and --weights)", ["NET", "[WEIGHTS]"]),
            "always": ("--model and --weights", ["NET", "WEIGHTS"]),
        }[weighted]
        got = f"got {' '.join(map(str, words))!r}" if words else "got nothing"
        before = f"{' '.join(outputs)} with " if outputs else ""
        raise click.UsageError(f"expected {before}{flags}, or {' '.join([*net, *outputs])}; {got}.")
    return found, trained, tuple(rest)


like_option = click.option(
    "--like",
    metavar="PROTOTXT",
    help="The net that was trained, such as train_val.prototxt: pictures are made fit as its data layer for the TEST "
    "phase has it. [default: as the weights' file says]",
)


def mean_option(*aliases: str) -> Callable[[F], F]:
    """``--mean``, as ``mean``: see ``tools.preprocessing.typed_mean``; ``aliases``: what it was called before."""
    return click.option(
        "--mean",
        cls=Option,
        aliases=aliases,
        metavar="FILE|NUMBERS",
        help="What to subtract: a .binaryproto or .npy, or numbers, one or one a channel, as in 104,117,123; '' for "
        "nothing. [default: as the net was trained]",
    )


def scale_option(*aliases: str) -> Callable[[F], F]:
    """``--scale``, as ``scale``; ``aliases``: what it was called before."""
    return click.option(
        "--scale",
        cls=Option,
        aliases=aliases,
        type=float,
        callback=_finite,
        help="What to multiply by after the mean is subtracted. [default: as the net was trained]",
    )


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number to multiply by.", ctx, param)
    return value


def labels_option(help: str) -> Callable[[F], F]:
    """``--labels``, as ``labels``."""
    return click.option("--labels", cls=Option, aliases=["label_map_file"], metavar="FILE", help=help)


def device_options(command: F) -> F:
    """``--gpu`` (str or None) and ``--cpu`` (bool)."""
    return gpu_option(
        click.option("--cpu", is_flag=True, help="Use the CPU, whatever --gpu or the solver says.")(command)
    )


amp_option = click.option(
    "--amp", is_flag=True, help="Multiply matrices in bfloat16; weights, updates and losses stay float32."
)


def _modules(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    names = () if value is None else tuple(part.strip() for part in value.split(","))
    for name in names:
        if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
            raise click.BadParameter(
                f"{name!r} is no name of a module, such as my_layers or package.my_layers.", ctx, param
            )
    return names


layers_option = click.option(
    "--layers",
    metavar="MODULE[,MODULE...]",
    callback=_modules,
    help="Python modules that register layers of your own, found on Python's path or in the working directory; "
    "by default those that CAFFECLI_LAYERS names.",
)


def _stages(ctx: click.Context, param: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(value.split(","))


backend_option = click.option(
    "--backend",
    type=click.Choice(["lmdb", "leveldb"]),
    help="The kind of database. [default: lmdb, or leveldb where the database's name says so]",
)


def backend_of(backend: str | None, db: str) -> Any:
    """The kind of a new database: ``backend``; without it the one that its name says, else lmdb.

    Caffe's tools made LevelDBs until September 2014; their scripts name them so.
    """
    if backend is not None or "leveldb" not in Path(db).name.lower() or "lmdb" in Path(db).name.lower():
        return backend or "lmdb"
    logs.info("db.cpp:10", f"{db!r} becomes a LevelDB, as its name says; --backend=lmdb makes an LMDB")
    return "leveldb"


def net_state_options(command: F) -> F:
    """``--level`` (int) and ``--stage`` (as ``stages``), which the include and exclude rules of a net look at.

    Without ``--stage`` there is one stage, called "", as in Caffe.
    """
    level = click.option("--level", type=int, default=0, help="The level of the net.", show_default=True)
    stage = click.option(
        "--stage", "stages", default="", callback=_stages, help="The stages of the net, separated by ','."
    )
    return level(stage(command))
