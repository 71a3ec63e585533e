"""``caffecli convert_imageset``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from caffecli.cli.options import caffe_command

if TYPE_CHECKING:
    from caffecli.formats.db import Backend


@caffe_command("convert_imageset")
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
def convert_imageset(
    gray: bool,
    shuffle: bool,
    backend: Backend,
    resize_width: int,
    resize_height: int,
    check_size: bool,
    encoded: bool,
    encode_type: str,
    rootfolder: str,
    listfile: str,
    db_name: str,
) -> None:
    """Put pictures into a new database.

    LISTFILE has a line for each: its path below ROOTFOLDER/, a space, its label.
    Pictures that cannot be read are reported and left out.
    """
    from converters import convert_imageset as converter

    options = converter.Options(
        gray=gray,
        shuffle=shuffle,
        backend=backend,
        resize_width=resize_width,
        resize_height=resize_height,
        check_size=check_size,
        encoded=encoded,
        encode_type=encode_type,
    )
    converter.convert_imageset(rootfolder, listfile, db_name, options)
