"""A folder with a small run in it, and commands that are to fail there."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.cli import main

GOLDEN = Path(__file__).parents[1] / "golden"
LOG_LINE = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ \S+\] ")

NET = """
name: "small"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  transform_param { scale: 0.00390625 crop_size: 24 }
  data_param { source: "train_lmdb" batch_size: 16 backend: LMDB } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST }
  data_param { source: "test_lmdb" batch_size: 24 backend: LMDB } transform_param { crop_size: 24 } }
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 }
  convolution_param { num_output: 6 kernel_size: 5 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }
layer { name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }
"""

SOLVER = """
net: "net.prototxt" test_iter: 1 test_interval: 10 base_lr: 0.05 momentum: 0.9 lr_policy: "fixed"
max_iter: 2 snapshot: 2 snapshot_prefix: "s" solver_mode: CPU random_seed: 7
"""

HTML = b"<!DOCTYPE html>\n<html><body>404</body></html>\n"
PNG = bytes(cv2.imencode(".png", np.arange(28 * 28 * 3, dtype=np.uint8).reshape(28, 28, 3))[1])


def foreign(folder: Path) -> dict[str, Callable[[Path], object]]:
    """By name, what makes a file that is not what it is given as."""

    def zipped(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "text")

    def copy(name: str) -> Callable[[Path], object]:
        return lambda path: shutil.copy(GOLDEN / name, path)

    return {
        "missing": lambda path: None,
        "empty": lambda path: path.write_bytes(b""),
        "folder": lambda path: path.mkdir(),
        "png": lambda path: path.write_bytes(PNG),
        "html": lambda path: path.write_bytes(HTML),
        "zip": zipped,
        "text": lambda path: path.write_text("hello world\nthis is text\n"),
        "zeros": lambda path: path.write_bytes(bytes(100)),
        "prototxt": lambda path: path.write_text(NET),
        "caffemodel": copy("lenet/lenet_iter_10000.caffemodel"),
        "solverstate": copy("lenet/lenet_iter_10000.solverstate"),
        "mean": copy("tools/plain_mean.binaryproto"),
        "hdf5": copy("tools/a.h5"),
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a net, a solver, both databases, and what the converters read."""
    for name in ("train_lmdb", "test_lmdb"):
        shutil.copytree(GOLDEN / "solvers" / name, tmp_path / name)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    for name in ("test-images", "test-labels"):
        shutil.copy(GOLDEN / "mnist_tools" / name, tmp_path / name)
    shutil.copytree(GOLDEN / "tools" / "images", tmp_path / "images")
    shutil.copy(GOLDEN / "tools" / "list.txt", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(path: Path, make: Callable[[Path], object]) -> None:
    """Let ``make`` take the place of what is at ``path``."""
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    make(path)


@pytest.fixture
def edit(folder: Path) -> Callable[..., None]:
    """``edit("solver.prototxt", "max_iter: 2", "max_iter: 5")``."""

    def change(name: str, *pairs: str) -> None:
        text = (folder / name).read_text()
        for old, new in zip(pairs[::2], pairs[1::2], strict=True):
            assert old in text
            text = text.replace(old, new, 1)
        (folder / name).write_text(text)

    return change


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Run a command line in this process: ``command("train", "--solver=s")`` -> exit code, stderr."""

    def call(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["caffecli", *args])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        return int(end.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture
def fails(folder: Path, command: Callable[..., tuple[int, str]]) -> Callable[..., str]:
    """Run a command line that must fail: one line on stderr after the log, nothing written. Returns the line."""

    def call(*args: str, code: int = 1) -> str:
        before = contents(folder)
        came, err = command(*args)
        lines = err.splitlines()
        errors = [line for line in lines if line.startswith("Error: ")]
        assert errors, err
        assert (came, lines[-1], len(errors)) == (code, errors[0], 1)
        assert "Traceback" not in err
        assert "internal: " not in err
        if code == 1:  # what stands between is the text of a definition that was logged
            assert len(lines) == 1 or LOG_LINE.match(lines[0]), err
        assert contents(folder) == before
        return errors[0].removeprefix("Error: ")

    return call


def contents(folder: Path) -> dict[str, str]:
    """What each file below ``folder`` holds, but for the lock files of databases and what Python compiles."""
    passed = {"lock.mdb", "LOCK", "LOG", "__pycache__"}
    files = {path: path.is_file() for path in folder.rglob("*") if not passed & set(path.relative_to(folder).parts)}
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if file else "" for path, file in files.items()}
