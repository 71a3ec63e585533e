"""ImageListSource: lists, order, shuffling, resizing, positions, and pictures that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffecli import logs, sources
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats.list_file import Entry, read_list
from caffecli.proto.caffe_pb2 import TRAIN
from caffecli.sources import ImageListSource
from tests.sources.opening import opened

ROOT = 'root_folder: "pics/"'


def labels(source: sources.Source, batches: int) -> list[int]:
    return [int(label) for _ in range(batches) for label in source.next().arrays[1]]


def test_pictures_come_in_the_lists_order(make: Any, pictures: list[np.ndarray], picture_list: str) -> None:
    source = ImageListSource(make.image_data(picture_list, 6, ROOT), TRAIN)
    assert source.shapes == ((6, 3, 8, 9), (6,))
    batches = [source.next() for _ in range(3)]
    np.testing.assert_array_equal(
        np.concatenate([b.arrays[0] for b in batches])[:10], np.stack(pictures).astype(np.float32)
    )
    assert [int(n) for b in batches for n in b.arrays[1]] == [i % 10 for i in range(18)]
    assert batches[0].keys == ("p0.png", "p1.png", "p2.png", "p 3.png", "p4.png", "p5.png")
    source.close()


def test_resize_and_gray(make: Any, pictures: list[np.ndarray], picture_list: str) -> None:
    source = ImageListSource(
        make.image_data(picture_list, 2, ROOT + " new_height: 5 new_width: 7 is_color: false"), TRAIN
    )
    expected = [cv2.resize(cv2.imread(f"pics/p{i}.png", cv2.IMREAD_GRAYSCALE), (7, 5)) for i in range(2)]
    np.testing.assert_array_equal(source.next().arrays[0], np.stack(expected)[:, None].astype(np.float32))
    source.close()


def test_each_epoch_has_a_new_order(make: Any, picture_list: str) -> None:
    source = ImageListSource(make.image_data(picture_list, 10, ROOT + " shuffle: true"), TRAIN, seed=4)
    epochs = [labels(source, 1) for _ in range(5)]
    source.close()
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_shuffles_are_even(make: Any, picture_list: str) -> None:
    firsts = []
    source = ImageListSource(make.image_data(picture_list, 1, ROOT + " shuffle: true"), TRAIN)
    for seed in range(600):
        source.restore({"seed": seed, "record": 0})
        firsts.append(labels(source, 1)[0])
    source.close()
    assert (abs(np.bincount(firsts, minlength=10) - 60) < 5 * np.sqrt(60)).all()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 13),
    shuffle=st.booleans(),
    rand_skip=st.integers(0, 9),
    crop=st.sampled_from([0, 4]),
    prefetch=st.integers(0, 2),
    taken=st.integers(0, 4),
    shard=st.sampled_from([(0, 1), (1, 3)]),
    seed=st.integers(0, 2**63 - 2),
)
def test_restored_goes_on_as_if_never_stopped(
    make: Any, picture_list: str, batch: int, shuffle: bool, rand_skip: int, crop: int, prefetch: int, taken: int,
    shard: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    extra = f"{ROOT} shuffle: {str(shuffle).lower()} rand_skip: {rand_skip}"
    param = make.image_data(picture_list, batch, extra, f"crop_size: {crop} mirror: true")
    param.data_param.prefetch = prefetch
    first, other = (opened(param, TRAIN, s, shard) for s in (seed, seed + 1))
    for _ in range(taken):
        first.next()
    state = first.state
    following = [first.next() for _ in range(3)]
    other.restore(state)
    for batch_ in following:
        again = other.next()
        assert (again.keys, again.state) == (batch_.keys, batch_.state)
        assert all(map(np.array_equal, again.arrays, batch_.arrays))
    first.close()
    other.close()


def test_ranks_share_the_pictures(make: Any, picture_list: str) -> None:
    whole, *parts = (
        opened(make.image_data(picture_list, n, ROOT + " shuffle: true"), TRAIN, 9, shard)
        for n, shard in ((6, (0, 1)), (3, (0, 2)), (3, (1, 2)))
    )
    for _ in range(4):
        keys = whole.next().keys
        assert [part.next().keys for part in parts] == [keys[0::2], keys[1::2]]
    for source in (whole, *parts):
        source.close()


def test_the_references_log_lines(make: Any, picture_list: str, capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.show()
    try:
        ImageListSource(make.image_data(picture_list, 4, ROOT + " shuffle: true rand_skip: 1"), TRAIN).close()
    finally:
        logs.hide(handler)
    assert [line.split(" ", 3)[3] for line in capsys.readouterr().err.splitlines()] == [
        "image_data_layer.cpp:38] Opening file list.txt",
        "image_data_layer.cpp:53] Shuffling data",
        "image_data_layer.cpp:63] A total of 10 images.",
        "image_data_layer.cpp:70] Skipping first 0 data points.",
    ]


def test_lists_of_all_spellings(in_tmp: Path) -> None:
    Path("list.txt").write_bytes("a.png 3\r\n\nsome dir/b c.png   -1\nä.png\t+7 \n  9 4".encode())
    assert read_list("list.txt") == [
        Entry(1, "a.png", 3),
        Entry(2, "", 0),
        Entry(3, "some dir/b c.png", -1),
        Entry(4, "ä.png", 7),
        Entry(5, "9", 4),
    ]


def test_single_pictures_may_vary_in_size(make: Any, pictures: list[np.ndarray], picture_list: str) -> None:
    cv2.imwrite("pics/p1.png", np.zeros((4, 6, 3), np.uint8))
    source = ImageListSource(make.image_data(picture_list, 1, ROOT), TRAIN)
    assert [source.next().arrays[0].shape for _ in range(3)] == [(1, 3, 8, 9), (1, 3, 4, 6), (1, 3, 8, 9)]
    source.close()


# -- wrong input -------------------------------------------------------------------------------------------------------


def failure(param: Any, kind: type[Exception], batches: int = 1) -> str:
    with pytest.raises(kind) as raised:
        source = opened(param, TRAIN, 0)
        try:
            for _ in range(batches):
                source.next()
        finally:
            source.close()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_pictures_of_two_sizes_in_a_batch(make: Any, picture_list: str) -> None:
    cv2.imwrite("pics/p2.png", np.zeros((4, 6, 3), np.uint8))
    assert failure(make.image_data(picture_list, 4, ROOT), DataError) == (
        "layer 'data': expected 3 × 8 × 9 (channels × height × width) as 'p0.png' ('list.txt', line 1) has, "
        "'p2.png' ('list.txt', line 3) has 3 × 4 × 6; resize the pictures, set crop_size, or use batch_size: 1"
    )


@pytest.mark.parametrize("first", [True, False])
def test_a_picture_that_is_missing(make: Any, picture_list: str, first: bool) -> None:
    Path("pics/p0.png" if first else "pics/p 3.png").unlink()
    name, line = ("p0.png", 1) if first else ("p 3.png", 4)
    assert failure(make.image_data(picture_list, 4, ROOT), DataError) == (
        f"layer 'data': cannot read '{name}' ('list.txt', line {line}), 'pics/{name}': No such file or directory; "
        "check the root folder and the list"
    )


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"no picture", "is no picture that OpenCV reads")])
def test_a_file_that_is_no_picture(make: Any, picture_list: str, content: bytes, words: str) -> None:
    Path("pics/p2.png").write_bytes(content)
    assert failure(make.image_data(picture_list, 4, ROOT), DataError) == (
        "layer 'data': 'p2.png' ('list.txt', line 3), 'pics/p2.png', " + words
    )


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("new_height: 5", "layer 'data': expected new_height and new_width together, got 5 and 0; set both or none"),
        ("batch_size: 0", "layer 'data': expected batch_size of at least 1, got 0"),
        ('source: ""', "layer 'data': image_data_param names no list; set source: \"list.txt\""),
    ],
)
def test_settings_that_are_wrong(make: Any, picture_list: str, extra: str, words: str) -> None:
    param = make.image_data(picture_list, 4, ROOT)
    field, value = extra.split(": ")
    setattr(param.image_data_param, field, value.strip('"') if '"' in value else int(value))
    assert failure(param, SpecError) == words


def test_a_list_that_does_not_exist(make: Any, in_tmp: Path) -> None:
    assert failure(make.image_data("none.txt"), FormatError) == (
        "layer 'data': source 'none.txt' does not exist; make the list first "
        f"(paths are relative to the working directory, {str(in_tmp)!r})"
    )


def test_a_list_that_names_nothing(make: Any) -> None:
    Path("list.txt").write_text("\n\n")
    assert failure(make.image_data("list.txt"), FormatError) == (
        "layer 'data': 'list.txt' lists no pictures; expected a path and its label on each line"
    )


def test_a_line_without_a_label(make: Any) -> None:
    Path("list.txt").write_text("a.png 3\nb.png\n")
    assert failure(make.image_data("list.txt"), DataError) == (
        "layer 'data': 'list.txt', line 2: expected a path and its label ('images/cat.jpg 3'): there is no label; "
        "the line is 'b.png'"
    )


def test_a_skip_past_the_end(make: Any, picture_list: str) -> None:
    text = failure(make.image_data(picture_list, 4, ROOT + " rand_skip: 1000000"), SpecError)
    assert text.startswith("layer 'data': rand_skip: 1000000 would skip ")
    assert text.endswith(" of the 10 pictures of 'list.txt'; lower it")
