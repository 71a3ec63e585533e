"""The rooms: each imports only from those above it, and torch stays where tensors are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from caffecli.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
FLOORS = [
    {"checkouts", "errors", "host", "logs", "proto", "wording"},
    {"spec", "formats"},
    {"sources"},
    {"layers"},
    {"net"},
    {"solver"},
    {"caffe"},
    {"tools"},
    {"converters"},
    {"cli"},
]
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
WITH_TORCH = {"layers", "net", "solver", "tools", "caffe"}
#: the tools that run where there is no torch
TOOLS_WITHOUT_TORCH = {"device_query", "link_tools", "parse_log", "plot", "plot_log", "upgrade"}
FILES = [path for folder in ("caffecli", "converters", "caffe") for path in sorted((ROOT / folder).rglob("*.py"))]
OURS = [path for path in FILES if path.name not in ("caffe_pb2.py", "fork_numbers.py")]


def room(parts: tuple[str, ...]) -> str | None:
    """The room that a module or a file of these name parts is in; None for others' modules."""
    if parts[0] in ("converters", "caffe"):
        return parts[0]
    if parts[0] != "caffecli":
        return None
    return parts[1].removesuffix(".py") if len(parts) > 1 else "caffecli"


def imports(path: Path, everywhere: bool = True) -> Iterator[str]:
    """The modules a file imports; not ``everywhere``: only when it is loaded itself, not in functions or for types."""
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        late = isinstance(node, ast.FunctionDef | ast.Lambda)
        late = late or (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
        if everywhere or not late:
            pending.extend(ast.iter_child_nodes(node))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", OURS, ids=name)
def test_imports_go_downhill(path: Path) -> None:
    here = room(path.relative_to(ROOT).parts)
    if here not in LEVEL:
        assert here in ("__init__", "__main__")
        return
    for module in imports(path):
        there = room(tuple(module.split(".")))
        if there is None or there in (here, "caffecli", "__version__"):
            continue
        assert LEVEL[there] < LEVEL[here], f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", OURS, ids=name)
def test_torch_stays_where_tensors_are(path: Path) -> None:
    here = room(path.relative_to(ROOT).parts)
    if here in WITH_TORCH and not (here == "tools" and path.stem in TOOLS_WITHOUT_TORCH):
        return
    found = [module for module in imports(path, everywhere=False) if module.split(".")[0] in ("torch", "torchvision")]
    assert not found, f"{name(path)} imports {found}"


@pytest.mark.parametrize("path", [path for path in OURS if "cli" in path.parts], ids=name)
def test_commands_load_what_is_heavy_when_they_are_called(path: Path) -> None:
    heavy = ("torch", "numpy", "cv2", "google", "lmdb", "h5py", "tqdm", "converters")
    rooms = tuple(f"caffecli.{there}" for there in LEVEL if there not in ("errors", "host", "logs", "wording", "cli"))
    found = [
        module
        for module in imports(path, everywhere=False)
        if module.split(".")[0] in heavy or module.startswith(rooms)
    ]
    assert not found


#: where the work of a command has another name than the command
ADDRESSES = {"import": "import_", **dict.fromkeys((one for one in COMMANDS if one.startswith("upgrade_")), "upgrade")}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_has_an_address(command: str) -> None:
    """Its work is in the module of its name in tools or converters, which the module of its name in cli alone calls."""
    module = ADDRESSES.get(command, command)
    paths = f"{module}.py", f"{module}/__init__.py"
    rooms = [room for room in ("caffecli/tools", "converters") if any((ROOT / room / path).exists() for path in paths)]
    assert len(rooms) == 1
    called = f"{rooms[0].replace('/', '.')}.{module}"
    thin = ROOT / "caffecli/cli" / f"{module}.py"
    used = [one for one in imports(thin) if one.startswith(("caffecli.tools.", "converters."))]
    assert used
    assert all(f"{one}.".startswith(f"{called}.") for one in used), f"{name(thin)} imports {used}"


@pytest.mark.parametrize("path", OURS, ids=name)
def test_files_end(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 500, "what belongs together is one file, and this is more"


@pytest.mark.parametrize("path", OURS, ids=name)
def test_no_assert_on_what_users_give(path: Path) -> None:
    found = [node.lineno for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Assert)]
    assert not found
