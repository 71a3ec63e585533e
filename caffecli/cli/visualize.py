"""``caffecli visualize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command, layers_option

KINDS = ("filters", "activations", "histogram", "deconv", "occlusion", "saliency")


@caffe_command("visualize", quiet=True)
@click.option("--layer", required=True, help="The layer to look at.")
@click.option(
    "--image",
    type=click.Path(path_type=Path),
    help="The picture to show the net; all but filters and histogram need it.",
)
@click.option("--mean", default="", help="What to take from it: a mean.binaryproto, or numbers separated by ','.")
@click.option("--scale", type=float, default=1.0, help="What to multiply it with then.")
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
@click.argument("net", type=click.Path(path_type=Path))
@click.argument("rest", metavar="[WEIGHTS] OUT.png", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.pass_context
def visualize(ctx: click.Context, /, rest: tuple[Path, ...], **settings: Any) -> None:
    """Draw what a layer of the deploy prototxt NET has learnt into OUT.png.

    filters: its weights. activations: its top for a picture. histogram: its values. deconv: what in the picture made
    its strongest activations (Zeiler and Fergus), beside the picture. occlusion: how a unit falls while a square hides
    part of the picture. saliency: how much each pixel sways a unit. For the last two, take the layer before the
    Softmax.
    """
    if len(rest) > 2:
        raise click.UsageError(f"expected KIND, NET, WEIGHTS and OUT.png, got {len(rest) + 2} arguments.", ctx)
    from caffecli.tools import visualize as tool

    *weights, out = rest
    caption = tool.visualize(tool.VisualizeOptions(weights=weights[0] if weights else None, out=out, **settings))
    click.echo(f"Wrote {out}: {caption}")
