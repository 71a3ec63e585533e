"""Manual pages made of the help."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from caffecli.cli.main import COMMANDS, cli, load_command
from scripts import man_pages

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Laid out as on a manual's path, where the pages of the programs name others."""
    root = tmp_path_factory.mktemp("man")
    (root / "man1").mkdir()
    (root / "man1" / "caffecli-gone.1").write_text("a page of a command that is no more")
    command = [sys.executable, "-m", "scripts.man_pages", str(root / "man1")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root / "man1"


def test_each_command_and_program_has_a_page(folder: Path) -> None:
    commands = {f"caffecli-{name}.1" for name in COMMANDS}
    programs = {f"{name}.1" for name, _ in man_pages.PROGRAMS}
    assert {"caffe.1", "caffecli.1", "convert_imageset.1"} <= programs
    assert {path.name for path in folder.iterdir()} == commands | programs
    assert (folder / "caffe.1").read_text() == ".so man1/caffecli.1\n"
    assert (folder / "convert_imageset.1").read_text() == ".so man1/caffecli-convert_imageset.1\n"


@pytest.mark.skipif(shutil.which("groff") is None, reason="needs groff")
def test_roff_understands_them_and_shows_all_that_the_help_says(folder: Path) -> None:
    for name in ["", *COMMANDS]:
        path = folder / (f"caffecli-{name}.1" if name else "caffecli.1")
        command = ["groff", "-man", "-Tascii", "-P-c", "-ww", "-rLL=500n", "-rHY=0", str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), path.name
        shown = " ".join(done.stdout.replace("_\b", "").split())
        shown = "".join(after for at, after in enumerate(shown) if after != "\b" and shown[at + 1 : at + 2] != "\b")
        subject = load_command(name) if name else cli
        context = click.Context(subject, info_name=name or "caffecli", **subject.context_settings)
        for parameter in subject.get_params(context):
            record = parameter.get_help_record(context)
            for words in record or ():
                assert " ".join(words.split()).isascii() <= (" ".join(words.split()) in shown), (path.name, words)


def test_lines_of_examples_stay_lines() -> None:
    assert ".nf\n  caffecli detect street.jpg" in man_pages.pages()["caffecli-detect.1"].replace("\\-", "-")


def test_what_roff_would_read_as_its_own_is_shown() -> None:
    assert (
        man_pages.paragraphs(".so x\n\n\b\n'a\n  --b c\\d") == ".PP\n\\&.so x\n.PP\n.nf\n\\&'a\n  \\-\\-b c\\ed\n.fi\n"
    )
