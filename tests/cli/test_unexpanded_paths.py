"""Paths as a shell would read them, in files that no shell reads; folders where files are wanted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize("path", ["~/train_lmdb", "$HOME/train_lmdb", "${HOME}/train_lmdb"])
def test_a_source(path: str, edit: Callable[..., None], fails: Callable[..., str]) -> None:
    edit("net.prototxt", '"train_lmdb"', f'"{path}"')
    meant = str(Path.home() / "train_lmdb")
    said = (
        f"layer 'data': source {path!r} does not exist; make the database first; no shell reads it: write {meant!r} for"
    )
    assert fails("train", "--solver=solver.prototxt").startswith(said)


def test_other_paths(folder: Path, edit: Callable[..., None], fails: Callable[..., str]) -> None:
    edit("solver.prototxt", 'snapshot_prefix: "s"', 'snapshot_prefix: "~/none/s"')
    meant = str(Path.home() / "none/s")
    said = f"snapshot_prefix '~/none/s': the folder '~/none' does not exist; no shell reads it: write {meant!r}"
    assert fails("train", "--solver=solver.prototxt").startswith(said)
    edit("solver.prototxt", 'snapshot_prefix: "~/none/s"', 'snapshot_prefix: "s"')
    edit("net.prototxt", "scale: 0.00390625", 'mean_file: "~/mean.binaryproto"')
    assert "cannot read '~/mean.binaryproto': No such file or directory; no shell reads it: write '/" in fails(
        "train", "--solver=solver.prototxt"
    )


def test_a_dollar_that_means_nothing(edit: Callable[..., None], fails: Callable[..., str]) -> None:
    edit("net.prototxt", '"train_lmdb"', '"$none_such/train_lmdb"')
    assert "(paths are relative to the working directory" in fails("train", "--solver=solver.prototxt")


@pytest.mark.parametrize("name", [".", ".."])
def test_the_working_folder_is_not_to_be_removed(name: str, folder: Path, fails: Callable[..., str]) -> None:
    assert fails("convert_imageset", "images/", "list.txt", name) == (
        f"{name!r} is the folder that you are in, or one above it; choose another name"
    )


def test_a_folder_where_a_file_is_wanted(folder: Path, fails: Callable[..., str]) -> None:
    assert fails("compute_image_mean", "train_lmdb", "images") == (
        "cannot write 'images': Is a directory; name a file in it"
    )
    assert fails("convert_mean", "images", "a.npy") == "cannot read 'images': Is a directory; name a file in it"
