"""safetensors files, held against their own library where it is installed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import safetensors

ARRAYS = {
    "b/x.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.array(1.5, np.float64),
    "none": np.zeros((0, 2), np.float16),
    "é": np.array([True, False]),
    "back": np.arange(6, dtype=">i4").reshape(3, 2).T,
}


def test_round_trip_keeps_values_shapes_and_order(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.write(path, ARRAYS, {"note": "ä"})
    arrays, texts = safetensors.read(path)
    assert texts == {"format": "pt", "note": "ä"}
    assert set(arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].shape == array.shape
        np.testing.assert_array_equal(arrays[name], array)


def test_the_library_reads_it(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    safetensors.write(tmp_path / "x", ARRAYS)
    for name, array in library.load_file(tmp_path / "x").items():
        np.testing.assert_array_equal(array, ARRAYS[name])
    library.save_file({"w": np.arange(5, dtype=np.float32)}, tmp_path / "theirs")
    np.testing.assert_array_equal(safetensors.read(tmp_path / "theirs")[0]["w"], np.arange(5, dtype=np.float32))


def test_bfloat16(tmp_path):
    head = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "x").write_bytes(len(head).to_bytes(8, "little") + head + b"\x80\x3f\x00\xc0")
    np.testing.assert_array_equal(safetensors.read(tmp_path / "x")[0]["x"], [1, -2])


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_damage_is_named(tmp_path, cut):
    path = tmp_path / "x"
    safetensors.write(path, ARRAYS)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(FormatError, match=r"is not a safetensors file, or damaged: .*; copy or download it again"):
        safetensors.read(path)
