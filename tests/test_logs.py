"""The progress bar: on a terminal, and only there."""

from __future__ import annotations

import io
import sys

import pytest

from caffecli.logs import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("total", "start", "unit", "count", "words"),
    [
        (4, 1, "batch", 1, ("2/4 ", " batch/s")),
        (None, 0, "images", 3, ("3 images",)),
        (4096, 1024, "B", 1024, ("2.00k/4.00k", "B/s")),
    ],
)
def test_bar(
    monkeypatch: pytest.MonkeyPatch, total: int | None, start: int, unit: str, count: int, words: tuple[str, ...]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar(total, start, unit=unit) as bar:
        bar.note(loss=0.25)
        bar.advance(count)
        bar._bar.refresh()
    assert all(word in terminal.getvalue() for word in (*words, "loss=0.25"))


@pytest.mark.parametrize(("stream", "shown"), [(Terminal(), False), (io.StringIO(), True)])
def test_no_bar(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: bool) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with Bar(4, shown=shown) as bar:
        bar.note(loss=0.25)
        bar.advance()
    assert stream.getvalue() == ""
