"""resize_images: sizes, the middle that is cut out, names, what cannot be read, what is there already."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffecli.errors import DataError, FormatError
from converters.resize_images import Options, names, resize, resize_images


def picture(path: Path, rows: int, columns: int) -> np.ndarray:
    """A picture whose blue grows to the right and whose green grows downwards."""
    image = np.zeros((rows, columns, 3), np.uint8)
    image[..., 0] = np.linspace(0, 250, columns).astype(np.uint8)
    image[..., 1] = np.linspace(0, 250, rows).astype(np.uint8)[:, None]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, rows, columns in (
        ("a/wide.png", 40, 90),
        ("a b/tall.PNG", 90, 40),
        ("small.jpg", 9, 9),
        ("c/photo.JPEG", 80, 60),
    ):
        picture(tmp_path / "in" / name, rows, columns)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    return tmp_path / "in"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("crop", [False, True])
def test_all_have_one_size(folder: Path, tmp_path: Path, crop: bool) -> None:
    report = resize_images(folder, tmp_path / "out", Options(32, 20, crop=crop))
    assert (report.made, report.there, report.failed) == (4, 0, {})
    assert files(tmp_path / "out") == ["a b/tall.PNG", "a/wide.png", "c/photo.JPEG", "small.jpg"]
    assert {cv2.imread(str(tmp_path / "out" / name)).shape for name in files(tmp_path / "out")} == {(20, 32, 3)}
    assert (tmp_path / "out/small.jpg").read_bytes()[:2] == b"\xff\xd8"


@pytest.mark.parametrize(("rows", "columns"), [(40, 90), (90, 40), (33, 100), (64, 64), (31, 30), (7, 501)])
def test_the_middle_is_cut_out(rows: int, columns: int) -> None:
    """As in Caffe's tool: the shorter side gets the new size; the longer one and the offsets are rounded down."""
    image = np.random.default_rng(0).integers(0, 256, (rows, columns, 3)).astype(np.uint8)
    side = 32
    height, width = (side * rows // columns, side) if rows > columns else (side, side * columns // rows)
    whole = cv2.resize(image, (width, height))
    top, left = (height - side) // 2, (width - side) // 2
    made = resize(image, Options(side, side, crop=True))
    np.testing.assert_array_equal(made, whole[top : top + side, left : left + side])


def test_stretched_as_convert_imageset_does(tmp_path: Path) -> None:
    image = picture(tmp_path / "x.png", 33, 47)
    np.testing.assert_array_equal(resize(image, Options(20, 30)), cv2.resize(image, (20, 30)))


def test_lists(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a/wide.png 3\na b/tall.PNG 12\n\nsmall.jpg\na/wide.png 3\n")
    assert names(folder, tmp_path / "list.txt") == ["a/wide.png", "a b/tall.PNG", "small.jpg"]
    assert resize_images(folder, tmp_path / "out", list_file=tmp_path / "list.txt").made == 3
    for line, words in (
        ("../x.png 1", "leads out of the folder"),
        ("/x.png 1", "leads out"),
        ("", "lists no pictures"),
    ):
        (tmp_path / "list.txt").write_text(line + "\n")
        with pytest.raises(DataError, match=words):
            resize_images(folder, tmp_path / "out", list_file=tmp_path / "list.txt")


def test_what_cannot_be_read_is_reported(folder: Path, tmp_path: Path, log: Any) -> None:
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    (folder / "empty.png").write_bytes(b"")
    (tmp_path / "list.txt").write_text("broken.jpg 0\nsmall.jpg 1\nempty.png 1\nmissing.png 1\nnotes.txt 0\n")
    report = resize_images(folder, tmp_path / "out", list_file=tmp_path / "list.txt")
    assert report.made == 1
    assert report.failed == {
        "broken.jpg": "is a broken JPEG",
        "empty.png": "is empty",
        "missing.png": "No such file or directory",
        "notes.txt": "is no picture that OpenCV reads",
    }
    assert files(tmp_path / "out") == ["small.jpg"]
    assert f"E io.cpp:80] {folder}/missing.png: No such file or directory" in log.lines
    (tmp_path / "list.txt").write_text("broken.jpg 0\n")
    with pytest.raises(DataError, match="none of the 1 pictures"):
        resize_images(folder, tmp_path / "out", list_file=tmp_path / "list.txt")


def test_what_is_there_stays_unless_forced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    resize_images(folder, out, Options(8, 8))
    (out / "small.jpg").write_bytes(b"mine")
    (out / "a/wide.png").unlink()
    report = resize_images(folder, out, Options(8, 8))
    assert (report.made, report.there) == (1, 3)
    assert (out / "small.jpg").read_bytes() == b"mine"
    assert resize_images(folder, out, Options(8, 8, force=True)).made == 4
    assert (out / "small.jpg").read_bytes() != b"mine"


def test_wrong_folders(folder: Path, tmp_path: Path) -> None:
    for out in (folder, folder / "new"):
        with pytest.raises(DataError, match="the folder of the pictures; choose another"):
            resize_images(folder, out)
    with pytest.raises(DataError, match="is no folder"):
        resize_images(tmp_path / "none", tmp_path / "out")
    (tmp_path / "bare").mkdir()
    with pytest.raises(DataError, match="there are no pictures"):
        resize_images(tmp_path / "bare", tmp_path / "out")
    (tmp_path / "file").touch()
    with pytest.raises(FormatError, match="cannot write"):
        resize_images(folder, tmp_path / "file")


def test_no_part_of_a_file_stays(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FormatError, match="No space left on device; free some space"):
        resize_images(folder, tmp_path / "out")
    assert files(tmp_path / "out") == []
