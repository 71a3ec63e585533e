"""compute_image_mean: the reference's means and log lines, and wrong input."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffecli.errors import DataError, FormatError
from caffecli.formats import datum
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import Datum
from converters.compute_image_mean import channel_means, compute_image_mean

CASES = {
    "plain_lmdb": "plain_mean",
    "plain_leveldb": "plain_leveldb_mean",
    "resized_lmdb": "resized_mean",
    "encoded_lmdb": "encoded_mean",
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Any, name: str
) -> None:
    tools = golden / "tools"
    out = f"{CASES[name]}.binaryproto"
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).symlink_to(tools / name)
    compute_image_mean(name, out)
    recorded = (tools / f"{out}.compute_image_mean.log").read_text().splitlines()
    assert log.lines == [re.sub(r"^([IWEF])\d+ [\d:.]+ +\d+ ", r"\1 ", line) for line in recorded]
    assert (tmp_path / out).read_bytes() == (tools / out).read_bytes()


def write(path: Path, *datums: Datum) -> Path:
    with open_writer(path) as writer:
        for index, value in enumerate(datums):
            writer.put(b"%08d_x" % index, value.SerializeToString())
    return path


def test_sums_are_float32_in_order(tmp_path: Path) -> None:
    pictures = [np.full((1, 1, 1), value, np.float32) for value in (2**24, 1, 1, -(2**24))]
    mean = compute_image_mean(write(tmp_path / "db", *map(datum.from_array, pictures)))
    assert mean.tolist() == [[[0.0]]]  # each 1 is lost, as it is in Caffe; exact arithmetic gives 0.5


def test_channel_means_are_summed_one_after_the_other() -> None:
    image = np.array([[[2**24, 1, 1, 1]], [[1, 2, 3, 4]]], np.float32)
    assert channel_means(image) == [2**22, 2.5]


def test_floats_and_large_counts(tmp_path: Path, log: Any) -> None:
    one = datum.from_array(np.array([[[0.5, 1.5]]], np.float32))
    mean = compute_image_mean(write(tmp_path / "db", *[one] * 20000))
    assert mean.tolist() == [[[0.5, 1.5]]]
    processed = [line for line in log.lines if "Processed" in line]
    assert processed == [f"I compute_image_mean.cpp:95] Processed {count} files." for count in (10000, 20000)]


def test_other_sizes_are_named(tmp_path: Path) -> None:
    small, large = (datum.from_array(np.zeros((3, 2, width), np.uint8)) for width in (2, 5))
    with pytest.raises(
        DataError, match=r"/db': record '00000001_x': its picture is 3 × 2 × 5 \(30 numbers\), the first one 3 × 2 × 2"
    ):
        compute_image_mean(write(tmp_path / "db", small, large), tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    whole = Datum(data=cv2.imencode(".png", np.zeros((2, 2, 3), np.uint8))[1].tobytes(), encoded=True)
    broken = Datum(data=b"x", encoded=True)
    with pytest.raises(DataError, match=r"record '00000001_x': the encoded picture .* is "):
        compute_image_mean(write(tmp_path / "db", whole, broken))


def test_wrong_databases_are_named(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="/none': no such database"):
        compute_image_mean(tmp_path / "none")
    with pytest.raises(FormatError, match="holds LMDB data, not LevelDB"):
        compute_image_mean(golden / "tools" / "plain_lmdb", backend="leveldb")
    with pytest.raises(DataError, match="/empty': there are no records"):
        compute_image_mean(write(tmp_path / "empty"))
    with pytest.raises(DataError, match="record '0': the value is not a Datum"):
        with open_writer(tmp_path / "foreign") as writer:
            writer.put(b"0", b"\xff\xff")
        compute_image_mean(tmp_path / "foreign")
