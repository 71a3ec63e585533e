"""link-tools: the programs of a built Caffe checkout, called as its scripts call them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caffecli.cli import old_tools
from caffecli.errors import FormatError
from caffecli.formats import caffemodel, mean
from caffecli.formats.db import open_reader
from caffecli.tools.link_tools import PROGRAMS, link_tools

GOLDEN = Path(__file__).parents[1] / "golden"
Program = Callable[..., subprocess.CompletedProcess[str]]

CREATE = """#!/usr/bin/env sh
set -e
TOOLS=./build/tools
rm -rf digits_lmdb pairs_leveldb
build/examples/mnist/convert_mnist_data.bin test-images test-labels digits_lmdb --backend=lmdb
build/examples/siamese/convert_mnist_siamese_data.bin \\
    test-images test-labels pairs_leveldb
GLOG_logtostderr=1 $TOOLS/convert_imageset --resize_height=12 --resize_width=16 --shuffle \\
    images/ list.txt pictures_lmdb
$TOOLS/compute_image_mean -backend=lmdb pictures_lmdb mean.binaryproto
$TOOLS/upgrade_net_proto_text.bin old.prototxt new.prototxt
$TOOLS/upgrade_solver_proto_text solver.prototxt new_solver.prototxt
echo "Done."
"""

TRAIN = """#!/usr/bin/env sh
set -e
./build/tools/caffe train --solver=solver.prototxt $@
./build/tools/train_net.bin solver.prototxt s_iter_1.solverstate
./build/tools/finetune_net.bin solver.prototxt s_iter_2.caffemodel
./build/tools/test_net.bin net.prototxt s_iter_2.caffemodel 2 CPU
./build/tools/extract_features.bin s_iter_2.caffemodel net.prototxt ip1 features 1 lmdb
./build/tools/net_speed_benchmark.bin net.prototxt 1 CPU
"""


@pytest.fixture
def checkout(folder: Path) -> Path:
    """The small run of ``folder`` with a build folder and scripts in the style of Caffe's."""
    shutil.copy(GOLDEN / "upgrade" / "v0_small.prototxt", folder / "old.prototxt")
    (folder / "create.sh").write_text(CREATE)
    (folder / "train.sh").write_text(TRAIN)
    solver = (folder / "solver.prototxt").read_text().replace("snapshot: 2", "snapshot: 1")
    (folder / "solver.prototxt").write_text(solver)
    link_tools(Path("build"))
    return folder


def run(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program that finds nothing of ours by the environment."""
    environment = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": os.environ.get("HOME", "/")}
    return subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True, timeout=200)


def test_the_programs(folder: Path, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("click.echo", lambda text, **_: shown.append(str(text)))
    assert command("link-tools", "a build") == (0, "")
    wanted = {f"{name}{end}" for name in PROGRAMS for end in ("", ".bin")}
    made = {str(path.relative_to("a build")): path for path in Path("a build").rglob("*") if path.is_file()}
    assert set(made) == wanted
    assert shown == [f"a build/{name}{end}" for name in PROGRAMS for end in ("", ".bin")]
    assert all(os.access(path, os.X_OK) for path in made.values())
    assert made["tools/caffe"].read_text() == made["tools/caffe.bin"].read_text()


def test_every_program_leads_to_a_function() -> None:
    for target in PROGRAMS.values():
        module, function = target.split(":")
        assert callable(getattr(sys.modules.get(module) or __import__(module, fromlist=["x"]), function))


def test_files_of_others_are_kept(folder: Path) -> None:
    tools = Path("build/tools")
    tools.mkdir(parents=True)
    (tools / "caffe.bin").write_bytes(b"\x7fELF")
    (tools / "caffe").symlink_to("caffe.bin")
    with pytest.raises(
        FormatError, match=r"'build/tools/caffe' and 1 more exist and were not made by link-tools.*--force"
    ):
        link_tools(Path("build"))
    assert sorted(path.name for path in tools.iterdir()) == ["caffe", "caffe.bin"]
    link_tools(Path("build"), force=True)
    assert not (tools / "caffe").is_symlink()
    link_tools(Path("build"))  # our own are made anew
    (tools / "caffe").unlink()
    (tools / "caffe").mkdir()
    with pytest.raises(FormatError, match=r"'build/tools/caffe' exists and was not made by link-tools; remove them$"):
        link_tools(Path("build"), force=True)
    Path("file").touch()
    with pytest.raises(FormatError, match="cannot write 'file/tools/caffe': Not a directory"):
        link_tools(Path("file"))


def test_neither_path_nor_working_directory_matter(checkout: Path, tmp_path: Path) -> None:
    decoys = tmp_path / "decoys"
    (decoys / "caffecli").mkdir(parents=True)
    for name in ("caffecli/__init__.py", "click.py", "torch.py"):
        (decoys / name).write_text("raise SystemExit('a decoy')")
    done = run(checkout / "build/tools/caffe", "--version", cwd=decoys)
    assert done.stdout.startswith("caffecli, version "), done.stderr
    done = run(checkout / "build/tools/train_net.bin", cwd=decoys)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "Usage: train_net.bin [OPTIONS] SOLVER [SNAPSHOT]")


def test_a_python_that_has_gone(checkout: Path) -> None:
    caffe = Path("build/tools/caffe")
    caffe.write_text(caffe.read_text().replace(sys.executable, "/gone/python"))
    done = run(caffe.absolute(), "--version")
    assert done.returncode == 127
    assert "there is no /gone/python any more; make this file anew with caffecli link-tools" in done.stderr


def test_scripts_that_create_data(checkout: Path) -> None:
    done = run("sh", "./create.sh", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "Done."
    with open_reader("digits_lmdb") as digits, open_reader("pairs_leveldb", "leveldb") as pairs:
        assert len(list(digits)) == len(list(pairs)) > 0
    assert mean.read("mean.binaryproto").shape == (3, 12, 16)
    assert (checkout / "new.prototxt").read_text() == (GOLDEN / "upgrade" / "v0_small.upgraded.prototxt").read_text()
    assert (checkout / "new_solver.prototxt").exists()


@pytest.mark.slow
def test_scripts_that_train(checkout: Path) -> None:
    done = run("sh", "./train.sh", "--cpu", cwd=checkout)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("] Optimization Done.") == 6
    assert "] Resuming from s_iter_1.solverstate" in done.stderr
    assert "] Finetuning from s_iter_2.caffemodel" in done.stderr
    assert "test_net.cpp:50] Test accuracy: 0." in done.stderr
    assert done.stderr.splitlines()[-1].endswith("*** Benchmark ends ***")
    assert (checkout / "features").is_dir()


@pytest.mark.parametrize(
    ("program", "args", "code", "words"),
    [
        ("train_net", [], 2, "Missing argument 'SOLVER'"),
        ("train_net", ["solver.prototxt", "a", "b"], 2, "unexpected extra argument (b)"),
        ("train_net", ["none.prototxt"], 1, "none.prototxt"),
        ("finetune_net", ["solver.prototxt"], 2, "Missing argument 'WEIGHTS'"),
        ("test_net", ["net.prototxt", "w"], 2, "Missing argument 'ITERATIONS'"),
        ("test_net", ["net.prototxt", "w", "1", "TPU"], 2, "'TPU'"),
        ("test_net", ["net.prototxt", "w", "0"], 2, "0 is not in the range"),
        ("net_speed_benchmark", ["net.prototxt", "many"], 2, "'many' is not a valid integer"),
        ("device_query", ["-1"], 2, "-1"),
        ("device_query", ["900"], 1, "no "),
    ],
)
def test_wrong_use_of_old_programs(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    program: str,
    args: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.setattr(sys, "argv", [program, *args])
    with pytest.raises(SystemExit) as end:
        getattr(old_tools, program)()
    assert end.value.code == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("Error: ")
    assert words in last


def test_old_programs_do_as_their_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def call(program: str, *args: str) -> str:
        monkeypatch.setattr(sys, "argv", [program, *args])
        with pytest.raises(SystemExit) as end:
            getattr(old_tools, program)()
        err = capsys.readouterr().err
        assert end.value.code == 0, err
        return err

    assert "] Optimization Done." in call("train_net", "solver.prototxt")
    first = caffemodel.read(Path("s_iter_2.caffemodel"))
    call("train_net", "solver.prototxt")
    again = caffemodel.read(Path("s_iter_2.caffemodel"))
    assert all((a == b).all() for name in first for a, b in zip(first[name], again[name], strict=True))
    assert "] Finetuning from s_iter_2.caffemodel" in call("finetune_net", "solver.prototxt", "s_iter_2.caffemodel")
    lines = call("test_net", "net.prototxt", "s_iter_2.caffemodel", "1").splitlines()
    accuracy = next(line for line in lines if "] accuracy = " in line).rpartition(" = ")[2]
    assert lines[-1].endswith(f"test_net.cpp:50] Test accuracy: {accuracy}")
    assert "Testing for 2 iterations." in call("net_speed_benchmark", "net.prototxt", "2")
