"""``caffecli convert_imageset``."""

from __future__ import annotations

from typing import Any

import click

from caffecli.cli.options import caffe_command


@caffe_command("convert_imageset", empty=["rootfolder"])
@click.option("--gray", is_flag=True, help="Store the pictures as grayscale ones.")
@click.option("--shuffle", is_flag=True, help="Store them in a random order.")
@click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), default="lmdb", help="The kind of database.")
@click.option("--resize_width", type=int, default=0, help="The width to resize to; 0 does not resize.")
@click.option("--resize_height", type=int, default=0, help="The height to resize to; 0 does not resize.")
@click.option("--check_size", is_flag=True, help="Stop at a picture of another size than the first one.")
@click.option("--encoded", is_flag=True, help="Store the pictures as encoded files (PNG, JPEG).")
@click.option("--encode_type", default="", help="The encoding to store ('png', 'jpg'); the files' own by default.")
@click.argument("rootfolder", metavar="ROOTFOLDER/")
@click.argument("listfile")
@click.argument("db_name")
def convert_imageset(rootfolder: str, listfile: str, db_name: str, **settings: Any) -> None:
    """Put pictures into a new database.

    LISTFILE has a line for each: its path below ROOTFOLDER/, a space, its label.
    Pictures that cannot be read are reported and left out.
    """
    from converters import convert_imageset as converter

    converter.convert_imageset(rootfolder, listfile, db_name, converter.Options(**settings))
