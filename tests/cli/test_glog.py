"""Where glog's flags and variables send a command's log."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from caffecli import logs
from caffecli.cli.options import caffe_command
from caffecli.errors import CaffeError

LINE = re.compile(r"([IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} \d+ \S+\] (.*)")


@caffe_command("train")
def train() -> None:
    """Log a line of each level."""
    logs.info("a.cpp:1", "so")
    logs.warning("a.cpp:2", "careful")
    logs.error("a.cpp:3", "bad")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run with flags and ``GLOG_*`` variables; returns the levels on stderr."""
    for name in list(os.environ):
        if name.startswith("GLOG_"):
            monkeypatch.delenv(name)

    def call(*args: str, program: str = "caffecli", **variables: str) -> str:
        monkeypatch.setattr(sys, "argv", [program])
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(f"GLOG_{name}", value)
            before = dict(os.environ)
            train.main(list(args), standalone_mode=False)
            assert dict(os.environ) == before
        return "".join(line[1] for line in LINE.finditer(capfd.readouterr().err))

    return call


@pytest.mark.parametrize(
    ("flags", "variables", "levels"),
    [
        ([], {}, "IWE"),
        (["-logtostderr"], {}, "IWE"),
        (["--logtostderr=1", "--alsologtostderr=1", "-v", "2"], {}, "IWE"),
        (["--minloglevel=1"], {}, "WE"),
        ([], {"minloglevel": "2"}, "E"),
        (["--minloglevel=0"], {"minloglevel": "2"}, "IWE"),
        (["--stderrthreshold=3"], {}, "IWE"),
        (["-noalsologtostderr"], {}, "E"),
        ([], {"alsologtostderr": "0"}, "E"),
        (["--alsologtostderr=0", "-stderrthreshold", "1"], {}, "WE"),
        (["--alsologtostderr=false"], {"stderrthreshold": "0"}, "IWE"),
        (["--alsologtostderr=0", "--logtostderr"], {}, "IWE"),
        (["--alsologtostderr=0", "--minloglevel=1", "--stderrthreshold=0"], {}, "WE"),
    ],
)
def test_levels_on_stderr(heard: Callable[..., str], flags: list[str], variables: dict[str, str], levels: str) -> None:
    assert heard(*flags, **variables) == levels


def test_files_as_glogs(heard: Callable[..., str], tmp_path: Path) -> None:
    assert heard(f"--log_dir={tmp_path}") == "IWE"
    names = sorted(path.name for path in tmp_path.iterdir())
    form = re.compile(rf"caffe\.[^/]+\.[^./]+\.log\.(INFO|WARNING|ERROR)\.\d{{8}}-\d{{6}}\.{os.getpid()}")
    assert [name for name in names if not form.fullmatch(name)] == ["caffe.ERROR", "caffe.INFO", "caffe.WARNING"]
    assert len(names) == 6
    for level, texts in {"INFO": ["so", "careful", "bad"], "WARNING": ["careful", "bad"], "ERROR": ["bad"]}.items():
        link = tmp_path / f"caffe.{level}"
        assert link.is_symlink() and "/" not in str(link.readlink())
        head, lines = (text := link.read_text().splitlines())[:3], text[3:]
        assert re.fullmatch(r"Log file created at: \d{4}/\d\d/\d\d \d\d:\d\d:\d\d", head[0])
        assert re.fullmatch(r"Running on machine: \S+", head[1])
        assert head[2] == "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg"
        assert [LINE.fullmatch(line)[2] for line in lines] == texts


@pytest.mark.parametrize("program", ["caffe", "/x/build/tools/caffe.bin", "/usr/bin/convert_imageset"])
def test_files_are_named_after_the_program(heard: Callable[..., str], tmp_path: Path, program: str) -> None:
    heard(log_dir=str(tmp_path), program=program)
    assert (tmp_path / f"{Path(program).name}.INFO").exists()


def test_no_files_with_logtostderr(heard: Callable[..., str], tmp_path: Path) -> None:
    assert heard("--logtostderr", log_dir=str(tmp_path)) == "IWE"
    assert not list(tmp_path.iterdir())


def test_a_later_run_takes_the_link_and_a_file_of_that_name_stays(heard: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "caffe.INFO").symlink_to("gone")
    (tmp_path / "caffe.ERROR").write_text("mine")
    heard(log_dir=str(tmp_path))
    assert "so" in (tmp_path / "caffe.INFO").read_text()
    assert (tmp_path / "caffe.ERROR").read_text() == "mine"


def test_a_missing_folder_is_told_and_the_run_goes_on(
    heard: Callable[..., str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train.main([f"--log_dir={tmp_path}/no"], standalone_mode=False)
    err = capfd.readouterr().err
    assert re.search(r"cannot write '\S*/no/\S+': No such file or directory; create the folder '\S*/no' first; ", err)
    assert err.count("the run goes on without its log there") == 1
    assert [match[2] for match in LINE.finditer(err)][-2:] == ["careful", "bad"]


def test_the_files_tell_the_error_that_ends_a_run(heard: Callable[..., str], tmp_path: Path) -> None:
    @caffe_command("test")
    def fails() -> None:
        """Fail."""
        raise CaffeError("no such net")

    with pytest.raises(CaffeError):
        fails.main([f"--log_dir={tmp_path}"], standalone_mode=False)
    assert "no such net" in next(tmp_path.glob("*.ERROR")).read_text()


def test_a_log_that_cannot_be_written_is_an_error(heard: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    with pytest.raises(CaffeError, match="lines of the log on stderr are lost: No space left on device"):
        train.main([], standalone_mode=False)


def test_a_working_directory_that_has_gone_is_named(
    heard: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(CaffeError, match="the working directory is there no more; change to another"):
        train.main([], standalone_mode=False)


def test_a_full_disk_under_a_record_is_named(folder: Path, command: Callable[..., tuple[int, str]]) -> None:
    for flag in ("--csv", "--jsonl"):
        code, err = command("train", "--solver=solver.prototxt", f"{flag}=/dev/full")
        assert (code, err.splitlines()[-1]) == (
            1,
            "Error: cannot write '/dev/full': No space left on device; free some space, or write to another disk",
        )
