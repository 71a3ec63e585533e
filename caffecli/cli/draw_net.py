"""``caffecli draw_net``."""

from __future__ import annotations

import click

from caffecli.cli.options import caffe_command, net_state_options


@caffe_command("draw_net")
@click.option(
    "--rankdir", type=click.Choice(["TB", "BT", "LR", "RL"]), default="LR", help="Where the net goes, as in left to right."
)
@click.option("--phase", type=click.Choice(["TRAIN", "TEST", "ALL"]), default="ALL", help="The layers of this phase.")
@net_state_options
@click.option("--display_lrm", is_flag=True, help="Show the learning rate multipliers.")
@click.argument("net")
@click.argument("picture")
def draw_net(net: str, picture: str, rankdir: str, phase: str, level: int, stage: str, display_lrm: bool) -> None:
    """Draw the prototxt NET into the file PICTURE.

    The name of PICTURE says its format: .svg, .png, .pdf, or another one that graphviz' program dot has; .dot for the text that
    it reads, which takes no program. --level and --stage choose layers together with --phase.
    """
    if phase == "ALL" and (level or stage):
        raise click.UsageError("--level and --stage need --phase TRAIN or --phase TEST.")
    from caffe import draw
    from caffecli.proto.caffe_pb2 import NetState
    from caffecli.spec.filter import filter_net
    from caffecli.spec.load import load_net

    param = load_net(net)
    if phase != "ALL":
        stages = [name for name in stage.split(",") if name]
        param = filter_net(param, NetState(phase=phase, level=level, stage=stages))
    draw.draw_net_to_file(param, picture, rankdir, display_lrm=display_lrm)
    click.echo(f"Drawing net to {picture}")
