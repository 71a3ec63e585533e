"""Datums: bytes, floats, encoded pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffecli.errors import DataError
from caffecli.formats import datum
from caffecli.proto.caffe_pb2 import AnnotatedDatum, Datum

COLOR = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 7  # height, width, channel


def encoded(image: np.ndarray) -> Datum:
    return Datum(data=cv2.imencode(".png", image)[1].tobytes(), label=1, encoded=True)


@given(arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3)), st.integers(-(2**31), 2**31 - 1))
def test_bytes_round_trip(array: np.ndarray, label: int) -> None:
    made = datum.decode(datum.from_array(array, label).SerializeToString())
    assert made.label == label
    result = datum.to_array(made)
    assert result.dtype == np.uint8
    np.testing.assert_array_equal(result, array)


@given(arrays.arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3), elements=st.floats(width=32)))
def test_floats_round_trip(array: np.ndarray) -> None:
    result = datum.to_array(datum.from_array(array))
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, array)


def test_pictures_decode_as_they_are_or_as_asked() -> None:
    color = encoded(COLOR)
    np.testing.assert_array_equal(datum.to_array(color), COLOR.transpose(2, 0, 1))
    assert datum.to_array(color, False).shape == (1, 2, 3)
    gray = encoded(COLOR[:, :, 0])
    assert datum.to_array(gray).shape == (1, 2, 3)
    np.testing.assert_array_equal(datum.to_array(gray, True), np.stack([COLOR[:, :, 0]] * 3))
    assert datum.to_array(encoded(np.zeros((2, 3, 4), np.uint8))).shape == (4, 2, 3)


def test_golden_pictures_decode(golden: Path) -> None:
    from caffecli.formats.db import open_reader

    with open_reader(golden / "tools" / "encoded_lmdb") as files, open_reader(golden / "tools" / "plain_lmdb") as plain:
        for (key, value), (other, wanted) in zip(files, plain, strict=True):
            assert key == other
            np.testing.assert_array_equal(datum.to_array(datum.decode(value)), datum.to_array(datum.decode(wanted)))


def test_damage_names_the_key() -> None:
    with pytest.raises(DataError, match=r"record '00000007_x.jpg': the encoded picture \(4 bytes\) is a broken"):
        datum.to_array(Datum(data=b"\xff\xd8\xff\xe0", encoded=True), key=b"00000007_x.jpg")
    with pytest.raises(DataError, match=r"record '7': the encoded picture \(0 bytes\) is empty"):
        datum.to_array(Datum(encoded=True), key="7")
    with pytest.raises(DataError, match="record 'k': expected 3 × 2 × 2 = 12 numbers, the datum holds 5"):
        datum.to_array(Datum(channels=3, height=2, width=2, data=b"12345"), key=b"k")
    with pytest.raises(DataError, match="record 'k': the value is not a Datum"):
        datum.decode(b"\xff\xff\xff", b"k")


def test_records_of_ssd_are_told() -> None:
    plain = datum.from_array(COLOR.transpose(2, 0, 1), 1)
    annotated = AnnotatedDatum(datum=plain, type=AnnotatedDatum.BBOX, annotation_group=[{"group_label": 3}])
    for inner in (plain, encoded(COLOR)):
        annotated.datum.CopyFrom(inner)
        with pytest.raises(DataError, match="record 'k': it is an AnnotatedDatum, a picture with boxes, as SSD's"):
            datum.to_array(datum.decode(annotated.SerializeToString()), key="k")


def test_arrays_have_three_dimensions() -> None:
    with pytest.raises(DataError, match=r"\(channels, height, width\), got shape \(2,\)"):
        datum.from_array(np.zeros(2))


def raw(label: int | None = 3, fill: int = 7, **settings: object) -> bytes:
    made = datum.from_array(np.full((1, 2, 3), fill, np.uint8), label)
    for name, value in settings.items():
        setattr(made, name, value)
    return made.SerializeToString()


def test_raw_datums_written_alike_are_taken_together() -> None:
    values = [raw(3, 1), raw(300, 2), raw(-1, 3), raw(None, 4), raw(5, 5, encoded=False)]
    stacked = datum.stack(values)
    assert stacked is not None
    pixels, labels = stacked
    assert pixels.shape == (5, 1, 2, 3)
    assert pixels[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 5]
    assert labels == [3, 300, -1, 0, 5]
    assert [datum.decode(value).label for value in values] == labels


def test_a_pixel_like_the_head_of_a_datum_is_a_pixel() -> None:
    values = [datum.from_array(np.full((1, 1, 1), fill, np.uint8), 1).SerializeToString() for fill in (8, 1, 34)]
    stacked = datum.stack(values)
    assert stacked is not None
    assert stacked[0].ravel().tolist() == [8, 1, 34]


@pytest.mark.parametrize(
    "other",
    [
        encoded(COLOR).SerializeToString(),
        datum.from_array(np.ones((1, 2, 3), np.float32), 1).SerializeToString(),
        datum.from_array(np.ones((2, 1, 3), np.uint8), 1).SerializeToString(),
        datum.from_array(np.ones((1, 2, 4), np.uint8), 1).SerializeToString(),
        raw() + Datum(float_data=[1.0]).SerializeToString(),
        raw() + Datum(data=b"again!").SerializeToString(),
        raw()[:8],
        raw()[3:],
        b"",
        b"no datum at all",
    ],
)
def test_others_are_not_taken_together(other: bytes) -> None:
    assert datum.stack([raw(), other]) is None
    assert datum.stack([other, raw()]) is None
