"""``caffecli import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command


def sizes(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> list[tuple[int, ...]] | None:
    """``1,3,224,224`` as numbers; None where the option is not given."""
    try:
        shapes = [tuple(int(size) for size in shape.split(",")) for shape in given]
    except ValueError:
        shapes = [(0,)]
    if any(min(shape) < 1 for shape in shapes):
        raise click.BadParameter("expected sizes as in 1,3,224,224")
    return shapes or None


@caffe_command("import", quiet=True, results=["import_.py"])
@click.option(
    "--inputs", metavar="A,B", help="The blobs' names for the program's inputs, in its order; by default its own."
)
@click.option("--batch", type=click.IntRange(1), help="The batch size in the prototxt, where it is free; 1 by default.")
@click.option(
    "--for",
    "audience",
    type=click.Choice(["both", "caffe", "forks", "opencv"]),
    default="both",
    show_default=True,
    help="Who is to read the net: Caffe and OpenCV both; caffe alone, with fewer layers; "
    "Caffe's forks, with Permute, Interp and Upsample; OpenCV alone, with Permute.",
)
@click.option(
    "--shape",
    "shapes",
    multiple=True,
    callback=sizes,
    metavar="N,C,H,W",
    help="The shape of an input of an ONNX model whose sizes are free; for several inputs once for each.",
)
@click.option(
    "--outputs",
    metavar="A,B",
    callback=lambda context, option, given: given.split(",") if given else None,
    help="The values of an ONNX model to end the net at, before what Caffe has not; by default the model's outputs.",
)
@click.argument("program", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def import_(program: Path, out: Path, inputs: str | None, **settings: Any) -> None:
    """Write a PyTorch PROGRAM, or an ONNX model, as OUT.prototxt and OUT.caffemodel.

    PROGRAM is what torch.export.save(torch.export.export(model.eval(), (example,)), "model.pt2") writes, or a file
    that ends in .onnx. Nothing in it is run. Layers are called by the modules they come from. What Caffe has no layer
    for is named, all of it.
    """
    from converters import import_ as converter

    names = None if inputs is None else inputs.split(",")
    for path in converter.import_program(program, out, names, **settings):
        click.echo(f"Wrote {path}")
