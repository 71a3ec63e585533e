"""Blobs of NVIDIA's Caffe, whose numbers are raw bytes of a type."""

from __future__ import annotations

import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import blob, caffemodel
from caffecli.proto.caffe_pb2 import BlobProto, LayerParameter, NetParameter

VALUES = np.array([[0.5, -2, 1024], [3, 0, -0.25]], np.float32)
TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}


def raw_blob(kind: int, values: np.ndarray = VALUES) -> bytes:
    """A BlobProto with shape, raw_data_type (10) and raw_data (12)."""
    raw = values.astype(TYPES[kind]).tobytes()
    plain = BlobProto()
    plain.shape.dim.extend(VALUES.shape)
    return plain.SerializeToString() + bytes([10 << 3, kind, 12 << 3 | 2, len(raw)]) + raw


@pytest.mark.parametrize("kind", TYPES)
def test_raw_data_is_read(kind):
    array = blob.to_array(BlobProto.FromString(raw_blob(kind)))
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, VALUES)


@pytest.mark.parametrize("kind", TYPES)
def test_a_caffemodel_with_raw_data_is_read(kind, tmp_path):
    layer = LayerParameter(name="fc", type="InnerProduct")
    layer.blobs.add().ParseFromString(raw_blob(kind))
    path = tmp_path / "nv.caffemodel"
    path.write_bytes(NetParameter(layer=[layer]).SerializeToString())
    np.testing.assert_array_equal(caffemodel.read(path)["fc"][0], VALUES)


def test_raw_data_that_do_not_fill_the_shape_are_damaged():
    with pytest.raises(
        FormatError, match=r"^a blob of shape \(2, 3\) holds 4 bytes of raw_data instead of 12; the file is damaged$"
    ):
        blob.to_array(BlobProto.FromString(raw_blob(2, VALUES[0, :2])))


def test_numbers_of_the_reference_come_before_raw_data():
    plain = BlobProto(data=[1, 2, 3, 4, 5, 6])
    both = BlobProto.FromString(raw_blob(2) + plain.SerializeToString())
    np.testing.assert_array_equal(blob.to_array(both), [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("kind", [b"", bytes([10 << 3, 5]), bytes([10 << 3, 9])])
def test_raw_data_of_no_known_type_are_refused(kind):
    """BOOL (5) is one of NVIDIA's types, too, but not one that it reads."""
    data = raw_blob(2).replace(bytes([10 << 3, 2, 12 << 3 | 2]), kind + bytes([12 << 3 | 2]))
    with pytest.raises(
        FormatError, match=r"^a blob's raw_data has no raw_data_type; expected DOUBLE \(0\), FLOAT \(1\), FLOAT16"
    ):
        blob.to_array(BlobProto.FromString(data))
