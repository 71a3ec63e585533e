"""The flags that ``classify`` and ``detect`` share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import click

from caffecli.cli.options import (
    bare_gpu_option,
    cpu_option,
    layers_option,
    like_option,
    mean_option,
    model_option,
    scale_option,
    weights_option,
)  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])

_CAFFENET = "models/bvlc_reference_caffenet, below the working folder or in this repository"


def whole_numbers(count: int | None = None) -> Callable[[click.Context, click.Parameter, Any], tuple[int, ...] | None]:
    """A callback that reads an option as whole numbers separated by ',', ``count`` of them if given; "" is ()."""

    def parse(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
        if value is None:
            return None
        parts = [part.strip() for part in value.split(",")] if value else []
        if not all(part.isascii() and part.isdigit() for part in parts) or (count and len(parts) != count):
            many = "whole numbers" if count is None else f"{count} whole numbers"
            raise click.BadParameter(f"{value!r} is not {many} with ',' between.", ctx, param)
        return tuple(map(int, parts))

    return parse


def picture_options(command: F) -> F:
    """The net, and how pictures are made fit for it:
    the fields of ``caffecli.tools.picture_options.PictureOptions``.
    """
    options = [
        model_option(f"The deploy net (prototxt). [default: that in {_CAFFENET}]", type=click.Path()),
        weights_option(f"Its trained weights. [default: those in {_CAFFENET}]", type=click.Path()),
        like_option,
        mean_option("mean_file", "mean_value"),
        scale_option("input_scale"),
        click.option("--raw_scale", type=float, show_default="255", help="What to multiply by before, from 0 to 1."),
        click.option(
            "--channel_swap",
            callback=whole_numbers(),
            show_default="2,1,0",
            help="The order of channels: 2,1,0 for blue first; '' for red first.",
        ),
        click.option("--rgb", is_flag=True, help="The net takes red first, not blue: --channel_swap ''."),
        bare_gpu_option,
        cpu_option,
        layers_option,
    ]

    @functools.wraps(command)
    def swapped(*args: Any, rgb: bool, channel_swap: tuple[int, ...] | None, **rest: Any) -> Any:
        if rgb and channel_swap:
            raise click.UsageError("--rgb and --channel_swap are two words for the same; give one of them.")
        return command(*args, channel_swap=() if rgb else channel_swap, **rest)

    packed = cast("F", swapped)
    for option in reversed(options):
        packed = option(packed)
    return packed
