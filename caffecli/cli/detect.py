"""``caffecli detect``."""

from __future__ import annotations

from typing import Any

import click

from caffecli.cli.options import caffe_command
from caffecli.cli.picture_options import picture_options


@caffe_command("detect", empty=["mean_file", "channel_swap"])
@picture_options
@click.option(
    "--crop_mode",
    type=click.Choice(["list", "selective_search"]),
    default="selective_search",
    help="Where windows come from: the .csv, or MATLAB's selective search.",
)
@click.option(
    "--context_pad", type=click.IntRange(0), default=16, help="Pixels of the net's input that show what is around."
)
@click.argument("input_file")
@click.argument("output_file")
def detect(input_file: str, crop_mode: str, **settings: Any) -> None:
    """Classify windows of pictures.

    INPUT_FILE is a .csv with the head filename,ymin,xmin,ymax,xmax for --crop_mode list; for selective_search a .txt of
    the pictures' names will do. OUTPUT_FILE is a .csv with a column for each class, or else HDF5: filename, window,
    prediction.
    """
    if crop_mode == "list" and not input_file.lower().endswith(".csv"):
        raise click.UsageError(f"--crop_mode list takes its windows from a .csv, not {input_file!r}.")
    if not input_file.lower().endswith((".csv", ".txt")):
        raise click.UsageError(f"{input_file!r} is neither a .csv of windows nor a .txt of the names of pictures.")
    from caffecli.tools import detect as tool

    tool.detect(tool.DetectOptions(input_file=input_file, crop_mode=crop_mode, **settings))
