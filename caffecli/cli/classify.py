"""``caffecli classify``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command, labels_option
from caffecli.cli.picture_options import picture_options, whole_numbers


@caffe_command("classify", empty=["mean", "channel_swap"], quiet=True, results=["preprocessing"])
@labels_option("The names of the classes, a line each, as in synset_words.txt; or a label map.")
@click.option("--top", type=click.IntRange(1), default=5, help="How many classes are told of each picture.")
@picture_options
@click.option(
    "--center_only/--nocenter_only",
    is_flag=True,
    default=None,
    help="Predict from the middle alone, not as the mean over ten crops. [default: with --like, and of a net that was "
    "trained without mirror]",
)
@click.option(
    "--images_dim",
    callback=whole_numbers(2),
    metavar="H,W",
    help="The height,width that pictures are resized to. [default: as in training]",
)
@click.option("--ext", help="What the names of a folder's pictures end in. [default: as pictures' do; for a .npy jpg]")
@click.argument("inputs", metavar="INPUT... [OUT]", nargs=-1, required=True, type=click.Path())
def classify(
    inputs: tuple[str, ...], model: str | None, weights: str | None, scale: float | None, **settings: Any
) -> None:
    """Tell the classes of pictures, or write them to OUT.

    \b
      caffecli classify pictures/ out.csv --model deploy.prototxt --weights snapshot.caffemodel --labels labels.txt

    INPUT is a picture, a folder of pictures, a list of their paths (.txt), or a .npy of (N, H, W, K). OUT is a .csv
    (file, class, name and score of the best), .jsonl or .json of the same, or a .npy of all scores, (N, classes).
    Without OUT the best classes are printed.

    Pictures are made fit for the net as it was trained, as --weights says, or --like; flags say otherwise. Pictures
    that cannot be read are named and left out; the exit code is 1 if none can be read.
    """
    from caffecli.tools import classify as tool

    found, output = _parted(inputs, tool.RESULTS, tool.PICTURES)
    tool.classify(
        tool.ClassifyOptions(
            inputs=found, output_file=output, model_def=model, pretrained_model=weights, input_scale=scale, **settings
        )
    )


def _parted(
    words: tuple[str, ...], results: tuple[str, ...], pictures: tuple[str, ...]
) -> tuple[tuple[str, ...], str | None]:
    """The inputs, and OUT, which is the last of several words unless it is an input by its name."""
    last = Path(words[-1]).expanduser()
    if len(words) == 1:
        if last.suffix.lower() in results and last.suffix.lower() != ".npy":
            raise click.UsageError(f"{words[0]!r} is to take the results; give pictures before it.")
        return words, None
    if last.suffix.lower() in results or (not last.suffix and not last.exists()):
        return words[:-1], words[-1]
    if last.exists() or last.suffix.lower() in pictures:
        return words, None
    raise click.UsageError(
        f"OUT {words[-1]!r} ends in {last.suffix!r}; give it a name that ends in one of {', '.join(results)}."
    )
