"""``classify``: pictures made fit as the net was trained, several inputs, results by OUT's ending."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli import logs
from caffecli.cli import main
from caffecli.formats import caffemodel, db, mean
from caffecli.formats.datum import from_array

Run = Callable[..., tuple[int, str, str]]

DATA = """layer { name: "pixels" type: "Data" top: "data" top: "label" include { phase: %s }
  transform_param { %s } data_param { source: "pictures_lmdb" batch_size: 3 backend: LMDB } }
"""
BODY = """layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "gaussian" std: 0.05 } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.3 } } }
layer { name: "prob" type: "Softmax" bottom: "ip" top: "prob" }
"""
LOSS = 'layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy" }\n'
INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8 } } }\n'
NET = ("--model", "deploy.prototxt", "--weights")


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A folder of five pictures of 12 x 12, as files and as records, their mean, and labels. Called with a
    ``transform_param``, it makes the nets, and weights whose file tells of it.
    """
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 12, 12, 3)).astype(np.uint8)
    Path("pics").mkdir()
    with db.open_writer("pictures_lmdb") as out:
        for i, one in enumerate(pixels):
            cv2.imwrite(f"pics/{i}.png", one)
            out.put(f"{i:08d}_{i}.png".encode(), from_array(one.transpose(2, 0, 1), i % 3).SerializeToString())
    mean.write("mean.binaryproto", pixels.astype(np.float32).mean(0).transpose(2, 0, 1))
    Path("labels.txt").write_text("cat\ndog\nowl\n")
    Path("deploy.prototxt").write_text(INPUT + BODY)

    def make(transform: str) -> None:
        train = DATA % ("TRAIN", transform) + DATA % ("TEST", transform.replace("mirror: true", "")) + BODY
        Path("train_val.prototxt").write_text(train + LOSS)
        caffe.set_random_seed(3)
        made = caffe.Net("train_val.prototxt", caffe.TRAIN)
        made.save("w.caffemodel")
        made.save_hdf5("w.caffemodel.h5")

    return make


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logs.show(stream)
    yield stream
    logs.hide(handler)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caffecli", *args])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, err

    return call


def rows(path: str) -> list[list[str]]:
    with Path(path).open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize(
    ("transform", "less"),
    [
        ('mean_file: "mean.binaryproto" scale: 0.02 crop_size: 8', "less 'mean.binaryproto', times 0.02"),
        (
            "mean_value: 104 mean_value: 117 mean_value: 123 scale: 0.0078125 crop_size: 8 mirror: true",
            "less 104,117,123",
        ),
        ("scale: 0.00390625 crop_size: 8", "less 0, times 0.00390625"),
    ],
)
def test_pictures_score_as_records_do(net: Callable[[str], None], run: Run, transform: str, less: str) -> None:
    """What ``test`` says of the records ``classify`` says of the files, without a word about preprocessing."""
    net(transform)
    test = "test", "--model=train_val.prototxt", "--weights=w.caffemodel"
    code, _, err = run(*test, "--predictions=p.csv", "--top=3", "--blob=prob")
    assert code == 0, err
    told = [row[2:] for row in rows("p.csv")[1:]]
    for how in (
        ["w.caffemodel"],
        ["w.caffemodel", "--like=train_val.prototxt"],
        ["w.caffemodel.h5", "--like", "train_val.prototxt"],
    ):
        if "mirror" in transform and len(how) == 1:
            how = [*how, "--center_only"]
        code, _, err = run("classify", "pics", "out.csv", *NET, *how, "--top=3")
        assert code == 0, err
        found = rows("out.csv")
        assert found[0] == [
            "file",
            "class_1",
            "name_1",
            "score_1",
            "class_2",
            "name_2",
            "score_2",
            "class_3",
            "name_3",
            "score_3",
        ]
        assert [row[0] for row in found[1:]] == [f"pics/{i}.png" for i in range(5)]
        for row, record in zip(found[1:], told, strict=True):
            assert row[1::3] == record[0::2]
            np.testing.assert_allclose(np.array(row[3::3], float), np.array(record[1::2], float), atol=1e-4)
        [line] = err.splitlines()  # what is used, and from where
        where = "train_val.prototxt" if len(how) > 1 and "like" in how[1] else "w.caffemodel"
        assert f"resized to 12 x 12, the middle of 8 x 8, blue first, {less}" in line and line.endswith(
            f"layer 'pixels' of '{where}' has it"
        )


def test_ten_crops_where_the_net_was_trained_with_mirror(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8 mirror: true")
    assert "ten crops of 8 x 8" in run("classify", "pics", *NET, "w.caffemodel")[2]
    assert "the middle of 8 x 8" in run("classify", "pics", *NET, "w.caffemodel", "--like=train_val.prototxt")[2]
    assert (
        "ten crops" in run("classify", "pics", *NET, "w.caffemodel", "--like=train_val.prototxt", "--nocenter_only")[2]
    )
    assert "the middle of" in run("classify", "pics", *NET, "w.caffemodel", "--center_only")[2]


def test_what_is_typed_goes_before(net: Callable[[str], None], run: Run) -> None:
    net('mean_file: "mean.binaryproto" scale: 0.02 crop_size: 8')

    def scores(*flags: str, weights: str = "w.caffemodel") -> tuple[np.ndarray, str]:
        code, _, err = run("classify", "pics", "out.npy", "--ext=png", *NET, weights, *flags)
        assert code == 0, err
        return np.load("out.npy"), err

    plain, _ = scores()
    with_all = (
        "--mean=mean.binaryproto",
        "--scale=0.02",
        "--images_dim=12,12",
        "--channel_swap=2,1,0",
        "--center_only",
    )
    np.testing.assert_allclose(scores(*with_all)[0], plain, rtol=1e-5)
    assert scores(*with_all)[1].rstrip().endswith("; as told")
    old = ["--mean_file=mean.binaryproto", "--input_scale=0.02", "--images_dim=12,12", "--center_only"]
    found, err = scores(*old, weights="w.caffemodel.h5")  # which tells nothing
    np.testing.assert_allclose(found, plain, rtol=1e-5)
    assert err.startswith("W") and "give --like '" in err and "train_val.prototxt'" in err
    np.testing.assert_array_equal(scores("--rgb", "--mean=9")[0], scores("--channel_swap=", "--mean=9")[0])
    assert np.abs(scores("--rgb", "--mean=9")[0] - scores("--mean=9")[0]).max() > 1e-3
    values = np.array([[100.0, 110.0, 120.0]]).reshape(3)
    np.save("values.npy", values)
    np.testing.assert_allclose(scores("--mean=100,110,120")[0], scores("--mean", "values.npy")[0], rtol=1e-5)
    np.testing.assert_allclose(scores("--mean=")[0], scores("--mean=0")[0], rtol=1e-5)
    assert "pixels of 0 to 1;" in scores("--raw_scale=1", "--mean=")[1]  # the scale is the user's then: not 0.02 of it
    half, whole = scores("--raw_scale=5.1", "--mean=")[0], scores("--scale=0.02", "--raw_scale=255", "--mean=")[0]
    np.testing.assert_allclose(half, whole, rtol=1e-4)


def test_a_mean_that_has_moved(
    net: Callable[[str], None], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net('mean_file: "sub/mean.binaryproto" scale: 0.02 crop_size: 8'.replace("sub/", ""))
    before = run("classify", "pics/1.png", "a.csv", *NET, "w.caffemodel")
    assert before[0] == 0, before
    for name in ("w.caffemodel", "train_val.prototxt"):
        raw = Path(name).read_bytes()
        assert b"mean.binaryproto" in raw
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")  # found beside the weights
    code, _, err = run(
        "classify", "../pics/1.png", "../b.csv", "--model=../deploy.prototxt", "--weights=../w.caffemodel"
    )
    assert code == 0, err
    assert str(tmp_path / "mean.binaryproto") in err
    assert rows("../a.csv")[1][1:] == rows("../b.csv")[1][1:]
    (tmp_path / "mean.binaryproto").unlink()
    code, _, err = run("classify", "../pics/1.png", "--model=../deploy.prototxt", "--weights=../w.caffemodel")
    assert code == 1
    assert (
        "trained with the mean_file 'mean.binaryproto', as layer 'pixels' of 'w.caffemodel' has it, which is not there"
        in err
    )


def test_sizes_unlike_the_trainings_are_told(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    err = run("classify", "pics/1.png", *NET, "w.caffemodel", "--images_dim=64,64")[2]
    assert "W" in err and "--images_dim is 64 x 64 (height x width), and 12 x 12 in training" in err
    assert "in training" not in run("classify", "pics/1.png", *NET, "w.caffemodel", "--images_dim=13,13")[2]
    Path("train_val.prototxt").write_text(
        Path("train_val.prototxt").read_text().replace("crop_size: 8", "crop_size: 11")
    )
    err = run("classify", "pics/1.png", *NET, "w.caffemodel", "--like=train_val.prototxt")[2]
    assert "the net's input is 8 x 8 (height x width), and 11 x 11 in training" in err


def test_like_must_tell(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    code, _, err = run("classify", "pics/1.png", *NET, "w.caffemodel", "--like=deploy.prototxt")
    assert code == 1 and "--like 'deploy.prototxt' has no data layer in its TEST phase" in err
    assert run("classify", "pics/1.png", *NET, "w.caffemodel", "--like=none.prototxt")[0] == 1


def test_results_as_json(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    flags = (*NET, "w.caffemodel", "--labels", "labels.txt", "--top", "2")
    for name in ("out.csv", "out.json", "out.jsonl"):
        code, out, err = run("classify", "pics", name, *flags)
        assert code == 0, err
        assert out.splitlines()[-1] == f"Saving results into {name}" and "Prediction" not in out
    table = [[row[0], *((int(row[i]), row[i + 1], float(row[i + 2])) for i in (1, 4))] for row in rows("out.csv")[1:]]
    whole = json.loads(Path("out.json").read_text())
    assert [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()] == whole
    assert [[one["file"], *((c["class"], c["name"], c["score"]) for c in one["classes"])] for one in whole] == table
    assert {one[1][1] for one in table} <= {"cat", "dog", "owl"}
    Path("map.prototxt").write_text("".join(f'item {{ name: "{n}" label: {i} }}\n' for i, n in enumerate("abc")))
    assert run("classify", "pics", "out.csv", *flags[:4], "--labels=map.prototxt", "--top=1")[0] == 0
    assert {row[2] for row in rows("out.csv")[1:]} <= set("abc")


def test_scores_that_are_no_numbers(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    param, weights = caffemodel.read_with_net("w.caffemodel")
    assert param is not None
    none = {name: [np.full_like(array, np.nan) for array in arrays] for name, arrays in weights.items()}
    caffemodel.write("nan.caffemodel", param, none)
    code, _, err = run("classify", "pics", "out.json", *NET, "nan.caffemodel")
    assert code == 0, err
    assert "are NaN or infinite" in err
    assert {c["score"] for one in json.loads(Path("out.json").read_text()) for c in one["classes"]} == {None}


def test_several_inputs_and_what_cannot_be_read(net: Callable[[str], None], run: Run, heard: io.StringIO) -> None:
    net("scale: 0.02 crop_size: 8")
    flags = (*NET, "w.caffemodel")
    Path("list.txt").write_text("pics/3.png 1\npics/4.png 0\npics/9.png 2\n")
    Path("pics/broken.jpg").write_bytes(b"<html>")
    Path("pics/notes.md").write_text("x")
    code, out, err = run("classify", "pics/1.png", "list.txt", "pics", "out.csv", *flags, "--gpu=", "--cpu")
    assert code == 0, err
    assert [row[0] for row in rows("out.csv")[1:]] == [
        "pics/1.png", "pics/3.png", "pics/4.png", *(f"pics/{i}.png" for i in range(5))
    ]  # fmt: skip
    assert out.splitlines()[-1] == "Left out 2 of 10 pictures, which cannot be read."
    assert "Left out 1 files that end in '.md'; see --ext." in out
    assert re.findall(r"'pics/(\S+)'.*; left out", err) == ["broken.jpg"] and "pics/9.png" in err
    code, _, err = run("classify", "pics/broken.jpg", "out2.csv", *flags)
    assert code == 1 and "pics/broken.jpg" in err.splitlines()[-1] and not Path("out2.csv").exists()
    code, _, err = run("classify", "pics/broken.jpg", "pics/broken.jpg", "out2.csv", *flags)
    assert code == 1 and "none of the 2 pictures in" in err and not Path("out2.csv").exists()
    code, _, err = run("classify", "pics/1.png", "pics/none.png", *flags)
    assert (code, err.splitlines()[-1]) == (1, "Error: 'pics/none.png': No such file or directory")


def test_out_by_its_ending(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    flags = (*NET, "w.caffemodel")
    for name in ("out.txt", "out.xml", "out.csv.gz"):
        code, _, err = run("classify", "pics", name, *flags)
        assert code == 2 and f"OUT {name!r} ends in" in err and ".csv, .json, .jsonl, .npy" in err
    assert run("classify", "out.csv", *flags)[0] == 2
    code, _, err = run("classify", "pics", "none/out.csv", *flags)
    assert code == 1 and "cannot write 'none/out.csv'" in err
    code, out, err = run("classify", "pics/1.png", "pics/2.png", *flags)  # the last is an input too
    assert code == 0 and "Prediction for pics/2.png" in out
    assert run("classify", "pics/1.png", "old", *flags)[0] == 0 and np.load("old.npy").shape == (1, 3)
    code, _, err = run("classify", "pics", "out.npy", *flags)
    assert code == 1 and "has no *.jpg; say --ext png for other pictures" in err


def test_gpu_takes_a_number_or_none(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    flags = (*NET, "w.caffemodel", "--cpu")
    for gpu in (["--gpu", "0"], ["--gpu"], ["--gpu=0"], ["-gpu", "1"]):
        code, out, err = run("classify", "pics/1.png", *flags, *gpu)
        assert code == 0 and "--cpu goes before --gpu" in err, err
        assert "Prediction for pics/1.png" in out and sorted(Path().glob("*.npy")) == []
        code, out, err = run("classify", *gpu, "pics/1.png", "out.csv", *flags)
        assert code == 0 and rows("out.csv")[1][0] == "pics/1.png"
    Path("0").write_bytes(Path("pics/1.png").read_bytes())
    code, _, err = run("classify", *flags, "--gpu", "0")
    assert code == 2 and "is 0 the GPU or the file '0' that is here? Write --gpu=0, or ./0 after --gpu=0" in err
    assert run("classify", *flags, "--gpu=0", "./0")[0] == 0


def test_records_unlike_the_trainings_are_told(net: Callable[[str], None], run: Run) -> None:
    net('mean_file: "mean.binaryproto" scale: 0.02 crop_size: 8')
    text = Path("train_val.prototxt").read_text()
    test = ("test", "--model=t.prototxt", "--weights=w.caffemodel", "--all")
    extract = ("extract_features", "--all", "ip", "f.npy", "npy", "--model=t.prototxt", "--weights=w.caffemodel")
    shutil.copy("mean.binaryproto", "same.binaryproto")
    for old, new, told in (
        ("scale: 0.02", "scale: 0.02", ""),
        ('"mean.binaryproto"', '"same.binaryproto"', ""),
        ("scale: 0.02", "", "less 'mean.binaryproto', times 1"),
        ('mean_file: "mean.binaryproto"', "mean_value: 9", "less 9, times 0.02"),
        ('mean_file: "mean.binaryproto"', "", "less 0, times 0.02"),
    ):
        Path("t.prototxt").write_text(text.replace(old, new))
        for command in (test, extract):
            code, _, err = run(*command)
            assert code == 0, err
            words = [line.partition("] ")[2] for line in err.splitlines() if line.startswith("W") and "trained" in line]
            said = f"layer 'pixels' gives pictures {told}; the net was trained with less 'mean.binaryproto', times 0.02"
            assert [word.partition(", as layer")[0] for word in words] == ([said] if told else [])
        for path in Path().glob("f*.npy"):
            path.unlink()


def test_the_net_must_take_pictures(net: Callable[[str], None], run: Run) -> None:
    net("scale: 0.02 crop_size: 8")
    code, _, err = run("classify", "pics", "out.csv", "--model=train_val.prototxt", "--weights=w.caffemodel")
    assert code == 1 and "'train_val.prototxt' has no Input layer that takes pictures" in err
    assert "give its deploy net: is it 'deploy.prototxt'?" in err and not Path("out.csv").exists()
