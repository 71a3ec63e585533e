"""What docs/site/conf.py puts into the pages of the site: ``make site``.

The pages are the Markdown files of docs, models and data as they stand; nothing in them is there for the site alone but
its two references, which are made here: of the commands from their help, of the Python names from their docstrings. The
order of the sidebar is that of the links of docs/index.md, section by section.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import click

ROOT = Path(__file__).resolve().parents[1]
INDEX = "docs/index"
COMMANDS = "docs/site/commands"
API = "docs/site/api"


def completed(page: str, text: str) -> str:
    """The Markdown ``text`` of a page, named by its path without suffix, with what the site adds to it."""
    if page == COMMANDS:
        return text + command_reference()
    if page == API:
        return text + api_reference()
    if page == INDEX:
        return text + "".join(_toctree(links, title) for title, links in sections(text))
    return text + _toctree(below(text)) if page.endswith("/readme") else text


def sections(index: str) -> Iterator[tuple[str, list[str]]]:
    """The sections of the index: their titles, and the pages that they link, each where it comes first. A page of a
    folder whose readme is linked too stands below that.
    """
    folders = {link.removesuffix("readme.md") for link in _links(index) if link.endswith("/readme.md")}
    seen: set[str] = set()
    for section in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        links = []
        for link in _links(section):
            own = any(link.startswith(folder) and link != f"{folder}readme.md" for folder in folders)
            if link not in seen and not own:
                links.append(link)
                seen.add(link)
        yield section.partition("\n")[0], links


def below(text: str) -> list[str]:
    """The pages that a readme links in its own folder, and in folders of that."""
    return [link for link in dict.fromkeys(_links(text)) if not link.startswith("..")]


def _links(text: str) -> list[str]:
    return re.findall(r"\]\(([^):#\s]+\.md)(?:#[^)]*)?\)", text)


def _toctree(links: Sequence[str], caption: str = "") -> str:
    if not links:
        return ""
    title = f":caption: {caption}\n" if caption else ""
    return f"\n\n```{{toctree}}\n:hidden:\n{title}\n" + "\n".join(links) + "\n```\n"


def command_reference() -> str:
    """Each command with its help, as ``--help`` prints it."""
    from caffecli.cli import main

    top = click.Context(main.cli, info_name="caffecli", terminal_width=80)
    parts = [""]
    for group, commands in main.GROUPS.items():
        parts.append(f"## {group}\n")
        for name, short in commands.items():
            command = main.load_command(name)
            text = command.get_help(click.Context(command, info_name=name, parent=top, terminal_width=80))
            parts.append(f"### {name}\n\n{short}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def api_reference() -> str:
    """Directives for the public names: ``caffecli``, the work of the commands, ``caffe``."""
    import caffe
    import caffecli

    parts = ["", "## caffecli", ""]
    parts += [_directive(f"caffecli.{name}", getattr(caffecli, name)) for name in caffecli.__all__]
    parts += ["## The work of the commands", "", "Each takes what the command of its name takes; see their help.", ""]
    for module in _works():
        name = module.__name__.rpartition(".")[2]
        work = getattr(module, name)
        parts += [f"### {module.__name__}", "", _directive(f"{module.__name__}.{name}", work)]
        for annotation in work.__annotations__.values():
            if dataclasses.is_dataclass(kind := getattr(module, annotation, None)):
                parts.append(_directive(f"{module.__name__}.{annotation}", kind))
    parts += ["## caffe", "", "What `import caffe` has, under pycaffe's names.", ""]
    shown = (name for name in caffe.__all__ if not name.startswith("_"))
    parts += [_directive(f"caffe.{name}", getattr(caffe, name)) for name in shown if callable(getattr(caffe, name))]
    return "\n".join(parts)


def _works() -> Iterator[ModuleType]:
    """The modules that do the work of a command: they have a function of their own name."""
    for package in ("caffecli.tools", "converters"):
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            module = importlib.import_module(f"{package}.{found.name}")
            if inspect.isfunction(getattr(module, found.name, None)):
                yield module


def _directive(name: str, value: object) -> str:
    if not inspect.isclass(value):
        return f"```{{eval-rst}}\n.. autofunction:: {name}\n```\n"
    kind = "autoexception" if issubclass(value, Exception) else "autoclass"
    members = "   :members:\n" if kind == "autoclass" else ""
    return f"```{{eval-rst}}\n.. {kind}:: {name}\n{members}```\n"


def as_rst(lines: list[str]) -> None:
    """Make reStructuredText of a docstring: outside of code, asterisks and bars stand for themselves."""
    text = "\n".join(lines)
    lines[:] = re.sub(r"(``[^`]*``|`[^`]*`)|([*|]|\b_\b|(?<=\w)_(?!\w))", lambda m: m[1] or f"\\{m[2]}", text).split(
        "\n"
    )
