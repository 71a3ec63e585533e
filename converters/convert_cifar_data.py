"""convert_cifar_data: CIFAR-10's binary batches -> databases.

Source: Caffe's ``examples/cifar10/convert_cifar_data.cpp``.

Each record of a batch is a byte of label and 3 × 32 × 32 bytes of picture, red, green, blue: the order is kept as it
is.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from caffecli import logs
from caffecli.errors import FormatError
from caffecli.formats.atomic import read_bytes
from caffecli.formats.db import Backend, open_writer
from caffecli.logs import Bar
from caffecli.proto.caffe_pb2 import Datum

_SOURCE = "convert_cifar_data.cpp"
_SIZE = 32
_BYTES = 3 * _SIZE * _SIZE
RECORDS = 10000
TRAIN = tuple(f"data_batch_{index}.bin" for index in range(1, 6))
TEST = ("test_batch.bin",)


def convert_cifar_data(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    backend: Backend = "lmdb",
    names: tuple[str, str] | None = None,
) -> tuple[Path, Path]:
    """Write the batches in ``folder`` to ``out/cifar10_train_<backend>`` and ``..._test_<backend>``, keys ``%05d``.

    ``names``: those of the two databases, in place of these.

    Returns the two paths. Raises FormatError when a batch is missing or has another size than 10,000 records, or when a
    database exists or cannot be written; all of it is checked before anything is written.
    """
    for name in TRAIN + TEST:
        _check(Path(folder) / name)
    train, test = (Path(out) / name for name in names or (f"cifar10_train_{backend}", f"cifar10_test_{backend}"))
    for path in (train, test):
        if os.path.lexists(path):
            raise FormatError(f"{str(path)!r} exists; remove it or choose another folder")
    _convert(Path(folder), TRAIN, train, backend)
    _convert(Path(folder), TEST, test, backend)
    return train, test


def _check(path: Path) -> None:
    expected = RECORDS * (1 + _BYTES)
    if not path.is_file():
        raise FormatError(
            f"{str(path)!r}: no such file; unpack cifar-10-binary.tar.gz there (data/cifar10/get_cifar10.sh does)"
        )
    present = path.stat().st_size
    if present != expected:
        raise FormatError(
            f"{str(path)!r} has {present} bytes; expected {expected} ({RECORDS} records of {1 + _BYTES}): "
            "it is truncated or not of CIFAR-10's binary version; download it again"
        )


def _convert(folder: Path, names: tuple[str, ...], db: Path, backend: Backend) -> None:
    with open_writer(db, backend) as writer, Bar(len(names) * RECORDS, unit="images") as progress:
        logs.info(
            *(
                (f"{_SOURCE}:52", "Writing Training data")
                if names is TRAIN
                else (f"{_SOURCE}:73", "Writing Testing data")
            )
        )
        datum = Datum(channels=3, height=_SIZE, width=_SIZE)
        index = 0
        for number, name in enumerate(names, 1):
            if names is TRAIN:
                logs.info(f"{_SOURCE}:55", f"Training Batch {number}")
            for record in _records(folder / name):
                datum.label = int(record[0])
                datum.data = record[1:].tobytes()
                writer.put(b"%05d" % index, datum.SerializeToString())
                index += 1
            progress.advance(RECORDS)


def _records(path: Path) -> NDArray[np.uint8]:
    return np.frombuffer(read_bytes(path), np.uint8).reshape(-1, 1 + _BYTES)
