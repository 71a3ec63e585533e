"""transform_param, held against its formula written with loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import mean
from caffecli.proto.caffe_pb2 import TEST, TRAIN, TransformationParameter
from caffecli.sources.transformer import Transformer


def transformer(text: str, phase: int = TRAIN) -> Transformer:
    return Transformer(text_format.Parse(text, TransformationParameter()), phase, "data")


def by_formula(
    picture: np.ndarray, draws: np.ndarray, param: TransformationParameter, phase: int, image: np.ndarray | None
) -> np.ndarray:
    channels, height, width = picture.shape
    crop = param.crop_size
    out_h, out_w = (crop, crop) if crop else (height, width)
    if crop and phase == TRAIN:
        y, x = int(draws[1]) % (height - crop + 1), int(draws[2]) % (width - crop + 1)
    else:
        y, x = ((height - crop) // 2, (width - crop) // 2) if crop else (0, 0)
    mirrored = param.mirror and draws[0] % 2
    out = np.empty((channels, out_h, out_w), np.float32)
    for c in range(channels):
        for h in range(out_h):
            for w in range(out_w):
                value = np.float32(picture[c, y + h, x + w])
                if image is not None:
                    value = value - image[c, y + h, x + w]
                elif param.mean_value:
                    value = value - np.float32(param.mean_value[c if len(param.mean_value) > 1 else 0])
                out[c, h, out_w - 1 - w if mirrored else w] = value * np.float32(param.scale)
    return out


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    scale=st.sampled_from([1.0, 0.00390625, 0.017]),
    crop=st.sampled_from([0, 3, 5]),
    mirror=st.booleans(),
    means=st.sampled_from(["none", "one", "each", "file"]),
    phase=st.sampled_from([TRAIN, TEST]),
    floats=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_one_and_many_are_the_formula(
    tmp_path: Path, scale: float, crop: int, mirror: bool, means: str, phase: int, floats: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pictures = rng.integers(0, 256, (4, 3, 5, 7), dtype=np.uint8)
    pictures = pictures * np.float32(1.7) if floats else pictures
    draws = rng.integers(0, 2**32, (4, 3), dtype=np.uint32)
    param = TransformationParameter(scale=scale, crop_size=crop, mirror=mirror)
    image = None
    if means == "file":
        image = rng.random((3, 5, 7), dtype=np.float32) * 200
        mean.write(tmp_path / "mean.binaryproto", image)
        param.mean_file = str(tmp_path / "mean.binaryproto")
    elif means != "none":
        param.mean_value.extend([104.5, 117.25, 123.1][: 1 if means == "one" else 3])
    expected = np.stack([by_formula(p, d, param, phase, image) for p, d in zip(pictures, draws, strict=True)])

    t = Transformer(param, phase, "data")
    assert t.shape((3, 5, 7), "record '0'") == expected.shape[1:]
    out = np.full_like(expected, np.nan)
    t.many(pictures, draws, out)
    np.testing.assert_array_equal(out, expected)
    out = np.full_like(expected, np.nan)
    for picture, numbers, top in zip(pictures, draws, out, strict=True):
        t.one(picture, numbers, top)
    np.testing.assert_array_equal(out, expected)


def test_an_interleaved_image_is_transformed_like_a_planar_one() -> None:
    t = transformer("crop_size: 4 mirror: true mean_value: 3 scale: 0.5")
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    draws = np.array([1, 2, 3], np.uint32)
    outs = np.empty((2, 3, 4, 4), np.float32)
    t.one(image.transpose(2, 0, 1), draws, outs[0])
    t.one(np.ascontiguousarray(image.transpose(2, 0, 1)), draws, outs[1])
    np.testing.assert_array_equal(outs[0], outs[1])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'mean_value: 3 mean_file: "m.binaryproto"',
            "layer 'data': transform_param has both mean_file and mean_value; keep one",
        ),
        (
            "force_color: true force_gray: true",
            "layer 'data': transform_param has both force_color and force_gray; keep one",
        ),
    ],
)
def test_settings_that_exclude_each_other(text: str, words: str) -> None:
    with pytest.raises(SpecError) as raised:
        transformer(text)
    assert str(raised.value) == words


def test_a_count_of_mean_values_that_does_not_fit() -> None:
    with pytest.raises(SpecError) as raised:
        transformer("mean_value: 1 mean_value: 2").shape((3, 5, 5), "record 'k'")
    assert (
        str(raised.value)
        == "layer 'data': expected one mean_value, or one for each of the 3 channel(s) of record 'k', got 2"
    )


def test_a_crop_larger_than_the_picture() -> None:
    with pytest.raises(DataError) as raised:
        transformer("crop_size: 6").shape((3, 5, 8), "record 'k'")
    assert str(raised.value) == (
        "layer 'data': crop_size 6 is larger than record 'k', which is 5 × 8 (height × width); "
        "lower crop_size or resize the pictures"
    )


def test_a_mean_of_another_shape() -> None:
    mean.write("m.binaryproto", np.zeros((3, 4, 4), np.float32))
    with pytest.raises(DataError) as raised:
        transformer('mean_file: "m.binaryproto"').shape((3, 5, 8), "record 'k'")
    assert str(raised.value) == (
        "layer 'data': mean_file 'm.binaryproto' is 3 × 4 × 4, record 'k' is 3 × 5 × 8; "
        "compute the mean of this data with compute_image_mean"
    )


def test_a_mean_file_that_is_missing() -> None:
    with pytest.raises(FormatError, match=r"layer 'data', mean_file: .*'m\.binaryproto'"):
        transformer('mean_file: "m.binaryproto"')
