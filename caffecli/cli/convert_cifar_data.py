"""``caffecli convert_cifar_data``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from caffecli.cli.options import caffe_command

if TYPE_CHECKING:
    from caffecli.formats.db import Backend


@caffe_command("convert_cifar_data")
@click.argument("input_folder")
@click.argument("output_folder")
@click.argument("db_type", type=click.Choice(["lmdb", "leveldb"]), required=False)
def convert_cifar_data(input_folder: str, output_folder: str, db_type: Backend | None) -> None:
    """Put CIFAR-10's binary batches into two new databases.

    They are cifar10_train_DB_TYPE and cifar10_test_DB_TYPE in OUTPUT_FOLDER. Without DB_TYPE they are LevelDBs, as in
    2014; in a folder named after leveldb, cifar-train-leveldb and cifar-test-leveldb.
    """
    from converters import convert_cifar_data as converter

    early = db_type is None and "leveldb" in Path(output_folder).name.lower()
    names = ("cifar-train-leveldb", "cifar-test-leveldb") if early else None
    converter.convert_cifar_data(input_folder, output_folder, db_type or "leveldb", names)
