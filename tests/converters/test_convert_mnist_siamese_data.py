"""convert_mnist_siamese_data: two channels, label 1 for two pictures of one class, pairs drawn evenly."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffecli.errors import DataError, FormatError
from caffecli.formats import datum
from caffecli.formats.db import open_reader
from converters.convert_mnist_data import write_idx
from converters.convert_mnist_siamese_data import convert_mnist_siamese_data

COUNT = 2000


@pytest.fixture
def digits(tmp_path: Path) -> tuple[Path, Path]:
    """Pictures that tell their number and their class, of ten classes."""
    pictures = np.zeros((COUNT, 3, 4), np.uint8)
    pictures[:, 0, 0], pictures[:, 0, 1] = np.arange(COUNT) % 256, np.arange(COUNT) // 256
    pictures[:, 1, 1] = np.arange(COUNT) % 10
    write_idx(tmp_path / "images", pictures)
    write_idx(tmp_path / "labels", (np.arange(COUNT) % 10).astype(np.uint8))
    return tmp_path / "images", tmp_path / "labels"


def test_records(digits: tuple[Path, Path], tmp_path: Path, log: Any) -> None:
    assert convert_mnist_siamese_data(*digits, tmp_path / "db", seed=3) == COUNT
    drawn: Counter[int] = Counter()
    same = 0
    with open_reader(tmp_path / "db", "leveldb") as reader:
        for index, (key, value) in enumerate(reader):
            record = datum.decode(value, key)
            array = datum.to_array(record, key=key)
            assert (key, array.shape) == (b"%08d" % index, (2, 3, 4))
            assert record.label == (array[0, 1, 1] == array[1, 1, 1])
            drawn.update(int(picture[0, 0]) + 256 * int(picture[0, 1]) for picture in array)
            same += record.label
    assert sum(drawn.values()) == 2 * COUNT
    assert abs(same / COUNT - 0.1) < 0.03  # ten classes alike
    assert len(drawn) == pytest.approx(
        COUNT * (1 - np.exp(-2)), rel=0.05
    )  # drawn with putting back: some never, some often
    assert [line.partition("] ")[2] for line in log.lines if "siamese" in line] == [
        f"A total of {COUNT} items.",
        "Rows: 3 Cols: 4",
    ]


def test_the_seed_decides(digits: tuple[Path, Path], tmp_path: Path) -> None:
    seeds = {"a": 1, "b": 1, "c": 2, "d": None, "e": None}
    for name, seed in seeds.items():
        convert_mnist_siamese_data(*digits, tmp_path / name, backend="lmdb", seed=seed)
    made = {}
    for name in seeds:
        with open_reader(tmp_path / name, "lmdb") as reader:
            made[name] = list(reader)
    assert made["a"] == made["b"]
    assert len({str(made[name]) for name in "acde"}) == 4


def test_wrong_files(digits: tuple[Path, Path], tmp_path: Path) -> None:
    images, labels = digits
    with pytest.raises(FormatError, match="give the pictures first, then the labels"):
        convert_mnist_siamese_data(labels, images, tmp_path / "db")
    write_idx(tmp_path / "few", np.zeros(3, np.uint8))
    with pytest.raises(DataError, match=r"has 2000 pictures, .*few' has 3 labels"):
        convert_mnist_siamese_data(images, tmp_path / "few", tmp_path / "db")
    convert_mnist_siamese_data(images, labels, tmp_path / "db")
    with pytest.raises(FormatError, match="exists"):
        convert_mnist_siamese_data(images, labels, tmp_path / "db")
