"""Fixtures that all tests share."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

import pytest
from hypothesis import settings

from caffecli import logs

#: `make test` draws the same examples each time, however long the machine takes for them
settings.register_profile("repeatable", derandomize=True, deadline=None)

#: without PyTorch, as `make test-versions` runs the rooms that need none, the tests there that look at layers too
collect_ignore = (
    []
    if importlib.util.find_spec("torch")
    else ["formats/test_bounds.py", "proto/test_forks.py", "spec/test_support.py"]
)

P = ParamSpec("P")
T = TypeVar("T")

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as caffecli.cli.main does, before torch is imported


@pytest.fixture(autouse=True)
def log_hidden() -> None:
    """What `import caffe` shows unasked would be in each test's stderr."""
    logs.show_by_default(False)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The answers recorded from the reference."""
    return Path(__file__).parent / "golden"


def untraced(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, in which Python's trace function, by which coverage counts lines, rests."""

    def run(*args: P.args, **more: P.kwargs) -> T:
        trace = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*args, **more)
        finally:
            sys.settrace(trace)

    return run


@pytest.fixture(scope="session", autouse=True)
def torch_exports_untraced() -> Iterator[None]:
    """Under coverage torch.export would take twice its time, for lines that are not ours."""
    if sys.gettrace() is None:
        yield
        return
    import torch
    from torch.export import ExportedProgram

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.export, "export", untraced(torch.export.export))
        patch.setattr(ExportedProgram, "run_decompositions", untraced(ExportedProgram.run_decompositions))
        patch.setattr(torch.onnx, "export", untraced(torch.onnx.export))
        yield


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``tutorial`` as scripts/digits.py makes it, with which pages of the documentation begin;
    to be copied.
    """
    root, folder = Path(__file__).parents[1], tmp_path_factory.mktemp("digits")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, root / "scripts/digits.py"], cwd=folder, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder / "tutorial"


@pytest.fixture
def heard() -> Iterator[io.StringIO]:
    """What the log says during the test."""
    stream = io.StringIO()
    handler = logs.show(stream)
    yield stream
    logs.hide(handler)


@pytest.fixture
def ranks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the processes of a run on several devices come from one that has imported torch, not import it themselves,
    which takes three seconds of each. Their stderr and environment are those of the first test that has them.
    """
    import multiprocessing

    from caffecli.solver import launch

    multiprocessing.set_forkserver_preload(["caffecli.tools.train"])
    monkeypatch.setattr(launch, "START", "forkserver")


@pytest.fixture(scope="session")
def forked_caffecli() -> Iterator[str]:
    """The command ``caffecli``, for a shell, by ``tests/forked.py``."""
    root = Path(__file__).parents[1]
    program, env = str(root / "tests/forked.py"), {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(root)}
    with tempfile.TemporaryDirectory() as folder:  # its name is short, as a socket's has to be
        path = f"{folder}/socket"
        with subprocess.Popen([sys.executable, program, "serve", path], stdout=subprocess.PIPE, env=env) as server:
            assert server.stdout is not None and server.stdout.readline() == b"ready\n"
            yield f"{sys.executable} -SEs {program} call {path}"
            server.terminate()
