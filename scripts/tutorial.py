"""``python scripts/tutorial.py docs/tutorials/04-write-your-own-net.md``: runs the blocks of a page, top to bottom.

Blocks marked ``python`` share their names; those marked ``sh`` run in bash, which stops at the first command that
fails. One marked ``text`` or ``prototxt`` is what the block before it has to print, ``...`` standing for anything.
Others are not run. All happens in the working directory; the pages keep what they make in its folder ``tutorial``.
"""

from __future__ import annotations

import contextlib
import difflib
import doctest
import io
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
EXPECTED = ("text", "prototxt")
#: so that a page's commands are those of this checkout and of this Python; CAFFECLI may say otherwise
COMMANDS = 'caffecli() { ${CAFFECLI:-"$PYTHON" -m caffecli} "$@"; }; python() { "$PYTHON" "$@"; }; set -euo pipefail\n'


class Block(NamedTuple):
    """A fenced block: its mark, its text, and the number of its first line in the page."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1], found[2], text.count("\n", 0, found.start(2)) + 1)


def run_python(page: Path, block: Block, names: dict[str, Any]) -> str:
    """What the block prints."""
    printed = io.StringIO()
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, names)
    return printed.getvalue()


def run_shell(page: Path, block: Block) -> str:
    """What the block writes to its standard output; ends the program when a command fails."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    env = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": paths}
    done = subprocess.run(["bash", "-c", COMMANDS + block.text], stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        sys.exit(f"{page}:{block.line}: this block failed with exit code {done.returncode}\n{block.text}{done.stdout}")
    return done.stdout


def compare(page: Path, block: Block, printed: str) -> None:
    """End the program when ``printed`` is not what the block shows,
    but for blanks at ends of lines and empty lines around.
    """
    shown, came = (
        "\n".join(line.rstrip() for line in text.splitlines()).strip("\n") + "\n" for text in (block.text, printed)
    )
    if not doctest.OutputChecker().check_output(shown, came, doctest.ELLIPSIS):
        lines = difflib.unified_diff(shown.splitlines(), came.splitlines(), "the page shows", "what came", lineterm="")
        sys.exit(f"{page}:{block.line}: the block before this printed something else\n" + "\n".join(lines))


def run(page: Path) -> None:
    """Run the page's blocks, showing what they print."""
    sys.path.insert(0, str(ROOT))
    os.environ.setdefault("MPLBACKEND", "Agg")  # no windows
    Path("tutorial").mkdir(exist_ok=True)
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    begun = time.monotonic()
    for block in blocks(page):
        if block.kind in EXPECTED:
            compare(page, block, printed)
            continue
        if block.kind not in ("python", "sh"):
            continue
        printed = run_python(page, block, names) if block.kind == "python" else run_shell(page, block)
        print(f"-- {page.name}:{block.line}\n{printed}", end="", flush=True)
    print(f"== {page.name}: all as the page says, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_file():
        sys.exit("usage: python scripts/tutorial.py docs/tutorials/PAGE.md")
    run(Path(sys.argv[1]))
