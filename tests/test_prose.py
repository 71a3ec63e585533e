"""Lines of prose in Markdown are 120 columns at most; tables, code and lines that are one long link apart."""

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


def test_what_counts_as_prose() -> None:
    page = "---\nurl: a b\n---\none\n```\ncode\n```\n| a | table |\n- two\n"
    assert list(prose(page)) == [(4, "one"), (9, "- two")]
