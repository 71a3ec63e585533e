"""The compute_image_mean command."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from caffecli.cli.compute_image_mean import compute_image_mean


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "plain_lmdb"),
        ([], "plain_leveldb"),
        (["-backend=lmdb"], "plain_lmdb"),
        (["--backend", "leveldb"], "plain_leveldb"),
    ],
)
def test_writes_the_references_mean(golden: Path, tmp_path: Path, flags: list[str], name: str) -> None:
    result = CliRunner().invoke(
        compute_image_mean, [*flags, str(golden / "tools" / name), str(tmp_path / "mean.binaryproto")]
    )
    assert result.exit_code == 0, result.output
    assert "mean_value channel [2]: 127.945" in result.output
    assert (tmp_path / "mean.binaryproto").read_bytes() == (golden / "tools" / "plain_mean.binaryproto").read_bytes()


def test_the_output_is_optional(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(compute_image_mean, [str(golden / "tools" / "resized_lmdb")])
    assert result.exit_code == 0, result.output
    assert "Write to" not in result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [[], ["a", "b", "c"], ["--backend=sqlite", "a"]])
def test_wrong_use(args: list[str]) -> None:
    assert CliRunner().invoke(compute_image_mean, args).exit_code == 2
