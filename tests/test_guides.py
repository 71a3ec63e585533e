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
    return re.findall(r"^```(python|prototxt|)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


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


def test_the_page_of_learning_rates_shows_what_is_printed() -> None:
    page = (ROOT / "docs/learning-rates.md").read_text()
    program, shown = (re.search(rf"^```{kind}\n(.*?)^```", page, re.M | re.S)[1] for kind in ("python", "text"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == shown
    assert set(re.findall(r'^\| `"(\w+)"`', page, re.MULTILINE)) == set(POLICIES)
