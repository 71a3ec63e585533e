"""``caffecli create_label_map``."""

from __future__ import annotations

import click

from caffecli.cli.options import caffe_command


@caffe_command("create_label_map")
@click.option("--include_background", is_flag=True, help="Let class 0 be none_of_the_above.")
@click.option("--delimiter", default=" ", show_default="a space", help="The characters that part the fields of a line.")
@click.argument("mapfile")
@click.argument("outfile")
def create_label_map(mapfile: str, outfile: str, include_background: bool, delimiter: str) -> None:
    """Write the label map of a list of classes, as SSD's tool does.

    MAPFILE has a line for each class: its name, its number and the name to show, all or the first or the first two.
    """
    from converters import create_label_map as converter

    count = converter.create_label_map(mapfile, outfile, include_background, delimiter)
    click.echo(f"Wrote {outfile}: {count} classes")
