"""``caffecli plot_log``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


@caffe_command("plot_log")
@click.option("--seconds", is_flag=True, help="Draw against seconds, not iterations.")
@click.option("--log_scale", is_flag=True, help="Draw the values on a logarithmic scale.")
@click.argument("chart")
@click.argument("picture", type=click.Path(path_type=Path))
@click.argument("logs", type=click.Path(path_type=Path), nargs=-1, required=True)
def plot_log(seconds: bool, log_scale: bool, chart: str, picture: Path, logs: tuple[Path, ...]) -> None:
    """Draw curves of one or several training logs into PICTURE (.png, .svg, .pdf).

    CHART is a type of Caffe's: 0 test accuracy, 2 test loss, 4 learning rate, 6 train loss, against iterations; 1, 3, 5
    and 7 the same against seconds. Or names parted by commas, as "train loss,test loss" or "accuracy"; "lr" is the
    learning rate.
    """
    from caffecli.tools import plot_log as tool

    tool.plot_log(chart, picture, logs, seconds=seconds, log_scale=log_scale)
