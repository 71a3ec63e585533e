"""``caffecli new``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command


def _part(ctx: click.Context, param: click.Parameter, value: float) -> float:
    if not 0 < value < 1:
        raise click.BadParameter(f"{value:g} is no part of the pictures, a number between 0 and 1.", ctx, param)
    return value


@caffe_command("new")
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make. [default: FOLDER's name with _net]")
@click.option(
    "--size", type=click.IntRange(1), help="The size of the pictures in the databases. [default: 32; with --model 256]"
)
@click.option("--model", metavar="NAME", help="Fine-tune this net of models/, such as squeezenet_v1.1.")
@click.option(
    "--val", type=float, default=0.2, callback=_part, help="The part to test on, where FOLDER has no val or test."
)
@click.option(
    "--epochs",
    type=click.IntRange(1),
    help="How many times to train on each picture. [default: 30, and more where there are few]",
)
@click.argument("folder", type=click.Path(path_type=Path))
def new(**settings: Any) -> None:
    """Begin with pictures of your own.

    FOLDER has a folder of pictures for each class, or such folders in its folders train and val (or test). What is made
    of it: databases, their mean, labels.txt, the nets to train and to deploy, and a solver that fits; then the commands
    are told that go on from there.
    """
    from converters import new as converter

    click.echo(converter.new(converter.NewOptions(**settings)))
