"""The pages for programmers: each page's files and code, in their order, in one program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
