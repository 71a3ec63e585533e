"""idx files and convert_mnist_data."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffecli.errors import DataError, FormatError
from caffecli.formats.db import Backend, Record, open_reader
from converters.convert_mnist_data import convert_mnist_data, read_idx, write_idx


def records(path: Path) -> list[Record]:
    with open_reader(path) as reader:
        return list(reader)


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
@pytest.mark.parametrize("part", ["train", "test"])
def test_equals_the_reference(golden: Path, tmp_path: Path, log: Any, part: str, backend: Backend) -> None:
    tools = golden / "mnist_tools"
    count = convert_mnist_data(tools / f"{part}-images", tools / f"{part}-labels", tmp_path / "db", backend=backend)
    assert records(tmp_path / "db") == records(tools / f"{part}_{backend}")
    texts = [f"88] A total of {count} items.", "89] Rows: 28 Cols: 28", f"108] Processed {count} files."]
    assert [line for line in log.lines if "convert_mnist" in line] == [
        f"I convert_mnist_data.cpp:{text}" for text in texts
    ]


@pytest.mark.parametrize("suffix", ["", ".gz"])
@given(array=arrays.arrays(np.uint8, arrays.array_shapes(max_dims=4, min_side=0)))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, suffix: str, array: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("idx") / f"x{suffix}"
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path), array)
    if suffix:
        np.testing.assert_array_equal(read_idx(path.with_suffix("")), array)


def test_gzipped_files_are_read(golden: Path, tmp_path: Path) -> None:
    for name in ("test-images", "test-labels"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((golden / "mnist_tools" / name).read_bytes()))
    convert_mnist_data(tmp_path / "test-images", tmp_path / "test-labels.gz", tmp_path / "db")
    assert records(tmp_path / "db") == records(golden / "mnist_tools" / "test_lmdb")


def test_wrong_files_are_named(golden: Path, tmp_path: Path) -> None:
    images, labels = golden / "mnist_tools" / "test-images", golden / "mnist_tools" / "test-labels"
    out = tmp_path / "db"
    with pytest.raises(
        FormatError, match=r"test-labels': expected an idx file of pictures \(magic 2051\), its magic is 2049; give"
    ):
        convert_mnist_data(labels, images, out)
    with pytest.raises(FormatError, match=r"README.md' is not an idx file of labels \(magic 2049\): it is text"):
        convert_mnist_data(images, golden / "README.md", out)
    with pytest.raises(FormatError, match=r"/none': No such file"):
        convert_mnist_data(tmp_path / "none", labels, out)
    with pytest.raises(DataError, match=r"test-images' has 128 pictures, '.*train-labels' has 256 labels"):
        convert_mnist_data(images, golden / "mnist_tools" / "train-labels", out)
    (tmp_path / "cut").write_bytes(images.read_bytes()[:5000])
    with pytest.raises(
        FormatError, match="/cut': the header says 128 × 28 × 28 bytes, the file has 4984; it is truncated"
    ):
        convert_mnist_data(tmp_path / "cut", labels, out)
    (tmp_path / "head").write_bytes(images.read_bytes()[:10])
    with pytest.raises(FormatError, match="/head': the file ends within its header; it is truncated"):
        convert_mnist_data(tmp_path / "head", labels, out)
    (tmp_path / "cut.gz").write_bytes(gzip.compress(images.read_bytes())[:-100])
    with pytest.raises(FormatError, match=r"cut.gz': the gzip file is damaged or truncated .*; download it again"):
        convert_mnist_data(tmp_path / "cut.gz", labels, out)
    write_idx(tmp_path / "none-images", np.zeros((0, 2, 2), np.uint8))
    write_idx(tmp_path / "none-labels", np.zeros(0, np.uint8))
    with pytest.raises(DataError, match="none-images' has no pictures"):
        convert_mnist_data(tmp_path / "none-images", tmp_path / "none-labels", out)
    assert not out.exists()
    shutil.copytree(golden / "mnist_tools" / "test_lmdb", out)
    with pytest.raises(FormatError, match="exists; remove it or choose another name"):
        convert_mnist_data(images, labels, out)
    with pytest.raises(DataError, match=r"expected an array of bytes .* got float64 of 2 dimensions"):
        write_idx(tmp_path / "x", np.zeros((2, 2)))  # type: ignore[arg-type]


@given(st.binary(max_size=40))
def test_any_bytes_give_an_array_or_one_line(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("idx") / "x"
    for content in (data, b"\0\0\x08\x01" + data):
        path.write_bytes(content)
        try:
            read_idx(path)
        except FormatError as error:
            assert "\n" not in str(error)
