"""``caffecli classify``."""

from __future__ import annotations

from typing import Any

import click

from caffecli.cli.options import caffe_command
from caffecli.cli.picture_options import picture_options, whole_numbers


@caffe_command("classify", empty=["mean_file", "channel_swap"], quiet=True, results=["preprocessing"])
@picture_options
@click.option("--center_only", is_flag=True, help="Predict from the centre alone, not as the mean over ten crops.")
@click.option(
    "--images_dim", callback=whole_numbers(2), default="256,256", help="The height,width that pictures are resized to."
)
@click.option("--ext", default="jpg", help="What the names of a folder's pictures end in.")
@click.option("--labels", help="A file with a line for each class, as synset_words.txt: print the best five.")
@click.argument("input_file")
@click.argument("output_file", required=False)
def classify(**settings: Any) -> None:
    """Classify INPUT_FILE: a picture, a folder of pictures, or a .npy of (N, H, W, K).

    Pictures of a folder that cannot be read are left out, with a word.

    The (N, classes) predictions are written to OUTPUT_FILE, a .npy. Without OUTPUT_FILE, or with --labels, the best
    five classes of each picture are printed.
    """
    from caffecli.tools import classify as tool

    tool.classify(tool.ClassifyOptions(**settings))
