"""caffecli import: what it writes and says, and one line for what it cannot read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from caffecli.cli.main import cli
from caffecli.net import exported

from .conftest import foreign, put

Fails = Callable[..., str]
KINDS = [
    "missing",
    "empty",
    "folder",
    "png",
    "html",
    "zip",
    "text",
    "prototxt",
    "caffemodel",
    "solverstate",
    "mean",
    "hdf5",
]


def save(module: nn.Module, path: Path) -> None:
    with exported.quiet(), torch.no_grad():
        batch = torch.export.Dim("batch")
        torch.export.save(torch.export.export(module.eval(), (torch.randn(3, 4),), dynamic_shapes=({0: batch},)), path)


def test_both_files(folder: Path) -> None:
    save(nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()), folder / "m.pt2")
    done = CliRunner().invoke(cli, ["import", "m.pt2", "out", "--inputs", "data", "--batch", "7", "--for", "caffe"])
    assert (done.exit_code, done.stdout) == (0, "Wrote out.prototxt\nWrote out.caffemodel\n")
    assert "Inputs: data; outputs: 1" in done.stderr
    assert "dim: 7" in (folder / "out.prototxt").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_foreign_file_is_named(folder: Path, fails: Fails, kind: str) -> None:
    put(folder / "in", foreign(folder)[kind])
    assert "'in'" in fails("import", "in", "out")


def test_what_it_cannot_do(folder: Path, fails: Fails) -> None:
    save(nn.Sequential(nn.Hardshrink(), nn.Linear(4, 2), nn.Hardshrink()), folder / "m.pt2")
    error = fails("import", "m.pt2", "out")
    assert "'m.pt2' cannot be imported, as Caffe has no counterpart: aten.hardshrink (no such layer)" in error
    assert error.rstrip().endswith("at '0', '2'")
    torch.save(nn.Linear(2, 2).state_dict(), folder / "m.pth")
    assert "was pickled" in fails("import", "m.pth", "out")
    (folder / "out.prototxt").write_text("mine")
    assert "'out.prototxt' exists; remove it or choose another name" in fails("import", "m.pt2", "out")
