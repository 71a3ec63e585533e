"""The flags of train about what it leaves behind: --keep, --seed, --deterministic, --log-file, --csv, --jsonl,
--tensorboard.
"""

from __future__ import annotations

import io
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caffecli import logs
from caffecli.errors import FormatError, SolverError
from caffecli.formats import log_file

Command = Callable[..., tuple[int, str]]


def test_all_at_once(folder: Path, command: Command, edit: Callable[..., None]) -> None:
    edit("solver.prototxt", "snapshot: 2", "snapshot: 1 display: 1")
    flags = ["--keep=1", "--seed", "3", "-deterministic", "--log-file=log", "-csv", "a.csv", "--jsonl=a.jsonl"]
    code, err = command("train", "-solver=solver.prototxt", *flags)
    assert code == 0
    assert sorted(p.name for p in folder.glob("s_iter_*")) == [
        f"s_iter_2.{kind}" for kind in ("caffemodel", "solverstate", "solverstate.json")
    ]
    assert Path("log").read_text() == err
    assert "random_seed: 3" in err
    assert len(Path("a.csv").read_text().splitlines()) == 5
    assert len(Path("a.jsonl").read_text().splitlines()) == 4


def test_log_is_appended(folder: Path, command: Command) -> None:
    _, first = command("train", "--solver=solver.prototxt", "--log_file=log")
    _, second = command("train", "--solver=solver.prototxt", "--snapshot=s_iter_2.solverstate", "--log_file=log")
    assert Path("log").read_text() == first + second


def test_log_ends_with_the_error(folder: Path, command: Command) -> None:
    Path("net.prototxt").write_text("layer { name: 1 }")
    code, err = command("train", "--solver=solver.prototxt", "--log-file=log")
    assert code == 1
    assert err.splitlines()[-1].startswith("Error: net.prototxt:1:")
    last = Path("log").read_text().splitlines()[-1]
    assert re.match(r"E\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ caffe\.cpp:239\] net\.prototxt:1:", last)
    assert err.count("net.prototxt:1:") == 1


def test_log_obeys_the_level(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "2")
    _, err = command("train", "--solver=solver.prototxt", "--log-file=log")
    assert Path("log").read_text() == err == ""


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--log-file=no/log"], "cannot write 'no/log': No such file or directory; create the folder 'no' first"),
        (["--csv=no/a"], "cannot write 'no/a'"),
        (["--csv=solver.prototxt"], "'solver.prototxt' is there and is no CSV"),
        (["--jsonl=net.prototxt"], "'net.prototxt' is there and its line 1 is no record"),
    ],
)
def test_wrong_files(fails: Callable[..., str], flags: list[str], words: str) -> None:
    assert words in fails("train", "--solver=solver.prototxt", *flags)


def test_no_tensorboard(fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    words = "--tensorboard needs the package tensorboard: pip install tensorboard"
    assert fails("train", "--solver=solver.prototxt", "--tensorboard=tb") == words


@pytest.mark.parametrize("flag", ["--keep=0", "--seed=-1", "--seed=9223372036854775808", "--log-file=images"])
def test_wrong_use(fails: Callable[..., str], flag: str) -> None:
    assert flag[2:].split("=")[0].replace("_", "-") in fails("train", "--solver=solver.prototxt", flag, code=2)


# -- the log's outlets, for those who use caffecli as a library --------------------------------------------------------


def test_appending_leaves_no_trace(tmp_path: Path) -> None:
    logger = logging.getLogger("caffecli")
    before = logger.level, list(logger.handlers)
    with log_file.appending(tmp_path / "log"):
        logs.info("a.cpp:1", "said")
        assert log_file.outlets()[1] == ((tmp_path / "log").resolve(),)
    with log_file.appending(None):
        assert log_file.outlets()[1] == ()
    assert (logger.level, logger.handlers) == before
    assert re.fullmatch(r"I.* a\.cpp:1\] said\n", (tmp_path / "log").read_text())


def test_outlets_open_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("caffecli")
    before = list(logger.handlers)
    log_file.open_outlets(log_file.Outlets(0, (tmp_path / "log",), ((tmp_path, "caffe"),)))
    place = tmp_path.resolve()
    assert log_file.outlets() == (0, (place / "log",), ((place, "caffe"),))
    logs.info("a.cpp:1", "said")
    for handler in logger.handlers[len(before) :]:
        logs.hide(handler)
    assert capsys.readouterr().err == (tmp_path / "log").read_text() != ""


def test_a_silent_process_opens_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("caffecli"), "disabled", True)
    with log_file.appending(tmp_path / "log"):
        pass
    assert not (tmp_path / "log").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    handler = logs.show()
    try:
        with log_file.appending("/dev/full"):
            logs.info("a.cpp:1", "one")
            logs.info("a.cpp:1", "two")
    finally:
        logs.hide(handler)
    lines = [line.split("] ")[1] for line in capsys.readouterr().err.splitlines()]
    assert sorted(line for line in lines if "/dev/full" not in line) == ["one", "two"]
    told = [line for line in lines if "/dev/full" in line]
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert told[0].endswith("the run goes on without its log there")


def test_error_is_logged_to_the_file_alone(tmp_path: Path) -> None:
    heard = io.StringIO()
    handler = logs.show(heard)
    try:
        with pytest.raises(SolverError), log_file.appending(tmp_path / "log"):
            raise SolverError("no")
    finally:
        logs.hide(handler)
    assert (tmp_path / "log").read_text().endswith("] no\n")
    assert heard.getvalue() == ""
    with pytest.raises(FormatError, match="Is a directory"):
        log_file.append(tmp_path)
