"""Databases, picture lists and layer parameters for the tests of sources."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import Datum, LayerParameter

Param = Callable[..., LayerParameter]


@pytest.fixture(autouse=True)
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in its own folder, so that sources are short relative paths."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Ten different pictures of 3 × 8 × 9."""
    return list(np.random.default_rng(5).integers(0, 256, (10, 3, 8, 9), dtype=np.uint8))


def write_db(path: str, arrays: list[np.ndarray], backend: str = "lmdb") -> str:
    with open_writer(path, backend) as db:  # type: ignore[arg-type]
        for i, array in enumerate(arrays):
            db.put(b"%08d" % i, from_array(array, label=i).SerializeToString())
    return path


def encoded(array: np.ndarray, label: int) -> bytes:
    image = np.ascontiguousarray(array.transpose(1, 2, 0))
    return Datum(data=cv2.imencode(".png", image)[1].tobytes(), encoded=True, label=label).SerializeToString()


def data(
    source: str, batch: int = 4, extra: str = "", transform: str = "", tops: int = 2, backend: str = "LMDB"
) -> LayerParameter:
    top = 'top: "data"' + ' top: "label"' * (tops > 1)
    return text_format.Parse(
        f'name: "data" type: "Data" {top} transform_param {{ {transform} }} '
        f'data_param {{ source: "{source}" batch_size: {batch} backend: {backend} {extra} }}',
        LayerParameter(),
    )


def image_data(source: str, batch: int = 4, extra: str = "", transform: str = "") -> LayerParameter:
    return text_format.Parse(
        f'name: "data" type: "ImageData" top: "data" top: "label" transform_param {{ {transform} }} '
        f'image_data_param {{ source: "{source}" batch_size: {batch} {extra} }}',
        LayerParameter(),
    )


@pytest.fixture
def make() -> object:
    """The helpers above, as one object: ``make.db``, ``make.data``, ``make.image_data``, ``make.encoded``."""

    class Make:
        db = staticmethod(write_db)
        data = staticmethod(data)
        image_data = staticmethod(image_data)
        encoded = staticmethod(encoded)

    return Make


@pytest.fixture
def small_db(pictures: list[np.ndarray], in_tmp: Path) -> str:
    return write_db("small_lmdb", pictures)


@pytest.fixture
def picture_list(pictures: list[np.ndarray], in_tmp: Path) -> str:
    """A list of ten PNG files, one with a space in its name, in ``pics``."""
    folder = Path("pics")
    folder.mkdir()
    lines = []
    for i, array in enumerate(pictures):
        name = f"p {i}.png" if i == 3 else f"p{i}.png"
        cv2.imwrite(str(folder / name), np.ascontiguousarray(array.transpose(1, 2, 0)))
        lines.append(f"{name} {i}\n")
    Path("list.txt").write_text("".join(lines))
    return "list.txt"


@pytest.fixture
def golden_tools(golden: Path, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The reference's databases and pictures, as the working directory;
    copied, for nothing may write beside the recordings.
    """
    copy = in_tmp / "tools"
    shutil.copytree(golden / "tools", copy)
    monkeypatch.chdir(copy)
    yield copy
