"""``caffecli get_image_size``."""

from __future__ import annotations

import click

from caffecli.cli.options import caffe_command


@caffe_command("get_image_size", empty=["rootfolder"])
@click.option("--name_id_file", help="A file of names and numbers; the numbers are written for the names.")
@click.argument("rootfolder", metavar="ROOTFOLDER/")
@click.argument("listfile")
@click.argument("outfile")
def get_image_size(rootfolder: str, listfile: str, outfile: str, name_id_file: str | None) -> None:
    """Write name, height and width of each picture of a list, as SSD's tool does.

    LISTFILE is one of convert_annoset.
    """
    from converters import get_image_size as converter

    converter.get_image_size(rootfolder, listfile, outfile, name_id_file or "")
