"""``caffecli plot``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


@caffe_command("plot")
@click.option("--out", "-o", type=click.Path(path_type=Path), default=Path("plot.png"), help="The picture to write.")
@click.option("--seconds", is_flag=True, help="Draw against seconds, not iterations.")
@click.argument("logs", type=click.Path(path_type=Path), nargs=-1, required=True)
def plot(out: Path, seconds: bool, logs: tuple[Path, ...]) -> None:
    """Draw the losses and the scores of trainings.

    LOGS are logs of trainings, or files that train --csv has written; losses are drawn above, accuracy and other
    outputs below. The picture is a .png, .svg or .pdf.
    """
    from caffecli.tools import plot as tool

    tool.plot(logs, out, seconds=seconds)
    click.echo(f"Wrote {out}")
