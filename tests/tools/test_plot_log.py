"""plot_log: which curves a chart has, and the picture."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.errors import CaffeError, DataError, FormatError
from caffecli.tools.plot_log import plot_log

pytest.importorskip("matplotlib")


@pytest.fixture
def logs(golden: Path) -> list[Path]:
    return [golden / "lenet" / "train.log", golden / "cifar10_quick" / "train.log"]


@pytest.mark.parametrize(
    ("number", "name", "last"),
    [
        (0, "test accuracy", (10000, 0.9911)), (2, "test loss", (10000, None)), (4, "learning rate", (9900, None)),
        (6, "train loss", (10000, None)), (1, "test accuracy", None), (3, "test loss", None),
        (5, "learning rate", None), (7, "train loss", None),
    ],
)  # fmt: skip
def test_caffes_charts(
    logs: list[Path], tmp_path: Path, number: int, name: str, last: tuple[float, float | None] | None
) -> None:
    drawn = plot_log(str(number), tmp_path / "x.png", logs)
    assert [(curve.run, curve.name) for curve in drawn] == [("lenet/train", name), ("cifar10_quick/train", name)]
    if last is not None:
        assert drawn[0].x[-1] == last[0]
        assert last[1] is None or drawn[0].y[-1] == pytest.approx(last[1], abs=0.003)
    else:
        assert drawn[0].x == sorted(drawn[0].x)
        assert drawn[0].x[-1] not in (9900, 10000)
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture.shape == (600, 960, 3)
    for blue_green_red in ((180, 119, 31), (14, 127, 255)):  # one colour for each run
        assert (np.abs(picture.astype(int) - blue_green_red).sum(2) < 12).sum() > 50


def test_names(logs: list[Path], tmp_path: Path) -> None:
    def names(what: str) -> list[str]:
        return [curve.name for curve in plot_log(what, tmp_path / "x.svg", logs[:1], log_scale=True)]

    assert names("loss") == ["train loss", "test loss"]
    assert names("train loss, test accuracy") == ["train loss", "test accuracy"]
    assert names("acc,lr") == ["test accuracy", "learning rate"]
    assert (tmp_path / "x.svg").read_text().startswith("<?xml")


def test_wrong_use(logs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="there is no chart type 8; there are 0, 1: test accuracy"):
        plot_log("8", tmp_path / "x.png", logs)
    with pytest.raises(DataError, match="no log tells 'top5'; there are test accuracy, test loss, train loss"):
        plot_log("top5", tmp_path / "x.png", logs)
    with pytest.raises(DataError, match=r"must end in \.png, \.svg, \.pdf"):
        plot_log("0", tmp_path / "x.doc", logs)
    with pytest.raises(FormatError, match="cannot read"):
        plot_log("0", tmp_path / "x.png", [tmp_path / "none.log"])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CaffeError, match=r"needs matplotlib; pip install 'caffecli\[plot\]'"):
        plot_log("0", tmp_path / "x.png", logs)
    assert list(tmp_path.iterdir()) == []


def test_old_logs_and_several_nets(tmp_path: Path) -> None:
    prefix = "I0317 21:54:47.129461 7 solver.cpp:1] "
    lines = ["Solving a", "Iteration 5, Testing net", "Test score #0: 0.5", "Test score #1: 1.25"]
    (tmp_path / "old").write_text("".join(f"{prefix}{line}\n" for line in lines))
    for kind, name, value in (("0", "test score #0", 0.5), ("2", "test score #1", 1.25)):
        [curve] = plot_log(kind, tmp_path / "a.png", [tmp_path / "old"])
        assert (curve.name, curve.x, curve.y) == (name, [5], [value])
    tests = [f"Iteration 5, Testing net (#{net})\n    Test net output #0: loss = {net}\n" for net in (0, 1)]
    (tmp_path / "bare").write_text("".join(tests))
    found = plot_log("test loss", tmp_path / "b.png", [tmp_path / "bare"])
    assert [(curve.name, curve.y) for curve in found] == [("test loss", [0]), ("test loss (net 1)", [1])]
    with pytest.raises(DataError, match="have no times; draw against iterations"):
        plot_log("3", tmp_path / "c.png", [tmp_path / "bare"])
