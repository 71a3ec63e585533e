"""``caffecli export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from caffecli.cli.options import caffe_command, layers_option, model_option, net_and_outputs, weights_option

if TYPE_CHECKING:
    from converters.export import Target

_PATH = click.Path(path_type=Path)
#: what OUT's ending says
_TARGETS = {".onnx": "onnx", ".pt2": "torch", ".safetensors": "torch", ".npy": "npy"}


@caffe_command("export", quiet=True, results=["export.py"])
@model_option("The deploy net (prototxt); for npy a mean.binaryproto.", type=_PATH)
@weights_option("Its trained weights; without them what the fillers make.", type=_PATH)
@click.option(
    "--to", type=click.Choice(["torch", "onnx", "npy"]), help="What to write. [default: as OUT's ending says]"
)
@layers_option
@click.argument("words", metavar="OUT", type=_PATH, nargs=-1, required=True)
def export(
    words: tuple[Path, ...], model: Path | None, weights: Path | None, to: str | None, layers: tuple[str, ...]
) -> None:
    """Write a net with its weights for PyTorch or ONNX; a mean for NumPy.

    \b
      caffecli export net.onnx --model deploy.prototxt --weights snapshot.caffemodel

    OUT.onnx is written by the packages onnx and onnxscript. OUT.safetensors has the weights by LAYER.BLOB
    (conv1.weight, conv1.bias), OUT.pt2 a program that torch.export.load reads and that runs without caffecli; --to
    torch writes both. All take batches of any size where the net does. OUT.npy: the net is a mean.binaryproto. The net
    and its weights may also stand before OUT.
    """
    net, weights, (out,) = net_and_outputs(words, model, weights, ["OUT"])
    target = to or _TARGETS.get(out.suffix.lower())
    if target is None:
        raise click.UsageError(
            f"OUT {str(out)!r} ends in none of {', '.join(_TARGETS)}; name it so, or say --to torch, onnx or npy."
        )
    from converters import export as converter

    for path in converter.export(net, weights, cast("Target", target), out, layers):
        click.echo(f"Wrote {path}")
