"""The converters' commands: flags, argument counts, errors, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from caffecli.cli.compute_image_mean import compute_image_mean
from caffecli.cli.convert_cifar_data import convert_cifar_data
from caffecli.cli.convert_imageset import convert_imageset
from caffecli.cli.convert_mnist_data import convert_mnist_data
from caffecli.formats import datum
from caffecli.formats.db import Backend, open_reader
from converters import convert_cifar_data as cifar

COMMANDS = {command.name: command for command in (convert_imageset, convert_mnist_data, convert_cifar_data)}


def test_flags_in_caffes_spellings(golden: Path, tmp_path: Path) -> None:
    tools = golden / "tools"
    flags = ["-gray=true", "--resize_width", "20", "-resize_height=20", "--backend=lmdb", "--noshuffle", "--check_size"]
    result = CliRunner().invoke(
        convert_imageset, [*flags, f"{tools}/images/", f"{tools}/list.txt", str(tmp_path / "db")]
    )
    assert result.exit_code == 0, result.output
    with open_reader(tmp_path / "db", "lmdb") as made, open_reader(tools / "gray_lmdb") as wanted:
        assert list(made) == list(wanted)


def test_flags_may_follow_the_arguments(golden: Path, tmp_path: Path) -> None:
    tools = golden / "tools"
    args = [
        f"{tools}/images/",
        f"{tools}/list.txt",
        str(tmp_path / "db"),
        "--encoded",
        "--encode_type",
        "jpg",
        "-shuffle",
    ]
    assert CliRunner().invoke(convert_imageset, args).exit_code == 0
    with open_reader(tmp_path / "db", "lmdb") as made:
        assert all(datum.decode(value).data.startswith(b"\xff\xd8") for _, value in made)


def test_mnist_as_leveldb(golden: Path, tmp_path: Path) -> None:
    tools = golden / "mnist_tools"
    args = ["-backend", "leveldb", f"{tools}/test-images", f"{tools}/test-labels", str(tmp_path / "db")]
    result = CliRunner().invoke(convert_mnist_data, args)
    assert result.exit_code == 0, result.output
    with open_reader(tmp_path / "db", "leveldb") as made, open_reader(tools / "test_leveldb") as wanted:
        assert list(made) == list(wanted)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_a_wrong_number_of_arguments_is_wrong_use(name: str, count: int) -> None:
    result = CliRunner().invoke(COMMANDS[name], ["lmdb"] * count)
    assert result.exit_code == 2
    assert "Usage:" in result.output


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("convert_imageset", ["--backend=sqlite", "a/", "b", "c"]),
        ("convert_imageset", ["--resize_width=wide", "a/", "b", "c"]),
        ("convert_imageset", ["--grey", "a/", "b", "c"]),
        ("convert_cifar_data", ["in", "out", "sqlite"]),
    ],
)
def test_wrong_flags_are_wrong_use(name: str, args: list[str]) -> None:
    assert CliRunner().invoke(COMMANDS[name], args).exit_code == 2


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["convert_imageset", "images/", "none", "db"], "Error: cannot read 'none': No such file or directory"),
        (["convert_mnist_data", "none", "none", "db"], "Error: cannot read 'none': No such file or directory"),
        (["convert_cifar_data", "none", "out", "lmdb"], "Error: 'none/data_batch_1.bin': no such file"),
        (["compute_image_mean", "none"], "Error: 'none': no such database"),
    ],
)
def test_failures_are_one_line_and_exit_with_1(tmp_path: Path, args: list[str], words: str) -> None:
    command = [sys.executable, "-m", "caffecli", *args]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(words)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_torch_is_not_imported(golden: Path, tmp_path: Path) -> None:
    script = """
import sys
from click.testing import CliRunner
from caffecli.cli.convert_imageset import convert_imageset
assert "cv2" not in sys.modules and "converters.convert_imageset" not in sys.modules
assert CliRunner().invoke(convert_imageset, sys.argv[1:]).exit_code == 0
assert "torch" not in sys.modules
"""
    args = [f"{golden}/tools/images/", f"{golden}/tools/list.txt", str(tmp_path / "db")]
    subprocess.run([sys.executable, "-c", script, *args], check=True)


def read(path: Path, backend: Backend) -> list[tuple[bytes, bytes]]:
    with open_reader(path, backend) as reader:
        return list(reader)


@pytest.mark.parametrize(
    ("rest", "wanted", "backend"),
    [
        (["0"], "plain_leveldb", "leveldb"),
        (["0", "0", "0"], "plain_leveldb", "leveldb"),
        (["0", "leveldb"], "plain_leveldb", "leveldb"),
        (["0", "lmdb"], "plain_lmdb", "lmdb"),
    ],
)
def test_convert_imageset_takes_the_arguments_of_2014(
    golden: Path, tmp_path: Path, rest: list[str], wanted: str, backend: Backend
) -> None:
    tools = golden / "tools"
    args = [f"{tools}/images/", f"{tools}/list_same_size.txt", str(tmp_path / "db"), *rest]
    result = CliRunner().invoke(convert_imageset, args)
    assert result.exit_code == 0, result.output
    assert read(tmp_path / "db", backend) == read(tools / wanted, backend)


@pytest.mark.parametrize("rest", [["1", "lmdb", "12", "16"], ["1", "12", "16"]])
def test_convert_imageset_shuffles_and_resizes_by_the_arguments_of_2014(
    golden: Path, tmp_path: Path, rest: list[str]
) -> None:
    tools = golden / "tools"
    result = CliRunner().invoke(
        convert_imageset, ["-g", f"{tools}/images/", f"{tools}/list.txt", str(tmp_path / "db"), *rest]
    )
    assert result.exit_code == 0 and "Shuffling data" in result.output
    (_, value), *_ = read(tmp_path / "db", "lmdb" if "lmdb" in rest else "leveldb")
    made = datum.decode(value)
    assert (made.channels, made.height, made.width) == (1, 12, 16)


@pytest.mark.parametrize("rest", [["2"], ["1", "sqlite"], ["0", "lmdb", "1", "2", "3"], ["0", "-1"]])
def test_other_arguments_are_wrong_use(rest: list[str]) -> None:
    assert CliRunner().invoke(convert_imageset, ["a/", "b", "c", "--", *rest]).exit_code == 2


@pytest.mark.parametrize(
    ("name", "flags", "backend"),
    [
        ("mnist-test-leveldb", [], "leveldb"),
        ("mnist_test_lmdb", [], "lmdb"),
        ("db", [], "lmdb"),
        ("leveldb_as_lmdb", [], "lmdb"),
        ("mnist-test-leveldb", ["--backend=lmdb"], "lmdb"),
    ],
)
def test_the_databases_name_tells_its_kind(
    golden: Path, tmp_path: Path, name: str, flags: list[str], backend: Backend
) -> None:
    tools = golden / "mnist_tools"
    result = CliRunner().invoke(
        convert_mnist_data, [*flags, f"{tools}/test-images", f"{tools}/test-labels", str(tmp_path / name)]
    )
    assert result.exit_code == 0, result.output
    assert read(tmp_path / name, backend) == read(tools / f"test_{backend}", backend)
    assert ("becomes a LevelDB, as its name says" in result.output) == (backend == "leveldb")


def test_compute_image_mean_takes_the_kind_last(golden: Path, tmp_path: Path) -> None:
    tools = golden / "tools"
    args = [str(tools / "plain_leveldb"), str(tmp_path / "mean"), "leveldb"]
    assert CliRunner().invoke(compute_image_mean, args).exit_code == 0
    assert (tmp_path / "mean").read_bytes() == (tools / "plain_leveldb_mean.binaryproto").read_bytes()


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("cifar10-leveldb", ("cifar-train-leveldb", "cifar-test-leveldb")),
        ("cifar10", ("cifar10_train_leveldb", "cifar10_test_leveldb")),
    ],
)
def test_convert_cifar_data_without_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, names: tuple[str, str]
) -> None:
    monkeypatch.setattr(cifar, "RECORDS", 2)
    for name in cifar.TRAIN + cifar.TEST:
        (tmp_path / name).write_bytes(bytes(2 * 3073))
    (tmp_path / folder).mkdir()
    result = CliRunner().invoke(convert_cifar_data, [str(tmp_path), str(tmp_path / folder)])
    assert result.exit_code == 0, result.output
    assert [len(read(tmp_path / folder / name, "leveldb")) for name in names] == [10, 2]
