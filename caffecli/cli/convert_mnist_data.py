"""``caffecli convert_mnist_data``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from caffecli.cli.options import backend_of, backend_option, caffe_command

if TYPE_CHECKING:
    from caffecli.formats.db import Backend


@caffe_command("convert_mnist_data")
@backend_option
@click.argument("input_image_file")
@click.argument("input_label_file")
@click.argument("output_db_file")
def convert_mnist_data(
    backend: Backend | None, input_image_file: str, input_label_file: str, output_db_file: str
) -> None:
    """Put MNIST's idx files, pictures and labels, gzipped or not, into a new database."""
    from converters import convert_mnist_data as converter

    kind = backend_of(backend, output_db_file)
    converter.convert_mnist_data(input_image_file, input_label_file, output_db_file, backend=kind)
