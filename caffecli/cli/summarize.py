"""``caffecli summarize``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from caffecli.cli.options import (
    caffe_command,
    layers_option,
    model_option,
    net_and_outputs,
    net_state_options,
    weights_option,
)


def _shape(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = value.split(",")
    if len(parts) != 3 or not all(part.strip().isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(
            f"{value!r} is no shape; give channels, height and width, as in 3,227,227.", ctx, param
        )
    return tuple(map(int, parts))


@caffe_command("summarize", quiet=True)
@model_option(type=click.Path(path_type=Path))
@click.option("--phase", type=click.Choice(["TRAIN", "TEST"]), default="TEST", help="The phase to build the net for.")
@click.option("--batch", type=click.IntRange(1), help="The batch size, in place of the net's own.")
@click.option(
    "--input", "picture", callback=_shape, metavar="C,H,W", help="The shape of pictures whose database is not there."
)
@weights_option("Trained weights, to tell of their values too.", type=click.Path(path_type=Path))
@click.option("--csv", "as_csv", is_flag=True, help="Write a CSV table.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
@net_state_options
@layers_option
@click.argument("words", metavar="[NET]", type=click.Path(path_type=Path), nargs=-1)
def summarize(
    words: tuple[Path, ...],
    model: Path | None,
    weights: Path | None,
    phase: str,
    as_csv: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Sum up a net, NET or --model: each layer's shapes, parameters, multiply-adds and memory.

    Multiply-adds are those of the products in convolutions, deconvolutions, inner products and recurrent layers, for a
    forward pass of the whole batch; biases and other layers count none. Memory is that of the blobs, four bytes a
    value; layers run in place need none.
    """
    net, weights, _ = net_and_outputs(words, model, weights, [])
    if as_csv and as_json:
        raise click.UsageError("--csv and --json are two forms of the same; give one of them.")
    from caffecli.proto import caffe_pb2
    from caffecli.tools import summarize as tool

    summary = tool.summarize(net, caffe_pb2.Phase.Value(phase), weights=weights, **settings)
    click.echo(tool.to_json(summary) if as_json else tool.to_csv(summary) if as_csv else tool.to_table(summary))
