"""``caffecli train``: Caffe's flags, and those that Caffe does not have."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from caffecli.cli.options import (
    amp_option,
    caffe_command,
    command_without,
    device_options,
    layers_option,
    net_state_options,
)

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)
_GOES_ON = "On --snapshot the file goes on, without its lines from that iteration on; otherwise it starts anew."
_RECORD_FLAGS = (
    click.option("--keep", metavar="N", type=click.IntRange(min=1), help="Keep this run's newest N snapshots only."),
    click.option(
        "--seed",
        metavar="N",
        type=click.IntRange(0, 2**63 - 1),
        help="The random seed, instead of the solver's random_seed.",
    ),
    click.option(
        "--deterministic", is_flag=True, help="Use only algorithms that repeat bit for bit, on GPUs too; slower."
    ),
    click.option("--log-file", type=_FILE, help="Append the log to this file too."),
    click.option("--csv", type=_FILE, help=f"Write every figure to this CSV file, line by line. {_GOES_ON}"),
    click.option("--jsonl", type=_FILE, help=f"Write every figure to this file, a JSON object a line. {_GOES_ON}"),
    click.option(
        "--tensorboard",
        type=click.Path(path_type=Path, file_okay=False),
        help="Write every figure to TensorBoard event files in this folder; needs the package tensorboard.",
    ),
)


def record_options(command: F) -> F:
    """Adds the flags, named as the fields of ``TrainOptions`` that they set."""
    for option in reversed(_RECORD_FLAGS):
        command = option(command)
    return command


Counted = tuple[int, float | None]


def _counted(
    what: str, low: float, high: float = math.inf
) -> Callable[[click.Context, click.Parameter, str | None], Counted]:
    """Reads ``N`` or ``N:VALUE``, a count above 0 and a number from ``low`` to below ``high``, as (N,
    VALUE or None).
    """

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> Counted:
        if value is None:
            return 0, None
        count, colon, more = value.partition(":")
        if not re.fullmatch(r"\d{1,9}", count) or int(count) < 1:
            raise click.BadParameter(f"{value!r} does not begin with a count from 1 to 999999999.", ctx, param)
        if not colon:
            return int(count), None
        try:
            number = float(more)
        except ValueError:
            number = math.nan
        if not low <= number < high:
            bounds = f"of at least {low:g}" if high == math.inf else f"between {low:g} and {high:g}"
            raise click.BadParameter(f"{more!r} in {value!r} is no {what}, a number {bounds}.", ctx, param)
        return int(count), number

    return read


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value:g} is no learning rate, a finite number of at least 0.", ctx, param)
    return value


_WATCH_FLAGS = [
    click.option(
        "--early-stop", type=click.IntRange(min=1), metavar="N", help="Stop after N tests without a better value."
    ),
    click.option(
        "--plateau", callback=_counted("gamma", 0.0, 1.0), metavar="N[:GAMMA]",
        help="Multiply the learning rate by GAMMA (the solver's gamma when left out) "
        "after N tests without a better value.",
    ),
    click.option("--best", is_flag=True, help="Keep the snapshot of the best test as PREFIX_best."),
    click.option(
        "--monitor", default="", metavar="[NET:]NAME[:min|max]",
        help="The test output that decides for --early-stop, --plateau and --best; when left out the first accuracy of "
        "test net 0, else its loss.",
    ),
    click.option(
        "--min-lr", type=click.FloatRange(min=0), callback=_finite, metavar="LR",
        help="The learning rate never falls below LR.",
    ),
    click.option(
        "--warmup", callback=_counted("learning rate", 0.0), metavar="N[:LR]",
        help="Climb from LR (0 when left out) to the policy's learning rate in the first N iterations.",
    ),
]  # fmt: skip


def watch_options(command: F) -> F:
    """Adds the flags; they reach ``command`` as ``watch`` and ``rate``, fields of ``TrainOptions``."""

    @functools.wraps(command)
    def packed(
        *args: Any,
        early_stop: int | None,
        plateau: Counted,
        best: bool,
        monitor: str,
        min_lr: float | None,
        warmup: Counted,
        **rest: Any,
    ) -> Any:
        if monitor and not (early_stop or plateau[0] or best):
            raise click.UsageError("--monitor says what --early-stop, --plateau and --best watch; give one of them")
        from caffecli.solver.learning_rate import RateOptions
        from caffecli.solver.monitor import WatchOptions

        watch = WatchOptions(monitor, early_stop or 0, *plateau, best)
        rates = RateOptions(min_lr or 0.0, warmup[0], warmup[1] or 0.0)
        return command(*args, watch=watch, rate=rates, **rest)

    for flag in reversed(_WATCH_FLAGS):
        flag(packed)
    return packed  # type: ignore[return-value]


def _state(_ctx: click.Context, _param: click.Parameter, value: str) -> Path | None:
    """The solverstate; as under Caffe, an empty name starts afresh."""
    return Path(value) if value else None


def _weights(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...] | str:
    if value is None or value == "auto":
        return value or ()
    try:
        weights = tuple(float(part) for part in value.split(","))
    except ValueError:
        weights = (math.nan,)
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise click.BadParameter(f"{value!r} is neither 'auto' nor a number for each class, as in 1,2.5,1.", ctx, param)
    return weights


_EFFECTS = click.Choice(["stop", "snapshot", "none"])


@caffe_command("train", brew=True)
@click.option("--solver", type=click.Path(path_type=Path), required=True, help="The solver definition (prototxt).")
@click.option("--snapshot", default="", callback=_state, help="The solverstate to resume training from.")
@click.option(
    "--weights", default="", help="Trained weights to start from; several files separated by ','. Not with --snapshot."
)
@click.option("--sigint_effect", type=_EFFECTS, default="stop", help="What SIGINT does.")
@click.option("--sighup_effect", type=_EFFECTS, default="snapshot", help="What SIGHUP does.")
@click.option(
    "--class-weights",
    metavar="auto|W,W,...",
    callback=_weights,
    help="How much each class counts in the losses, in the order of the labels; auto: all classes alike, whatever "
    "their numbers of records.",
)
@click.option(
    "--forget-flags",
    is_flag=True,
    help="On --snapshot: without the flags of the run that wrote it; otherwise --early-stop, --plateau, --best, "
    "--monitor, --min-lr, --warmup and --class-weights are those of that run, unless others of the kind are given.",
)
@watch_options
@amp_option
@click.option(
    "--compile",
    "compiled",
    is_flag=True,
    help="Run the train net through torch.compile: a slow start; docs/benchmarks.md has what it gains.",
)
@record_options
@device_options
@net_state_options
@layers_option
@click.pass_context
def train(ctx: click.Context, /, sigint_effect: str, sighup_effect: str, forget_flags: bool, **settings: Any) -> None:
    """Train a net as its solver file says, or go on with a run."""
    if settings["snapshot"] and settings["weights"]:
        raise click.UsageError("give --snapshot to resume training or --weights to start from, not both")
    from caffecli.solver.signals import Action
    from caffecli.tools import train as tool

    settings |= {"sigint_effect": Action(sigint_effect), "sighup_effect": Action(sighup_effect)}
    tool.train(
        tool.TrainOptions(command=command_without(ctx, "snapshot", "weights"), recorded=not forget_flags, **settings)
    )
