"""The pages for programmers: each page's files and code, in their order, in one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from caffecli.solver.learning_rate import POLICIES

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: what they are, and their text."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", ["docs/your-own-layer.md", "docs/watching.md"])
def test_a_page_for_programmers(page: str, tmp_path: Path) -> None:
    program = ""
    for kind, text in blocks(page):
        file = re.match(r"# (\w+\.\w+)\n", text)
        if file:
            (tmp_path / file[1]).write_text(text)
        elif kind == "python":
            program += text
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_of_unbalanced_classes(tmp_path: Path) -> None:
    """Its programs print what it shows, and its losses are the same number."""
    page = "docs/unbalanced-classes.md"
    programs = [text for kind, text in blocks(page) if kind == "python"]
    layers = [text for kind, text in blocks(page) if kind == "prototxt"]
    net = tmp_path / "net.prototxt"
    head = 'layer { name: "data" type: "Input" top: "score" top: "label" top: "weight" input_param { '
    head += "shape { dim: 10 dim: 2 } shape { dim: 10 } shape { dim: 10 } } } "
    net.write_text(head + "".join(text.replace('"loss"', f'"loss{i}"') for i, text in enumerate(layers)))
    run = (
        "import caffe, numpy as np\n"
        "net = caffe.Net('net.prototxt', caffe.TRAIN)\n"
        "net.blobs['score'].data[...] = np.random.RandomState(0).randn(10, 2)\n"
        "net.blobs['label'].data[3] = 1\n"
        "net.blobs['weight'].data[...] = np.where(np.arange(10) == 3, 5, 0.553)\n"
        "net.forward()\n"
        "losses = [float(net.blobs[f'loss{i}'].data) for i in range(3)]\n"
        "assert np.allclose(losses, losses[0], rtol=0.01), losses\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join([*programs, run])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == re.search(r"^```text\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)[1]


def test_the_page_of_learning_rates_shows_what_is_printed() -> None:
    page = (ROOT / "docs/learning-rates.md").read_text()
    program, shown = (re.search(rf"^```{kind}\n(.*?)^```", page, re.M | re.S)[1] for kind in ("python", "text"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == shown
    assert set(re.findall(r'^\| `"(\w+)"`', page, re.MULTILINE)) == set(POLICIES)
