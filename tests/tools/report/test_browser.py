"""The report in a real browser, where Chromium is there: curves drawn, tables sortable, nothing in its console."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.report.pages import LOG, made

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
    "--dump-dom",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
    pytest.mark.skipif(importlib.util.find_spec("plotly") is None, reason="needs plotly"),
]


def shown(page: Path, folder: Path, *flags: str) -> tuple[str, list[str]]:
    """The page's HTML once its scripts have run, and the lines of the browser's console."""
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def test_curves_and_tables(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(LOG)
    made(tmp_path, tmp_path / "a.log")
    html, console = shown(tmp_path / "page.html", tmp_path, "--window-size=390,800")
    assert console == []
    assert html.count('class="main-svg"') >= 3, "plotly has drawn no curves"
    assert re.search(r"<th[^>]*><button", html), "tables cannot be sorted"


def test_what_a_log_says_is_not_run(tmp_path: Path) -> None:
    """Were it, the browser would say so: a script of it, or one that the page's policy refused."""
    (tmp_path / "a.log").write_text(LOG.replace("accuracy", "<img_src=x_onerror=console.log(1)>"))
    made(tmp_path, tmp_path / "a.log")
    assert shown(tmp_path / "page.html", tmp_path)[1] == []
