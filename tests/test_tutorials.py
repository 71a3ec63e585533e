"""The tutorials and the guides, run from top to bottom; what they show as printed is what is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

ROOT = Path(__file__).parents[1]
#: pages of docs that begin as the tutorials do, or draw what they need
GUIDES = (
    "augmentation", "data", "export", "learning-rates", "pictures", "python", "read-a-log", "resume", "segmentation",
    "train", "wrong",
)  # fmt: skip
PAGES = [*sorted((ROOT / "docs/tutorials").glob("0*.md")), *(ROOT / f"docs/{name}.md" for name in GUIDES)]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "GLOG_minloglevel": "0"}


def run(folder: Path, *args: str | Path, caffecli: str = "") -> subprocess.CompletedProcess[str]:
    env = {**ENV, "CAFFECLI": caffecli}
    return subprocess.run(
        [sys.executable, "-W", "error", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=300
    )


def pictures(page: Path) -> list[str]:
    return re.findall(r"\]\(pictures/([\w.-]+)\)", page.read_text())


#: take more than ten seconds
LONG = ("09-find-objects", "export", "pictures")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[pytest.mark.slow] if page.stem in LONG else [], id=page.stem) for page in PAGES],
)
def test_the_page_runs_and_prints_what_it_shows(page, digits, forked_caffecli, tmp_path):
    for name in ("models", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    if "scripts/digits.py" in page.read_text():
        shutil.copytree(digits, tmp_path / "tutorial")
    done = run(tmp_path, ROOT / "scripts/tutorial.py", page, caffecli=forked_caffecli)
    assert done.returncode == 0, done.stdout + done.stderr
    if page.stem == "09-find-objects":
        assert float(re.search(r"output #0: score = (\S+)", done.stdout)[1]) >= 0.85
    for name in pictures(page):
        picture = cv2.imread(str(tmp_path / "tutorial" / name))
        assert picture is not None, f"{page.name} shows {name}, and does not make it"
        assert picture.std() > 10, f"{name} is blank"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_its_pictures_are_here_and_small(page):
    for name in pictures(page):
        assert (page.parent / "pictures" / name).stat().st_size < 60_000, name


@pytest.mark.parametrize("folder", ["docs", "docs/tutorials"])
def test_no_picture_is_left_over(folder):
    shown = {name for page in (ROOT / folder).glob("*.md") for name in pictures(page)}
    assert {path.name for path in (ROOT / folder / "pictures").iterdir()} == shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "```python\nprint(1 + 1)\n```\n\n```text\n3\n```\n",
            "page.md:6: the block before this printed something else",
        ),
        ("```sh\necho one\nfalse\necho two\n```\n", "page.md:2: this block failed with exit code 1"),
    ],
)
def test_a_page_that_is_wrong_is_found(text, words, tmp_path):
    (tmp_path / "page.md").write_text(text)
    done = run(tmp_path, ROOT / "scripts/tutorial.py", "page.md")
    assert done.returncode == 1
    assert words in done.stderr


def test_blocks_share_names_and_dots_stand_for_anything(tmp_path):
    (tmp_path / "page.md").write_text(
        "```python\nx = 4\n```\n\n```python\nprint(x, id(x))\n```\n\n```text\n4 ...\n```\n"
    )
    assert run(tmp_path, ROOT / "scripts/tutorial.py", "page.md").returncode == 0
