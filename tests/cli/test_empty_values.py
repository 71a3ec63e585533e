"""An empty value of any flag or argument is named, or says something: it is never a path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from caffecli.cli.main import COMMANDS, load_command
from tests.cli.conftest import contents

#: what an empty value says where it says something
MEANING = {"gpu", "weights", "stage", "layers", "mean", "mean_file", "channel_swap", "encode_type", "monitor"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_and_argument(folder: Path, command: Callable[..., tuple[int, str]], name: str) -> None:
    made = load_command(name)
    arguments = [param for param in made.params if isinstance(param, click.Argument)]
    before = contents(folder)
    for i in range(len(arguments)):
        words = ["x"] * len(arguments)
        words[i] = ""
        code, err = command(name, *words)
        if arguments[i].name != "rootfolder":
            assert (code, err.count("\n")) == (2, 1), err
            assert " is empty; give it a value" in err
    for param in made.params:
        if isinstance(param, click.Option) and not param.is_flag and not param.hidden:
            flag = next(opt for opt in param.opts if opt.startswith("--"))
            code, err = command(name, f"{flag}=", *["nix"] * len(arguments))
            if code == 2 and err.startswith("Error: "):
                assert err.startswith(f"Error: {flag} is empty; give it a value")
            else:
                assert flag[2:] in MEANING or (name, flag) == ("train", "--snapshot"), err
    assert contents(folder) == before


def test_an_empty_snapshot_starts_afresh(folder: Path, command: Callable[..., tuple[int, str]]) -> None:
    code, err = command("train", "--solver=solver.prototxt", "--snapshot=", "--weights=", "--gpu=")
    assert code == 0, err
    assert "Resuming" not in err
    assert (folder / "s_iter_2.solverstate").exists()
