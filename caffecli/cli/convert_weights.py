"""``caffecli convert_weights``."""

from __future__ import annotations

from pathlib import Path

import click

from caffecli.cli.options import caffe_command, layers_option


@caffe_command("convert_weights", quiet=True)
@click.option("--net", type=click.Path(path_type=Path), help="The prototxt whose definition TARGET shall have.")
@click.option(
    "--nvidia",
    type=click.Choice(["FLOAT", "FLOAT16", "DOUBLE"], case_sensitive=False),
    help="Write a .caffemodel as NVIDIA's Caffe does (raw_data), its numbers of this type. "
    "Caffe does not read such files.",
)
@layers_option
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
def convert_weights(source: Path, target: Path, net: Path | None, nvidia: str | None, layers: tuple[str, ...]) -> None:
    """Write the weights in SOURCE in another form, which the name of TARGET ends with.

    Forms: .caffemodel (binary), .h5 (HDF5), .npz, .safetensors. SOURCE may also be a caffemodel of any age, or one with
    NVIDIA's raw_data. Values stay as they are, but for --nvidia FLOAT16, and numbers of 64 bits, which Caffe, too,
    rounds to 32. HDF5 files hold no definition of the net: --net gives one. --layers names modules whose layers say
    what their blobs are called.
    """
    from converters import convert_weights as converter

    converter.convert_weights(source, target, net, nvidia, layers)
    click.echo(f"Wrote {target}")
