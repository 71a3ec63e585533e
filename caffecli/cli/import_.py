"""``caffecli import``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import caffe_command


@caffe_command("import", quiet=True, results=["import_.py"])
@click.option(
    "--inputs", metavar="A,B", help="The blobs' names for the program's inputs, in its order; by default its own."
)
@click.option("--batch", type=click.IntRange(1), help="The batch size in the prototxt, where it is free; 1 by default.")
@click.option(
    "--for",
    "audience",
    type=click.Choice(["both", "caffe", "forks"]),
    default="both",
    show_default=True,
    help="Who is to read the net: Caffe and OpenCV both; caffe alone, with fewer layers; "
    "Caffe's forks, with Permute, Interp and Upsample.",
)
@click.argument("program", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
def import_(program: Path, out: Path, inputs: str | None, **settings: Any) -> None:
    """Write a PyTorch PROGRAM as OUT.prototxt and OUT.caffemodel.

    PROGRAM is what torch.export.save(torch.export.export(model.eval(), (example,)), "model.pt2") writes. Nothing in it
    is run. Layers are called by the modules they come from. What Caffe has no layer for is named, all of it.
    """
    from converters import import_ as converter

    names = None if inputs is None else inputs.split(",")
    for path in converter.import_program(program, out, names, **settings):
        click.echo(f"Wrote {path}")
