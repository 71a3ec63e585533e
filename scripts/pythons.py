"""The Pythons of this machine that caffecli supports, and new environments of them: for dist.py and versions.py."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())


def found() -> dict[str, Path]:
    """The supported Pythons by their versions (``3.12``): this one, those on the path, pyenv's."""
    here = {"{}.{}".format(*sys.version_info): Path(sys.executable)}
    for version in SUPPORTED:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        on_path = shutil.which(f"python{version}")
        for python in [*pyenv[-1:], *([Path(on_path)] if on_path else [])]:
            asked = subprocess.run(
                [python, "-c", "import venv, sys; print(sys.version)"], capture_output=True, text=True
            )
            if asked.stdout.startswith(f"{version}."):
                here.setdefault(version, python)
    return {version: here[version] for version in SUPPORTED if version in here}


def run(command: list[str | Path], **more: Any) -> None:
    """Show a command, run it, and end the program where it fails."""
    words = [str(word) for word in command]
    print(f"$ {shlex.join(words)}", flush=True)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, **more)
    if done.returncode:
        sys.exit(f"that command failed with exit code {done.returncode}")


def environment(folder: Path, python: Path) -> Path:
    """A new environment; returns the folder of its programs."""
    run([python, "-m", "venv", "--clear", folder])
    return folder / "bin"


def tools(*packages: str) -> Path:
    """The folder of the programs of these packages, installed into ``build/tools`` where they are not there yet."""
    folder = ROOT / "build" / "tools"
    if not (folder / "bin" / "python").exists():
        environment(folder, Path(sys.executable))
    run([folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *packages])
    return folder / "bin"
