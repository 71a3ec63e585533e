"""``caffecli resize_images``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command


@caffe_command("resize_images")
@click.option("--width", type=click.IntRange(1, 65500), default=256, help="Columns of the new pictures.")
@click.option("--height", type=click.IntRange(1, 65500), default=256, help="Rows of the new pictures.")
@click.option("--crop", is_flag=True, help="Keep the proportions and cut out the middle; else pictures are stretched.")
@click.option("--interpolation", type=click.Choice(["linear", "area", "cubic"]), default="linear", help="OpenCV's.")
@click.option("--quality", type=click.IntRange(1, 100), default=95, help="The quality of JPEGs.")
@click.option(
    "--list", "list_file", type=click.Path(path_type=Path), help="A file with the paths, labels after them or not."
)
@click.option("--force", is_flag=True, help="Make those anew that are there already.")
@click.argument("input_folder", type=click.Path(path_type=Path))
@click.argument("output_folder", type=click.Path(path_type=Path))
def resize_images(input_folder: Path, output_folder: Path, list_file: Path | None, **settings: Any) -> None:
    """Write the pictures below INPUT_FOLDER, all resized to one size, to OUTPUT_FOLDER under the same names.

    Pictures that cannot be read are reported and left out; those that are there already stay.
    """
    from converters import resize_images as converter

    report = converter.resize_images(input_folder, output_folder, converter.Options(**settings), list_file)
    click.echo(f"{report.made} resized, {report.there} there already, {len(report.failed)} could not be read")
