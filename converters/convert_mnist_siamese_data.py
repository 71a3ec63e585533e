"""convert_mnist_siamese_data: pairs of MNIST's pictures.

Source: Caffe's ``examples/siamese/convert_mnist_siamese_data.cpp``.
"""

from __future__ import annotations

import os

import numpy as np

from caffecli import logs
from caffecli.formats.db import Backend, open_writer
from caffecli.logs import Bar
from caffecli.proto.caffe_pb2 import Datum
from converters.convert_mnist_data import read_pair

_SOURCE = "convert_mnist_siamese_data.cpp"


def convert_mnist_siamese_data(
    images: str | os.PathLike[str],
    labels: str | os.PathLike[str],
    db: str | os.PathLike[str],
    *,
    backend: Backend = "leveldb",
    seed: int | None = None,
) -> int:
    """Write random pairs of idx pictures to the new database ``db``, keys ``%08d``, as many as there are pictures.

    A record has two channels, one picture in each, and the label 1 where both are of one class, else 0. Both pictures
    of each pair are drawn evenly from all, as in Caffe's tool, so that about one pair in ten is of one class; other
    pairs each time unless ``seed`` is given. Returns the count.

    Raises FormatError for files that are not idx or are damaged, and when ``db`` exists or cannot be written; DataError
    when there are not as many labels as pictures, or none.
    """
    pictures, classes = read_pair(images, labels)
    count, rows, columns = pictures.shape
    pairs = np.random.default_rng(seed).integers(count, size=(count, 2))
    same = classes[pairs[:, 0]] == classes[pairs[:, 1]]
    with open_writer(db, backend) as writer, Bar(count, unit="pairs") as progress:
        logs.info(f"{_SOURCE}:85", f"A total of {count} items.")
        logs.info(f"{_SOURCE}:86", f"Rows: {rows} Cols: {columns}")
        datum = Datum(channels=2, height=rows, width=columns)
        for index, pair in enumerate(pairs):
            datum.data = pictures[pair].tobytes()
            datum.label = int(same[index])
            writer.put(b"%08d" % index, datum.SerializeToString())
            progress.advance()
    return count
