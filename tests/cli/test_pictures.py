"""classify, detect and draw_net; answers are pycaffe's, see tests/golden/README.md."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from caffecli.cli import main
from caffecli.tools import classify, detect_windows
from tests.caffe.pictures import picture

Run = Callable[..., tuple[int, str, str]]
GOLDEN = Path(__file__).parents[1] / "golden" / "pycaffe"
PICTURES = ("--model_def=pictures.prototxt", "--pretrained_model=pictures.caffemodel")
WINDOWS = ("--model_def", "windows.prototxt", "--pretrained_model", "windows.caffemodel")
BOXES = [[5, 6, 30, 40], [0, 0, 20, 15], [30, 20, 60, 50], [10, 10, 11, 12], [0, 0, 60, 50], [40, 2, 59, 9]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in GOLDEN.iterdir():
        shutil.copy(path, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: exit code, stdout, the last line of stderr."""

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caffecli", *args])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, (err.splitlines() or [""])[-1]

    return call


@pytest.fixture
def answers() -> Any:
    with np.load(GOLDEN / "pictures.npz") as file:
        yield file


def test_classify_an_array(run: Run, answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classify, "CHUNK", 2)
    np.save("in.npy", [picture(26, 31, 3, seed) for seed in (1, 2, 1)])
    np.save("mean.npy", np.array([100.0, 110.0, 120.0]))
    flags = (*PICTURES, "--mean_file=mean.npy", "--images_dim=24,25")
    code, out, err = run("classify", "in.npy", "out.npy", *flags)
    assert code == 0, err
    np.testing.assert_allclose(np.load("out.npy"), answers["channels/ten"][[0, 1, 0]], atol=1e-4)
    assert (
        out.splitlines()[:3] == ["CPU mode", "Loading file: in.npy", "Classifying 3 inputs."]
        and "Prediction" not in out
    )
    code, out, err = run("classify", "in.npy", "centre", *flags, "-center_only")
    assert code == 0 and "Saving results into centre.npy" in out, err
    np.testing.assert_allclose(np.load("centre.npy"), answers["channels/centre"][[0, 1, 0]], atol=1e-4)


def test_classify_prints_the_best_five(run: Run) -> None:
    Path("words.txt").write_text("".join(f"n{i} kind {i}\n" for i in range(6)))
    Path("pics").mkdir()
    for seed in (2, 1):
        cv2.imwrite(f"pics/{seed}.png", (picture(26, 31, 3, seed) * 255).astype(np.uint8))
    code, out, err = run(
        "classify", "pics", *PICTURES, "--mean_file=", "--images_dim", "24,25", "--ext=png", "--labels=words.txt"
    )
    assert code == 0, err
    lines = out.splitlines()
    assert lines[1:4] == [
        "Loading folder: pics",
        "Classifying 2 inputs.",
        "---------- Prediction for pics/1.png ----------",
    ]
    scores = [float(line.split(" - ")[0]) for line in lines[4:9]]
    assert scores == sorted(scores, reverse=True)
    assert all(re.fullmatch(r'\d\.\d{4} - "n(\d) kind \1"', line) for line in lines[4:9])
    assert lines[9] == "---------- Prediction for pics/2.png ----------" and len(lines) == 16
    code, out, err = run("classify", "pics/1.png", *PICTURES, "--mean_file=", "--images_dim=24,25")
    assert code == 0 and [line.split(" - ")[0] for line in out.splitlines()[4:9]] == [
        line.split(" - ")[0] for line in lines[4:9]
    ]


def test_classify_a_folder_with_a_broken_picture(run: Run, folder: Path) -> None:
    (folder / "in").mkdir()
    for name, seed in {"a.png": 1, "c.PNG": 2, "d.jpg": 3}.items():
        cv2.imwrite(str(folder / "in" / name), picture(26, 31, 3, seed, 0, 255))
    (folder / "in" / "b.png").write_bytes(b"<html>")
    flags = (*PICTURES, "--mean_file=", "--images_dim=24,25", "--ext=png")
    code, out, err = run("classify", *flags, "in", "out.npy")
    assert code == 0
    assert "Left out 1 of 3 pictures, which cannot be read; their rows are NaN." in out
    assert "Left out 1 files that end in '.jpg'; see --ext." in out
    assert "b.png" in err and err.endswith("left out")
    found = np.load("out.npy")
    assert np.isnan(found).all(1).tolist() == [False, True, False]
    assert run("classify", *flags, "in/c.PNG", "one.npy")[0] == 0
    np.testing.assert_array_equal(np.load("one.npy")[0], found[2])
    for name in ("a.png", "c.PNG"):
        (folder / "in" / name).write_bytes(b"")
    code, _, err = run("classify", *flags, "in", "none.npy")
    assert (code, err) == (1, "Error: none of the 3 pictures in 'in' can be read")
    assert not Path("none.npy").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("no.png", *PICTURES, "--mean_file="), "'no.png': No such file or directory"),
        (
            ("windows.png", *PICTURES, "--mean_file=no.npy"),
            "there is no mean 'no.npy'; give a .npy or .binaryproto, numbers such as 104,117,123, or '' for none",
        ),
        (("windows.png", *PICTURES, "--mean_file=bad.npy"), "'bad.npy' is no .npy file of numbers, or damaged"),
        (("windows.png", *PICTURES, "--mean_file=", "--labels=short.txt"), "there are 1 labels for 6 classes"),
        (
            ("windows.png", *PICTURES, "--mean_file=", "--images_dim=9,9"),
            "image_dims (9, 9): expected (height, width), at least",
        ),
        (("windows.png", *PICTURES, "--mean_file=", "--images_dim=9"), "'9' is not 2 whole numbers with ',' between"),
        (("windows.png", *PICTURES, "--mean_file=", "--channel_swap=0"), "input 'data' has 3, the order (0,) has 1"),
        ((".", "out.npy", *PICTURES, "--mean_file="), "the folder '.' has no *.jpg; say --ext png"),
        (("windows.png", "--model_def=no.prototxt", "--mean_file="), "no.prototxt"),
    ],
)
def test_classify_names_mistakes(args: tuple[str, ...], words: str, run: Run) -> None:
    Path("bad.npy").write_text("hello")
    Path("short.txt").write_text("one\n")
    code, _, err = run("classify", *args)
    assert code in (1, 2) and err.startswith("Error: ") and words in err and "internal" not in err


@pytest.mark.parametrize("chunk", [1, 256])
def test_detect_windows_of_a_list(chunk: int, run: Run, answers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect_windows, "CHUNK", chunk)
    np.save("mean.npy", picture(24, 24, 3, 9, 90, 130).transpose(2, 0, 1).astype(float)[None])
    rows = [f"windows.png, {x0}, {y0}, {x1}, {y1}\n" for y0, x0, y1, x1 in BOXES]
    Path("in.csv").write_text("filename, xmin, ymin, xmax, ymax\n" + "".join(rows))
    flags = (*WINDOWS, "--mean_file=mean.npy", "--channel_swap=2,0,1", "--context_pad=4", "--crop_mode=list")
    code, out, err = run("detect", "in.csv", "out.csv", *flags)
    assert code == 0 and "Processed 6 windows" in out, err
    with Path("out.csv").open(newline="") as file:
        head, *body = csv.reader(file)
    assert head == ["filename", "ymin", "xmin", "ymax", "xmax", *(f"class{i}" for i in range(6))]
    assert [[row[0], *map(int, row[1:5])] for row in body] == [["windows.png", *box] for box in BOXES]
    np.testing.assert_allclose(np.array([row[5:] for row in body], float), answers["detect/context"], atol=1e-4)
    assert run("detect", "in.csv", "out.h5", *flags)[0] == 0
    with h5py.File("out.h5") as h5:
        assert h5["window"][:].tolist() == BOXES and h5["filename"][0] == b"windows.png"
        np.testing.assert_allclose(h5["prediction"][:], answers["detect/context"], atol=1e-4)


def test_detect_goes_on_after_a_broken_picture(run: Run) -> None:
    lines = ["filename,ymin,xmin,ymax,xmax", "windows.png,1,1,9,9"]
    flags = (*WINDOWS, "--mean_file=", "--context_pad=2", "--crop_mode=list")
    Path("broken.png").write_bytes(b"no picture")
    Path("in.csv").write_text("\n".join([*lines, "broken.png,0,0,10,10", "gone.png,0,0,10,10"]) + "\n")
    code, out, err = run("detect", "in.csv", "out.csv", *flags)
    assert code == 0, err
    assert "Left out 2 of 3 pictures" in out and "gone.png" in err
    with Path("out.csv").open() as file:
        assert len(file.readlines()) == len(lines)
    Path("in.csv").write_text(f"{lines[0]}\nbroken.png,0,0,10,10\n")
    code, _, err = run("detect", "in.csv", "none.csv", *flags)
    assert code == 1 and "none of the 1 pictures in 'in.csv' can be read" in err
    assert not Path("none.csv").exists()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("in.csv", "--crop_mode=list"), "'in.csv', line 3: expected a file's name and four numbers"),
        (("head.csv", "--crop_mode=list"), "'head.csv': the head lacks ymin, xmax"),
        (("in.txt", "--crop_mode=list"), "--crop_mode list takes its windows from a .csv, not 'in.txt'"),
        (("in.dat",), "'in.dat' is neither a .csv of windows nor a .txt of the names of pictures"),
        (("in.txt",), "selective search needs MATLAB and the Python module selective_search_ijcv_with_python"),
        (("out.csv", "--crop_mode=list"), "'windows.png': window (90, 1, 95, 5) shows nothing of a picture of 60 x 50"),
    ],
)
def test_detect_names_mistakes(args: tuple[str, ...], words: str, run: Run) -> None:
    Path("in.csv").write_text("filename,ymin,xmin,ymax,xmax\nwindows.png,1,1,5,5\nwindows.png,1,1,5\n")
    Path("out.csv").write_text("filename,ymin,xmin,ymax,xmax\nwindows.png,90,1,95,5\n")
    Path("head.csv").write_text("filename,xmin,ymax\n")
    Path("in.txt").write_text("windows.png\n")
    code, _, err = run("detect", args[0], "found.h5", *WINDOWS, "--mean_file=", "--context_pad=2", *args[1:])
    assert code in (1, 2) and err.startswith("Error: ") and words in err and not Path("found.h5").exists()


def test_draw_net(run: Run) -> None:
    net = 'layer { name: "a" type: "ReLU" bottom: "x" top: "y" include { phase: TEST stage: "s" min_level: 1 } }'
    Path("net.prototxt").write_text(f'{net} layer {{ name: "b" type: "Silence" bottom: "y" }}')
    code, out, err = run("draw_net", "net.prototxt", "all.dot", "--rankdir=TB")
    assert (code, out) == (0, "Drawing net to all.dot\n"), err
    text = Path("all.dot").read_text()
    assert "a (ReLU)" in text and "rankdir=TB" in text
    assert run("draw_net", "net.prototxt", "test.dot", "--phase", "TEST", "--level=1", "--stage=s,t")[0] == 0
    assert run("draw_net", "net.prototxt", "train.dot", "--phase", "TRAIN", "--level=1", "--stage=s,t")[0] == 0
    assert "ReLU" in Path("test.dot").read_text() and "ReLU" not in Path("train.dot").read_text()
    code, _, err = run("draw_net", "net.prototxt", "no.dot", "--stage=s")
    assert code == 2 and "--level and --stage need --phase TRAIN or --phase TEST" in err
    code, _, err = run("draw_net", "no.prototxt", "no.dot")
    assert code == 1 and err == "Error: cannot read 'no.prototxt': No such file or directory; check the path"


def test_draw_net_folds_a_chain_into_rows(run: Run) -> None:
    models = Path(__file__).parents[2] / "models"

    def drawn(name: str, *flags: str) -> str:
        code, _, err = run("draw_net", "net.dot", f"--model={models / name}", "--phase=TEST", *flags)
        assert code == 0, err
        return Path("net.dot").read_text()

    text = drawn("vgg16/train_val.prototxt")
    rows = [re.findall(r'"(?:blob|layer \d+) ([^"]*)"', line) for line in text.splitlines() if "rank=same" in line]
    assert rows[0] == ["data", "data", "conv1_1", "conv1_1", "conv1_2", "conv1_2", "pool1", "pool1"]
    assert rows[-1] == ["fc7", "fc7", "fc8", "fc8", "loss", "loss"] and len(rows) == 6
    assert "rankdir=TB" in text and text.count("constraint=false") == 5
    for name, flags in (("bvlc_googlenet/deploy.prototxt", []), ("vgg16/train_val.prototxt", ["--rankdir=LR"])):
        text = drawn(name, *flags)
        assert "rankdir=LR" in text and "rank=same" not in text
