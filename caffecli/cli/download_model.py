"""``caffecli download_model``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command


@caffe_command("download_model")
@click.argument("model", type=click.Path(path_type=Path))
def download_model(model: Path) -> None:
    """Download the weights of the folder MODEL (models/NAME) from where its readme.md says.

    The front matter of the readme has caffemodel, caffemodel_url and sha1. A download that was broken off is taken up
    where it stopped; the file gets its name when it is whole and its checksum right.
    """
    from converters import download_model as converter

    click.echo(f"The weights are in {converter.download_model(model)}")
