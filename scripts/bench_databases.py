"""How fast databases are written and read: 10,000 datums of 3 x 32 x 32, by what this Python has for each backend.

``python -m scripts.bench_databases`` needs no PyTorch, so that other Pythons, with other LevelDB packages, can be
measured in an environment of ``pip install numpy protobuf lmdb plyvel-next``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from caffecli.formats import datum, db
from caffecli.formats.leveldb_db import plyvel

RECORDS, RUNS = 10_000, 5


def main() -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (RECORDS, 3, 32, 32), np.uint8)
    records = [
        (b"%08d" % i, datum.from_array(picture, i % 10).SerializeToString()) for i, picture in enumerate(pictures)
    ]
    databases: list[tuple[db.Backend, str]] = [("lmdb", "lmdb"), ("leveldb", plyvel().__name__.replace("_", "-"))]
    for backend, by in databases:
        written, read = [], []
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "db"
                start = time.perf_counter()
                with db.open_writer(path, backend) as writer:
                    for key, value in records:
                        writer.put(key, value)
                middle = time.perf_counter()
                with db.open_reader(path, backend) as reader:
                    count = sum(1 for _ in reader)
                end = time.perf_counter()
            assert count == RECORDS
            written.append(RECORDS / (middle - start))
            read.append(RECORDS / (end - middle))
        print(
            f"Python {sys.version.split()[0]}, {backend} by {by} {version(by)}: written "
            f"{statistics.median(written):,.0f} records/s, read {statistics.median(read):,.0f} (medians of {RUNS})"
        )


if __name__ == "__main__":
    main()
