"""``caffecli convert_annoset``."""

from __future__ import annotations

from typing import Any

import click

from caffecli.cli.options import backend_of, backend_option, caffe_command


@caffe_command("convert_annoset", empty=["rootfolder"])
@click.option("--gray", is_flag=True, help="Store the pictures as grayscale ones.")
@click.option("--shuffle", is_flag=True, help="Store them in a random order.")
@backend_option
@click.option(
    "--anno_type", type=click.Choice(["classification", "detection"]), default="classification",
    help="What the list names beside each picture: its label, or the file of its boxes.",
)  # fmt: skip
@click.option(
    "--label_type", type=click.Choice(["xml", "json", "txt"]), default="xml",
    help="The files of boxes: PASCAL VOC's xml; json of COCO, SSD's or LabelMe's; txt, class xmin ymin xmax ymax.",
)  # fmt: skip
@click.option("--label_map_file", help="The classes' numbers, as create_label_map writes them.")
@click.option("--check_label", is_flag=True, help="Stop where the label map has a name twice.")
@click.option("--min_dim", type=int, default=0, help="Enlarge to a shorter side of it; 0 does not.")
@click.option("--max_dim", type=int, default=0, help="Bring the longer side down to it; 0 does not.")
@click.option("--resize_width", type=int, default=0, help="The width to resize to; 0 does not resize.")
@click.option("--resize_height", type=int, default=0, help="The height to resize to; 0 does not resize.")
@click.option("--check_size", is_flag=True, help="Stop at a picture of another size than the first one.")
@click.option("--encoded", is_flag=True, help="Store the pictures as encoded files (PNG, JPEG).")
@click.option("--encode_type", default="", help="The encoding to store ('png', 'jpg'); the files' own by default.")
@click.argument("rootfolder", metavar="ROOTFOLDER/")
@click.argument("listfile")
@click.argument("db_name")
def convert_annoset(rootfolder: str, listfile: str, db_name: str, **settings: Any) -> None:
    """Put pictures with boxes into a new database, as SSD's tool does.

    LISTFILE has a line for each: its path below ROOTFOLDER/, a space, the path of its annotation file, or with
    --anno_type=classification its label. Pictures that cannot be read are reported and left out.
    """
    settings["label_map_file"] = settings["label_map_file"] or ""
    settings["backend"] = backend_of(settings["backend"], db_name)
    from converters import convert_annoset as converter

    converter.convert_annoset(rootfolder, listfile, db_name, converter.Options(**settings))
