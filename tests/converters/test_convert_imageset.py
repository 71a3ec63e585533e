"""convert_imageset: the reference's databases and log lines, and wrong input."""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffecli.errors import DataError, FormatError
from caffecli.formats import datum
from caffecli.formats.db import Record, open_reader
from caffecli.formats.list_file import Entry
from converters.convert_imageset import Options, convert_imageset, shuffled

CASES: dict[str, tuple[str, Options]] = {
    "plain_lmdb": ("list_same_size.txt", Options()),
    "plain_leveldb": ("list_same_size.txt", Options(backend="leveldb")),
    "checked_lmdb": ("list_same_size.txt", Options(check_size=True)),
    "gray_lmdb": ("list.txt", Options(gray=True, resize_height=20, resize_width=20)),
    "resized_lmdb": ("list.txt", Options(resize_height=32, resize_width=36)),
    "encoded_asis_lmdb": ("list_same_size.txt", Options(encoded=True)),
    "encoded_lmdb": ("list_same_size.txt", Options(encoded=True, encode_type="png")),
}


def records(path: Path) -> list[Record]:
    with open_reader(path) as reader:
        return list(reader)


def arrays(path: Path, color: bool | None = None) -> list[np.ndarray]:
    return [datum.to_array(datum.decode(value), color) for _, value in records(path)]


def bare(text: str) -> list[str]:
    return [re.sub(r"^([IWEF])\d+ [\d:.]+ +\d+ ", r"\1 ", line) for line in text.splitlines()]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: Any, name: str
) -> None:
    tools = golden / "tools"
    list_file, options = CASES[name]
    monkeypatch.chdir(tmp_path)
    assert convert_imageset(f"{tools}/images/", tools / list_file, name, options) == len(
        (tools / list_file).read_text().splitlines()
    )
    assert log.lines == bare((tools / f"{name}.convert_imageset.log").read_text())
    assert records(tmp_path / name) == records(tools / name)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures: a PNG, a JPEG, and a wider PNG in a folder with a space."""
    folder = tmp_path / "pictures"
    (folder / "a b").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("1.png", (4, 5, 3)), ("2.JPEG", (4, 5, 3)), ("a b/3 x.png", (4, 9, 3))):
        assert cv2.imwrite(str(folder / name), rng.integers(0, 256, size, np.uint8))
    (tmp_path / "list").write_text("1.png 0\n2.JPEG 1\na b/3 x.png -7\n")
    return folder


def test_names_may_hold_spaces_and_keys_are_the_lines(pictures: Path, tmp_path: Path) -> None:
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db")
    assert [key for key, _ in records(tmp_path / "db")] == [
        b"00000000_1.png",
        b"00000001_2.JPEG",
        b"00000002_a b/3 x.png",
    ]
    assert [datum.decode(value).label for _, value in records(tmp_path / "db")] == [0, 1, -7]


def test_the_root_may_lack_its_slash_or_be_a_beginning(pictures: Path, tmp_path: Path) -> None:
    for index, (root, names) in enumerate(
        [
            (f"{pictures}", "1.png"),
            (f"{pictures}/", "1.png"),
            (f"{pictures}", "/1.png"),
            (f"{pictures}/1.", "png"),
            ("", pictures / "1.png"),
        ]
    ):
        (tmp_path / "list").write_text(f"{names} 3\n")
        convert_imageset(root, tmp_path / "list", tmp_path / f"db{index}")
        ((key, value),) = records(tmp_path / f"db{index}")
        assert key == f"00000000_{names}".encode()
        assert datum.decode(value).width == 5


def test_pictures_that_cannot_be_read_are_left_out(pictures: Path, tmp_path: Path, log: Any) -> None:
    (pictures / "bad.jpg").write_bytes(b"no picture")
    (pictures / "empty.jpg").touch()
    (tmp_path / "list").write_text("none.jpg 0\n1.png 1\n\nbad.jpg 2\nempty.jpg 2\n2.JPEG 3\r\n")
    assert convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db") == 2
    assert [key for key, _ in records(tmp_path / "db")] == [b"00000001_1.png", b"00000005_2.JPEG"]
    remedy = "it is left out: save or download it anew, or take it out of the list"
    wanted = [
        f"E io.cpp:80] Could not open or find file {pictures}/{name}: it {why}"
        for name, why in (
            ("none.jpg", "is not there: check the root folder and the list"),
            ("", "is not there: the line is blank"),
            ("bad.jpg", f"is no picture that OpenCV reads; {remedy}"),
            ("empty.jpg", f"is empty; {remedy}"),
        )
    ]
    assert [line for line in log.lines if line.startswith("E")] == wanted
    left_out = "Left out 4 of the 6 pictures: 2 not there, 1 no picture that OpenCV reads, 1 empty"
    assert f"W convert_imageset.cpp:153] {left_out}" in log.lines
    assert log.lines[0] == "I convert_imageset.cpp:89] A total of 6 images."


def test_no_picture_at_all_is_an_error(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none of the 3 pictures of '.*/list' could be read below '/nowhere/': '/nowhere/1.png' is not"
    ):
        convert_imageset("/nowhere/", tmp_path / "list", tmp_path / "db")
    assert not (tmp_path / "db").exists()


def test_shuffle_keeps_the_pairs(pictures: Path, tmp_path: Path, log: Any) -> None:
    (tmp_path / "list").write_text("".join(f"{'12'[i % 2]}.{('png', 'JPEG')[i % 2]} {i}\n" for i in range(40)))
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db", Options(shuffle=True, seed=1))
    labels = []
    for key, value in records(tmp_path / "db"):
        labels.append(datum.decode(value).label)
        assert key.endswith((b"png", b"JPEG")[labels[-1] % 2])
    assert sorted(labels) == list(range(40))
    assert labels != sorted(labels)
    assert log.lines[:2] == [
        "I convert_imageset.cpp:86] Shuffling data",
        "I convert_imageset.cpp:89] A total of 40 images.",
    ]


def test_thousands_are_logged(pictures: Path, tmp_path: Path, log: Any) -> None:
    (tmp_path / "list").write_text("1.png 0\n" * 2000)
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db")
    assert log.lines[-2:] == [f"I convert_imageset.cpp:147] Processed {count} files." for count in (1000, 2000)]


@pytest.mark.parametrize("encoded", [False, True])
def test_check_size_names_the_line(pictures: Path, tmp_path: Path, encoded: bool) -> None:
    with pytest.raises(
        DataError, match=r"list:3: 'a b/3 x.png' has 4 × 9 × 3, the first picture 4 × 5 × 3; give --resize_height"
    ):
        convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db", Options(check_size=True, encoded=encoded))
    assert not (tmp_path / "db").exists()
    options = Options(check_size=True, encoded=encoded, resize_height=6, resize_width=7)
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db", options)
    assert {array.shape for array in arrays(tmp_path / "db")} == {(3, 6, 7)}


def test_only_one_size_does_not_resize(pictures: Path, tmp_path: Path, log: Any) -> None:
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db", Options(resize_height=6))
    assert arrays(tmp_path / "db")[0].shape == (3, 4, 5)
    words = "The pictures keep their sizes, as in Caffe: give both --resize_width and --resize_height to resize them"
    assert f"W convert_imageset.cpp:89] {words}" in log.lines


def test_encoded_keeps_files_that_fit_and_encodes_others(pictures: Path, tmp_path: Path, log: Any) -> None:
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "asis", Options(encoded=True))
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "jpg", Options(encode_type="jpg"))
    convert_imageset(
        f"{pictures}/",
        tmp_path / "list",
        tmp_path / "gray",
        Options(encode_type="png", gray=True, resize_height=4, resize_width=4),
    )
    files = [(pictures / name).read_bytes() for name in ("1.png", "2.JPEG", "a b/3 x.png")]
    stored = {name: [datum.decode(value) for _, value in records(tmp_path / name)] for name in ("asis", "jpg", "gray")}
    assert [d.data for d in stored["asis"]] == files
    assert [d.data == file for d, file in zip(stored["jpg"], files, strict=True)] == [False, True, False]
    assert all(d.data.startswith(b"\xff\xd8") for d in stored["jpg"])
    assert all(d.encoded and not d.HasField("channels") for d in stored["jpg"])
    assert [array.shape for array in arrays(tmp_path / "gray")] == [(1, 4, 4)] * 3
    assert "I convert_imageset.cpp:92] encode_type specified, assuming encoded=true." in log.lines


def test_encodings_that_cannot_be_are_named(pictures: Path, tmp_path: Path, log: Any) -> None:
    with pytest.raises(DataError, match=r"'1.png' \(line 1\): cannot encode as 'abc'; give --encode_type png or jpg"):
        convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db", Options(encode_type="abc"))
    (tmp_path / "list").write_text("1.png 0\nnone 0\n")
    convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "one", Options(encoded=True))
    assert "W convert_imageset.cpp:117] Failed to guess the encoding of 'none'" in log.lines
    (pictures / "plain").write_bytes((pictures / "1.png").read_bytes())
    (tmp_path / "list").write_text("plain 0\n")
    with pytest.raises(
        DataError, match=r"'plain' \(line 1\) has no extension to tell its encoding; give --encode_type"
    ):
        convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db", Options(encoded=True))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.png 1\nb.png cat\n", r"/list', line 2: .* 'cat' is no whole number; the line is 'b.png cat'"),
        ("7\n", r"/list', line 1: expected a path and its label \('images/cat.jpg 3'\): there is no path"),
    ],
)
def test_wrong_lists_are_named(pictures: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(DataError, match=words):
        convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db")
    assert not (tmp_path / "db").exists()


def test_a_missing_list_and_an_existing_database_are_named(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cannot read '.*/nolist': No such file"):
        convert_imageset(f"{pictures}/", tmp_path / "nolist", tmp_path / "db")
    (tmp_path / "db").mkdir()
    with pytest.raises(FormatError, match="/db' exists; remove it or choose another name"):
        convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db")
    with pytest.raises(FormatError, match="exists"):
        convert_imageset(f"{pictures}/", tmp_path / "list", pictures / "1.png")


def test_a_failure_at_the_end_leaves_nothing(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(FormatError, match=r"cannot write '.*/db': No space left on device; free some space"):
        convert_imageset(f"{pictures}/", tmp_path / "list", tmp_path / "db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list", "pictures"]


def test_names_need_not_be_utf8(pictures: Path, tmp_path: Path) -> None:
    name = b"caf\xe9.png"
    Path(os.fsdecode(os.fsencode(pictures) + b"/" + name)).write_bytes((pictures / "1.png").read_bytes())
    (tmp_path / "list").write_bytes(name + b" 4\n")
    convert_imageset(str(pictures), tmp_path / "list", tmp_path / "db")
    assert records(tmp_path / "db")[0][0] == b"00000000_" + name


def test_lists_shuffle_by_seed() -> None:
    entries = [Entry(i + 1, str(i), i) for i in range(20)]
    assert shuffled(entries, 3) == shuffled(entries, 3) != shuffled(entries, 4)
