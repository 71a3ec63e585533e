"""plot: losses and scores, from logs and from files of train --csv."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from caffecli.cli import main
from caffecli.errors import DataError
from caffecli.tools.plot import plot, read

pytest.importorskip("matplotlib")

CSV = """iteration,seconds,lr,loss,iter/s,train/loss,test0/accuracy,test0/loss,test1/accuracy
0,0.1,,,,,0.1,2.3,0.2
0,0.2,0.01,2.2,10,2.2,,,
10,1.5,0.01,1.2,9,1.1,,,
20,3,,,,,0.7,0.9,0.6
20,3.1,,0.8,,,,,
"""


def test_a_csv_and_a_log_in_two_panels(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text(CSV)
    drawn = plot([tmp_path / "run.csv"], tmp_path / "a.png")
    found = {curve.name: list(zip(curve.x, curve.y, strict=True)) for curve in drawn}
    assert found == {
        "train loss": [(0, 2.2), (10, 1.2), (20, 0.8)],
        "test accuracy": [(0, 0.1), (20, 0.7)],
        "test loss": [(0, 2.3), (20, 0.9)],
        "test accuracy (net 1)": [(0, 0.2), (20, 0.6)],
    }
    height, width, _ = cv2.imread(str(tmp_path / "a.png")).shape
    assert (height, width) == (960, 960)
    drawn = plot([golden / "lenet/train.log", tmp_path / "run.csv"], tmp_path / "b.svg", seconds=True)
    assert {curve.run for curve in drawn} == {"train", "run.csv"}
    assert "test accuracy" in {curve.name for curve in drawn if curve.run == "train"}


def test_no_legend_lies_over_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    figures: list[Figure] = []
    savefig = Figure.savefig

    def save(figure: Figure, *args: Any, **settings: Any) -> None:
        figures.append(figure)
        savefig(figure, *args, **settings)

    monkeypatch.setattr(Figure, "savefig", save)
    (tmp_path / "run.csv").write_text(CSV)
    plot([tmp_path / "run.csv"], tmp_path / "a.png")
    assert len(figures[0].axes) == 2
    for axes in figures[0].axes:
        legend = axes.get_legend()
        assert legend is not None and legend.get_window_extent().x0 >= axes.get_window_extent().x1


def test_a_run_without_scores_has_one_panel(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("iteration,seconds,lr,loss,iter/s,train/loss\n0,0,0.1,2,1,2\n5,1,0.1,1,1,1\n")
    plot([tmp_path / "run.csv"], tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] == 480


def test_the_command(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for flags, written in ((("-o", "x.pdf"), "x.pdf"), ((), "plot.png")):
        monkeypatch.setattr(sys, "argv", ["caffecli", "plot", str(golden / "lenet/train.log"), *flags])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        assert not end.value.code and capsys.readouterr().out == f"Wrote {written}\n"
        assert Path(written).stat().st_size > 1000


def test_wrong_use(tmp_path: Path) -> None:
    run = tmp_path / "run.csv"
    run.write_text("iteration,seconds,lr,loss\n")
    with pytest.raises(DataError, match="has no figures yet"):
        read(run)
    run.write_text("iteration,seconds,lr,loss\n1,x,2,3\n")
    with pytest.raises(DataError, match="is no CSV of figures that train --csv has written"):
        read(run)
    run.write_text(CSV)
    with pytest.raises(DataError, match=r"its name must end in \.png, \.svg, \.pdf"):
        plot([run], tmp_path / "x.jpg")
    run.rename(tmp_path / "run.png")
    with pytest.raises(DataError, match="is one of the logs"):
        plot([tmp_path / "run.png"], tmp_path / "run.png")
