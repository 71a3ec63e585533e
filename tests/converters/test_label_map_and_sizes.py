"""create_label_map and get_image_size, as SSD's tools write."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.errors import DataError, FormatError
from caffecli.formats import label_map
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.spec import text
from converters.create_label_map import create_label_map
from converters.get_image_size import get_image_size


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(lines: str, background: bool = False, delimiter: str = " ") -> list[tuple[str, int, str]]:
    Path("names.txt").write_bytes(lines.encode())
    count = create_label_map("names.txt", "map.prototxt", background, delimiter)
    items = text.read(Path("map.prototxt"), LabelMap).item
    assert count == len(items)
    return [(item.name, item.label, item.display_name) for item in items]


def test_names_alone_count_up() -> None:
    assert made("cat\ndog\r\n\n") == [("cat", 0, "cat"), ("dog", 1, "dog")]
    background = ("none_of_the_above", 0, "background")
    assert made("cat\ndog", background=True) == [background, ("cat", 1, "cat"), ("dog", 2, "dog")]


def test_numbers_and_names_to_show() -> None:
    assert made("cat 8\ndog 12\n") == [("cat", 8, "cat"), ("dog", 12, "dog")]
    assert made("1,1,person\n90;80,toothbrush", delimiter=",;") == [("1", 1, "person"), ("90", 80, "toothbrush")]


def test_the_text_is_as_ssds() -> None:
    made("cat 8 a_cat\n")
    assert Path("map.prototxt").read_text() == 'item {\n  name: "cat"\n  label: 8\n  display_name: "a_cat"\n}\n'


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("cat\nhot dog\n", "expected 1 field as before, got 2: 'hot dog'; for names of several words let another char"),
        ("hot dog\n", "expected a number after the name, got 'dog': 'hot dog'; --delimiter , leaves names of several"),
        ("cat 1\ndog\n", "'names.txt', line 2: expected 2 fields as before, got 1: 'dog'"),
        ("cat 1 a b\n", "'names.txt', line 1: expected 1 to 3 fields, got 4: 'cat 1 a b'"),
        ("cat one\n", "line 1: expected a number after the name, got 'one'"),
        ("cat  1\n", "line 1: expected a number after the name, got ''"),
    ],
)
def test_lists_that_are_none(lines: str, words: str) -> None:
    with pytest.raises(DataError) as error:
        made(lines)
    assert words in str(error.value)
    assert not Path("map.prototxt").exists()


def test_an_empty_list_and_one_that_is_not_utf8() -> None:
    with pytest.raises(FormatError, match=r"'names.txt' lists no classes; expected a name on each line"):
        made("\n", background=True)
    Path("names.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(DataError, match=r"'names.txt' is not UTF-8, as a label map has to be; save it so"):
        create_label_map("names.txt", "map.prototxt")


def test_each_names_number() -> None:
    labels = label_map.from_lines(["cat 8", "cat 9", "dog 1"], " ", True)
    assert label_map.numbers(labels) == {"none_of_the_above": 0, "cat": 9, "dog": 1}
    with pytest.raises(DataError, match="the name 'cat' is there twice, as 8 and as 9"):
        label_map.numbers(labels, check=True)


def pictures() -> None:
    Path("root/a b").mkdir(parents=True)
    cv2.imwrite("root/a b/one.v2.png", np.zeros((3, 4, 3), np.uint8))
    cv2.imwrite("root/two.jpg", np.zeros((5, 6), np.uint8))
    Path("list.txt").write_text("a b/one.v2.png x.xml\n\ntwo.jpg 7\n")


@pytest.mark.parametrize("root", ["root", "root/"])
def test_sizes(root: str) -> None:
    pictures()
    assert get_image_size(root, "list.txt", "sizes.txt") == 2
    assert Path("sizes.txt").read_text() == "one.v2 3 4\ntwo 5 6\n"


def test_sizes_by_number() -> None:
    pictures()
    Path("ids.txt").write_text("two 139\none.v2 285\n")
    get_image_size("root/", "list.txt", "sizes.txt", "ids.txt")
    assert Path("sizes.txt").read_text() == "285 3 4\n139 5 6\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("list.txt", b"none.jpg 7\n", "'list.txt', line 1: 'root/none.jpg' is not there: check the root folder"),
        ("list.txt", b"\n", "'list.txt' lists no pictures"),
        ("root/two.jpg", b"no", "'list.txt', line 3: 'root/two.jpg' is no picture that OpenCV reads"),
        ("ids.txt", b"two 2\n", "'list.txt', line 1: 'root/a b/one.v2.png': 'ids.txt' has no number of 'one.v2'"),
        ("ids.txt", b"two 2\ntwo 3\n", "'ids.txt', line 2: 'two' is there twice"),
        ("ids.txt", b"two\n", "'ids.txt', line 1: expected a name and its number, got 'two'"),
    ],
)
def test_what_is_refused(name: str, content: bytes, words: str) -> None:
    pictures()
    Path("ids.txt").write_text("two 139\none.v2 285\n")
    Path(name).write_bytes(content)
    with pytest.raises((DataError, FormatError)) as error:
        get_image_size("root/", "list.txt", "sizes.txt", "ids.txt")
    assert words in str(error.value)
    assert not Path("sizes.txt").exists()
