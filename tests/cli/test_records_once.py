"""test --all, and words where batches do not take each record once."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "solvers"
Command = Callable[..., tuple[int, str]]
SCORE = ("test", "--model=net.prototxt", "--weights=t_iter_15.caffemodel")
FEATURES = ("extract_features", "--all", "t_iter_15.caffemodel", "net.prototxt")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a recorded run, whose 128 digits of test come 50 a batch."""
    for name in ("test_lmdb", "train_lmdb", "sgd_inv"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    folder = tmp_path / "sgd_inv"
    change(folder / "net.prototxt", "batch_size: 32", "batch_size: 50")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def right(folder: Path, command: Command) -> np.ndarray:
    """Whether each record is classified right, by another way."""
    assert command(*FEATURES, "label,ip2", "l.npy,s.npy", "npy")[0] == 0
    return np.load("s.npy").argmax(1) == np.load("l.npy")


def change(path: Path, *pairs: str) -> None:
    text = path.read_text()
    for old, new in zip(pairs[::2], pairs[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)


def score(command: Command, *args: str) -> str:
    code, err = command(*SCORE, *args)
    assert code == 0, err
    return err


def table(name: str) -> list[list[str]]:
    with Path(name).open(newline="") as file:
        return list(csv.reader(file))


def accuracy(err: str) -> float:
    return float(re.findall(r"\] accuracy = (\S+)", err)[0])


@pytest.mark.parametrize("ask", ["--all", "--predictions=p.csv", "--confusion=c.csv"])
def test_each_record_counts_once(right: np.ndarray, command: Command, ask: str) -> None:
    err = score(command, ask)
    assert "Scoring 128 records, each once: 3 batches of 50" in err
    assert not re.search(r"^W", err, re.MULTILINE)
    assert accuracy(err) == pytest.approx(right.mean(), abs=1e-6)
    if "predictions" in ask:
        rows = table("p.csv")[1:]
        assert len({row[0] for row in rows}) == len(rows) == 128
        assert [row[1] == row[2] for row in rows] == right.tolist()
    if "confusion" in ask:
        counts = np.array([row[1:] for row in table("c.csv")[1:]]).astype(int)
        assert (counts.sum(), counts.trace()) == (128, right.sum())


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        ("1", "1 batches of 50 are 50 rows, there are 128 records: 78 of them left out"),
        ("3", "3 batches of 50 are 150 rows, there are 128 records: 22 of them counted twice"),
        ("6", "6 batches of 50 are 300 rows, there are 128 records: 44 of them counted 3 times, others 2"),
    ],
)
def test_other_counts_are_told(folder: Path, command: Command, batches: str, words: str) -> None:
    err = score(command, f"--iterations={batches}", "--predictions=p.csv")
    assert re.search(rf"^W.*{words}; --all scores each record once$", err, re.MULTILINE), err
    assert len(table("p.csv")) == 1 + 50 * int(batches)


def test_whole_turns_need_no_word(folder: Path, command: Command) -> None:
    change(folder / "net.prototxt", "batch_size: 50", "batch_size: 32")
    for batches in (4, 8):
        assert not re.search(r"^W|records", score(command, f"--iterations={batches}"), re.MULTILINE)


def test_a_net_of_a_fixed_batch_runs_the_last_one_whole(right: np.ndarray, command: Command) -> None:
    change(
        Path("net.prototxt"),
        'layer { name: "accuracy"',
        'layer { name: "r" type: "Reshape" bottom: "ip2" top: "r" reshape_param { shape { dim: 50 dim: 10 } } }\n'
        'layer { name: "p" type: "Softmax" bottom: "r" top: "p" }\nlayer { name: "accuracy"',
    )
    err = score(command, "--predictions=p.csv", "--confusion=c.csv")
    assert "net 'mini' runs 50 records at a time, no fewer: the means count 22 of the 128 records twice" in err
    rows = table("p.csv")[1:]
    assert [row[1] == row[2] for row in rows] == right.tolist()


def test_outputs_with_a_row_a_record_are_means_of_their_rows(folder: Path, command: Command) -> None:
    change(
        Path("net.prototxt"),
        'layer { name: "loss"',
        'layer { name: "p" type: "Softmax" bottom: "ip2" top: "p" }\nlayer { name: "loss"',
    )
    assert command(*FEATURES, "p", "p.npy", "npy")[0] == 0
    rows = np.load("p.npy")
    told = [float(value) for value in re.findall(r"caffe.cpp:321\] p = (\S+)", score(command, "--all"))]
    first = np.stack([rows[i : i + 101 : 50].mean(0) for i in range(50)])
    np.testing.assert_allclose(np.reshape(told, (50, 10)), first, rtol=2e-5)


def test_all_and_iterations_are_one_too_many(folder: Path, fails: Callable[..., str]) -> None:
    assert "--all takes each record once, --iterations so many" in fails(*SCORE, "--all", "--iterations=2", code=2)


def test_all_wants_an_end(folder: Path, command: Command, fails: Callable[..., str]) -> None:
    Path("net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "ip2" dummy_data_param { shape { dim: 2 dim: 10 } } }\n'
        'layer { name: "p" type: "Softmax" bottom: "ip2" top: "p" }'
    )
    assert "has no layer that reads records" in fails(*SCORE, "--all")
    score(command, "--predictions=p.csv")
    assert len(table("p.csv")) == 1 + 50 * 2


@pytest.mark.parametrize("old", [False, True])
def test_a_net_without_data_has_nothing_to_score(folder: Path, fails: Callable[..., str], old: bool) -> None:
    head = (
        'input: "data" input_shape { dim: 2 dim: 1 dim: 28 dim: 28 }'
        if old
        else 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 28 dim: 28 } } }'
    )
    Path("net.prototxt").write_text(
        f'name: "deployed" {head} layer {{ name: "p" type: "Softmax" bottom: "data" top: "p" }}'
    )
    for more in ((), ("--predictions=p.csv",), ("--all",)):
        assert "' has Input, no data: there is nothing to score; use classify or detect for" in fails(*SCORE, *more)


@pytest.mark.parametrize(
    ("size", "batches", "words"),
    [
        (50, 2, "Test net #0, test_iter 2: 2 batches of 50 are 100 rows, there are 128 records: 28 of them left out; "
                "batch_size: 32 with test_iter: 4 takes each once"),
        (60, 3, "52 of them counted twice; batch_size: 32 with test_iter: 4 takes each once"),
        (25, 5, "3 of them left out; batch_size: 16 with test_iter: 8 takes each once"),
        (127, 1, "1 of them left out; batch_size: 64 with test_iter: 2 takes each once"),
        (32, 4, ""),
    ],
)  # fmt: skip
def test_train_tells_of_a_test_iter_that_takes_records_unevenly(
    folder: Path, command: Command, size: int, batches: int, words: str
) -> None:
    change(folder / "net.prototxt", "batch_size: 50", f"batch_size: {size}")
    Path("s.prototxt").write_text(
        f'net: "net.prototxt" test_iter: {batches} test_interval: 10 base_lr: 0.01 lr_policy: "fixed" max_iter: 0 '
        "snapshot_after_train: false test_initialization: false"
    )
    code, err = command("train", "--solver=s.prototxt")
    assert code == 0
    told = [line for line in err.splitlines() if line.startswith("W") and "records" in line]
    assert len(told) == bool(words) and all(words in line for line in told), told
