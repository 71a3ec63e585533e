"""The site of the documentation: what it adds to the pages, and that it can be built, all links leading somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from caffecli.cli.main import COMMANDS
from scripts import site_pages as site

ROOT = Path(__file__).parents[1]
INDEX = (ROOT / f"{site.INDEX}.md").read_text()


def test_the_index_leads_to_every_page() -> None:
    pages = [*ROOT.glob("docs/*.md"), *ROOT.glob("docs/*/readme.md"), *ROOT.glob("docs/site/*.md")]
    pages += [*ROOT.glob("data/*/readme.md"), ROOT / "models/readme.md"]
    linked = {(ROOT / "docs" / link).resolve() for _, links in site.sections(INDEX) for link in links}
    assert {page for page in pages if page != ROOT / f"{site.INDEX}.md"} <= linked


@pytest.mark.parametrize("folder", ["docs/tutorials", "docs/decisions", "models"])
def test_a_readme_leads_to_every_page_of_its_folder(folder: str) -> None:
    pages = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.md")}
    assert pages - {"readme.md"} == set(site.below((ROOT / folder / "readme.md").read_text()))


def test_sections_name_each_page_once_and_leave_a_folders_pages_to_its_readme() -> None:
    index = "# I\n## One\n- [a](a.md), [b](b.md#x), [u](https://x.org/y.md)\n- [t](t/1.md)\n"
    index += "## Two\n[t](t/readme.md) [a](a.md)\n"
    assert list(site.sections(index)) == [("One", ["a.md", "b.md"]), ("Two", ["t/readme.md"])]
    made = site.completed(site.INDEX, index)
    assert made.startswith(index) and ":caption: One\n\na.md\nb.md\n```" in made
    assert site.completed("docs/other", index) == index


def test_the_help_of_every_command_is_there() -> None:
    text = site.completed(site.COMMANDS, "")
    assert re.findall(r"^### (\w+)$", text, re.MULTILINE) == list(COMMANDS)
    assert "Usage: caffecli train [OPTIONS]" in text and "--solver PATH" in text


def test_the_public_names_are_there() -> None:
    text = site.completed(site.API, "")
    for name in ("autoclass:: caffecli.Net", "autoexception:: caffecli.CaffeError", "autofunction:: caffe.get_solver"):
        assert f".. {name}\n" in text
    for name in ("caffecli.tools.train.train", "converters.export.export"):
        assert f".. autofunction:: {name}\n" in text
    for name in ("caffecli.tools.train.TrainOptions", "caffecli.tools.extract_features.FeatureOptions"):
        assert f".. autoclass:: {name}\n   :members:\n" in text


def test_docstrings_keep_their_asterisks_and_bars() -> None:
    lines = ["y = a * |b|, ``c * d``", "x_ is `e|f`"]
    site.as_rst(lines)
    assert lines == [r"y = a \* \|b\|, ``c * d``", r"x\_ is `e|f`"]


class References(HTMLParser):
    """What a page of the site loads, where it leads, and the names of its places."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.places.add(named.get("id", ""))
        if tag in ("script", "img", "iframe", "source") and "src" in named:
            self.loaded.append(named["src"])
        if tag == "link" and named.get("rel") in ("stylesheet", "icon", "preload"):
            self.loaded.append(named["href"])
        if tag == "a" and "href" in named:
            self.links.append(named["href"])


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for module in ("sphinx", "myst_parser", "furo"):
        pytest.importorskip(module, reason="needs pip install 'caffecli[docs]'")
    command = [sys.executable, "-m", "sphinx", "-c", "docs/site", "-W", "--keep-going", "-q"]
    command += ["-d", str(tmp_path / "doctrees"), ".", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page: References(page) for page in (tmp_path / "site").rglob("*.html")}
    for page, found in pages.items():
        assert not [name for name in found.loaded if "//" in name], page
        for link in found.links:
            path, _, place = unquote(link).partition("#")
            if "//" not in link and not link.startswith("mailto:"):
                target = (page.parent / path).resolve() if path else page
                assert target.is_file(), f"{page}: {link}"
                assert not place or target not in pages or place in pages[target].places, f"{page}: {link}"
    assert "stepvalu" in (tmp_path / "site/searchindex.js").read_text()  # as the index shortens words
