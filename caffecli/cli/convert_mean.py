"""``caffecli convert_mean``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


@caffe_command("convert_mean")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def convert_mean(source: Path, target: Path) -> None:
    """Write the mean picture in SOURCE, a binaryproto or a numpy array, as the other: .npy when TARGET ends so.

    A numpy array of K x K becomes what InfogainLoss reads.
    """
    from converters import convert_mean as converter

    converter.convert_mean(source, target)
    click.echo(f"Wrote {target}")
