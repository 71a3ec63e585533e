"""convert_cifar_data, with batches of ten records instead of ten thousand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import datum
from caffecli.formats.db import Backend, open_reader
from converters import convert_cifar_data as module
from converters.convert_cifar_data import convert_cifar_data


@pytest.fixture
def batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Six batches in ``tmp_path/in``; returns all their records."""
    monkeypatch.setattr(module, "RECORDS", 10)
    records = np.random.default_rng(0).integers(0, 256, (6, 10, 3073), np.uint8)
    records[:, :, 0] %= 10
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    for name, batch in zip(module.TRAIN + module.TEST, records, strict=True):
        (tmp_path / "in" / name).write_bytes(batch.tobytes())
    return records.reshape(60, 3073)


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
def test_converts_both_parts(batches: np.ndarray, tmp_path: Path, backend: Backend, log: Any) -> None:
    paths = convert_cifar_data(tmp_path / "in", tmp_path / "out", backend)
    assert [path.name for path in paths] == [f"cifar10_train_{backend}", f"cifar10_test_{backend}"]
    for path, wanted in zip(paths, (batches[:50], batches[50:]), strict=True):
        with open_reader(path, backend) as reader:
            records = list(reader)
        assert [key for key, _ in records] == [b"%05d" % index for index in range(len(wanted))]
        for (_, value), record in zip(records, wanted, strict=True):
            made = datum.decode(value)
            assert made.label == record[0]
            assert not made.HasField("encoded")
            np.testing.assert_array_equal(datum.to_array(made), record[1:].reshape(3, 32, 32))
    texts = [
        "52] Writing Training data",
        *(f"55] Training Batch {number}" for number in range(1, 6)),
        "73] Writing Testing data",
    ]
    assert [line for line in log.lines if "cifar" in line.split("]")[0]] == [
        f"I convert_cifar_data.cpp:{text}" for text in texts
    ]


def test_missing_and_truncated_batches_are_named_before_anything_is_written(
    batches: np.ndarray, tmp_path: Path
) -> None:
    test = tmp_path / "in" / "test_batch.bin"
    test.write_bytes(test.read_bytes()[:-1])
    with pytest.raises(
        FormatError, match=r"test_batch.bin' has 30729 bytes; expected 30730 .*truncated or not of CIFAR-10's binary"
    ):
        convert_cifar_data(tmp_path / "in", tmp_path / "out")
    test.unlink()
    with pytest.raises(FormatError, match=r"test_batch.bin': no such file; unpack cifar-10-binary.tar.gz"):
        convert_cifar_data(tmp_path / "in", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_outputs_are_checked_before_anything_is_written(batches: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "out" / "cifar10_test_lmdb").mkdir()
    with pytest.raises(FormatError, match="cifar10_test_lmdb' exists; remove it or choose another folder"):
        convert_cifar_data(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cifar10_test_lmdb"]
    with pytest.raises(FormatError, match=r"create the folder '.*/nowhere' first"):
        convert_cifar_data(tmp_path / "in", tmp_path / "nowhere")
