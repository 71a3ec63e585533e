"""SSD's changes to pictures: single cases against OpenCV and numpy, and their probabilities."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffecli.errors import DataError, SpecError
from caffecli.proto.caffe_pb2 import AnnotatedDataParameter, NoiseParameter, ResizeParameter, TransformationParameter
from caffecli.sources import augment
from caffecli.sources.augment import Augmenter

PICTURE = np.random.default_rng(7).integers(0, 256, (12, 16, 3), dtype=np.uint8)
BOX = np.array([[2, 0, 0.25, 0.25, 0.75, 0.5, 0]], np.float32)


def augmenter(text: str, samplers: str = "") -> Augmenter:
    annotated = text_format.Parse(samplers, AnnotatedDataParameter())
    return Augmenter(text_format.Parse(text, TransformationParameter()), "d", annotated)


def noting(note: Callable[[float], None]) -> Callable[[np.ndarray, float], np.ndarray]:
    """A change of a picture that changes nothing, and notes its number."""

    def change(picture: np.ndarray, number: float) -> np.ndarray:
        note(number)
        return picture

    return change


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- colours -----------------------------------------------------------------------------------------------------


def scaled(image: np.ndarray, factor: float, delta: float) -> np.ndarray:
    """OpenCV's convertTo of bytes: rounded half to even, saturated."""
    return np.rint(image.astype(np.float32) * np.float32(factor) + np.float32(delta)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("delta", [-40.5, 0.0, 31.25])
def test_brightness(delta: float) -> None:
    np.testing.assert_array_equal(augment.brightness(PICTURE, delta), scaled(PICTURE, 1, delta))


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.0009, 1.5])
def test_contrast(factor: float) -> None:
    expected = PICTURE if abs(factor - 1) < 1e-3 else scaled(PICTURE, factor, 0)
    np.testing.assert_array_equal(augment.contrast(PICTURE, factor), expected)


@pytest.mark.parametrize(
    ("channel", "factor", "delta"), [(1, 0.5, 0.0), (1, 1.5, 0.0), (0, 1.0, -18.5), (0, 1.0, 18.0)]
)
def test_saturation_and_hue(channel: int, factor: float, delta: float) -> None:
    planes = cv2.cvtColor(PICTURE, cv2.COLOR_BGR2HSV)
    planes[..., channel] = scaled(planes[..., channel], factor, delta)
    expected = cv2.cvtColor(planes, cv2.COLOR_HSV2BGR)
    got = augment.saturation(PICTURE, factor) if channel else augment.hue(PICTURE, delta)
    np.testing.assert_array_equal(got, expected)


def test_hue_does_not_go_around() -> None:
    """Below 0 it stays there: red that is turned back stays red."""
    red = np.full((2, 2, 3), (10, 10, 200), np.uint8)
    np.testing.assert_array_equal(augment.hue(red, -30), red)
    assert augment.hue(red, 30)[0, 0, 1] > 100  # yellow


@pytest.mark.parametrize("what", ["brightness", "contrast", "hue", "saturation"])
def test_probabilities(what: str) -> None:
    """Each happens with its own probability, and its number comes evenly from its range."""
    ranges = {"brightness": (-20, 20), "contrast": (0.5, 0.9), "hue": (-18, 18), "saturation": (0.2, 0.6)}
    low, high = ranges[what]
    bounds = f"{what}_lower: {low} {what}_upper: {high}" if low > 0 else f"{what}_delta: {high}"
    work = augmenter(f"distort_param {{ {what}_prob: 0.3 {bounds} }}")
    image = np.full((1, 1, 3), (100, 150, 200), np.uint8)
    drawn: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augment, what, noting(drawn.append))
        for seed in range(1500):
            work.apply(image, rng(seed))
    assert len(drawn) / 1500 == pytest.approx(0.3, abs=0.04)
    assert low <= min(drawn) and max(drawn) <= high
    assert np.mean(drawn) == pytest.approx((low + high) / 2, abs=0.05 * (high - low))


def _say(said: list[str], what: str, _: float) -> None:
    said.append(what)


def test_contrast_comes_second_or_fourth() -> None:
    text = " ".join(f"{what}_prob: 1" for what in ("brightness", "contrast", "saturation", "hue"))
    orders: dict[str, int] = {}
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("brightness", "contrast", "saturation", "hue"):
            patch.setattr(augment, name, noting(functools.partial(_say, said, name[0])))
        for seed in range(400):
            said.clear()
            augmenter(f"distort_param {{ {text} }}").apply(PICTURE, rng(seed))
            orders["".join(said)] = orders.get("".join(said), 0) + 1
    assert orders.keys() == {"bcsh", "bshc"}
    assert orders["bcsh"] == pytest.approx(200, abs=40)


def test_the_order_of_channels() -> None:
    work = augmenter("distort_param { random_order_prob: 0.5 }")
    seen: dict[tuple[int, ...], int] = {}
    for seed in range(600):
        pixel = tuple(work.apply(np.array([[[1, 2, 3]]], np.uint8), rng(seed))[0][0, 0].tolist())
        seen[pixel] = seen.get(pixel, 0) + 1
    assert len(seen) == 6
    assert seen.pop((1, 2, 3)) == pytest.approx(350, abs=50)
    assert all(count == pytest.approx(50, abs=25) for count in seen.values())


# -- places and sizes --------------------------------------------------------------------------------------------


def test_expand() -> None:
    canvas = augment.expand(PICTURE, (20, 30), (5, 7), [104.5, 117.25, 300])
    assert canvas.shape == (20, 30, 3) and canvas.dtype == np.uint8
    np.testing.assert_array_equal(canvas[5:17, 7:23], PICTURE)
    np.testing.assert_array_equal(canvas[0, 0], [104, 117, 255])  # as cv::saturate_cast, half to even
    assert augment.expand(PICTURE[..., 0], (20, 30), (5, 7), []).sum() == PICTURE[..., 0].sum()


def test_expand_moves_the_boxes() -> None:
    work = augmenter("expand_param { prob: 1 max_expand_ratio: 4 } mean_value: 9")
    image = np.zeros((10, 20, 3), np.uint8)
    image[2:6, 5:15] = 255
    box = np.array([[1, 0, 0.25, 0.2, 0.75, 0.6, 0]], np.float32)
    ratios = []
    for seed in range(300):
        canvas, (row,) = work.apply(image, rng(seed), box)
        height, width = canvas.shape[:2]
        ratios.append(width / 20)
        x1, y1, x2, y2 = (row[2:6] * [width, height, width, height]).round(3)
        np.testing.assert_array_equal(np.argwhere(canvas[..., 0] == 255)[[0, -1]], [[y1, x1], [y2 - 1, x2 - 1]])
    assert 1 <= min(ratios) < 1.1 and 3.9 < max(ratios) < 4
    assert np.mean(ratios) == pytest.approx(2.5, abs=0.2)


def test_expand_sometimes() -> None:
    work = augmenter("expand_param { prob: 0.25 max_expand_ratio: 2 }")
    grown = [work.apply(PICTURE, rng(seed))[0].shape != PICTURE.shape for seed in range(600)]
    assert np.mean(grown) == pytest.approx(0.25, abs=0.05)


def test_cut() -> None:
    part = augment.cut(PICTURE, np.array([0.25, 0.2, 0.8, 0.99], np.float32))
    np.testing.assert_array_equal(part, PICTURE[2:11, 4:12])  # 0.55 * 16 = 8.8, 0.79 * 12 = 9.48
    assert augment.cut(PICTURE, np.array([0.99, 0.99, 1.0, 1.0], np.float32)).shape == (1, 1, 3)


def test_a_sampled_part() -> None:
    work = augmenter(
        "emit_constraint { emit_type: CENTER }",
        "batch_sampler { max_sample: 1 sampler { min_scale: 0.5 max_scale: 0.5 } }",
    )
    marked = np.zeros((40, 40, 1), np.uint8)
    marked[10:20, 10:30] = 1
    kept = 0
    for seed in range(200):
        part, boxes = work.apply(marked, rng(seed), BOX)
        assert {*part.shape[:2]} <= {19, 20}  # truncated, as in SSD
        kept += len(boxes)
        for row in boxes:  # the marked pixels fill the box, up to the pixel that truncation moves it by
            x1, y1, x2, y2 = (row[2:6] * 20).astype(int)
            assert part[y1:y2, x1:x2].mean() > 0.6
    assert 40 < kept < 160


def resize_param(text: str) -> ResizeParameter:
    return text_format.Parse(text, ResizeParameter())


MODES = {"LINEAR": cv2.INTER_LINEAR, "AREA": cv2.INTER_AREA, "NEAREST": cv2.INTER_NEAREST}
MODES |= {"CUBIC": cv2.INTER_CUBIC, "LANCZOS4": cv2.INTER_LANCZOS4}


@pytest.mark.parametrize("mode", MODES)
def test_warp(mode: str) -> None:
    got = augment.resize(PICTURE, resize_param(f"height: 7 width: 20 interp_mode: {mode}"), rng())
    np.testing.assert_array_equal(got, cv2.resize(PICTURE, (20, 7), interpolation=MODES[mode]))


def test_one_interpolation_of_several() -> None:
    param = resize_param("height: 7 width: 20 interp_mode: LINEAR interp_mode: AREA interp_mode: NEAREST")
    wanted = [cv2.resize(PICTURE, (20, 7), interpolation=MODES[mode]) for mode in ("LINEAR", "AREA", "NEAREST")]
    counts = [0, 0, 0]
    for seed in range(300):
        got = augment.resize(PICTURE, param, rng(seed))
        counts[next(i for i, want in enumerate(wanted) if np.array_equal(got, want))] += 1
    assert counts == pytest.approx([100, 100, 100], abs=30)


@pytest.mark.parametrize(
    ("size", "inner", "before"),
    [
        ((12, 16), (22, 30), (4, 0)),  # 30 / (4 / 3) = 22.5
        ((16, 12), (30, 22), (0, 4)),
        ((10, 10), (30, 30), (0, 0)),
        ((2, 90), (1, 30), (14, 0)),  # never nothing
    ],
)
def test_fit_large_size_and_pad(size: tuple[int, int], inner: tuple[int, int], before: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(1, 256, (*size, 3), dtype=np.uint8)
    text = "height: 30 width: 30 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 1 pad_value: 2 pad_value: 3"
    got = augment.resize(image, resize_param(text), rng())
    (top, left), (height, width) = before, inner
    expected = np.empty((30, 30, 3), np.uint8)
    expected[:] = 1, 2, 3
    expected[top : top + height, left : left + width] = cv2.resize(image, (width, height))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("mode", "border"), [("MIRRORED", "reflect"), ("REPEAT_NEAREST", "edge")])
def test_pad_modes(mode: str, border: str) -> None:
    text = f"height: 16 width: 16 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_mode: {mode}"
    got = augment.resize(PICTURE, resize_param(text), rng())
    np.testing.assert_array_equal(got, np.pad(PICTURE, ((2, 2), (0, 0), (0, 0)), mode=border))  # type: ignore[call-overload]


@pytest.mark.parametrize(("size", "wanted"), [((12, 16), (30, 40)), ((16, 12), (40, 30)), ((10, 10), (30, 30))])
def test_fit_small_size(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = np.random.default_rng(3).integers(0, 256, (*size, 3), dtype=np.uint8)
    got = augment.resize(image, resize_param("height: 30 width: 30 resize_mode: FIT_SMALL_SIZE"), rng())
    np.testing.assert_array_equal(got, cv2.resize(image, wanted[::-1]))


def test_boxes_follow_the_padding() -> None:
    """Of 16 × 12 pixels in 32 × 32: 24 rows, 4 above."""
    param = resize_param("height: 32 width: 32 resize_mode: FIT_LARGE_SIZE_AND_PAD")
    (row,) = augment.resized_boxes(BOX, (12, 16), param)
    np.testing.assert_allclose(row[2:6], [0.25, (4 + 6) / 32, 0.75, (4 + 12) / 32])
    (row,) = augment.resized_boxes(BOX, (16, 12), param)
    np.testing.assert_allclose(row[2:6], [(4 + 6) / 32, 0.25, (4 + 18) / 32, 0.5])
    for mode in ("WARP", "FIT_SMALL_SIZE"):
        param = resize_param(f"height: 32 width: 8 resize_mode: {mode}")
        np.testing.assert_allclose(augment.resized_boxes(BOX, (12, 16), param), BOX, rtol=1e-6)


@pytest.mark.parametrize("mode", ["WARP", "FIT_SMALL_SIZE"])
def test_boxes_are_computed_in_ssds_steps(mode: str) -> None:
    """To pixels, to the new size, to parts: each number rounded to float32."""
    rng = np.random.default_rng(2)
    boxes = np.zeros((50, 7), np.float32)
    boxes[:, 2:4], boxes[:, 4:6] = rng.random((50, 2)) * 0.5, 0.5 + rng.random((50, 2)) * 0.5
    got = augment.resized_boxes(boxes, (61, 73), resize_param(f"height: 48 width: 48 resize_mode: {mode}"))
    for row, box in zip(got, boxes, strict=True):
        for place, value in enumerate(box[2:6].tolist()):
            old = np.float32((73, 61)[place % 2])
            aspect = np.float32(73) / np.float32(61)
            new = aspect * np.float32(48) if mode != "WARP" and place % 2 == 0 else np.float32(48)
            pixels = np.float32(np.float32(np.float32(value) * old) * new) / old
            assert row[2 + place] == np.float32(pixels) / new


# -- noise -------------------------------------------------------------------------------------------------------


def noised(text: str, image: np.ndarray = PICTURE, seed: int = 1) -> np.ndarray:
    return augment.noise(image, text_format.Parse(text, NoiseParameter()), rng(seed))


def of_luminance(image: np.ndarray, plane: np.ndarray) -> np.ndarray:
    planes = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    return cv2.cvtColor(np.dstack([plane, planes[..., 1:]]), cv2.COLOR_YCrCb2BGR)


LUMINANCE = np.ascontiguousarray(cv2.cvtColor(PICTURE, cv2.COLOR_BGR2YCrCb)[..., 0])
GRAY = cv2.cvtColor(PICTURE, cv2.COLOR_BGR2GRAY)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", PICTURE),
        ("decolorize: true", np.dstack([GRAY] * 3)),
        ("gauss_blur: true", cv2.GaussianBlur(PICTURE, (7, 7), 1.5)),
        ("hist_eq: true", of_luminance(PICTURE, cv2.equalizeHist(LUMINANCE))),
        ("clahe: true", of_luminance(PICTURE, cv2.createCLAHE(4).apply(LUMINANCE))),
        ("jpeg: 30", cv2.imdecode(cv2.imencode(".jpg", PICTURE, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)),
        ("erode: true", cv2.erode(PICTURE, np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], np.uint8))),
        ("posterize: true", PICTURE // 64 * 64 + 32),
        ("inverse: true", 255 - PICTURE),
        ("convert_to_hsv: true", cv2.cvtColor(PICTURE, cv2.COLOR_BGR2HSV)),
        ("convert_to_lab: true", cv2.cvtColor(PICTURE.astype(np.float32) / 255, cv2.COLOR_BGR2Lab)),
        ("inverse: true posterize: true", 255 - (PICTURE // 64 * 64 + 32)),
    ],
)
def test_noise(text: str, expected: np.ndarray) -> None:
    np.testing.assert_allclose(noised(text), expected, atol=1e-3)


def test_noise_of_a_gray_picture() -> None:
    np.testing.assert_array_equal(noised("hist_eq: true", GRAY), cv2.equalizeHist(GRAY))
    assert noised("jpeg: 50 erode: true posterize: true clahe: true gauss_blur: true", GRAY).shape == GRAY.shape


def test_salt_and_pepper() -> None:
    text = "saltpepper: true saltpepper_param { fraction: 0.1 value: 1 value: 2 value: 3 }"
    black = np.zeros((100, 100, 3), np.uint8)
    got = noised(text, black)
    salted = got.any(2)
    assert 900 < salted.sum() <= 1000
    assert {tuple(pixel) for pixel in got[salted].tolist()} == {(1, 2, 3)}
    np.testing.assert_array_equal(got, noised(text, black))
    assert not np.array_equal(got, noised(text, black, seed=2))
    assert not black.any()


# -- wrong use ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resize_param { height: 3 }", "layer 'd': resize_param: expected height and width above 0, got 3 and 0"),
        ("expand_param { max_expand_ratio: 1 }", "expand_param: expected max_expand_ratio above 1, got 1"),
        ('expand_param { max_expand_ratio: 2 } mean_file: "m"', "give mean_value in place of mean_file"),
        ("distort_param { contrast_lower: 2 contrast_upper: 1 }", "0 <= contrast_lower <= contrast_upper, got 2 and 1"),
        ("distort_param { hue_delta: -1 }", "expected hue_delta of at least 0, got -1"),
    ],
)
def test_settings_that_cannot_work(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        augmenter(text)


@pytest.mark.parametrize(
    ("text", "image", "words"),
    [
        ("distort_param { }", np.zeros((2, 2, 3), np.float32), "has float32 numbers; distort_param works on 8-bit"),
        ("distort_param { hue_prob: 1 hue_delta: 9 }", GRAY, "has 1 channel; distort_param's hue works on three: set"),
        ("distort_param { random_order_prob: 1 }", GRAY, "distort_param's random_order_prob works on three"),
        ("noise_param { decolorize: true }", GRAY, "noise_param's decolorize works on three"),
        ("noise_param { saltpepper: true }", GRAY, "expected value once, or once for each, got 0"),
        (
            "resize_param { height: 9 width: 9 resize_mode: FIT_LARGE_SIZE_AND_PAD pad_value: 1 pad_value: 2 }",
            PICTURE,
            "has 3 channel.s.; resize_param: expected pad_value once, or once for each, got 2",
        ),
        (
            "expand_param { max_expand_ratio: 2 } mean_value: 1 mean_value: 2",
            PICTURE,
            "there are 2 values of mean_value",
        ),
    ],
)
def test_pictures_that_a_setting_cannot_work_on(text: str, image: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        augmenter(text).apply(image, rng())


def test_nothing_to_do() -> None:
    assert not augmenter("crop_size: 3 mirror: true emit_constraint { }")
    for text in ("resize_param { height: 1 width: 1 }", "distort_param {}", "noise_param {}"):
        assert augmenter(text)
