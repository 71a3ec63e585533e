"""``caffecli export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from caffecli.cli.options import caffe_command, layers_option

if TYPE_CHECKING:
    from converters.export import Target


@caffe_command("export", quiet=True, results=["export.py"])
@click.option("--to", type=click.Choice(["torch", "onnx", "npy"]), required=True, help="What to write.")
@layers_option
@click.argument("net", type=click.Path(path_type=Path))
@click.argument("rest", metavar="[WEIGHTS] OUT", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.pass_context
def export(ctx: click.Context, to: str, net: Path, rest: tuple[Path, ...], layers: tuple[str, ...]) -> None:
    """Write the deploy prototxt NET with its WEIGHTS for PyTorch or ONNX; a mean for NumPy.

    torch: OUT.safetensors has the weights by LAYER.BLOB (conv1.weight, conv1.bias), OUT.pt2 a program that
    torch.export.load reads and that runs without caffecli; one of them when OUT ends so. onnx: OUT, by the packages
    onnx and onnxscript. Both take batches of any size where the net does. npy: NET is a mean.binaryproto.
    """
    if len(rest) > 2:
        raise click.UsageError(f"expected NET, WEIGHTS and OUT, got {len(rest) + 1} arguments.", ctx)
    from converters import export as converter

    weights, out = rest[0] if len(rest) == 2 else None, rest[-1]
    for path in converter.export(net, weights, cast("Target", to), out, layers):
        click.echo(f"Wrote {path}")
