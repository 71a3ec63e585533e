"""``caffecli merge_bn``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command, layers_option


@caffe_command("merge_bn", quiet=True)
@layers_option
@click.argument("net", type=click.Path(path_type=Path))
@click.argument("weights", type=click.Path(path_type=Path))
@click.argument("out_net", type=click.Path(path_type=Path))
@click.argument("out_weights", type=click.Path(path_type=Path))
def merge_bn(net: Path, weights: Path, out_net: Path, out_weights: Path, layers: tuple[str, ...]) -> None:
    """Fold BatchNorm, BN and Scale into the convolution, deconvolution or inner product before them.

    One that has no such layer before it goes into the one behind it, where that is exact: where no zeros are padded.

    The new net runs faster and gives the same outputs; it is not one to train. A layer that cannot be folded stays as
    it is, and the log says why.
    """
    from converters import merge_bn as converter

    merged = converter.merge_bn(net, weights, out_net, out_weights, layers)
    click.echo(f"Folded {len(merged.folded)} layer(s), left {len(merged.left)}; wrote {out_net} and {out_weights}")
