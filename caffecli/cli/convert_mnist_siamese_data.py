"""``caffecli convert_mnist_siamese_data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from caffecli.cli.options import caffe_command

if TYPE_CHECKING:
    from caffecli.formats.db import Backend


@caffe_command("convert_mnist_siamese_data")
@click.option("--backend", type=click.Choice(["lmdb", "leveldb"]), default="leveldb", help="The kind of database.")
@click.option("--seed", type=click.IntRange(0), help="Makes the pairs the same each time.")
@click.argument("input_image_file")
@click.argument("input_label_file")
@click.argument("output_db_file")
def convert_mnist_siamese_data(
    backend: Backend, seed: int | None, input_image_file: str, input_label_file: str, output_db_file: str
) -> None:
    """Put random pairs of MNIST's pictures into a new database: label 1 for two of one class, else 0."""
    from converters import convert_mnist_siamese_data as converter

    converter.convert_mnist_siamese_data(input_image_file, input_label_file, output_db_file, backend=backend, seed=seed)
