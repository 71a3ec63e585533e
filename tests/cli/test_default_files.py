"""classify and detect without --model_def and the like: Caffe's reference net, where the working folder has it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest


def test_files_below_the_working_folder_come_first(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., tuple[int, str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(golden / "pycaffe" / "windows.png", tmp_path)
    code, err = command("classify", "windows.png", "out")
    assert code == 1
    assert (
        "imagenet_mean.binaryproto'" in err and f"nor below the working folder, {str(tmp_path)!r}; give --like" in err
    )
    net = tmp_path / "models" / "bvlc_reference_caffenet"
    net.mkdir(parents=True)
    shutil.copy(golden / "pycaffe" / "pictures.prototxt", net / "deploy.prototxt")
    shutil.copy(golden / "pycaffe" / "pictures.caffemodel", net / "bvlc_reference_caffenet.caffemodel")
    assert command("classify", "--mean_file=", "windows.png", "out") == (0, "") or np.load("out.npy").shape[0] == 1
    assert np.load("out.npy").shape[0] == 1


def test_a_gpu_that_the_solver_asks_for_says_so(
    folder: Path, fails: Callable[..., str], edit: Callable[..., None]
) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("for machines without a GPU")
    edit("solver.prototxt", "solver_mode: CPU", "solver_mode: 1")
    words = fails("train", "--solver=solver.prototxt")
    assert words.endswith("write solver_mode: CPU in the solver, or run with --cpu")


@pytest.mark.parametrize(
    ("written", "meant"), [("BNLL", "BNLL"), ("POOLING", "Pooling"), ("ReLU", "ReLU"), ("Mine", "Mine")]
)
def test_a_type_without_quotes_is_shown_with_them(
    folder: Path, fails: Callable[..., str], written: str, meant: str
) -> None:
    Path("net.prototxt").write_text(f'layer {{ name: "b" type: {written} bottom: "d" top: "b" }}')
    words = fails("summarize", "net.prototxt")
    assert words.endswith(f'expected a text in quotes, got {written}; write "{meant}"')
