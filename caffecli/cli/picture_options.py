"""The flags that ``classify`` and ``detect`` share: Caffe's, of classify.py and detect.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from caffecli.cli.options import Option, layers_option

F = TypeVar("F", bound=Callable[..., Any])

_CAFFENET = "models/bvlc_reference_caffenet, below the working folder or in this repository"


def whole_numbers(count: int | None = None) -> Callable[[click.Context, click.Parameter, str], tuple[int, ...] | None]:
    """A callback that reads an option as whole numbers separated by ',', ``count`` of them if given; "" is None."""

    def parse(ctx: click.Context, param: click.Parameter, value: str) -> tuple[int, ...] | None:
        parts = [part.strip() for part in value.split(",")] if value else []
        if not all(part.isascii() and part.isdigit() for part in parts) or (count and len(parts) != count):
            many = "whole numbers" if count is None else f"{count} whole numbers"
            raise click.BadParameter(f"{value!r} is not {many} with ',' between.", ctx, param)
        return tuple(map(int, parts)) or None

    return parse


def picture_options(command: F) -> F:
    """The net, and how pictures are made fit for it:
    the fields of ``caffecli.tools.picture_options.PictureOptions``.
    """
    options = [
        layers_option,
        click.option(
            "model_def",
            "--model",
            cls=Option,
            aliases=["model_def"],
            help=f"The net definition (prototxt); by default that in {_CAFFENET}.",
        ),
        click.option(
            "pretrained_model",
            "--weights",
            cls=Option,
            aliases=["pretrained_model"],
            help=f"The trained weights; by default those in {_CAFFENET}.",
        ),
        click.option("--gpu", is_flag=True, help="Use the GPU."),
        click.option(
            "--mean_file",
            help="The mean, .npy or binaryproto; '' for none. [default: data/ilsvrc12/imagenet_mean.binaryproto]",
        ),
        click.option("--input_scale", type=float, help="What to multiply by after the mean is subtracted."),
        click.option("--raw_scale", type=float, default=255.0, help="What to multiply by before."),
        click.option(
            "--channel_swap",
            callback=whole_numbers(),
            default="2,1,0",
            help="The order of channels: 2,1,0 for BGR; '' for RGB.",
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command
