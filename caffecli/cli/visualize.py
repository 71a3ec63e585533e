"""``caffecli visualize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import (
    caffe_command,
    layers_option,
    like_option,
    mean_option,
    model_option,
    net_and_outputs,
    scale_option,
    weights_option,
)

KINDS = ("filters", "activations", "histogram", "deconv", "occlusion", "saliency")


@caffe_command("visualize", empty=["mean"], quiet=True, results=["preprocessing"])
@model_option("The deploy net (prototxt).", type=click.Path(path_type=Path))
@weights_option("Its trained weights; without them what the fillers make.", type=click.Path(path_type=Path))
@click.option("--layer", required=True, help="The layer to look at.")
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="The picture to show the net; all but filters and histogram need it.",
)
@like_option
@mean_option()
@scale_option()
@click.option("--rgb", is_flag=True, help="The net takes red first, not blue.")
@click.option("--unit", type=int, help="The channel, or value, of the layer; else the strongest, or all.")
@click.option("--top", type=click.IntRange(1), default=9, help="deconv: how many of the strongest units.")
@click.option(
    "--size", type=click.IntRange(1), help="occlusion: the side of the square; else a quarter of the picture's."
)
@click.option("--stride", type=click.IntRange(1), help="occlusion: by how much it moves; else a quarter of its side.")
@click.option("--fill", type=float, default=0.0, help="occlusion: what it is filled with.")
@layers_option
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("words", metavar="OUT.png", type=click.Path(path_type=Path), nargs=-1, required=True)
def visualize(words: tuple[Path, ...], model: Path | None, weights: Path | None, **settings: Any) -> None:
    """Draw what a layer of a net has learnt into OUT.png.

    \b
      caffecli visualize filters conv1.png --layer conv1 --model deploy.prototxt --weights snapshot.caffemodel

    filters: its weights. activations: its top for a picture. histogram: its values. deconv: what in the picture made
    its strongest activations (Zeiler and Fergus), beside the picture. occlusion: how a unit falls while a square hides
    part of the picture. saliency: how much each pixel sways a unit. For the last two, take the layer before the
    Softmax. The net and its weights may also stand before OUT.png.
    """
    net, weights, (out,) = net_and_outputs(words, model, weights, ["OUT.png"])
    from caffecli.tools import visualize as tool

    caption = tool.visualize(tool.VisualizeOptions(net=net, weights=weights, out=out, **settings))
    click.echo(f"Wrote {out}: {caption}")
