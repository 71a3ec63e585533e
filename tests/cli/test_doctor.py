"""``doctor`` and ``completion``."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from caffecli.cli.main import load_command
from caffecli.tools import completion, doctor

ROOT = Path(__file__).parents[2]
PYPROJECT = (ROOT / "pyproject.toml").read_text()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train for an instant."""
    training = doctor._training
    monkeypatch.setattr(doctor, "_training", lambda seconds: training(0.01))


def call(*args: str) -> str:
    done = CliRunner().invoke(load_command("doctor"), list(args), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_it_tells_what_is_there(quick: None) -> None:
    told = call()
    heads = [line for line in told.splitlines() if line and not line.startswith(" ")]
    assert [head.split(",")[0] for head in heads[1:]] in (
        ["Installed", found, "Data", "Machine", "Places", "Training"] for found in ("Missing", "Nothing is missing")
    )
    assert re.search(r"LMDB \d+\.\d+", told) and re.search(r"pictures: jpg, png", told)
    assert re.search(r"cpu iterations/s: \d+\.\d$", told, re.MULTILINE)
    facts = json.loads(call("--json"))
    assert facts["installed"]["torch"] and facts["training"]["cpu iterations/s"] > 0
    assert facts["places"]["temporary"]["writable"] is True and facts["machine"]["threads"] >= 1


def test_what_is_missing_is_told_with_the_command_that_gets_it(quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(module: str, package: str) -> str | None:
        return None if package in ("onnxscript", "tensorboard") else "1.0"

    monkeypatch.setattr(doctor, "_installed", installed)
    told = call()
    assert re.search(r"onnxscript +for export to ONNX: pip install 'caffecli\[onnx\]'", told)
    assert re.search(r"tensorboard +for train --tensorboard: pip install 'caffecli\[tensorboard\]'", told)
    assert not re.search(r"  matplotlib +for", told)


def test_a_broken_library_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("no such\nsymbol")

    for name in ("_training", "_machine", "_data"):
        monkeypatch.setattr(doctor, name, broken)
    monkeypatch.setitem(sys.modules, "lmdb", None)  # importing it fails
    told = call()
    assert told.count("RuntimeError: no such symbol") == 3
    assert "lmdb is missing" in told
    assert json.loads(call("--json"))["data"] == {"error": "RuntimeError: no such symbol"}


def test_the_extras_are_those_of_the_package() -> None:
    extras = dict(
        re.findall(r"^(\w+) = \[(.*)\]", PYPROJECT.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    )
    for module, (package, extra, _) in doctor.OPTIONAL.items():
        assert f'"{package}>=' in extras[extra], f"{module}: {extra} brings no {package}"
    told = {package for package, _, _ in doctor.OPTIONAL.values()}
    for extra in set(extras) - {"dev", "docs"}:
        assert set(re.findall(r'"([\w-]+)>=', extras[extra])) <= told
    needed = re.findall(r'^  "([\w-]+)>=', PYPROJECT.partition("dependencies = [")[2].partition("\n]")[0], re.MULTILINE)
    assert {name for name in needed if not name.startswith("plyvel") and name != "six"} == set(doctor.NEEDED.values())
    assert all(importlib.util.find_spec(module.partition(".")[0]) for module in doctor.NEEDED)


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_scripts(shell: str) -> None:
    done = CliRunner().invoke(load_command("completion"), [shell])
    assert done.exit_code == 0 and "_CAFFECLI_COMPLETE" in done.stdout and f"{shell}_complete" in done.stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [("caffecli cla", "classify"), ("caffecli classify --wei", "--weights"), ("caffecli export --to o", "onnx")],
)
def test_what_is_completed(words: str, expected: str) -> None:
    code = "import sys; sys.argv = ['caffecli']; from caffecli.cli.main import main; main()"
    env = {
        **os.environ,
        "_CAFFECLI_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"plain,{expected}"]
