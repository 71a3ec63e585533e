"""Lines of prose are 120 columns at most: in Markdown but for tables, code and lines that are one long link, and in
comments and docstrings. Python's are held by ruff, whose limit is the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COLUMNS = 120
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", ".github/**/*.md", "docs/**/*.md", "models/**/*.md", "data/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
#: other files with comments, but for what was recorded and what is generated
COMMENTED = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in (
        "*.toml", "*.yaml", "Makefile", "docker/*/Dockerfile", "conda/*.yaml", ".ci/*", ".github/**/*.yml",
        "caffecli/proto/**/*.proto", "docs/**/*.prototxt", "docs/**/*.css",
        "models/**/*.prototxt", "data/*/*.sh", "data/*/*.prototxt", "scripts/**/*.sh",
    )
    for path in ROOT.glob(pattern)
)  # fmt: skip


def prose(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a page with their numbers, without front matter, fenced code and tables."""
    front = re.match(r"---\n.*?\n---\n", text, re.DOTALL)
    skipped, fenced = (front[0].count("\n") if front else 0), False
    for number, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        fenced ^= fence
        if number > skipped and not fence and not fenced and not line.startswith("|"):
            yield number, line


@pytest.mark.parametrize("page", PAGES)
def test_lines_of_prose_fit(page: str) -> None:
    lines = prose((ROOT / page).read_text(encoding="utf-8"))
    long = [f"{page}:{number}" for number, line in lines if len(line) > COLUMNS and " " in line.strip()]
    assert not long, f"wrap these lines at {COLUMNS} columns"


@pytest.mark.parametrize("path", COMMENTED)
def test_comments_fit(path: str) -> None:
    lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
    marks = ("#", "//", "*", "/*")
    long = [f"{path}:{i}" for i, line in enumerate(lines, 1) if len(line) > COLUMNS and line.lstrip().startswith(marks)]
    assert not long, f"wrap these lines at {COLUMNS} columns"


def test_python_is_held_by_ruff() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    assert f"line-length = {COLUMNS}" in settings and '"E"' in settings and "E501" not in settings


def test_what_counts_as_prose() -> None:
    page = "---\nurl: a b\n---\none\n```\ncode\n```\n| a | table |\n- two\n"
    assert list(prose(page)) == [(4, "one"), (9, "- two")]
