"""``caffecli compute_image_mean``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from caffecli.cli.options import caffe_command

if TYPE_CHECKING:
    from caffecli.formats.db import Backend


@caffe_command("compute_image_mean")
@click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), help="The kind of database; found out by default.")
@click.argument("input_db")
@click.argument("output_file", required=False)
@click.argument("kind", required=False, type=click.Choice(["lmdb", "leveldb"]), metavar="")
def compute_image_mean(backend: Backend | None, input_db: str, output_file: str | None, kind: Backend | None) -> None:
    """Compute the mean picture of a database, and write it to OUTPUT_FILE (mean.binaryproto)."""
    from converters import compute_image_mean as converter

    converter.compute_image_mean(input_db, output_file, backend=backend or kind)
