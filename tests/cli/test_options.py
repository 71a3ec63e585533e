"""Flags in all of Caffe's spellings."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from caffecli import __version__, logs
from caffecli.cli.options import caffe_command, device_options, net_state_options

seen: dict[str, Any] = {}


@caffe_command("tool")
@click.option("--solver", default="s", help="A file.")
@click.option("--resize_width", type=int, default=0, help="A width.")
@click.option("--momentum", type=float, help="A number.")
@click.option("--gray", is_flag=True, help="A flag.")
@click.option("--notes", is_flag=True, help="A flag whose name begins with 'no'.")
@click.argument("files", nargs=-1)
def tool(**values: Any) -> None:
    """A tool."""
    seen.clear()
    seen.update(values)
    logs.info("tool.cpp:1", "working")


def call(*args: str) -> dict[str, Any]:
    result = CliRunner().invoke(tool, list(args), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return dict(seen)


def refuses(*args: str, command: click.Command = tool) -> str:
    result = CliRunner().invoke(command, list(args))
    assert result.exit_code == 2
    return result.output.splitlines()[-1]


@pytest.mark.parametrize(
    "args", [["--solver=x"], ["--solver", "x"], ["-solver=x"], ["-solver", "x"], ["-solver", "y", "--solver=x"]]
)
def test_values(args: list[str]) -> None:
    assert call(*args)["solver"] == "x"


@pytest.mark.parametrize("flag", ["--resize_width", "--resize-width", "-resize_width", "-resize-width"])
def test_underscores_and_hyphens(flag: str) -> None:
    assert call(flag, "7")["resize_width"] == call(f"{flag}=7")["resize_width"] == 7


@pytest.mark.parametrize(
    ("args", "gray"),
    [
        (["-gray"], True),
        (["--gray=true"], True),
        (["-gray=1"], True),
        (["--gray=YES"], True),
        (["--gray=false"], False),
        (["-gray=0"], False),
        (["--gray=no"], False),
        (["-nogray"], False),
        (["--nogray"], False),
        (["--no-gray"], False),
        (["--gray", "--nogray"], False),
        (["--nogray", "--gray"], True),
        (["--gray=t", "--gray=f"], False),
    ],
)
def test_flags(args: list[str], gray: bool) -> None:
    assert call(*args)["gray"] is gray


def test_a_flag_takes_no_argument() -> None:
    assert call("-gray", "false", "a")["files"] == ("false", "a")


def test_a_name_that_begins_with_no() -> None:
    assert call("-notes")["notes"] is True
    assert call("-nonotes")["notes"] is False


def test_negative_numbers_are_values() -> None:
    assert call("-momentum", "-0.5")["momentum"] == -0.5
    assert call("--momentum", "-1e-3")["momentum"] == -0.001
    assert call("--resize_width=-1")["resize_width"] == -1


def test_values_that_look_like_flags() -> None:
    assert call("--solver", "-x")["solver"] == "-x"
    assert call("--solver=--gray")["solver"] == "--gray"
    assert call("--solver=a=b")["solver"] == "a=b"


def test_arguments_stand_anywhere() -> None:
    assert call("a", "-gray", "b", "-solver", "x", "c")["files"] == ("a", "b", "c")
    assert call("-gray", "--", "-solver", "--gray")["files"] == ("-solver", "--gray")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-sovler", "x"], "Did you mean"),
        (["--sovler=x"], "--sovler"),
        (["-solver"], "Option '--solver' requires an argument."),
        (["-solver", "-gray"], "Option '--solver' requires a value, but '-gray' follows it."),
        (["--gray=maybe"], "Error: Invalid value for '--gray': 'maybe' is neither true nor false."),
        (["-nosolver"], "No such option"),
        (["--resize_width=x"], "'x' is not a valid integer."),
    ],
)
def test_wrong_use(args: list[str], words: str) -> None:
    assert words in refuses(*args)


def test_defaults_stand_in_the_help() -> None:
    shown = CliRunner().invoke(tool, ["-help"]).output
    assert "[default: s]" in shown
    assert "[default: 0]" in shown
    assert "default: False" not in shown
    assert "logtostderr" not in shown


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--resize_width="], "--resize_width is empty; give it a value, or leave it out"),
        (["-solver", ""], "--solver is empty; give it a value, or leave it out"),
        (["--momentum="], "--momentum is empty; give it a value, or leave it out"),
        (["a", ""], "[FILES]... is empty; give it a value"),
    ],
)
def test_an_empty_value_names_its_flag(args: list[str], words: str) -> None:
    result = CliRunner().invoke(tool, args)
    assert (result.exit_code, result.output) == (2, f"Error: {words}\n")


@caffe_command("brew", brew=True, empty=["model"])
@click.option("--model", default="m")
@click.option("--stage", default="")
def brew(**values: Any) -> None:
    """A command of Caffe's one program."""
    seen.clear()
    seen.update(values)


def test_an_empty_value_may_say_something() -> None:
    assert CliRunner().invoke(brew, ["--model=", "-stage", ""], catch_exceptions=False).exit_code == 0
    assert seen == {"model": "", "stage": ""}


def test_flags_of_caffes_other_commands_are_ignored_with_a_word() -> None:
    result = CliRunner().invoke(brew, ["--phase=TEST", "-iterations", "5", "--snapshot="], catch_exceptions=False)
    assert result.exit_code == 0
    assert [line.partition("] ")[2] for line in result.output.splitlines()] == [
        "brew has no use for --phase, which is ignored",
        "brew has no use for --iterations, which is ignored",
    ]
    assert "phase" not in CliRunner().invoke(brew, ["-help"]).output
    assert "No such option" in refuses("--phase=TEST")


def test_version() -> None:
    for spelling in ("--version", "-version"):
        assert CliRunner().invoke(tool, [spelling]).output == f"caffecli, version {__version__}\n"


@caffe_command("stated")
@device_options
@net_state_options
def stated(**values: Any) -> None:
    """A command on a device, for a net state."""
    seen.clear()
    seen.update(values)


def test_device_and_net_state() -> None:
    def call_stated(*args: str) -> dict[str, Any]:
        assert CliRunner().invoke(stated, list(args), catch_exceptions=False).exit_code == 0
        return dict(seen)

    assert call_stated() == {"gpu": None, "cpu": False, "level": 0, "stages": ("",)}
    assert call_stated("-gpu", "0,1", "-level", "-2", "-stage", "a,b") == {
        "gpu": "0,1",
        "cpu": False,
        "level": -2,
        "stages": ("a", "b"),
    }
    assert call_stated("--gpu=all", "-cpu") == {"gpu": "all", "cpu": True, "level": 0, "stages": ("",)}
    assert refuses("-gpu", "0,", command=stated).endswith("'0,' is neither 'all' nor device numbers such as 0 or 0,1.")


def test_the_log_is_shown_while_a_command_runs(capfd: pytest.CaptureFixture[str]) -> None:
    tool.main([], standalone_mode=False)
    logs.info("tool.cpp:2", "after")
    error = capfd.readouterr().err
    assert error.endswith("tool.cpp:1] working\n")
    assert error.startswith("I")
