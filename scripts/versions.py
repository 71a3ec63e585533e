"""``make test-versions``: tests with the oldest and the newest versions of all that pyproject.toml admits but PyTorch.

On each supported Python of this machine, or those named as in ``PYTHONS=3.13``, two new environments: in one of them
the lowest version of each dependency that has a wheel for that Python, in the other the highest, as uv finds them. The
tests are those of the rooms that need no PyTorch, whose builds are gigabytes where there is no index of CPU wheels.
Others, as in ``TESTS=tests/layers``, are run with PyTorch, of the version in constraints.txt.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import requires
from pathlib import Path

from scripts.pythons import ROOT, environment, found, run, tools

WITHOUT_TORCH = "tests/formats tests/spec tests/proto"


def main(pythons: str, tests: str) -> None:
    here = found()
    missing = set(pythons.split()) - set(here)
    if missing:
        sys.exit(f"not on this machine: {', '.join(sorted(missing))}; there are {', '.join(here)}")
    uv = tools("uv") / "uv"
    for version in pythons.split() or here:
        for resolution in ("lowest-direct", "highest"):
            print(f"\n== Python {version}, {resolution}", flush=True)
            with tempfile.TemporaryDirectory() as folder:
                try_out(uv, Path(folder), here[version], resolution, tests)


def try_out(uv: Path, folder: Path, python: Path, resolution: str, tests: str) -> None:
    programs = environment(folder / "venv", python)
    needed = [line for line in requires("caffecli") or () if "extra ==" not in line and not line.startswith("torch")]
    (folder / "needed.txt").write_text("\n".join(needed))
    (folder / "frozen.txt").write_text("")
    if tests:
        run([programs / "pip", "install", "--quiet", "-r", ROOT / "constraints.txt"])
    install: list[str | Path] = [
        uv,
        "pip",
        "install",
        "--quiet",
        "--python",
        programs / "python",
        "--only-binary",
        ":all:",
    ]
    run([*install, "--resolution", resolution, "-r", folder / "needed.txt"])
    with (folder / "frozen.txt").open("w") as file:
        run([uv, "pip", "freeze", "--python", programs / "python"], stdout=file)
    run([*install, "-c", folder / "frozen.txt", "pytest>=8", "hypothesis>=6.100"])
    print(" ".join((folder / "frozen.txt").read_text().split()), flush=True)
    run([programs / "python", "-m", "pytest", *(tests or WITHOUT_TORCH).split()], cwd=ROOT)


if __name__ == "__main__":
    main(*sys.argv[1:3])
