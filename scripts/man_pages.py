"""Manual pages from the help of the commands: ``python -m scripts.man_pages FOLDER``.

`make man` writes them into the folder man, of which a wheel takes them: pip lays them where `man caffecli-train` finds
them. (The library click-man joins the lines of examples, cuts the short help, and passes over commands that are
imported when they are called.)
"""

from __future__ import annotations

import re
import sys
from inspect import cleandoc
from pathlib import Path

import click

from caffecli import __version__
from caffecli.cli.main import COMMANDS, GROUPS, cli, load_command

#: Caffe's own names of the commands, which are programs too
PROGRAMS = re.findall(
    r'^(\w+) = "caffecli\.cli\.main:(\w+)"$',
    (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"),
    re.MULTILINE,
)
EXIT_STATUS = """.SH EXIT STATUS
.TP
.B 0
Done.
.TP
.B 1
Failed; one line on standard error says why.
.TP
.B 2
Wrong use.
.TP
.B 130
Interrupted.
"""


def escaped(text: str) -> str:
    """Text as roff shows it unchanged."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return re.sub(r"^(?=[.'])", r"\\&", text, flags=re.MULTILINE)


def paragraphs(text: str) -> str:
    """The paragraphs of a help text; lines after Click's mark for it, \\b, are kept as they are."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", cleandoc(text)):
        if paragraph.startswith("\b"):
            parts.append(f".PP\n.nf\n{escaped(paragraph[1:].strip(chr(10)))}\n.fi\n")
        else:
            parts.append(f".PP\n{escaped(' '.join(paragraph.split()))}\n")
    return "".join(parts)


def page(command: click.Command, name: str, short: str) -> str:
    """The page ``name`` of a command; ``short`` is its help in one line."""
    called = name.replace("-", " ", 1)
    context = click.Context(command, info_name=called, **command.context_settings)
    usage = " ".join(command.collect_usage_pieces(context))
    parts = [
        f'.TH "{name.upper()}" 1 "" "caffecli {__version__}" "caffecli"\n',
        f".SH NAME\n{escaped(name)} \\- {escaped(short.rstrip('.'))}\n",
        f".SH SYNOPSIS\n.B {escaped(called)}\n{escaped(usage)}\n",
        f".SH DESCRIPTION\n{paragraphs(command.help or short)}",
    ]
    records = [record for option in command.get_params(context) if (record := option.get_help_record(context))]
    if records:
        parts.append(".SH OPTIONS\n")
        parts += [f".TP\n.B {escaped(flags)}\n{escaped(' '.join(text.split()))}\n" for flags, text in records]
    if command is cli:
        parts.append(".SH COMMANDS\n")
        for title, group in GROUPS.items():
            parts.append(f".SS {escaped(title)}\n")
            parts += [f".TP\n.BR caffecli\\-{escaped(each)} (1)\n{escaped(text)}\n" for each, text in group.items()]
    parts.append(EXIT_STATUS)
    if command is not cli:
        parts.append(".SH SEE ALSO\n.BR caffecli (1)\n")
    return "".join(parts)


def pages() -> dict[str, str]:
    """All pages by the names of their files."""
    found = {"caffecli.1": page(cli, "caffecli", cleandoc(cli.help or "").partition("\n")[0])}
    for name, short in COMMANDS.items():
        found[f"caffecli-{name}.1"] = page(load_command(name), f"caffecli-{name}", short)
    for program, function in PROGRAMS:
        target = "caffecli.1" if function == "main" else f"caffecli-{function}.1"
        found.setdefault(f"{program}.1", f".so man1/{target}\n")
    return found


def write(folder: Path) -> None:
    """Write all pages, and remove those that were there."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.1"):
        old.unlink()
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
