"""The flags that watch a test output or shape the learning rate, as users type them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., tuple[int, str]]
Fails = Callable[..., str]
TRAIN = ("train", "--solver=solver.prototxt")


def test_an_early_stop_is_no_failure(folder: Path, edit: Callable[..., None], command: Command) -> None:
    edit(
        "solver.prototxt",
        "test_interval: 10",
        "test_interval: 1",
        "max_iter: 2",
        "max_iter: 500",
        "snapshot: 2",
        "snapshot: 300",
    )
    code, log = command(*TRAIN, "-early_stop", "2", "--best", "--warmup=3:0.01", "--min_lr=0.001")
    assert code == 0
    end = re.search(
        r"Iteration (\d+): accuracy was not better than \S+ of iteration \d+ in 2 tests; stopping, as --early-stop 2",
        log,
    )
    assert end is not None
    assert Path(f"s_iter_{end[1]}.solverstate").is_file() and Path("s_best.caffemodel").is_file()
    assert log.rstrip().endswith("Optimization Done.") and "Optimization stopped early." in log


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--early-stop=0",), "0 is not in the range x>=1"),
        (("--early-stop=x",), "'x' is not a valid integer"),
        (("--plateau=0:0.1",), "'0:0.1' does not begin with a count from 1 to 999999999"),
        (("--plateau=2:",), "'' in '2:' is no gamma, a number between 0 and 1"),
        (("--plateau=2:1.5",), "'1.5' in '2:1.5' is no gamma, a number between 0 and 1"),
        (("--warmup=-3",), "'-3' does not begin with a count from 1 to 999999999"),
        (("--warmup=999999999999:0.1",), "'999999999999:0.1' does not begin with a count from 1 to 999999999"),
        (("--warmup=10:nan",), "'nan' in '10:nan' is no learning rate, a number of at least 0"),
        (("--min-lr=-1",), "-1.0 is not in the range x>=0"),
        (("--min-lr=nan",), "nan is no learning rate, a finite number of at least 0"),
        (("--min-lr=inf",), "inf is no learning rate, a finite number of at least 0"),
        (("--monitor=loss",), "--monitor says what --early-stop, --plateau and --best watch; give one of them"),
    ],
)
def test_wrong_use(fails: Fails, flags: tuple[str, ...], words: str) -> None:
    assert words in fails(*TRAIN, *flags, code=2)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--best", "--monitor=acc"),
            "test net #0 has no output 'acc'; did you mean 'accuracy'? its outputs: accuracy, loss",
        ),
        (("--early-stop=3", "--monitor=2:loss"), "there is no test net #2; there is only #0"),
        (("--plateau=3",), "by what is the rate multiplied? give --plateau 3:0.1, or gamma in the solver"),
        (("--plateau=3:0",), "gamma must lie between 0 and 1, got 0"),
        (("--min-lr=1",), "--min-lr 1 is above base_lr 0.05"),
    ],
)
def test_what_does_not_fit_the_run(fails: Fails, flags: tuple[str, ...], words: str) -> None:
    assert words in fails(*TRAIN, *flags)


def test_the_cpu_goes_before_gpus(folder: Path, command: Callable[..., tuple[int, str]]) -> None:
    code, log = command(*TRAIN, "--gpu=0", "--cpu")
    assert code == 0 and "Use CPU." in log
    assert "--cpu goes before --gpu 0: leave out the one that is not meant" in log


def test_nothing_to_watch(edit: Callable[..., None], fails: Fails) -> None:
    edit("solver.prototxt", "test_iter: 1 test_interval: 10", "")
    assert "there is no test net; give the solver test_iter and test_interval" in fails(*TRAIN, "--early-stop=3")


def test_the_command_to_go_on_with_has_the_flags_that_were_given(
    folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    from caffecli.tools import train as tool

    came: list[tool.TrainOptions] = []
    monkeypatch.setattr(tool, "train", came.append)
    command(
        "-solver", "my solver.prototxt", "train", "-early_stop", "2", "--weights=a.caffemodel", "--best", "--nobest"
    )
    command("train", "--solver=s", "-snapshot", "x.solverstate", "--log_dir=.", "--warmup", "3:0.01")
    assert [options.command for options in came] == [
        ("caffecli", "train", "--solver=my solver.prototxt", "--early-stop=2"),
        ("caffecli", "train", "--solver=s", "--log_dir=.", "--warmup=3:0.01"),
    ]


@pytest.mark.parametrize("flag", ["--weights=s.caffemodel,none.caffemodel", "--snapshot=none.solverstate"])
def test_files_that_are_not_there_are_told_before_a_net_is_built(
    folder: Path, fails: Fails, command: Command, flag: str
) -> None:
    Path("s.caffemodel").write_bytes(b"")
    assert "none." in fails(*TRAIN, flag)
    assert "Creating training net" not in command(*TRAIN, flag)[1]
    if "--weights" in flag:
        test = ("test", "--model=net.prototxt", flag)
        assert "cannot read 'none.caffemodel': No such file or directory" in fails(*test)
        assert "Setting up" not in command(*test)[1]
