"""new: from class folders to a net that was trained by the command that it prints; folders that are not so."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.cli import main
from caffecli.formats import mean
from caffecli.formats.db import open_reader
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.spec import text
from converters import starting_nets

Run = Callable[..., tuple[int, str, str]]
RANDOM = np.random.default_rng(5)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caffecli", *args])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def draw(kind: str, grey: bool = False) -> np.ndarray:
    """A picture of stripes across or down, or of one colour."""
    image = np.full((20, 26, 3), RANDOM.integers(60, 200, 3))
    bars = np.arange(8) // 2 % 2 * 120 - 60
    if kind == "across":
        image = image + np.resize(bars, 20)[:, None, None]
    elif kind == "down":
        image = image + np.resize(bars, 26)[None, :, None]
    image = (image + RANDOM.normal(0, 6, image.shape)).clip(0, 255).astype(np.uint8)
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if grey else image


def put(path: str, kind: str = "plain", grey: bool = False) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imencode(Path(path).suffix, draw(kind, grey))[0]
    Path(path).write_bytes(cv2.imencode(Path(path).suffix, draw(kind, grey))[1].tobytes())


def fill(folder: str, count: int, grey: bool = False) -> None:
    for name, kind in (("across", "across"), ("down it", "down"), ("Ebene ü", "plain")):
        for index in range(count):
            put(f"{folder}/{name}/{index:02}.{'JPG' if index % 2 else 'png'}", kind, grey)


def commands(told: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in told.splitlines() if line.startswith("  caffecli ")]


@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_the_commands_that_it_prints_train_score_and_classify(run: Run, grey: bool) -> None:
    fill("my pictures", 30, grey)
    code, told, err = run("new", "my pictures", "--size", "16", "--epochs", "20")
    assert code == 0, err
    assert told.startswith("my pictures_net: 3 classes, 72 pictures to train on, 18 to test on, 16 x 16 pixels")
    assert ("grey" in told.splitlines()[0]) == grey
    assert "Unbalanced" not in told and not err
    train, test, classify = commands(told)
    assert (train[0], test[0], classify[0]) == ("train", "test", "classify")
    code, _, err = run(*train)
    assert code == 0 and "rows" not in err, err
    code, _, err = run(*test)
    assert code == 0 and "Scoring 18 records, each once" in err
    assert float(re.findall(r"\] accuracy = (\S+)", err)[-1]) > 0.9
    for kind, name in (("across", "across"), ("down", "down it"), ("plain", "Ebene ü")):
        put("one.png", kind, grey)
        code, out, err = run(*("one.png" if word == "PICTURE" else word for word in classify))
        best = re.search(r'----\n\S+ - "(.*)"', out)
        assert code == 0 and best is not None and best[1] == name, out + err


def test_what_is_made(run: Run) -> None:
    fill("pets", 10)
    put("pets/across/deep/00.PNG", "across")
    Path("pets/.hidden").mkdir()
    code, told, err = run("new", "pets", "--out", "run", "--val", "0.3")
    assert code == 0, err
    assert "run: 3 classes, 22 pictures to train on, 9 to test on" in told
    assert Path("run/labels.txt").read_text() == "Ebene ü\nacross\ndown it\n"
    lists = [Path(f"run/{part}.txt").read_text().splitlines() for part in ("train", "val")]
    assert len(set(lists[0]) | set(lists[1])) == 31 and "across/deep/00.PNG 1" in [*lists[0], *lists[1]]
    labels = [int(line.rpartition(" ")[2]) for line in lists[0]]
    assert labels != sorted(labels)
    with open_reader("run/train_lmdb") as reader:
        assert len(list(reader)) == 22
    assert mean.read("run/mean.binaryproto").shape == (3, 32, 32)
    solver = text.read("run/solver.prototxt", SolverParameter)
    assert (solver.test_iter[0], solver.max_iter, solver.snapshot, solver.stepsize) == (1, 600, 150, 240)
    assert solver.max_iter % solver.test_interval == solver.max_iter % solver.snapshot == 0
    first = {name: Path("run", name).read_bytes() for name in ("train.txt", "val.txt", "train_val.prototxt")}
    code, _, err = run("new", "pets", "--out", "run")
    assert code == 1 and "'run' exists; remove it or choose another name" in err
    run("new", "pets", "--out", "again", "--val", "0.3")
    assert Path("again/val.txt").read_bytes() == first["val.txt"]
    assert Path("again/train.txt").read_bytes() == first["train.txt"]


def test_folders_train_and_val_are_taken_as_they_are(run: Run) -> None:
    for part, count in (("Train", 5), ("test", 3)):
        fill(f"pets/{part}", count)
    for index in range(22):
        put(f"pets/Train/down it/more{index}.bmp", "down")
    put("pets/other/x.png")
    code, told, _ = run("new", "pets")
    assert code == 0 and "37 pictures to train on, 9 to test on" in told
    assert "Unbalanced: 'down it' has 30 pictures, 'Ebene ü' 8. Add --class-weights auto to the training" in told
    assert all(line.startswith("test/") for line in Path("pets_net/val.txt").read_text().splitlines())
    put("pets/test/fourth/x.png")
    code, _, err = run("new", "pets", "--out", "b")
    assert code == 1 and "'pets/test' has 'fourth', 'Train' has no such class" in err
    assert not Path("b").exists()


def test_broken_pictures_are_named_and_counted(run: Run) -> None:
    fill("pets", 4)
    put("pets/across/broken.jpg")
    Path("pets/across/broken.jpg").write_bytes(Path("pets/across/01.JPG").read_bytes()[:40])
    Path("pets/across/empty.JPEG").write_bytes(b"")
    Path("pets/across/notes.txt").write_text("x")
    code, told, err = run("new", "pets")
    assert code == 0 and "9 pictures to train on, 3 to test on" in told
    assert "'pets/across/broken.jpg' is a broken JPEG; left out" in err
    assert "'pets/across/empty.JPEG' is empty; left out" in err
    assert "Left out 2 of 14 pictures, which cannot be read" in err
    assert "Left out 1 files that are no pictures by their names: 1 with .txt" in err


def test_what_is_no_class_folders(run: Run) -> None:
    def fails(*args: str) -> str:
        code, told, err = run("new", *args)
        assert code == 1 and not told, err
        return err

    assert "'nowhere' is not there; give a folder that has a folder of pictures for each class" in fails("nowhere")
    put("flat/a.JPG")
    assert "its pictures lie side by side; make a folder for each class" in fails("flat")
    put("one/dogs/small/a.png")
    assert "has one class, 'dogs'; a net tells two or more apart; give 'one/dogs' if the classes are" in fails("one")
    put("two/cats/a.png")
    Path("two/dogs").mkdir()
    Path("two/dogs/a.heic").write_bytes(b"x")
    assert "'two': no picture that can be read in 'dogs'; put some there" in fails("two")
    put("two/dogs/a.png")
    assert "a picture of each class is too few" in fails("two")
    put("two/dogs/b.png")
    assert "'two/run' would lie among the class folders; give --out a folder elsewhere" in fails("two", "--out=two/run")
    assert "--size 4: expected 8 to 256 for the small net" in fails("two", "--size=4")
    code, told, _ = run("new", "two")
    assert code == 0 and "No picture to test on: 'cats'." in told
    Path("two/cats ").mkdir()
    assert "the name 'cats ' has a blank at an end" in fails("two", "--out=x")
    assert [path.name for path in Path().iterdir() if path.name not in ("flat", "one", "two")] == ["two_net"]


def test_a_list_that_is_a_folder_leads_here(run: Run) -> None:
    fill("pets", 1)
    code, _, err = run("convert_imageset", "pets/", "pets", "db")
    assert code == 1 and err.splitlines()[-1] == (
        "Error: 'pets' is a folder, and LISTFILE a file with a line for each picture; `caffecli new pets` makes "
        "databases of a folder of class folders"
    )


def test_a_model_to_fine_tune(run: Run) -> None:
    fill("pets", 3)
    code, told, err = run("new", "pets", "--model", "squeezenet_v1.1", "--size", "228")
    assert code == 0, err
    train_val = text.read("pets_net/train_val.prototxt", NetParameter)
    deploy = text.read("pets_net/deploy.prototxt", NetParameter)
    for net in (train_val, deploy):
        (last,) = [layer for layer in net.layer if layer.name == "conv10_new"]
        assert last.convolution_param.num_output == 3 and last.top[0] == "conv10"
        assert [param.lr_mult for param in last.param] == [10, 20]
    assert [layer.name for layer in train_val.layer if layer.type == "Accuracy"] == ["accuracy"]  # no top-5 of three
    assert np.unique(mean.read("pets_net/mean.binaryproto")).tolist() == [104, 117, 123]
    weights = starting_nets.MODELS / "squeezenet_v1.1/squeezenet_v1.1.caffemodel"
    assert commands(told)[0] == ["download_model", str(weights.parent)]
    assert commands(told)[1][-2:] == ["--weights", str(weights)]
    assert {word for word in commands(told)[3] if word.startswith("-")} == {"--model", "--weights", "--labels"}
    code, _, err = run("new", "pets", "--out=x", "--model=lenet")
    assert code == 1 and "--model lenet: " in err and "names no weights to download" in err
    code, _, err = run("new", "pets", "--out=x", "--model=squezenet_v1.1")
    assert code == 1 and "there is no such model; did you mean 'squeezenet_v1.1'?" in err
    code, _, err = run("new", "pets", "--out=x", "--model=fcn8s")
    assert code == 1 and "it is no net that tells the class of a picture; there are age_net, " in err
    assert not Path("x").exists()


def test_the_last_layers_of_all_models_that_fit_are_found() -> None:
    names = starting_nets.fitting()
    assert {"bvlc_googlenet", "mobilenet", "nin_cifar10", "resnet50", "vgg16"} <= set(names)
    for name in names:
        nets = starting_nets.fine_tuned(starting_nets.model(name), "n", 2, starting_nets.Data("f", 4, 2))
        assert "_new" in nets.deploy, name
        assert nets.train_val.count("_new") >= nets.deploy.count("_new")


@pytest.mark.parametrize(
    ("count", "batch", "taken"),
    [
        (1, 1, 1),
        (7, 7, 7),
        (60, 60, 60),
        (101, 1, 101),
        (103, 1, 103),
        (200, 100, 200),
        (211, 70, 210),
        (10007, 58, 10005),
    ],
)
def test_batches_take_each_record_once(count: int, batch: int, taken: int) -> None:
    size, records = starting_nets.whole_batches(count, 100)
    assert records % size == 0 and count - 9 <= records <= count and size <= 100
    assert size >= 10 or records // size <= 100


def test_the_small_net_fits_any_size() -> None:
    for size in (8, 15, 16, 28, 33, 64, 100, 256):
        nets = starting_nets.small("n", size, 1, 5, starting_nets.Data("f", 4, 2))
        stages = nets.deploy.count('"Convolution"')
        assert 4 <= size // 2**stages <= 8, size
