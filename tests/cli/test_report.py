"""report: exit codes and words."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from caffecli.cli.main import load_command
from tests.tools.report.pages import LOG


def call(*args: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(load_command("report"), list(map(str, args)))
    assert result.exit_code == code, result.output
    return result.output


def test_report(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(LOG)
    assert call(tmp_path / "a.log", tmp_path / "a.html") == f"Wrote {tmp_path}/a.html\n"
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    assert "OUT" in call(tmp_path / "a.log", code=2)


def test_the_page_does_not_take_a_log_s_place(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(LOG)
    out = call(tmp_path / "a.log", tmp_path / "a.log", code=2)
    assert "its name must end in .html" in out
    assert (tmp_path / "a.log").read_text() == LOG
