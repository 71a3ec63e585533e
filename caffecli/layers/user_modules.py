"""Modules of a user's own that register layers: ``--layers`` and the variable CAFFECLI_LAYERS name them."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from caffecli.errors import CaffeError, SpecError
from caffecli.layers import registry
from caffecli.layers.outside import failure

VARIABLE = "CAFFECLI_LAYERS"

_lock = threading.Lock()
#: the folders that blocks of ``on_path`` have put on Python's path -> how many blocks are running
_users: Counter[str] = Counter()


def load(modules: Iterable[str]) -> None:
    """Import the modules, each of which registers layers by ``registry.register``; to be called before a net is built.

    Without any, those that the variable CAFFECLI_LAYERS names, with commas between them.
    They are looked for on Python's path, then in the working directory. Raises SpecError for a module that is not
    there, that registers no layer, or a type that there is already; PythonLayerError for one whose code fails.
    """
    source, names = "--layers", tuple(modules)
    if not names:
        source, names = VARIABLE, tuple(filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(","))))
    for name in names:
        if not is_name(name):
            raise SpecError(f"{source}: {name!r} is no name of a module, such as my_layers or package.my_layers")
        here = str(Path.cwd())
        if here not in sys.path:
            sys.path.append(here)  # to stay, as the folder of a program does: its modules may import each other later
        _load(name, f"{source} {name}")


def is_name(text: str) -> bool:
    """Whether a module can be called so."""
    return not text.endswith(".py") and all(part.isidentifier() for part in text.split("."))


@functools.cache  # a module is loaded once in a process
def _load(name: str, where: str) -> None:
    before = set(registry.types())
    module = import_module(name, (), where)
    own = {registry.layer_class(kind).__module__ for kind in registry.types()}
    if set(registry.types()) == before and not any(f"{place}.".startswith(f"{name}.") for place in own):
        file = module.__file__ or ", ".join(module.__path__)
        raise SpecError(
            f'{where}: {file} registers no layer; put @caffecli.register("MyType") over a class that derives from '
            "caffecli.Layer"
        )


@contextlib.contextmanager
def on_path(folders: Iterable[str]) -> Iterator[None]:
    """Look for modules in these folders too while the block runs, in one thread or in several at a time."""
    with _lock:
        added = [folder for folder in folders if folder in _users or folder not in sys.path]
        sys.path += [folder for folder in added if folder not in _users]
        _users.update(added)
    try:
        yield
    finally:
        with _lock:
            for folder in added:
                _users[folder] -= 1
                if not _users[folder]:
                    del _users[folder]
                    if folder in sys.path:
                        sys.path.remove(folder)


def is_there(name: str, folders: Iterable[str]) -> bool:
    """Whether a module of that name is found; its packages are imported, where their code fails it counts as found."""
    importlib.invalidate_caches()
    with on_path(folders):
        try:
            return importlib.util.find_spec(name) is not None
        except ModuleNotFoundError as error:
            return error.name is None or not f"{name}.".startswith(f"{error.name}.")
        except (Exception, SystemExit):
            return True


def import_module(name: str, folders: Iterable[str], where: str) -> ModuleType:
    """The module of a user's, found on Python's path or in ``folders``; errors begin with ``where``.

    Raises SpecError where there is none, PythonLayerError where its code fails.
    """
    importlib.invalidate_caches()
    with on_path(folders):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):
                raise failure(error, f"{where}: import", (__file__,)) from error
            own = (sys.prefix, sys.base_prefix, "__")
            places = ", ".join(path for path in sys.path if path and not path.startswith(own))
            raise SpecError(f"{where}: no module {name!r} in {places}; set PYTHONPATH to the folder it is in") from None
        except CaffeError as error:  # of ours, that the module's code has met
            raise type(error)(f"{where}: {error}") from error
        except (Exception, SystemExit) as error:
            raise failure(error, f"{where}: import", (__file__,)) from error
