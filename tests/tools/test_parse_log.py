"""Training logs: the rows that Caffe's parse_log.py makes of them, of Caffe's own logs and of ours."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest

from caffecli.errors import DataError, FormatError
from caffecli.tools import parse_log

#: I1231 23:59:58.5 and so on: a run over the turn of the year, with a line of another program between
LOG = """\
I1231 23:59:58.250000 77 solver.cpp:279] Solving small
I1231 23:59:58.250000 77 solver.cpp:280] Learning Rate Policy: step
I1231 23:59:58.500000 77 solver.cpp:337] Iteration 0, Testing net (#0)
I1231 23:59:58.750000 77 solver.cpp:404]     Test net output #0: accuracy = 0.1
I1231 23:59:58.750000 77 solver.cpp:404]     Test net output #1: loss = 2.5 (* 1 = 2.5 loss)
I1231 23:59:59.000000 77 solver.cpp:228] Iteration 0 (0 iter/s, 0.1s/10 iters), loss = 2.5
I1231 23:59:59.000000 77 solver.cpp:244]     Train net output #0: loss = 2.4 (* 1 = 2.4 loss)
I1231 23:59:59.000000 77 sgd_solver.cpp:106] Iteration 0, lr = 0.01
a line of another program: Iteration x
I0101 00:00:01.000001 77 solver.cpp:228] Iteration 10 (5 iter/s, 2s/10 iters), loss = 1e-05
I0101 00:00:01.000001 77 solver.cpp:244]     Train net output #0: loss = nan (* 1 = nan loss)
I0101 00:00:01.000001 77 sgd_solver.cpp:106] Iteration 10, lr = 1e-03

I0101 00:00:02.000000 77 solver.cpp:337] Iteration 20, Testing net (#0)
I0101 00:00:02.000000 77 solver.cpp:404]     Test net output #0: accuracy = 0.75
I0101 00:00:02.500000 77 solver.cpp:404]     Test net output #1: loss = 1.5e-2 (* 1 = 1.5e-2 loss)
I0101 00:00:03.000000 77 solver.cpp:337] Iteration 30, Testing net (#0)
I0101 00:00:03.000000 77 solver.cpp:404]     Test net output #0: accuracy = 0.8
"""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(LOG)
    log = parse_log.read(tmp_path / "run.log")
    assert log.test == [
        {"NumIters": 0, "Seconds": 0.5, "LearningRate": 0.001, "accuracy": 0.1, "loss": 2.5},
        {"NumIters": 20, "Seconds": 3.75, "LearningRate": 0.001, "accuracy": 0.75, "loss": 0.015},
    ]  # the row that the end has cut off is left out
    assert [(row["NumIters"], row["Seconds"], row["LearningRate"]) for row in log.train] == [
        (0, 0.75, 0.01),
        (10, 2.750001, 0.01),
    ]
    assert log.train[0]["loss"] == 2.4
    assert math.isnan(log.train[1]["loss"])
    assert [row["loss"] for row in log.shown] == [2.5, 1e-5]
    assert [(row["NumIters"], row["LearningRate"]) for row in log.rates] == [(0, 0.01), (10, 0.001)]


def test_files(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(LOG)
    assert parse_log.parse_log(tmp_path / "run.log", tmp_path) == {
        tmp_path / "run.log.train": 2,
        tmp_path / "run.log.test": 2,
    }
    lines = b"NumIters,Seconds,LearningRate,loss\r\n0.0,0.75,0.01,2.4\r\n10.0,2.750001,0.01,nan\r\n"
    assert (tmp_path / "run.log.train").read_bytes() == lines
    parse_log.parse_log(tmp_path / "run.log", tmp_path, ";")
    assert (tmp_path / "run.log.train").read_bytes() == lines.replace(b",", b";")


@pytest.mark.parametrize("name", ["lenet", "cifar10_quick", "solvers/adam", "solvers/sgd_inv"])
def test_recorded_logs(golden: Path, tmp_path: Path, name: str) -> None:
    """The dates of these have a year; Caffe's parse_log.py gives the same tables once that is taken out."""
    parse_log.parse_log(golden / name / "train.log", tmp_path)
    test, train = rows(tmp_path / "train.log.test"), rows(tmp_path / "train.log.train")
    assert list(test[0]) == ["NumIters", "Seconds", "LearningRate", "accuracy", "loss"]
    assert list(train[0]) == ["NumIters", "Seconds", "LearningRate", "loss"]
    text = (golden / name / "train.log").read_text()
    assert len(test) == text.count("Test net output #0")
    assert len(train) == text.count("Train net output #0")
    assert all(f"accuracy = {float(row['accuracy']):g}" in text for row in test)
    times = [float(row["Seconds"]) for row in train]
    assert times == sorted(times)
    assert not any(math.isnan(float(row["LearningRate"])) for row in test + train)


def test_the_only_row_counts(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("".join(LOG.splitlines(True)[1:7]))  # no line with Solving either
    log = parse_log.read(tmp_path / "run.log")
    assert [row["loss"] for row in log.train + log.test] == [2.4, 2.5]
    assert math.isnan(log.train[0]["LearningRate"])


def test_a_file_without_rows_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text(LOG.replace("Test net", "Best net"))
    assert parse_log.parse_log(tmp_path / "run.log", tmp_path) == {
        tmp_path / "run.log.train": 2,
        tmp_path / "run.log.test": 0,
    }
    assert not (tmp_path / "run.log.test").exists()


def test_outputs_that_come_later_have_a_column(tmp_path: Path) -> None:
    more = LOG.replace("Iteration 30", "Iteration 20") + LOG.splitlines(True)[4].replace("loss", "top5").replace(
        "1231", "0101"
    )
    (tmp_path / "run.log").write_text(more)
    parse_log.parse_log(tmp_path / "run.log", tmp_path)
    assert list(rows(tmp_path / "run.log.test")[0]) == [
        "NumIters",
        "Seconds",
        "LearningRate",
        "accuracy",
        "loss",
        "top5",
    ]


def test_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("hello\nI0101 00:00:01.000001 77 x.cpp:1] hello\n")
    with pytest.raises(DataError, match=r"'.*x' tells of no iteration; expected the log of a training"):
        parse_log.read(tmp_path / "x")
    with pytest.raises(FormatError, match="cannot read"):
        parse_log.read(tmp_path / "none")
    (tmp_path / "run.log").write_text(LOG)
    with pytest.raises(FormatError, match="create the folder"):
        parse_log.parse_log(tmp_path / "run.log", tmp_path / "none")


#: of March and September 2014
OLD = """\
I0317 21:52:49.309447 2008298256 solver.cpp:47] Solving CIFAR10_quick_train
I0317 21:53:12.179772 2008298256 solver.cpp:208] Iteration 100, lr = 0.001
I0317 21:53:12.185698 2008298256 solver.cpp:65] Iteration 100, loss = 1.73643
I0317 21:54:41.150030 2008298256 solver.cpp:87] Iteration 500, Testing net
I0317 21:54:47.129461 2008298256 solver.cpp:114] Test score #0: 0.5504
I0317 21:54:47.129500 2008298256 solver.cpp:114] Test score #1: 1.27805
"""


def test_scores_of_2014_and_losses_without_outputs(tmp_path: Path) -> None:
    (tmp_path / "old").write_text(OLD)
    assert parse_log.parse_log(tmp_path / "old", tmp_path) == {tmp_path / "old.train": 1, tmp_path / "old.test": 1}
    assert (tmp_path / "old.train").read_text() == "NumIters,Seconds,LearningRate,loss\n100.0,22.876251,0.001,1.73643\n"
    [row] = rows(tmp_path / "old.test")
    assert (row["NumIters"], row["score #0"], row["score #1"]) == ("500.0", "0.5504", "1.27805")


@pytest.mark.parametrize("dated", [True, False])
def test_logs_of_digits(tmp_path: Path, dated: bool) -> None:
    first = "2016-01-05 10:00:0{} [INFO ] Iteration {}, loss = 0.5\n" if dated else ""
    (tmp_path / "log").write_text(
        "".join(
            first.format(i, 100 * i)
            + f"Iteration {100 * i}, loss = 0.5\nTrain net output #0: loss = 0.25 (* 1 = 0.25 loss)\n"
            f"Iteration {100 * i}, lr = 0.001\nsaid: Iteration 7, loss = 9\n"
            for i in (1, 3)
        )
    )
    log = parse_log.read(tmp_path / "log")
    seconds = [0.0, 2.0] if dated else [math.nan, math.nan]
    for found, name, value in ((log.train, "loss", 0.25), (log.shown, "loss", 0.5), (log.rates, "LearningRate", 0.001)):
        assert [row["NumIters"] for row in found] == [100, 300]
        assert [row[name] for row in found] == [value, value]
        assert [row["Seconds"] for row in found] == pytest.approx(seconds, nan_ok=True)


def test_outputs_of_one_name_and_several_test_nets_are_kept_apart(tmp_path: Path) -> None:
    def block(iteration: int) -> str:
        lines = []
        for net in (0, 1):
            lines.append(f"Iteration {iteration}, Testing net (#{net})")
            for i, name in enumerate(["acc", "acc", "loss"]):
                lines.append(f"    Test net output #{i}: {name} = {iteration + net + i / 10}")
        return "".join(f"I0101 00:00:01.000000 7 solver.cpp:1] {line}\n" for line in lines)

    (tmp_path / "log").write_text(block(10) + block(20))
    first, second = parse_log.read(tmp_path / "log").test
    names = ["acc", "acc 2", "loss", "acc (net 1)", "acc 2 (net 1)", "loss (net 1)"]
    assert list(first)[3:] == list(second)[3:] == names
    assert [first[name] for name in names] == pytest.approx([10, 10.1, 10.2, 11, 11.1, 11.2])
    assert [second[name] for name in names] == pytest.approx([20, 20.1, 20.2, 21, 21.1, 21.2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "tells of no iteration"),
        ("I0101 00:00:01.000000 7 solver.cpp:1] Iteration 5, Testing net (#0)\n", "tells no loss, no learning rate"),
        ("said: Iteration 7, loss = 9\n", "tells of no iteration"),
    ],
)
def test_a_log_that_tells_nothing_is_an_error(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(DataError, match=words):
        parse_log.parse_log(tmp_path / "log", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
