"""What the documentation says is so: links, commands, flags, files, layers."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from caffecli.cli import main

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "models/**/*.md", "data/**/*.md")
    for path in ROOT.glob(pattern)
)
README = (ROOT / "README.md").read_text()
TABLE = (ROOT / "docs/commands.md").read_text()
#: what stands for something of the user's in a command
PLACEHOLDERS = {"TRAIN_FOLDER", "VAL_FOLDER", "FOLDER", "[A-Z]"}


def commands(page: str) -> list[str]:
    """The lines of a page's unmarked fenced blocks, which are commands, without comments, continued lines joined."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(block for kind, block in blocks if not kind).replace("\\\n", " ").splitlines()
    return [re.sub(r" +", " ", line.partition(" #")[0]).strip() for line in lines if line.strip()]


COMMANDS = sorted({line: page for page in PAGES for line in commands(page)}.items())


@functools.cache
def usage(command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "caffecli", command, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def targets() -> set[str]:
    return set(re.findall(r"^([.a-z-]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


def without_code(page: Path) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@functools.cache
def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = (re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title) for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", without_code(ROOT / page)):
        if "://" not in link:
            target = (ROOT / page).parent / link if link else ROOT / page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link} has no heading #{anchor}"


@pytest.mark.parametrize(("line", "page"), COMMANDS)
def test_commands_exist(line, page):
    words = shlex.split(line)
    while words[0] == "time" or "=" in words[0]:
        words = words[1:]
    if words[0] == "torchrun":  # its own flags come before -m caffecli
        words = words[words.index("-m") + 1 :]
    program = words[0]
    if program == "make":
        assert set(words[1:]) <= targets()
    elif program == "caffecli":
        text = usage(words[1].replace("-", "_"))
        for word in words[2:]:
            if word.startswith("-"):
                assert re.search(rf"{word.partition('=')[0]}\b", text), f"{page}: caffecli {words[1]} has no {word}"
            elif word.startswith(("models/", "data/")) and "_iter_" not in word:
                assert (ROOT / word).exists(), f"{page}: {word}"
    elif program.startswith(("scripts/", "data/")):
        assert os.access(ROOT / program, os.X_OK), f"{page}: {program}"
        for word in words[1:]:
            assert word in PLACEHOLDERS or (ROOT / word).exists(), f"{page}: {word}"
    elif program == "python":
        if words[1] == "-m":
            words[1:3] = [words[2].replace(".", "/") + ".py"]
        script = (ROOT / words[1]).read_text()
        assert all(f'"{word}"' in script for word in words[2:] if word.startswith("-")), f"{page}: {line}"
    else:
        assert line in ("python3 -m venv .venv", ".venv/bin/pip install -c constraints.txt ."), (
            f"{page}: who tries {line!r} out?"
        )


def test_readme_is_short_and_its_picture_light():
    assert len(README.splitlines()) <= 85
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", README)
    assert (ROOT / picture).stat().st_size < 100_000


def test_readme_begins_with_two_commands_that_work():
    assert [line.split("#")[0].strip() for line in README.split("```")[1].strip().splitlines()] == [
        "make demo",
        "make test",
    ]


def test_the_table_of_commands_is_complete():
    rows = re.findall(r"^\| `caffecli (\w+)([^`]*)` \| (`[^`]+`)?[^|]*\|", TABLE, re.MULTILINE)
    for command, rest, _ in rows:
        text = usage(command)
        for flag in re.findall(r"--\w+", rest):
            assert flag in text, f"caffecli {command} has no {flag}"
    sections = dict(re.findall(r"^## ([^\n]+)\n\n\|(.+?)\n\n", TABLE, re.MULTILINE | re.DOTALL))
    assert {
        title: list(dict.fromkeys(re.findall(r"\n\| `caffecli (\w+)", text))) for title, text in sections.items()
    } == {group: list(commands) for group, commands in main.GROUPS.items()}
    table = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[2].partition("[")[0]
    installed = set(re.findall(r"^(\w+) =", table, re.MULTILINE)) - {"caffecli"}
    assert {name.strip("`").split()[0] for _, _, name in rows if name} == installed


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    text = (ROOT / page).read_text()
    for name in re.findall(r"\b((?:scripts|docs)/\w+\.\w+|(?:models|data)/\w+/\w+\.(?:prototxt|md|sh))\b", text):
        assert (ROOT / name).exists(), f"{page}: {name}"
