"""Data, HDF5Data and ImageData give the arrays that the reference gave, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from caffecli.proto.caffe_pb2 import TEST, NetParameter
from tests.sources.opening import opened

CASES = [
    "data_encoded",
    "data_encoded_gray",
    "data_gray",
    "data_leveldb",
    "data_meanvalue",
    "data_meanvalue_one",
    "data_plain",
    "data_scale_meanfile_crop",
    "hdf5data",
    "imagedata",
    "imagedata_resize_gray",
    "imagedata_varying_size",
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("prefetch", [0, 4])
def test_batches_are_the_references(golden_tools: Path, case: str, prefetch: int) -> None:
    text = (golden_tools / "data_layers" / f"{case}.prototxt").read_text()
    layer = text_format.Parse(text, NetParameter()).layer[0]
    layer.data_param.prefetch = prefetch
    recorded = np.load(golden_tools / "data_layers" / f"{case}.npz")
    source = opened(layer, TEST, seed=1)
    for i in range(4):
        batch = source.next()
        assert len(batch.arrays) == len(layer.top)
        for top, array in zip(layer.top, batch.arrays, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, recorded[f"{i}/{top}"], strict=True)
    assert len(batch.keys) == len(batch.arrays[0])
    source.close()


def test_the_list_of_cases_is_whole(golden: Path) -> None:
    assert sorted(p.stem for p in (golden / "tools" / "data_layers").glob("*.npz")) == CASES
