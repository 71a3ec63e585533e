"""``caffecli completion``: the script by which a shell completes commands, flags and files."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


def script(shell: str, program: str = "caffecli") -> str:
    """The script for ``shell``, one of ``SHELLS``, that completes ``program``."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"no shell {shell!r}; there are {', '.join(SHELLS)}")
    return kind(click.Command(program), {}, program, f"_{program.upper()}_COMPLETE").source()
