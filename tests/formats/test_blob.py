"""Blobs: packed, unpacked, old and new."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffecli.errors import FormatError
from caffecli.formats import blob
from caffecli.proto.caffe_pb2 import BlobProto


@given(arrays.arrays(np.float32, arrays.array_shapes(max_dims=5, min_side=0, max_side=4), elements=st.floats(width=32)))
def test_round_trip(array: np.ndarray) -> None:
    made = blob.from_array(array)
    assert list(made.shape.dim) == list(array.shape)
    np.testing.assert_array_equal(np.array(made.data, np.float32), array.ravel())
    np.testing.assert_array_equal(blob.to_array(made), array)


def test_fills_a_given_blob_anew() -> None:
    given_blob = BlobProto(num=3, diff=[1.0])
    assert blob.from_array(np.arange(2.0), given_blob) is given_blob
    assert given_blob == BlobProto(shape={"dim": [2]}, data=[0, 1])


def test_is_writable() -> None:
    array = blob.to_array(BlobProto(shape={"dim": [2]}, data=[1, 2]))
    array += 1
    assert array.tolist() == [2, 3]


def test_old_shapes_have_four_dimensions() -> None:
    array = blob.to_array(BlobProto(num=1, channels=1, height=2, width=3, data=range(6)))
    assert array.shape == (1, 1, 2, 3)
    assert blob.to_array(BlobProto(channels=2)).shape == (0, 2, 0, 0)


def test_scalars_have_no_dimension() -> None:
    assert blob.to_array(BlobProto(data=[5])).shape == ()


def test_double_data_become_float32() -> None:
    array = blob.to_array(BlobProto(shape={"dim": [2]}, double_data=[0.1, 1e-60]))
    assert array.dtype == np.float32
    assert array.tolist() == [np.float32(0.1), 0]


def unpacked(tag: int, code: str, numbers: list[float]) -> bytes:
    return b"".join(bytes([tag]) + struct.pack(code, number) for number in numbers)


def test_unpacked_and_split_encodings_are_read() -> None:
    shape = BlobProto(shape={"dim": [4]}).SerializeToString()
    each = BlobProto.FromString(shape + unpacked(5 << 3 | 5, "<f", [1, 2, 3, 4]))
    assert blob.to_array(each).tolist() == [1, 2, 3, 4]
    raw = shape + unpacked(5 << 3 | 5, "<f", [1, 2, 3, 4])
    assert blob.twin_to_array(blob.twin("BlobProto").FromString(raw)).tolist() == [1, 2, 3, 4]
    raw = shape + unpacked(8 << 3 | 1, "<d", [1, 2, 3, 4])
    assert blob.twin_to_array(blob.twin("BlobProto").FromString(raw)).tolist() == [1, 2, 3, 4]
    mixed = shape + BlobProto(data=[1]).SerializeToString() + unpacked(5 << 3 | 5, "<f", [2, 3, 4])
    assert blob.twin_to_array(blob.twin("BlobProto").FromString(mixed)).tolist() == [1, 2, 3, 4]


def test_data_must_fill_the_shape() -> None:
    with pytest.raises(FormatError, match=r"shape \(2, 3\) holds 5 numbers instead of 6; the file is damaged"):
        blob.to_array(BlobProto(shape={"dim": [2, 3]}, data=range(5)))


def test_two_gigabytes_are_the_limit_of_binary_files() -> None:
    blob.check_size("a.caffemodel", 2**30)
    with pytest.raises(FormatError, match=r"'a.caffemodel': 2.0 GB do not fit.*snapshot_format: HDF5"):
        blob.check_size("a.caffemodel", 2**31)
