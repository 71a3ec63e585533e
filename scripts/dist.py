"""``make dist``: the sdist and the wheel in the folder dist, checked and tried out.

They are built from a copy of the files that git tracks, with the manual pages. twine and check-wheel-contents check
them, and that they hold what they should. The wheel, from the sdist, is then installed in a new environment of each
supported Python that is here, or of those named as in ``PYTHONS=3.13``. The first of them installs PyTorch too, of the
version in constraints.txt, and trains; the others try what needs none, since PyTorch is gigabytes for each.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from importlib.metadata import requires
from pathlib import Path

from scripts import man_pages
from scripts.pythons import ROOT, environment, found, run, tools

#: tracked files that are of no use outside of a checkout
CHECKOUT_ONLY = (".ci/", ".github/", ".gitignore", ".editorconfig", ".pre-commit-config.yaml")
#: of setuptools' own making
MADE = ("PKG-INFO", "setup.cfg", "caffecli.egg-info/")
PACKAGES = ("caffe/", "caffecli/", "converters/")
NET = """
layer { name: "data" type: "Data" top: "data" top: "label" transform_param { scale: 0.00390625 }
  data_param { source: "SOURCE" batch_size: 16 backend: BACKEND } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def tracked() -> list[str]:
    """The files that git tracks and that are there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def build(folder: Path, program: list[str | Path]) -> tuple[Path, Path]:
    """The sdist and the wheel, in ``folder``; ``program`` is pypa/build's."""
    with tempfile.TemporaryDirectory() as copy:
        for name in tracked():
            (Path(copy) / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, Path(copy) / name)
        man_pages.write(Path(copy) / "man")
        run([*program, "--outdir", folder, copy], stdout=subprocess.DEVNULL)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


def faults_of_sdist(sdist: Path) -> list[str]:
    """What it lacks, and what it should not hold."""
    with tarfile.open(sdist) as file:
        names = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    wanted = {name for name in tracked() if not name.startswith(CHECKOUT_ONLY)} | {
        f"man/{n}" for n in man_pages.pages()
    }
    more = {name for name in names - wanted if not name.startswith(MADE)}
    return [f"lacks {name}" for name in sorted(wanted - names)] + [f"holds {name}" for name in sorted(more)]


def faults_of_wheel(wheel: Path) -> list[str]:
    """What it lacks, and what it should not hold."""
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    name, version = wheel.name.split("-")[:2]
    manual = {f"{name}-{version}.data/data/share/man/man1/{page}" for page in man_pages.pages()}
    own = {path for path in tracked() if path.startswith(PACKAGES)}
    wanted = own | manual | {"caffecli.pth"}
    more = {path for path in names - wanted if not path.startswith(f"{name}-{version}.dist-info/")}
    return [f"lacks {path}" for path in sorted(wanted - names)] + [f"holds {path}" for path in sorted(more)]


def try_out(wheel: Path, python: Path, folder: Path, with_torch: bool) -> None:
    """Install the wheel in a new environment and use it there, far from the repository."""
    programs = environment(folder / "venv", python)
    pip: list[str | Path] = [programs / "pip", "install", "--quiet", "--disable-pip-version-check"]
    if with_torch:
        run([*pip, "-c", ROOT / "constraints.txt", wheel])
    else:
        needed = [line for line in requires("caffecli") or () if "extra ==" not in line]
        run([*pip, *(line for line in needed if not line.startswith("torch"))])
        run([*pip, "--no-deps", wheel])
    if not (folder / "venv/share/man/man1/caffecli-train.1").is_file():
        sys.exit("the manual pages are not installed")
    run([programs / "caffecli", "--version"], cwd=folder)
    run([programs / "caffecli", "--help"], cwd=folder, stdout=subprocess.DEVNULL)
    digits = [ROOT / "tests/golden/mnist_tools/train-images", ROOT / "tests/golden/mnist_tools/train-labels"]
    for backend in ("lmdb", "leveldb"):
        run([programs / "convert_mnist_data", *digits, backend, "--backend", backend], cwd=folder)
        run([programs / "compute_image_mean", "--backend", backend, backend, f"{backend}.binaryproto"], cwd=folder)
        (folder / f"{backend}.prototxt").write_text(NET.replace("SOURCE", backend).replace("BACKEND", backend.upper()))
    if not with_torch:
        return
    for backend in ("lmdb", "leveldb"):
        (folder / "solver.prototxt").write_text(
            f'net: "{backend}.prototxt" base_lr: 0.01 lr_policy: "fixed" max_iter: 20 display: 10 '
            f'snapshot_prefix: "{backend}_net" solver_mode: CPU'
        )
        run([programs / "caffe", "train", "-solver", "solver.prototxt"], cwd=folder)
        weights = f"{backend}_net_iter_20.caffemodel"
        net = ["-model", f"{backend}.prototxt", "-weights", weights]
        run([programs / "caffe", "test", *net, "-iterations", "5"], cwd=folder)
    run([programs / "python", "-c", "import caffe; caffe.set_mode_cpu(); print(caffe.__version__)"], cwd=folder)


def main(pythons: str) -> None:
    here = found()
    missing = set(pythons.split()) - set(here)
    if missing:
        sys.exit(f"not on this machine: {', '.join(sorted(missing))}; there are {', '.join(here)}")
    programs = tools("build", "twine", "check-wheel-contents")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    sdist, wheel = build(dist, [programs / "python", "-m", "build"])
    run([programs / "twine", "check", "--strict", sdist, wheel])
    run([programs / "check-wheel-contents", wheel], cwd=ROOT)
    faults = [
        f"{path.name} {fault}"
        for path, faults in ((sdist, faults_of_sdist(sdist)), (wheel, faults_of_wheel(wheel)))
        for fault in faults
    ]
    if faults:
        sys.exit("\n".join(faults))
    own = "{}.{}".format(*sys.version_info)
    wanted = pythons.split() or sorted(here, key=lambda version: version != own)
    for at, version in enumerate(wanted):
        print(f"\n== Python {version}{'' if at == 0 else ', without PyTorch'}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            try_out(wheel, here[version], Path(folder), with_torch=at == 0)
    print(f"\n{sdist.relative_to(ROOT)} and {wheel.relative_to(ROOT)} install and run on Python {', '.join(wanted)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
