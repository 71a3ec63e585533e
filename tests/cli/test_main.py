"""The program as a whole: help, exit codes, and one line for each error."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest

import caffecli
from caffecli.cli import main
from caffecli.errors import SpecError

ROOT = Path(__file__).parents[2]


def run(*args: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "caffecli", *args], cwd=ROOT, capture_output=True, text=True, check=False, **more
    )


def fails(error: BaseException, *args: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit code of a program whose command raises ``error``."""

    @click.command()
    @click.option("--debug", is_flag=True, expose_value=False)
    def command() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["tool", *args])
    with pytest.raises(SystemExit) as end:
        main.run(command, "tool")
    return int(end.value.code or 0)


def test_a_system_without_posix_locks_is_told_so() -> None:
    program = (
        "import sys; sys.modules['fcntl'] = None; from caffecli.cli import main; "
        "sys.argv[1:] = ['convert_mean', 'a', 'b']; main.main('caffecli')"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "it runs on Linux, macOS, and on Windows in WSL" in done.stderr


@pytest.mark.parametrize(("words", "usage"), [([], "COMMAND"), (["summarize", "x"], "summarize")])
def test_help_is_a_word_too(words: list[str], usage: str) -> None:
    assert re.match(rf"Usage: .*\b{usage}\b", run("help", *words).stdout)


def test_help_names_every_command_and_imports_none() -> None:
    code = "import sys; from caffecli.cli import main; main.cli.main(['--help'], standalone_mode=False); "
    code += (
        "print([m for m in sys.modules if m in ('torch', 'numpy', 'google.protobuf') or m.startswith('caffecli.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in main.COMMANDS)
    assert done.stdout.splitlines()[-1] == "['caffecli.cli.main']"


@pytest.mark.parametrize("name", list(main.COMMANDS))
def test_help_of_a_command_does_not_import_torch(name: str) -> None:
    code = f"import sys; from caffecli.cli import main; main.cli.main(['{name}', '--help'], standalone_mode=False); "
    code += "print([m for m in sys.modules if m in ('torch', 'cv2', 'google.protobuf')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"Usage: root {name} " in done.stdout or name in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_is_quick() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        run("--help")
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


def test_each_command_has_the_name_it_stands_under() -> None:
    for name in main.COMMANDS:
        assert main.load_command(name).name == name


def test_console_scripts_exist() -> None:
    scripts = re.findall(r'^(\w+) = "caffecli\.cli\.main:(\w+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert len(scripts) == 14
    for name, target in scripts:
        function = getattr(main, target)
        assert callable(function)
        assert function.__name__ == "main" if name in ("caffe", "caffecli") else function.__name__ == name


def test_a_tool_by_its_own_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["upgrade_solver_proto_text", str(tmp_path / "none"), "out"])
    with pytest.raises(SystemExit) as end:
        main.upgrade_solver_proto_text()
    assert end.value.code == 1
    assert (
        capsys.readouterr().err
        == f"Error: cannot read {str(tmp_path / 'none')!r}: No such file or directory; check the path\n"
    )


def test_version() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"caffecli, version {caffecli.__version__}\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["trian"], "Error: No command 'trian'; did you mean 'train'?"),
        (["convert-imagset"], "Error: No command 'convert-imagset'; did you mean 'convert_imageset'?"),
        (["zzz"], "Error: No command 'zzz'; there are new, train, test, time"),
        (["train"], "Error: Missing option '--solver'."),
    ],
)
def test_wrong_use(args: list[str], words: str) -> None:
    done = run(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1].startswith(words)


@pytest.mark.parametrize(
    "args",
    [
        ["upgrade_net_proto_text", "none", "out"],
        ["upgrade-net-proto-text", "none", "out"],
        ["-logtostderr", "upgrade_net_proto_text", "none", "out"],
        ["--minloglevel=1", "none", "upgrade_net_proto_text", "out"],
    ],
)
def test_the_command_may_come_after_flags(args: list[str]) -> None:
    done = run(*args)
    assert (done.returncode, done.stderr) == (
        1,
        "Error: cannot read 'none': No such file or directory; check the path\n",
    )


@pytest.mark.parametrize(
    ("args", "first"),
    [
        (["-solver", "s", "train"], ["train", "-solver", "s"]),
        (["-solver", "train", "train"], ["train", "-solver", "train"]),
        (["-model", "test", "-weights=w", "time"], ["time", "-model", "test", "-weights=w"]),
        (["-cpu", "train"], ["train", "-cpu"]),
        (["--help"], ["--help"]),
        (["train", "-solver", "test"], ["train", "-solver", "test"]),
        ([], []),
    ],
)
def test_command_first(args: list[str], first: list[str]) -> None:
    assert main._command_first(args) == first


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SpecError("layer 'a': no"), 1, "Error: layer 'a': no\n"),
        (OSError(28, "No space left on device", "/x/y"), 1, "Error: '/x/y': No space left on device\n"),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device\n"),
        (
            UnicodeEncodeError("ascii", "p\xf6", 1, 2, "no"),
            1,
            "Error: 'p\\xf6' cannot be spelled in this locale; set LC_ALL=C.UTF-8\n",
        ),
        (ValueError("embedded null byte"), 1, "Error: a path holds a zero byte; take it out\n"),
        (MemoryError(), 1, "Error: out of memory; free some, or lower batch_size where a net runs\n"),
        (
            KeyError("a\nb"),
            1,
            "Error: internal: KeyError: 'a\\nb'; run again with --debug for the traceback\n",
        ),
        (KeyboardInterrupt(), 130, "\nInterrupted\n"),
        (click.UsageError("no"), 2, "Error: no\n"),
    ],
)
def test_errors_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: int, words: str
) -> None:
    assert fails(error, monkeypatch=monkeypatch) == code
    assert capsys.readouterr().err.removeprefix("Usage: tool [OPTIONS]\nTry 'tool --help' for help.\n\n") == words


def test_debug_shows_the_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert fails(SpecError("no"), "--debug", monkeypatch=monkeypatch) == 1
    error = capsys.readouterr().err
    assert error.startswith("Traceback (most recent call last):")
    assert error.endswith("caffecli.errors.SpecError: no\nError: no\n")


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_stands_before_or_after_the_command(place: int) -> None:
    args = ["upgrade_net_proto_text", "none", "out"]
    done = run(*args[:place], "--debug", *args[place:])
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.endswith("Error: cannot read 'none': No such file or directory; check the path\n")


@pytest.mark.parametrize("write", ["print('x' * 100000)", "print('x' * 100000, file=__import__('sys').stderr)"])
def test_a_reader_that_goes_away_is_no_error(write: str) -> None:
    code = f"import click; from caffecli.cli import main\nmain.run(click.Command('c', callback=lambda: {write}))"
    stream = "stdout" if "stderr" not in write else "stderr"
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    pipes: dict[str, Any] = {stream: writer, other: subprocess.PIPE}
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, **pipes)
    os.close(writer)
    assert process.returncode == 1
    assert getattr(process, other) == b""


def test_closed_streams() -> None:
    code = "import click, sys; from caffecli.cli import main\n"
    code += "main.run(click.Command('c', callback=lambda: [print('x', file=f) for f in (sys.stdout, sys.stderr)]))"
    shell = [f'exec {sys.executable} -c "$0" <&- >&- 2>&-', code]
    assert subprocess.run(["sh", "-c", *shell], cwd=ROOT, check=False).returncode == 0


def test_interrupt() -> None:
    code = "import click, time; from caffecli.cli import main\n"
    code += "main.run(click.Command('c', callback=lambda: (print('up', flush=True), time.sleep(60))))"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (130, "\nInterrupted\n")


def test_no_arguments_greet_with_five_commands_that_can_be_typed_so() -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    typed = re.findall(r"^    caffecli (\w+)(.*)", done.stdout, re.MULTILINE)
    assert len(typed) == 5
    for name, rest in typed:
        flags = {opt for param in main.load_command(name).params for opt in param.opts}
        assert set(re.findall(r"--\w+", rest)) <= flags
    assert "caffecli --help lists all commands, caffecli help COMMAND tells of one" in done.stdout


def test_the_help_lists_the_commands_in_groups() -> None:
    shown = run("--help").stdout
    assert [title for title in re.findall(r"^(\S.*):$", shown, re.MULTILINE) if title != "Options"] == list(main.GROUPS)
    assert run("help").stdout == shown
    assert "did you mean 'test'" in run("help", "tset").stderr
