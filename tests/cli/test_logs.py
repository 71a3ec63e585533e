"""train, test, time and extract_features write the log that Caffe wrote, line for line but for times."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from caffecli.cli.main import load_command

GOLDEN = Path(__file__).parents[1] / "golden"
PREFIX = re.compile(r"^([IWEF])(?:\d{4})?\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ (\S+)\] (.*)$")
NUMBER = re.compile(r"-?\d+\.?\d*(?:e[+-]?\d+)?|-?nan|inf")
#: a warning that the reference has not
UNEVEN = re.compile(r"batches of \d+ are \d+ rows, there are \d+ records")
#: lines of the background thread, which come when they come, and of the queue between it and the loop
UNTIMED = ("data_layer.cpp:73", "blocking_queue.cpp:49")
#: what takes how long
TIMES = re.compile(r"\(\S+ iter/s, \S+s/|(forward|backward): \S+ ms|(pass|Backward|Time|time): \S+ ms")


def lines(log: str) -> list[tuple[str, str, str]]:
    """(level, source, text) a line, without times."""
    found = []
    for line in log.splitlines():
        match = PREFIX.match(line)
        level, source, text = match.groups() if match else ("", "", line)
        if source not in UNTIMED and not UNEVEN.search(text):
            found.append((level, source, TIMES.sub(r"\1\2 T", text).rstrip()))
    return found


def same(ours: str, theirs: str) -> bool:
    """Equal, numbers to three digits."""
    if NUMBER.sub("#", ours) != NUMBER.sub("#", theirs):
        return False
    pairs = zip(NUMBER.findall(ours), NUMBER.findall(theirs), strict=True)
    return all(float(a) == pytest.approx(float(b), rel=2e-3, abs=2e-5) for a, b in pairs)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("train_lmdb", "test_lmdb", "sgd_inv", "sgd_batchnorm"):
        shutil.copytree(GOLDEN / "solvers" / name, tmp_path / name)
    monkeypatch.chdir(tmp_path / "sgd_inv")
    return tmp_path


@pytest.fixture(autouse=True)
def caffe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caffe's program of that name, whose log is whole."""
    monkeypatch.setattr(sys, "argv", ["build/tools/caffe.bin"])


def run(command: str, *args: str) -> None:
    load_command(command).main(list(args), standalone_mode=False)


def check(name: str, heard: str) -> None:
    ours, theirs = lines(heard), lines((GOLDEN / "logs" / name).read_text())
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        assert mine[:2] == other[:2], f"line {number}: {mine} for {other}"
        assert same(mine[2], other[2]), f"line {number}: {mine} for {other}"
    assert len(ours) == len(theirs)


def test_resume(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("train", "--solver=solver.prototxt", "--snapshot=t_iter_15.solverstate")
    check("resume.log", capfd.readouterr().err)


def test_debug_info(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder / "sgd_batchnorm")
    solver = (GOLDEN / "logs" / "debug_info.log").read_text().split("parameters: \n")[1].split("train_state")[0]
    Path("debug.prototxt").write_text(solver)
    run("train", "-solver", "debug.prototxt", "-weights", "init.caffemodel")
    check("debug_info.log", capfd.readouterr().err)


def test_test(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("test", "-model", "net.prototxt", "-weights", "t_iter_15.caffemodel", "-iterations", "3")
    check("test.log", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("log", "args"),
    [
        ("lmdb", "conv,ip features_conv_lmdb,features_ip_lmdb 3 lmdb"),
        ("CPU", "ip features_ip_leveldb 3 leveldb CPU"),
    ],
)
def test_extract_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], log: str, args: str
) -> None:
    tools = GOLDEN / "tools"
    shutil.copytree(tools / "resized_lmdb", tmp_path / "resized_lmdb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/usr/bin/extract_features"])
    run("extract_features", str(tools / "feat.caffemodel"), str(tools / "feat.prototxt"), *args.split())
    check(f"../tools/{log}.extract_features.log", capfd.readouterr().err)


def test_time(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run("time", "--model=net.prototxt", "--iterations=2", "--weights=none")
    ours = lines(capfd.readouterr().err)
    theirs = lines((GOLDEN / "logs" / "time.log").read_text())
    assert [o[:2] for o in ours] == [t[:2] for t in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        if not mine[2].startswith("Initial loss"):  # of random weights
            assert same(mine[2], other[2])


def heard(capfd: pytest.CaptureFixture[str]) -> str:
    """The levels and sources of the log."""
    return " ".join(sorted({level + source.partition(":")[0] for level, source, _ in lines(capfd.readouterr().err)}))


def test_commands_of_caffecli_are_quiet(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("GLOG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "argv", ["caffecli"])
    test = "test", "-model", "net.prototxt", "-weights", "t_iter_15.caffemodel", "-iterations", "3"
    run(*test)
    ours = lines(capfd.readouterr().err)
    theirs = [line for line in lines((GOLDEN / "logs" / "test.log").read_text()) if line[1].startswith("caffe.cpp")]
    assert len(ours) == len(theirs)
    assert all(mine[:2] == other[:2] and same(mine[2], other[2]) for mine, other in zip(ours, theirs, strict=True))
    run("summarize", "net.prototxt", "--weights", "t_iter_15.caffemodel")
    run("draw_net", "net.prototxt", "net.dot")
    assert heard(capfd) == ""
    for more in (["-v"], ["--verbose"], ["--v=2"], ["-v", "1"], ["--minloglevel=0"]):
        run(*test, *more)
        assert "Inet.cpp" in heard(capfd)
    run("summarize", "-v", "net.prototxt")  # the net is no value of -v
    capfd.readouterr()
    run(*test, "-v=0")
    assert heard(capfd) == "Icaffe.cpp"
    run(*test, "--minloglevel=1")
    assert heard(capfd) == ""
    run(*test, "--log_dir=.")
    assert heard(capfd) == "Icaffe.cpp"
    assert "net.cpp" in Path("caffe.INFO").read_text()
    monkeypatch.setenv("GLOG_v", "1")
    run(*test)
    assert "Inet.cpp" in heard(capfd)


def test_features_are_no_errors_where_caffecli_takes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tools = GOLDEN / "tools"
    shutil.copytree(tools / "resized_lmdb", tmp_path / "resized_lmdb")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["caffecli"])
    run(
        "extract_features",
        "ip",
        "f.npy",
        "3",
        "npy",
        f"--weights={tools}/feat.caffemodel",
        f"--model={tools}/feat.prototxt",
    )
    told = lines(capfd.readouterr().err)
    assert {level + source.partition(":")[0] for level, source, _ in told} == {"Iextract_features.cpp"}
    assert told[-1][2] == "Successfully extracted the features!"
