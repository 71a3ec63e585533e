from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli import host
from caffecli.errors import DataError
from caffecli.formats import datum, picture
from caffecli.proto.caffe_pb2 import Datum


def photograph(extension: str = ".jpg", kind: type = np.uint8) -> bytes:
    """A picture of 40 × 50 pixels, encoded."""
    numbers: np.ndarray = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (40, 50, 3)).astype(kind)
    return cv2.imencode(extension, cv2.GaussianBlur(numbers, (7, 7), 3))[1].tobytes()


@pytest.mark.skipif(
    tuple(map(int, cv2.__version__.split(".")[:2])) < (4, 11), reason="reads damaged files otherwise than their bytes"
)
def test_damaged_jpegs_are_read_as_from_a_file(tmp_path: Path) -> None:
    """Without their end, cut off, or with other bytes in the middle: each is what cv2.imread makes of it."""
    whole, draw, read = photograph(), random.Random(0), 0
    cases = [whole[:-2], whole[:-1], whole + b"more", whole[: len(whole) // 2]]
    for _ in range(60):
        broken = bytearray(whole)
        for _ in range(draw.choice((0, 1, 3))):
            broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        cases.append(bytes(broken[: draw.randrange(len(broken))]))
    for data in cases:
        (tmp_path / "x.jpg").write_bytes(data)
        wanted = cv2.imread(str(tmp_path / "x.jpg"))
        if wanted is None:
            with pytest.raises(DataError, match=r"is a broken JPEG|is no picture|is empty"):
                picture.decode(data)
        else:
            read += 1
            np.testing.assert_array_equal(picture.decode(data), wanted)
            np.testing.assert_array_equal(datum.to_array(Datum(data=data, encoded=True)), wanted.transpose(2, 0, 1))
    assert read > 20


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\n <!DOCTYPE html><html>", "is a web page, saved instead of a picture; download it again"),
        (b"no picture", "is no picture that OpenCV reads"),
        (b"\xff\xd8\xff\xe0", "is a broken JPEG"),
        (photograph(".png")[:100], "is a broken PNG"),
        (cv2.imencode(".tiff", np.zeros((4, 4), np.float32))[1].tobytes(), "has float32 numbers, expected 8 bits"),
    ],
)
def test_what_is_no_picture_is_told(data: bytes, words: str) -> None:
    with pytest.raises(DataError, match=f"^{words}"):
        picture.decode(data, None)


def test_of_16_bits_the_upper_8_are_kept() -> None:
    data = photograph(".png", np.uint16)
    stored = picture.decode_as_stored(data)
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(picture.decode(data, None), stored >> 8)
    np.testing.assert_array_equal(picture.decode(data, None), picture.decode(data))  # as OpenCV does it
    np.testing.assert_array_equal(datum.to_array(Datum(data=data, encoded=True)), (stored >> 8).transpose(2, 0, 1))


def test_pictures_of_a_billion_pixels_are_refused() -> None:
    """OpenCV looks at the bound when it is imported, so in a process of its own."""
    program = """
import sys
from caffecli.errors import DataError
from caffecli.formats import picture
try:
    picture.decode(b"P6 30000 30000 255 ")
except DataError as error:
    print(error)
"""
    for bound in ("", "1000"):
        set_to = {host.PIXELS_VARIABLE: bound} if bound else {}
        said = subprocess.run(
            [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path), **set_to}, capture_output=True
        ).stdout.decode()
        assert said == (
            f"has more pixels than the bound, {bound or 2**28}; set OPENCV_IO_MAX_IMAGE_PIXELS to a larger number if "
            "it is meant to be so large\n"
        )


def test_a_part_of_a_png_that_claims_gigabytes() -> None:
    """OpenCV would take the memory before it looks whether the file is that long."""
    good = cv2.imencode(".png", np.zeros((4, 5, 3), np.uint8))[1].tobytes()
    at = good.index(b"IDAT") - 4
    with pytest.raises(DataError, match="is a broken PNG"):
        picture.decode(good[:at] + b"\xff\xff\xff\xf0" + good[at + 4 :])
    assert picture.decode(good).shape == (4, 5, 3)
