"""caffe.io against answers of pycaffe (Caffe 1.0, scikit-image 0.19.3) on pictures that a formula draws."""

from __future__ import annotations

import functools
import io
import logging
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import caffe.io
from caffecli.errors import CaffeError, DataError
from caffecli.proto import caffe_pb2
from tests.caffe.pictures import picture

RESIZES = [
    ((9, 13, 3), (17, 20), 1), ((23, 31, 3), (8, 11), 1), ((23, 31, 3), (40, 11), 1), ((16, 16, 1), (28, 28), 1),
    ((40, 30, 1), (13, 13), 1), ((9, 13, 3), (9, 13), 1), ((1, 7, 3), (5, 1), 1), ((12, 9, 4), (21, 5), 1),
    ((12, 9, 2), (7, 30), 1), ((25, 16, 4), (15, 30), 1), ((11, 12, 3), (16, 9), 0), ((11, 12, 3), (16, 9), 3),
    ((11, 12, 5), (16, 9), 3), ((11, 12, 3), (5, 30), 2), ((11, 12, 4), (8, 19), 5), ((64, 48, 3), (7, 5), 1),
]  # fmt: skip


@pytest.fixture(scope="module")
def answers(golden: Path) -> dict[str, Any]:
    with np.load(golden / "pycaffe" / "io.npz") as file:
        return dict(file)


def close(got: Any, expected: Any, atol: float = 1e-4) -> None:
    assert got.dtype == expected.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("i", range(len(RESIZES)))
def test_resize_image(i: int, answers: dict[str, Any]) -> None:
    shape, dims, order = RESIZES[i]
    close(caffe.io.resize_image(picture(*shape, seed=i, low=-3, high=40 + i), dims, order), answers[f"resize/{i}"])


def test_resize_image_of_bytes_and_of_one_colour(answers: dict[str, Any]) -> None:
    for channels, name in [(3, "uint8"), (4, "uint8_4")]:
        image = picture(9, 13, channels, high=255).astype(np.uint8)
        close(caffe.io.resize_image(image, (12, 6)), answers[f"resize/{name}"])
    close(caffe.io.resize_image(np.full((4, 5, 3), 0.25, np.float32), (7, 3)), answers["resize/constant"])


def test_resize_image_without_smoothing_takes_what_lies_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caffe.io, "ANTI_ALIASING", False)
    image = picture(8, 6, 3)
    quarter = image.reshape(4, 2, 3, 2, 3).mean(axis=(1, 3))  # between four pixels when both sides are halved
    close(caffe.io.resize_image(image, (4, 3)), quarter, 1e-6)


def test_resize_image_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="cannot resize an image of shape \\(4, 3\\) to 0 x 3"):
        caffe.io.resize_image(np.arange(12.0).reshape(4, 3), (0, 3))
    with pytest.raises(ValueError, match="interpolation order 6: expected 0 \\(nearest\\), 1 \\(linear\\)"):
        caffe.io.resize_image(picture(4, 4, 3), (5, 5), 6)


def test_oversample(answers: dict[str, Any]) -> None:
    close(caffe.io.oversample([picture(12, 14, 3, seed=s) for s in range(2)], (8, 10)), answers["oversample/even"], 0)
    close(caffe.io.oversample([picture(13, 16, 1, seed=s) for s in range(2)], (8, 9)), answers["oversample/odd"], 0)
    with pytest.raises(ValueError, match="crops of 13 x 10 out of images at least as large; the images have 12 x 14"):
        caffe.io.oversample([picture(12, 14, 3)], (13, 10))


MEANS = {
    "none": None,
    "channels": np.array([104.0, 117.0, 123.0]),
    "exact": picture(10, 12, 3, 3, 90, 130).transpose(2, 0, 1).astype(float),
    "larger": picture(16, 16, 3, 4, 90, 130).transpose(2, 0, 1).astype(float),
    "smaller32": picture(6, 7, 3, 5, 90, 130).transpose(2, 0, 1),
}


@pytest.mark.parametrize("height", [10, 25])
@pytest.mark.parametrize("mean", MEANS)
def test_transformer(mean: str, height: int, answers: dict[str, Any]) -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 10, 12)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (2, 0, 1))
    transformer.set_raw_scale("data", 255)
    if MEANS[mean] is not None:
        transformer.set_mean("data", MEANS[mean])
    transformer.set_input_scale("data", 0.017)
    image = picture(height, {10: 12, 25: 19}[height], 3, seed=7)
    before = image.copy()
    made = transformer.preprocess("data", image)
    close(made, answers[f"preprocess/{mean}/{height}"])
    close(transformer.deprocess("data", made[None]), answers[f"deprocess/{mean}/{height}"])
    assert np.array_equal(image, before), "the caller's picture stays as it is"


def test_transformer_of_one_channel(answers: dict[str, Any]) -> None:
    transformer = caffe.io.Transformer({"data": (4, 1, 8, 8)})
    transformer.set_transpose("data", (2, 0, 1))
    transformer.set_channel_swap("data", (0,))
    mean = picture(8, 8, 1, 2)[:, :, 0]
    transformer.set_mean("data", mean)
    image = picture(11, 5, 1)
    made = transformer.preprocess("data", image)
    close(made, answers["preprocess/gray"])
    close(transformer.deprocess("data", made)[:, :, 0], made[0] + mean, 1e-6)


def test_a_mean_of_four_dimensions_loses_the_first_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 10, 12)})
    logger = logging.getLogger("caffecli")
    logger.addHandler(caplog.handler)
    try:
        transformer.set_mean("data", MEANS["exact"][None])
    finally:
        logger.removeHandler(caplog.handler)
    assert np.array_equal(transformer.mean["data"], MEANS["exact"])
    assert "The mean of input 'data' has shape (1, 3, 10, 12); taking it as (3, 10, 12)" in caplog.text


def test_a_mean_of_one_value_stays_that_value() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 10, 12)})
    transformer.set_mean("data", np.full((3, 4, 4), 7.0))
    assert transformer.mean["data"].shape == (3, 10, 12) and np.all(transformer.mean["data"] == 7)


def test_transformer_refuses_what_does_not_fit() -> None:
    transformer = caffe.io.Transformer({"data": (1, 3, 10, 12)})
    with pytest.raises(CaffeError, match="label is not one of the net inputs: data"):
        transformer.set_raw_scale("label", 255)
    with pytest.raises(Exception, match="Transpose order needs to have the same number of dimensions as the input"):
        transformer.set_transpose("data", (1, 0))
    with pytest.raises(
        Exception, match="Channel swap needs to have the same number of dimensions as the input channels"
    ):
        transformer.set_channel_swap("data", (1, 0))
    with pytest.raises(ValueError, match=r"Mean channels incompatible with input\. Input 'data' has 3, the mean 2"):
        transformer.set_mean("data", np.zeros(2))
    for shape in [(), (2, 3, 10, 12), (1, 1, 3, 10, 12)]:
        with pytest.raises(ValueError, match="Mean shape invalid"):
            transformer.set_mean("data", np.zeros(shape))
    with pytest.raises(ValueError, match=r"Mean shape invalid\. Input 'data' has 3 channels, the mean 2"):
        transformer.set_mean("data", np.zeros((2, 10, 12)))


def test_load_image_in_colour(tmp_path: Path) -> None:
    bgra = (picture(5, 4, 4) * 255).astype(np.uint8)
    rgb = bgra[:, :, 2::-1] / np.float32(255)
    for name, pixels, expected in [
        ("colour.png", bgra[:, :, :3], rgb),
        ("alpha.png", bgra, rgb),
        ("gray.png", bgra[:, :, 0], np.repeat(bgra[:, :, :1], 3, 2) / np.float32(255)),
        ("deep.png", bgra[:, :, :3].astype(np.uint16) * 257, rgb),
    ]:
        cv2.imwrite(str(tmp_path / name), pixels)
        close(caffe.io.load_image(tmp_path / name), expected.astype(np.float32), 1e-6)


def test_load_image_in_gray(tmp_path: Path) -> None:
    bgra = (picture(5, 4, 4) * 255).astype(np.uint8)
    b, g, r, alpha = np.moveaxis(bgra / 255, 2, 0)
    luminance = 0.2125 * r + 0.7154 * g + 0.0721 * b
    for name, pixels, expected in [
        ("colour.png", bgra[:, :, :3], luminance),
        ("alpha.png", bgra, luminance * alpha + (1 - alpha)),  # on white
        ("gray.png", bgra[:, :, 0], b),
    ]:
        cv2.imwrite(str(tmp_path / name), pixels)
        close(caffe.io.load_image(str(tmp_path / name), color=False), expected[:, :, None].astype(np.float32), 1e-6)


def test_load_image_tells_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        caffe.io.load_image(tmp_path / "none.png")
    for data in (b"", b"no picture", b"\xff\xd8\xff"):
        (tmp_path / "bad.jpg").write_bytes(data)
        with pytest.raises(DataError, match=rf"bad.jpg' \({len(data)} bytes\) is "):
            caffe.io.load_image(tmp_path / "bad.jpg")


class Trickle(io.RawIOBase):
    """A pipe: gives what it has little by little, and cannot go back."""

    def __init__(self, data: bytes) -> None:
        self.left = data

    def read(self, size: int = -1) -> bytes:
        part, self.left = self.left[:7], self.left[7:]
        return part


def test_load_image_of_streams_and_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As scikit-image took them: an upload in a web demo, a picture from the web."""
    data = cv2.imencode(".png", (picture(5, 4, 3) * 255).astype(np.uint8))[1].tobytes()
    file = tmp_path / "a b.png"
    file.write_bytes(data)
    (tmp_path / "text.png").write_bytes(b"no picture")
    expected = caffe.io.load_image(file)
    written = io.BytesIO()
    written.write(data)  # and not rewound
    with file.open("rb") as opened:
        sources: list[Any] = [io.BytesIO(data), written, opened, Trickle(data), file.as_uri(), str(file)]
        for source in sources:
            assert np.array_equal(caffe.io.load_image(source), expected)
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *_: None)
    monkeypatch.setenv("no_proxy", "*")
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert caffe.io.load_image(f"{url}/a%20b.png", color=False).shape == (5, 4, 1)
        with pytest.raises(OSError, match=rf"'{url}/none' cannot be read: HTTP 404, File not found"):
            caffe.io.load_image(f"{url}/none")
        with pytest.raises(DataError, match=rf"'{url}/text.png' \(10 bytes\) is no picture that OpenCV reads"):
            caffe.io.load_image(f"{url}/text.png")
        server.shutdown()
    for wrong, words in [
        ("http://127.0.0.1:1/x.png", "cannot be read: .*refused"),
        ("http://", "'http://' cannot be read: "),
        ((tmp_path / "none").as_uri(), "none' cannot be read: .*No such file"),
    ]:
        with pytest.raises(OSError, match=words) as caught:
            caffe.io.load_image(wrong)
        assert isinstance(caught.value, CaffeError) and "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError):
        caffe.io.load_image("ftp://127.0.0.1/x.png")
    monkeypatch.setattr("caffe.io._MOST", 20)
    bad: list[tuple[Any, str]] = [
        (io.BytesIO(data), "the stream has more than 20 bytes"),
        (file.as_uri(), "b.png' has more than 20 bytes"),
        (io.BytesIO(b"no picture"), r"the stream \(10 bytes\) is no picture that OpenCV reads"),
        (io.BytesIO(), r"the stream \(0 bytes\) is empty"),
        (io.StringIO("text"), 'the stream gives str, not bytes; open it with mode "rb"'),
    ]
    for source, words in bad:
        with pytest.raises(DataError, match=words):
            caffe.io.load_image(source)
    with pytest.raises(TypeError, match="takes a file's name, a URL or a stream of bytes, not int"):
        caffe.io.load_image(3)  # type: ignore[arg-type]


def test_blobprotos() -> None:
    array = np.arange(24.0).reshape(2, 3, 4)
    blob = caffe.io.array_to_blobproto(array, diff=-array)
    assert np.array_equal(caffe.io.blobproto_to_array(blob), array)
    assert np.array_equal(caffe.io.blobproto_to_array(blob, return_diff=True), -array)
    old = caffe_pb2.BlobProto(num=1, channels=2, height=1, width=2, data=[1, 2, 3, 4])
    assert caffe.io.blobproto_to_array(old).tolist() == [[[[1, 2]], [[3, 4]]]]
    assert caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=[123])) == 123
    with pytest.raises(ValueError, match=r"the BlobProto has shape \(\), but 2 numbers"):
        caffe.io.blobproto_to_array(caffe_pb2.BlobProto(data=[1, 2]))


def test_blobproto_vectors() -> None:
    arrays = [np.arange(6.0).reshape(2, 3), np.ones((1, 1, 2, 2))]
    back = caffe.io.blobprotovector_str_to_arraylist(caffe.io.arraylist_to_blobprotovector_str(arrays))
    assert [array.tolist() for array in back] == [array.tolist() for array in arrays]


def test_datums() -> None:
    for dtype, came in [(np.uint8, np.uint8), (np.float32, np.float64), (np.int64, np.float64)]:
        array = np.arange(24).reshape(2, 3, 4).astype(dtype)
        datum = caffe.io.array_to_datum(array, label=5)
        back = caffe.io.datum_to_array(datum)
        assert datum.label == 5 and back.dtype == came and np.array_equal(back, array)
        back += 1  # the caller's own
    assert not caffe.io.array_to_datum(np.zeros((1, 1, 1))).HasField("label")
    with pytest.raises(ValueError, match="Incorrect array shape"):
        caffe.io.array_to_datum(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"the Datum has shape \(1, 2, 2\), but 3 numbers"):
        caffe.io.datum_to_array(caffe_pb2.Datum(channels=1, height=2, width=2, data=b"abc"))
