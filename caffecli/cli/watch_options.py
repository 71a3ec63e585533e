"""The flags of ``caffecli train`` that Caffe lacks: warm-up and floor of the learning rate, and watching a test output."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


Counted = tuple[int, float | None]


def _counted(what: str, low: float, high: float = math.inf) -> Callable[[click.Context, click.Parameter, str | None], Counted]:
    """Reads ``N`` or ``N:VALUE``, a count above 0 and a number from ``low`` to below ``high``, as (N, VALUE or None)."""

    def read(ctx: click.Context, param: click.Parameter, value: str | None) -> Counted:
        if value is None:
            return 0, None
        count, colon, more = value.partition(":")
        if not re.fullmatch(r"\d{1,9}", count) or int(count) < 1:
            raise click.BadParameter(f"{value!r} does not begin with a count above 0.", ctx, param)
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


_FLAGS = [
    click.option("--early-stop", type=click.IntRange(min=1), metavar="N", help="Stop after N tests without a better value."),
    click.option(
        "--plateau", callback=_counted("gamma", 0.0, 1.0), metavar="N[:GAMMA]",
        help="Multiply the learning rate by GAMMA (the solver's gamma when left out) after N tests without a better value.",
    ),
    click.option("--best", is_flag=True, help="Keep the snapshot of the best test as PREFIX_best."),
    click.option(
        "--monitor", default="", metavar="[NET:]NAME[:min|max]",
        help="The test output that these three watch; the first accuracy of test net 0, else its loss, when left out.",
    ),
    click.option("--min-lr", type=click.FloatRange(min=0), metavar="LR", help="The learning rate never falls below LR."),
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

    for flag in reversed(_FLAGS):
        flag(packed)
    return packed  # type: ignore[return-value]
