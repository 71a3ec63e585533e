"""A checkout of Caffe as the old documents assume it, and a terminal to type their commands into.

Each module here types the commands and the Python of one document, with the file names and forms of its time (Python
2's ``print`` aside); paths and counts are shortened, and data are made up. What is held is what the document shows.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caffecli.formats import atomic, db
from caffecli.formats.datum import from_array
from caffecli.tools.link_tools import PROGRAMS, link_tools
from converters import convert_cifar_data as cifar

MODELS = Path(__file__).parents[2] / "models"
GOLDEN = Path(__file__).parents[1] / "golden"
Terminal = Callable[[str], str]


@pytest.fixture
def caffe_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a checkout, its programs built; the working directory."""
    monkeypatch.chdir(tmp_path)
    link_tools(Path("build"))
    for folder in ("data", "examples/images", "examples/cifar10", "examples/mnist", "python/caffe/imagenet"):
        Path(folder).mkdir(parents=True)
    return tmp_path


@pytest.fixture
def typed(caffe_root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Terminal:
    """``typed(LINES)`` runs each line, which must succeed, and returns what they say.

    Caffe's programs run in this process, all else in a shell.
    """

    def call(program: str, args: list[str]) -> int:
        module, function = PROGRAMS[program].split(":")
        monkeypatch.setattr(sys, "argv", [program, *args])
        with pytest.raises(SystemExit) as end:
            getattr(importlib.import_module(module), function)()
        return int(end.value.code or 0)

    def run(lines: str) -> str:
        said = ""
        for line in lines.replace("\\\n", " ").strip().splitlines():
            words = [word for word in shlex.split(line) if not re.match(r"\w+=", word)]
            program = re.search(r"build/(\S+?)(\.bin)?$", words[0])
            code = 0
            if words[0] == "cd":
                monkeypatch.chdir(words[1])
            elif program and program[1] in PROGRAMS:
                assert os.access(words[0], os.X_OK), f"{words[0]} is not there from {Path.cwd()}"
                code = call(program[1], words[1:])
            else:
                code = subprocess.run(line, shell=True).returncode
            out, err = capfd.readouterr()
            said += out + err
            assert code == 0, f"{line}\n{said}"
        return said

    return run


def pictures(count: int, channels: int, size: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, channels, size, size) that a net can tell apart: a bright column whose place is the class."""
    draws = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    made = draws.integers(0, 60, (count, channels, size, size))
    for picture, label in zip(made, labels, strict=True):
        begin = label * size // classes
        picture[..., begin : begin + max(2, size // classes)] += 150
    return made.astype(np.uint8), labels


def write_database(folder: Path, kind: db.Backend, images: np.ndarray, labels: np.ndarray) -> None:
    with db.open_writer(folder, kind) as writer:
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            writer.put(b"%08d" % i, from_array(image, int(label)).SerializeToString())


@pytest.fixture
def cifar_files(caffe_root: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """CIFAR-10's binary files, shortened to 20 records each; returns that number."""
    monkeypatch.setattr(cifar, "RECORDS", 20)
    Path("data/cifar10").mkdir()
    for seed, name in enumerate(cifar.TRAIN + cifar.TEST):
        images, labels = pictures(20, 3, 32, 10, seed)
        rows = np.concatenate([labels[:, None].astype(np.uint8), images.reshape(20, -1)], 1)
        with atomic.replacing(Path("data/cifar10", name)) as file:
            file.write(rows.tobytes())
    return 20


def thinned(model: Path, thin: int) -> str:
    """A published net's text with a ``thin``-th of the outputs of its hidden layers."""

    def fewer(found: re.Match[str]) -> str:
        return found[0] if int(found[1]) in (20, 1000) else f"num_output: {int(found[1]) // thin}"

    return re.sub(r"num_output: (\d+)", fewer, model.read_text())


@pytest.fixture(scope="session")
def caffenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """CaffeNet with a sixteenth of its hidden outputs, and made-up weights for it."""
    import caffe

    folder = tmp_path_factory.mktemp("caffenet")
    model, weights = folder / "imagenet_deploy.prototxt", folder / "caffe_reference_imagenet_model"
    model.write_text(thinned(MODELS / "bvlc_reference_caffenet/deploy.prototxt", 16))
    net = caffe.Net(str(model), caffe.TEST)
    draws = np.random.default_rng(4)
    for blobs in net.params.values():
        shape = blobs[0].data.shape
        blobs[0].data[...] = draws.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
    net.save(str(weights))
    return model, weights
