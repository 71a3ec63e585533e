"""``caffecli merge_bn``."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from caffecli.cli.options import caffe_command, layers_option, model_option, net_and_outputs, weights_option

_PATH = click.Path(path_type=Path)


@caffe_command("merge_bn", quiet=True)
@model_option(type=_PATH)
@weights_option(type=_PATH)
@layers_option
@click.argument("words", metavar="OUT_NET OUT_WEIGHTS", type=_PATH, nargs=-1, required=True)
def merge_bn(words: tuple[Path, ...], model: Path | None, weights: Path | None, layers: tuple[str, ...]) -> None:
    """Fold BatchNorm, BN and Scale into the convolution, deconvolution or inner product before them.

    \b
      caffecli merge_bn new.prototxt new.caffemodel --model deploy.prototxt --weights snapshot.caffemodel

    One that has no such layer before it goes into the one behind it, where that is exact: where no zeros are padded.

    The new net runs faster and gives the same outputs; it is not one to train. A layer that cannot be folded stays as
    it is, and the log says why. The net and its weights may also stand before OUT_NET.
    """
    net, trained, (out_net, out_weights) = net_and_outputs(words, model, weights, ["OUT_NET", "OUT_WEIGHTS"], "always")
    from converters import merge_bn as converter

    merged = converter.merge_bn(net, cast("Path", trained), out_net, out_weights, layers)
    click.echo(f"Folded {len(merged.folded)} layer(s), left {len(merged.left)}; wrote {out_net} and {out_weights}")
