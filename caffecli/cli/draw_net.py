"""``caffecli draw_net``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command, layers_option, model_option, net_and_outputs, net_state_options


@caffe_command("draw_net", quiet=True)
@model_option(type=click.Path(path_type=Path))
@click.option(
    "--rankdir",
    type=click.Choice(["TB", "BT", "LR", "RL"]),
    help="Where the net goes, as in left to right. [default: in rows where it is a chain, else LR]",
)
@click.option("--phase", type=click.Choice(["TRAIN", "TEST", "ALL"]), default="ALL", help="The layers of this phase.")
@net_state_options
@layers_option
@click.option("--display_lrm", is_flag=True, help="Show the learning rate multipliers.")
@click.argument("words", metavar="PICTURE", type=click.Path(path_type=Path), nargs=-1, required=True)
def draw_net(
    words: tuple[Path, ...], model: Path | None, phase: str, level: int, stages: tuple[str, ...], **settings: Any
) -> None:
    """Draw a net into the file PICTURE.

    \b
      caffecli draw_net net.svg --model train_val.prototxt --phase TEST

    The name of PICTURE says its format: .svg, .png, .pdf, or another one that graphviz' program dot has; .dot for the
    text that it reads, which takes no program. --level and --stage choose layers together with --phase.
    The net may also stand before PICTURE.
    """
    net, _, (picture,) = net_and_outputs(words, model, None, ["PICTURE"], "never")
    if phase == "ALL" and (level or any(stages)):
        raise click.UsageError("--level and --stage need --phase TRAIN or --phase TEST.")
    from caffecli.proto import caffe_pb2
    from caffecli.tools import draw_net as tool

    number = None if phase == "ALL" else caffe_pb2.Phase.Value(phase)
    tool.draw_net(
        tool.DrawOptions(net=str(net), picture=str(picture), phase=number, level=level, stages=stages, **settings)
    )
    click.echo(f"Drawing net to {picture}")
