"""WindowSource: recorded windows, what is drawn how often, positions, and window files that cannot be used."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffecli import logs
from caffecli.errors import CaffeError, DataError, FormatError, SpecError
from caffecli.formats import mean
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter
from caffecli.sources import WindowSource
from caffecli.sources.window import extent
from tests.sources.opening import opened

GOLDEN = Path(__file__).parents[1] / "golden" / "window_data"
CASES = json.loads((GOLDEN / "cases.json").read_text())
HEIGHT, WIDTH = 20, 30


def param(extra: str = "", transform: str = "crop_size: 8", batch: int = 8, source: str = "w.txt") -> LayerParameter:
    return text_format.Parse(
        f'name: "w" type: "WindowData" top: "data" top: "label" transform_param {{ {transform} }} '
        f'window_data_param {{ source: "{source}" batch_size: {batch} {extra} }}',
        LayerParameter(),
    )


@pytest.fixture
def window_file(in_tmp: Path) -> str:
    """Two pictures; every window has another corner, and the class of one that
    is on an object is 10 · picture + its x1.
    """
    rng = np.random.default_rng(7)
    text = ""
    for i in range(2):
        cv2.imwrite(f"p{i}.png", rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8))
        rows = [
            (10 * i + x, overlap, x, i, x + 9, i + 12)
            for x, overlap in enumerate([0.1, 0.3, 0.5, 0.6, 0.69999, 0.7, 0.9, 1], 1)
        ]
        text += f"# {i}\np{i}.png\n3\n{HEIGHT}\n{WIDTH}\n{len(rows)}\n" + "".join(
            " ".join(map(str, row)) + "\n" for row in rows
        )
    Path("w.txt").write_text(text)
    return text


@pytest.mark.parametrize("name", CASES)
def test_windows_are_the_references(in_tmp: Path, name: str) -> None:
    for file in (*GOLDEN.glob("*.png"), GOLDEN / "mean.binaryproto"):
        shutil.copy(file, in_tmp)
    case, recorded = CASES[name], np.load(GOLDEN / "recorded.npz")
    Path("w.txt").write_text(case["windows"])
    made = text_format.Parse(
        f'name: "w" type: "WindowData" top: "data" top: "label" transform_param {{ {case["transform"]} }} '
        f'window_data_param {{ source: "w.txt" {case["window"]} }}',
        LayerParameter(),
    )
    source = opened(made, TRAIN, 1)
    data, label = source.next().arrays
    source.close()
    if made.transform_param.mirror:  # which are mirrored is chance; both ways are there
        kinds = {(float(n), one.tobytes()) for n, one in zip(label, data, strict=True)}
        expected = zip(recorded[f"{name}/label"], recorded[f"{name}/data"], strict=True)
        assert kinds == {(float(n), one.tobytes()) for n, one in expected}
    else:
        np.testing.assert_array_equal(data, recorded[f"{name}/data"], strict=True)
        np.testing.assert_array_equal(label, recorded[f"{name}/label"], strict=True)


@pytest.mark.parametrize(
    ("low", "high", "limit", "pad", "expected"),
    [
        (10, 19, 100, 0, (10, 20, 8, 0, 0)),  # Caffe's right edge lies one further
        (10, 19, 100, 2, (5, 25, 8, 0, 0)),
        (0, 9, 100, 2, (0, 15, 6, 2, 0)),
        (90, 99, 100, 2, (85, 99, 6, 0, 2)),
        (0, 0, 1, 0, (0, 0, 4, 0, 4)),
    ],
)
def test_extents_by_hand(low: int, high: int, limit: int, pad: int, expected: tuple[int, ...]) -> None:
    half = np.float32(high - low + 1) / np.float32(2)
    assert extent(low, high, half, limit, 8, pad) == expected


def test_a_batch_has_others_first_then_objects(window_file: str) -> None:
    source = WindowSource(param("fg_threshold: 0.7 bg_threshold: 0.5 fg_fraction: 0.3", batch=8), TRAIN)
    assert source.shapes == ((8, 3, 8, 8), (8,))
    for _ in range(20):
        batch = source.next()
        assert (batch.arrays[1][:6] == 0).all()
        corners = [int(key.split(":")[1].split(",")[0]) for key in batch.keys]
        picture = [int(key[1]) for key in batch.keys]
        assert set(corners[:6]) <= {1, 2}
        assert set(corners[6:]) <= {6, 7, 8}
        assert batch.arrays[1][6:].tolist() == [10 * p + x for p, x in zip(picture[6:], corners[6:], strict=True)]
    source.close()


@pytest.mark.parametrize(("fraction", "objects"), [(0, 0), (0.25, 2), (0.3, 3), (0.99, 9), (1, 10)])
def test_how_many_are_on_objects(window_file: str, fraction: float, objects: int) -> None:
    source = WindowSource(param(f"fg_fraction: {fraction}", batch=10), TRAIN)
    assert np.count_nonzero(source.next().arrays[1]) == objects
    source.close()


def test_windows_are_drawn_evenly(window_file: str) -> None:
    source = WindowSource(param("fg_threshold: 0.7 bg_threshold: 0.55 fg_fraction: 0.5", batch=120), TRAIN, seed=3)
    counts = Counter(key for _ in range(10) for key in source.next().keys)
    source.close()
    assert len(counts) == 12
    assert all(abs(n - 100) < 5 * 10 for n in counts.values())


def test_half_are_mirrored(window_file: str) -> None:
    Path("w.txt").write_text("# 0\np0.png\n3\n20\n30\n2\n1 1 3 4 12 17\n1 0 3 4 12 17\n")
    source = WindowSource(param(transform="crop_size: 8 mirror: true", batch=400), TEST, seed=3)
    data = source.next().arrays[0]
    source.close()
    straight = (data == data[0]).all(axis=(1, 2, 3))
    mirrored = (data == data[0][..., ::-1]).all(axis=(1, 2, 3))
    assert (straight ^ mirrored).all()
    assert abs(straight.sum() - 200) < 50


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 9),
    prefetch=st.integers(0, 2),
    taken=st.integers(0, 4),
    shard=st.sampled_from([(0, 1), (1, 3)]),
    seed=st.integers(0, 2**63 - 2),
    cache=st.booleans(),
)
def test_restored_goes_on_as_if_never_stopped(
    window_file: str, batch: int, prefetch: int, taken: int, shard: tuple[int, int], seed: int, cache: bool
) -> None:
    made = param(f"cache_images: {str(cache).lower()} context_pad: 1", "crop_size: 6 mirror: true", batch)
    made.data_param.prefetch = prefetch
    first, other = (opened(made, TRAIN, s, shard) for s in (seed, seed + 1))
    for _ in range(taken):
        first.next()
    state = json.loads(json.dumps(first.state))
    other.next()
    other.restore(state)
    for _ in range(3):
        expected, got = first.next(), other.next()
        assert (expected.keys, expected.state) == (got.keys, got.state)
        assert all(map(np.array_equal, expected.arrays, got.arrays))
    first.close()
    other.close()


def test_ranks_draw_windows_of_their_own(window_file: str) -> None:
    batches = [WindowSource(param(batch=40), TRAIN, 5, (rank, 2)).next() for rank in range(2)]
    assert batches[0].keys != batches[1].keys
    assert batches[0].state == batches[1].state


def test_cached_pictures_are_read_once(window_file: str) -> None:
    source = WindowSource(param("cache_images: true", batch=40), TRAIN)
    source.next()
    Path("p0.png").unlink()
    source.next()
    source.close()


def test_the_references_log_lines(window_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.show()
    WindowSource(param('fg_threshold: 0.75 root_folder: "./" context_pad: 2'), TRAIN).close()
    logs.hide(handler)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 3)[3] if line.startswith("I") else line for line in lines] == [
        "window_data_layer.cpp:53] Window data layer:",
        "  foreground (object) overlap threshold: 0.75",
        "  background (non-object) overlap threshold: 0.5",
        "  foreground sampling fraction: 0.25",
        "  cache_images: 0",
        "  root_folder: ./",
        "window_data_layer.cpp:148] num: 0 ./p0.png 3 20 30 windows to process: 8",
        "window_data_layer.cpp:157] Number of images: 2",
        *[f"window_data_layer.cpp:161] class {n} has {k} samples" for n, k in {0: 4, 7: 1, 8: 1, 17: 1, 18: 1}.items()],
        "window_data_layer.cpp:165] Amount of context padding: 2",
        "window_data_layer.cpp:168] Crop mode: warp",
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names no pictures"),
        ("a\0b", "is not a window file"),
        ("0\np0.png", "line 1: expected '#' and a picture's number, got '0'"),
        ("# 0\n", "expected the path of a picture, the file ends"),
        ("# 0\n\np0.png\n1\n", "line 4: expected 3 channels, for pictures are read in color, got '1'"),
        ("# 0\np0.png\n3\nhigh\n", "line 4: expected the picture's height, got 'high'"),
        ("# 0\np0.png\n3\n20\n30\n2\n1 1 0 0 5 5\n", "expected 2 windows for 'p0.png', the file ends after 1"),
        ("# 0\np0.png\n3\n20\n30\n2\n1 1 0 0 5 5\n1 1 0 0 5\n", "line 8: expected a window (class overlap x1 y1 x2 y2"),
        ("# 0\np0.png\n3\n20\n30\n1\n1 high 0 0 5 5\n", "line 7: expected a window"),
        ("# 0\np0.png\n3\n20\n30\n1\n1 nan 0 0 5 5\n", "line 7: expected a window"),
        ("# 0\np0.png\n3\n20\n30\n1\n1 1 0.5 0 5 5\n", "line 7: expected a window"),
        ("# 0\np0.png\n3\n20\n30\n1\n1 1 0 0 5 5\n1 1 0 0 5 5\n", "line 8: expected '#' and a picture's number"),
        (
            "# 0\np0.png\n3\n20\n30\n1\n0 1 0 0 5 5\n",
            "line 7: a window on an object needs a class of at least 1, got '0 1 0 0 5 5'",
        ),
        ("# 0\np0.png\n3\n20\n30\n1\n1 0 7 0 5 5\n", "line 7: a window needs x1 <= x2 and y1 <= y2"),
        ("# 0\np0.png\n3\n20\n30\n0\n", "no window of 'w.txt' does overlap an object by fg_threshold, 0.5"),
        ("# 0\np0.png\n3\n20\n30\n1\n1 1 0 0 5 5\n", "does overlap objects by less than bg_threshold, 0.5"),
    ],
)
def test_window_files_that_cannot_be_used(window_file: str, text: str, words: str) -> None:
    Path("w.txt").write_text(text)
    with pytest.raises(CaffeError) as caught:
        WindowSource(param(), TRAIN)
    assert isinstance(caught.value, DataError | FormatError)
    assert str(caught.value).startswith("layer 'w': ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("made", "error", "words"),
    [
        (param(source=""), SpecError, "names no window file"),
        (param(source="none"), FormatError, "source 'none' does not exist"),
        (param(transform=""), SpecError, "WindowData needs transform_param { crop_size: ... }"),
        (param(batch=0), SpecError, "expected batch_size of at least 1"),
        (param("fg_fraction: 1.5"), SpecError, "expected fg_fraction between 0 and 1, got 1.5"),
        (param('crop_mode: "Square"'), SpecError, "expected crop_mode 'warp' or 'square', got 'Square'"),
        (param("context_pad: 4"), SpecError, "context_pad 4 on both sides fills crop_size 8"),
        (param(transform="crop_size: 8 mean_value: 1 mean_value: 2"), SpecError, "one for each of 3 channels, got 2"),
        (param(transform='crop_size: 8 mean_value: 1 mean_file: "m"'), SpecError, "both mean_file and mean_value"),
        (param(transform='crop_size: 8 mean_file: "small"'), DataError, "at least 8 × 8, 'small' is 3 × 7 × 7"),
        (param(transform='crop_size: 8 mean_file: "flat"'), DataError, "at least 8 × 8, 'flat' is 3 × 9 × 20"),
        (
            param(transform='crop_size: 8 mean_file: "gray"'),
            DataError,
            "3 channels and at least 8 × 8, 'gray' is 1 × 9 × 9",
        ),
    ],
)
def test_settings_that_cannot_be_used(
    window_file: str, made: LayerParameter, error: type[CaffeError], words: str
) -> None:
    for name, shape in {"small": (3, 7, 7), "flat": (3, 9, 20), "gray": (1, 9, 9)}.items():
        mean.write(name, np.zeros(shape, np.float32))
    with pytest.raises(error) as caught:
        WindowSource(made, TRAIN)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "extra", "words"),
    [
        (
            ("p0.png", "p9.png"),
            "",
            "cannot read 'p9.png', which 'w.txt' names: No such file or directory; check the root folder",
        ),
        (("p0.png", "w.txt"), "", "'w.txt', which 'w.txt' names, is no picture that OpenCV reads"),
        (("13", "20"), "", "'p1.png', which is 30 × 20 (width × height); mend 'w.txt'"),
        ((" 1 0 10 12", " 40 40 50 50"), "context_pad: 1", "window 40 40 50 50 (x1 y1 x2 y2) lies outside of 'p0.png'"),
    ],
)
def test_pictures_that_cannot_be_used(window_file: str, change: tuple[str, str], extra: str, words: str) -> None:
    assert change[0] in window_file
    Path("w.txt").write_text(window_file.replace(*change))
    with pytest.raises(DataError) as caught:
        WindowSource(param(extra, batch=100), TRAIN).next()
    assert words in str(caught.value)
