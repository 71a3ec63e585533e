"""detect with a detector: a net whose boxes are its priors, on pictures, folders and videos."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffecli.cli import main
from caffecli.formats import caffemodel, mean
from caffecli.proto.caffe_pb2 import LayerParameter

#: one place with two priors, of 20 and 10 pixels of 40, around its middle; the score of class 1 is of the first
NET = """
layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 40 dim: 40 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool" pooling_param { pool: AVE global_pooling: true } }
layer { name: "loc" type: "Convolution" bottom: "pool" top: "loc" convolution_param { num_output: 8 kernel_size: 1 } }
layer { name: "loc_perm" type: "Permute" bottom: "loc" top: "loc_perm" permute_param { order: 0 order: 2 order: 3 } }
layer { name: "loc_flat" type: "Flatten" bottom: "loc_perm" top: "loc_flat" }
layer { name: "conf" type: "Convolution" bottom: "pool" top: "conf" convolution_param { num_output: 6 kernel_size: 1 } }
layer { name: "conf_perm" type: "Permute" bottom: "conf" top: "conf_perm" permute_param { order: 0 order: 2 order: 3 } }
layer { name: "conf_flat" type: "Flatten" bottom: "conf_perm" top: "conf_flat" }
layer { name: "prior" type: "PriorBox" bottom: "pool" bottom: "data" top: "prior"
  prior_box_param { min_size: 20 min_size: 10 variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 } }
layer { name: "found" type: "DetectionOutput" bottom: "loc_flat" bottom: "conf_flat" bottom: "prior" top: "found"
  detection_output_param { num_classes: 3 code_type: CENTER_SIZE nms_param { nms_threshold: 0.45 }
    keep_top_k: 10 confidence_threshold: 0.2 } }
"""
MAP = 'item { name: "1" label: 1 display_name: "cat" } item { name: "44" label: 2 display_name: "fork" }'
FLAGS = ("--model_def=deploy.prototxt", "--pretrained_model=w.caffemodel", "--label_map_file=map.prototxt")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run ``detect`` in a folder with the net and two pictures: exit code, stdout, the last line of stderr."""
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(NET)
    Path("map.prototxt").write_text(MAP)
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    net.params["conf"][1].data[...] = [0, 0.9, 0, 0, 0, 0.6]
    net.params["conf"][0].data[1, 0] = 0.001  # by the picture's blue: the mean is taken off
    net.save("w.caffemodel")
    Path("pictures").mkdir()
    for name, size in (("1.png", (60, 80)), ("2.jpg", (40, 40))):
        cv2.imwrite(f"pictures/{name}", np.full((*size, 3), (204, 117, 123), np.uint8))

    def call(*args: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["caffecli", "detect", *args])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        out, err = capsys.readouterr()
        return int(end.value.code or 0), out, (err.splitlines() or [""])[-1]

    return call


def test_a_picture_as_json(run: Run) -> None:
    code, out, err = run("pictures/1.png", "found.json", *FLAGS)
    assert code == 0, err
    assert out == "1.png: 1 cat (1.00), 1 fork (0.60)\nWrote found.json\n"
    (found,) = json.loads(Path("found.json").read_text())
    assert (found["picture"], found["width"], found["height"]) == ("1.png", 80, 60)
    cat, other = found["objects"]
    assert (cat["label"], cat["name"], other["label"], other["name"]) == (1, "cat", 2, "fork")
    assert cat["score"] == pytest.approx(1.0, abs=1e-5)  # 0.9 + 0.001 * (204 - 104)
    box = [cat[name] for name in ("xmin", "ymin", "xmax", "ymax")]
    assert box == pytest.approx([20, 15, 60, 45], abs=1e-4)  # the middle half


def test_a_folder_as_csv_with_a_broken_picture(run: Run) -> None:
    Path("pictures/3.png").write_bytes(b"no picture")
    code, out, err = run("pictures", "found.csv", *FLAGS, "--threshold=0.7")
    assert code == 0 and "3.png' " in err and err.endswith("left out"), err
    rows = list(csv.reader(Path("found.csv").read_text().splitlines()))
    assert rows[0] == ["picture", "label", "name", "score", "xmin", "ymin", "xmax", "ymax"]
    assert [row[:3] for row in rows[1:]] == [["1.png", "1", "cat"], ["2.jpg", "1", "cat"]]
    assert [float(value) for value in rows[2][4:]] == pytest.approx([10, 10, 30, 30], abs=1e-4)
    assert "fork" not in out


def test_a_list_of_pictures(run: Run, heard: io.StringIO) -> None:
    """A path a line, maybe with a label or an annotation file behind it, as convert_annoset's lists have."""
    Path("a.txt").write_text("pictures/1.png\n\nnone.png\npictures/2.jpg\ta.xml\n")
    code, out, err = run("a.txt", "found.csv", *FLAGS[:2])
    assert code == 0, err
    assert out.startswith("pictures/1.png: 1 1 (1.00)") and "pictures/2.jpg: 1 1 " in out
    assert "there is no 'none.png' below the working folder; check the root folder and the list; left out" in err + (
        heard.getvalue()
    )
    assert Path("found.csv").read_text().count("pictures/2.jpg,") == 2
    Path("b.txt").write_text("pictures/1.png 3\nsub/1.png\n")
    Path("sub").mkdir()
    Path("sub/1.png").write_bytes(Path("pictures/1.png").read_bytes())
    assert run("b.txt", "voc", *FLAGS, "--format=voc", "--draw=seen")[0] == 0
    assert Path("seen/sub/1.png").is_file() and Path("seen/pictures/1.png").is_file()
    assert "'voc' has several pictures as '1'" in heard.getvalue()
    before = Path("sub/1.png").read_bytes()
    code, _, err = run("b.txt", *FLAGS, "--draw=.")
    assert code == 1 and "would overwrite" in err and Path("sub/1.png").read_bytes() == before
    Path("pictures/b.txt").write_text("1.png\n")
    assert run("pictures/b.txt", "found.csv", *FLAGS)[0] == 1
    assert "below the working folder; it is below the list's: run there; left out" in heard.getvalue()
    Path("c.txt").write_text("\n")
    assert run("c.txt", "found.csv", *FLAGS)[2] == "Error: 'c.txt' lists no pictures; expected a path a line"


def test_a_list_for_windows_stays_one(run: Run) -> None:
    """Flags of windows, or a net that is no detector."""
    Path("a.txt").write_text("pictures/1.png\n")
    assert "mean" in run("a.txt", "found.csv", *FLAGS[:2], "--mean_file=none.npy")[2]
    Path("deploy.prototxt").write_text("\n".join(NET.splitlines()[:3]))
    assert "there is no mean" in run("a.txt", "found.csv", *FLAGS[:2])[2]


@pytest.mark.parametrize("phase", ["TRAIN", "TEST"])
def test_a_net_to_train_with_is_no_deploy_net(run: Run, phase: str) -> None:
    data = f'layer {{ name: "data" type: "DummyData" top: "data" top: "label" include {{ phase: {phase} }} }}\n'
    Path("train.prototxt").write_text(data + NET.split("\n", 2)[2])
    for source in ("pictures", "a.txt"):
        Path("a.txt").write_text("pictures/1.png\n")
        code, _, err = run(source, "found.csv", "--model_def=train.prototxt", FLAGS[1])
        assert code == 1 and err == (
            "Error: 'train.prototxt' has no Input layer that takes pictures: it is a net to train or to test with; "
            "give its deploy net: is it 'deploy.prototxt'?"
        )
    Path("deploy.prototxt").unlink()
    err = run("pictures", "found.csv", "--model_def=train.prototxt", FLAGS[1])[2]
    assert err.endswith("give its deploy net: an Input layer in place of the data layers, and no layer that reads "
                        "true boxes or labels")  # fmt: skip


def test_results_of_coco_and_voc(run: Run, heard: io.StringIO) -> None:
    assert run("pictures", "coco.json", *FLAGS, "--format=coco")[0] == 0
    found = json.loads(Path("coco.json").read_text())
    assert [(one["image_id"], one["category_id"]) for one in found] == [(1, 1), (1, 44), (2, 1), (2, 44)]
    assert found[0]["bbox"] == pytest.approx([20, 15, 40, 30], abs=1e-4)
    said = "'coco.json' has the net's numbers of classes as category_id; if COCO's differ, give --labels"
    assert said not in heard.getvalue()
    assert run("pictures", "coco.json", *FLAGS[:2], "--format=coco")[0] == 0 and said in heard.getvalue()
    assert run("pictures", "voc", *FLAGS, "--format=voc")[0] == 0
    lines = Path("voc/comp4_det_test_cat.txt").read_text().splitlines()
    assert lines[0] == "1 1.000000 20.000000 15.000000 60.000000 45.000000" and lines[1].startswith("2 0.99")


def test_what_was_found_is_scored(run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert run("pictures", "found.json", *FLAGS, "--threshold=0.01")[0] == 0
    said = {
        "images": [{"id": 5, "file_name": "1.png", "width": 80, "height": 60}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 44, "name": "fork"}],
        "annotations": [
            {"image_id": 5, "category_id": 3, "bbox": [20, 15, 40, 30]},
            {"image_id": 5, "category_id": 44, "bbox": [0, 0, 20, 20]},
        ],
    }
    Path("truth.json").write_text(json.dumps(said))
    table = "1 pictures, 2 objects, 2 boxes; 11point, overlap 0.5\n\nclass  objects  boxes     AP\n"
    table += "cat          1      1  1.000\nfork         1      1  0.000\nmean         2      2  0.500\n"
    for args, code, out, words in (
        (["found.json", "truth.json", "--ap_version=11point"], 0, table, "as '2.jpg', are none of the truth's"),
        (["found.json", "none.json"], 1, "", "none.json"),
        (["none.json", "truth.json"], 1, "", "none.json"),
        (["found.json", "truth.json", "--ap_version=COCO", "--overlap_threshold=0.5"], 2, "", "not for --ap_version"),
        (["found.json", "truth.json", "--overlap_threshold=0"], 2, "", "overlap_threshold"),
    ):
        monkeypatch.setattr(sys, "argv", ["caffecli", "score_detections", *args])
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        came, err = capsys.readouterr()
        assert (int(end.value.code or 0), came, words in err) == (code, out, True), (args, err)


def test_boxes_are_drawn(run: Run) -> None:
    assert run("pictures", *FLAGS, "--draw=seen")[0] == 0
    before, after = (cv2.imread(f"{folder}/1.png").astype(int) for folder in ("pictures", "seen"))
    changed = np.abs(after - before).sum(-1) > 0
    assert (
        changed[45, 20:60].all() and changed[15:46, 20].all() and not changed[50:].any() and not changed[30:, 70:].any()
    )
    assert Path("seen/2.jpg").exists()


def test_a_video(run: Run) -> None:
    video = cv2.VideoWriter("in.avi", cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (80, 60))
    for _ in range(3):
        video.write(np.full((60, 80, 3), (204, 117, 123), np.uint8))
    video.release()
    code, _, err = run("in.avi", "found.json", *FLAGS, "--draw=seen")
    assert code == 0, err
    assert [each["picture"] for each in json.loads(Path("found.json").read_text())] == [f"in.avi#{i}" for i in range(3)]
    seen = cv2.VideoCapture("seen/in.avi")
    assert seen.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_how_pixels_are_brought_to_the_net(run: Run) -> None:
    """Blue 204 is (204 - 4) * 0.5 = 100 in the net, 0.1 more than without; red first, (123 - 4) * 0.5 is taken."""
    for flags, score in ((("--channel_swap=2,1,0",), 1.0), (("--channel_swap=",), 0.9 + 0.0595)):
        assert run("pictures/1.png", "f.json", *FLAGS, "--mean_value=4", "--input_scale=0.5", *flags)[0] == 0
        (found,) = json.loads(Path("f.json").read_text())
        assert found["objects"][0]["score"] == pytest.approx(score, abs=1e-5)


def trained_with(transform: str) -> None:
    """Let the weights' file say how its net was trained."""
    net = caffemodel.read_net("w.caffemodel")
    layer = text_format.Parse(
        f'name: "pixels" type: "AnnotatedData" top: "data" top: "label" transform_param {{ {transform} }}',
        LayerParameter(),
    )
    del net.layer[0]
    net.layer.insert(0, layer)
    weights = caffemodel.read("w.caffemodel")
    caffemodel.write("w.caffemodel", net, {name: blobs for name, blobs in weights.items() if blobs})


def first_object(path: str = "f.json") -> Any:
    return json.loads(Path(path).read_text())[0]["objects"][0]


def test_pixels_are_brought_to_the_net_as_in_its_training(run: Run, heard: io.StringIO) -> None:
    """Blue 204 is what is seen."""
    size = "resize_param { prob: 1 height: 40 width: 40 interp_mode: AREA interp_mode: CUBIC }"
    for transform, flags, seen, said in (
        (None, (), 100, "WARP to 40 × 40 (height × width), less 104,117,123, times 1; where not told, as SSD's"),
        ("mean_value: 4 scale: 0.5 mirror: true", (), 100, "less 4, times 0.5; where not told, as layer 'pixels' of"),
        (size + " scale: 0.25", (), 51, "WARP to 40 × 40 (height × width), less 0, times 0.25"),
        ("mean_value: 9", ("--mean_value=5", "--input_scale=0.5"), 99.5, "less 5, times 0.5"),
        ('mean_file: "mean.binaryproto"', (), 200, "less 'mean.binaryproto'"),
        ('mean_file: "other.binaryproto"', (), 201, "less the mean of each channel of 'other.binaryproto'"),
        ('mean_file: "gone.binaryproto"', ("--mean_value=5",), 199, "less 5"),
        ("mean_value: 9 scale: 9", ("--like=like.prototxt",), 100, "as layer 'own' of 'like.prototxt' has it"),
        ("mean_value: 9", ("--mean=mean.binaryproto", "--scale=0.5"), 100, "less 'mean.binaryproto', times 0.5"),
        ("mean_value: 9 scale: 0.5", ("--mean", "4,4,4"), 100, "less 4,4,4, times 0.5"),
    ):
        Path("like.prototxt").write_text(
            'layer { name: "own" type: "Data" top: "data" transform_param { mean_value: 4 scale: 0.5 } '
            'data_param { source: "x" batch_size: 1 } }'
        )
        if transform is not None:
            trained_with(transform)
        mean.write("mean.binaryproto", np.full((3, 40, 40), 4, np.float32))
        mean.write("other.binaryproto", np.full((3, 50, 50), 3, np.float32))
        code, _, err = run("pictures/1.png", "f.json", *FLAGS, *flags)
        assert code == 0, err
        assert first_object()["score"] == pytest.approx(0.9 + 0.001 * seen, abs=1e-5), transform
        assert said in heard.getvalue()
    trained_with('mean_file: "gone.binaryproto"')
    code, _, err = run("pictures/1.png", "o.json", *FLAGS)
    assert (
        code == 1
        and "the mean_file 'gone.binaryproto', as layer 'pixels' of 'w.caffemodel' has it, which is not there" in err
    )


def test_boxes_of_pictures_that_keep_their_form(run: Run) -> None:
    """Of 80 × 60 pixels, padded to a square, the middle half is 40 pixels high, and their third is above."""
    trained_with("resize_param { resize_mode: FIT_LARGE_SIZE_AND_PAD height: 300 width: 300 pad_value: 9 }")
    for flags in ((), ("--resize_mode=FIT_LARGE_SIZE_AND_PAD",)):
        assert run("pictures/1.png", "f.json", *FLAGS, *flags)[0] == 0
        box = [first_object()[name] for name in ("xmin", "ymin", "xmax", "ymax")]
        assert box == pytest.approx([20, 10, 60, 50], abs=1e-4)
        trained_with("scale: 1")
    assert run("pictures/1.png", "f.json", *FLAGS, "--resize_mode=FIT_SMALL_SIZE")[0] == 0  # 53 × 40 in the net
    box = [first_object()[name] for name in ("xmin", "ymin", "xmax", "ymax")]
    assert box == pytest.approx([80 * (0.5 - 10 / 53), 15, 80 * (0.5 + 10 / 53), 45], abs=1e-3)


def test_nothing_of_the_users_is_overwritten(run: Run) -> None:
    before = {path: path.read_bytes() for path in Path("pictures").iterdir()}
    for args, said in (
        (("pictures", "--draw=pictures"), "--draw 'pictures' is where the pictures are"),
        (("pictures/1.png", "--draw=./pictures/../pictures"), "is where the pictures are"),
        (("pictures/1.png", "pictures/2.jpg"), "'pictures/2.jpg' is to take boxes"),
    ):
        code, _, err = run(*args, *FLAGS)
        assert code == 1 and said in err, err
    assert {path: path.read_bytes() for path in Path("pictures").iterdir()} == before


def test_odd_pictures(run: Run) -> None:
    """A single pixel, long ones, grey and deep ones, an ending in capitals, none, odd names."""
    Path("odd").mkdir()
    for name, shape, kind in (
        ("one.png", (1, 1, 3), np.uint8),
        ("flat.png", (1, 900, 3), np.uint8),
        ("high.bmp", (900, 1, 3), np.uint8),
        ("grey.PNG", (30, 20), np.uint8),
        ("deep.png", (30, 20, 4), np.uint16),
        ("un\udce4.png", (9, 9, 3), np.uint8),  # no UTF-8
        ("with#1.png", (9, 9, 3), np.uint8),  # not a video's frame
    ):
        Path("odd", name).write_bytes(cv2.imencode(".png", np.full(shape, 200, kind))[1].tobytes())
    for flags in (("f.json",), ("f.csv",), ("voc", "--format=voc"), ("c.json", "--format=coco"), ("--draw=seen",)):
        code, _, err = run("odd", *flags, *FLAGS)
        assert code == 0, err
    found = json.loads(Path("f.json").read_text())
    assert [(each["width"], each["height"]) for each in found] == [
        (20, 30),
        (900, 1),
        (20, 30),
        (1, 900),
        (1, 1),
        (9, 9),
        (9, 9),
    ]
    assert {path.name for path in Path("seen").iterdir()} == {path.name for path in Path("odd").iterdir()}
    assert "with#1" in {
        line.split()[0] for line in Path("voc/comp4_det_test_cat.txt").read_text("latin-1").splitlines()
    }
    for name in ("one", "one.photo"):
        (Path("odd") / "one.png").rename(name)
        assert run(name, "f.json", *FLAGS, "--draw=seen")[0] == 0
        assert Path(f"seen/{name}.png").exists()
        Path(name).rename("odd/one.png")


def test_a_net_of_damaged_weights(run: Run) -> None:
    net = caffe.Net("deploy.prototxt", "w.caffemodel", caffe.TEST)
    net.params["loc"][1].data[0] = np.nan
    net.save("w.caffemodel")
    code, _, err = run("pictures/1.png", "o.json", *FLAGS, "--draw=seen")
    assert code == 1 and "1.png: the net finds a box whose numbers are none" in err
    assert not Path("o.json").exists() and not list(Path("seen").iterdir())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG",
        b"item {",
        b'item { name: "a" label: 99999999999 }',
        b'items { name: "a" }',
        b"\xff\xfei",
        b"item {" * 5000,
    ],
)
def test_a_label_map_that_is_none(content: bytes, run: Run) -> None:
    Path("map.prototxt").write_bytes(content)
    code, _, err = run("pictures/1.png", "o.json", *FLAGS)
    assert code == 1 and err.startswith("Error: ") and "map.prototxt" in err
    assert not Path("o.json").exists()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("pictures", "o.json", *FLAGS, "--mean_value=nan"), 1, "is not numbers"),
        (("pictures", "o.json", *FLAGS, "--input_scale=inf"), 2, "inf is no number"),
        (("pictures", "o.json", *FLAGS, "--resize_mode=FIT"), 2, "FIT_SMALL_SIZE"),
        (("in.csv", "o.csv", "--resize_mode=WARP"), 2, "--resize_mode is for a detector"),
        (("pictures/1.png", "o.json"), 2, "give a detector by --model and --weights"),
        (("pictures/1.png", *FLAGS), 2, "give OUTPUT_FILE, or --draw FOLDER, or both"),
        (("pictures/9.png", "o.json", *FLAGS), 1, "9.png"),
        (("none.mp4", "o.json", *FLAGS), 1, "there is no 'none.mp4'"),
        (
            ("pictures", "o.json", *FLAGS, "--mean_value=1,2"),
            1,
            "--mean '1,2' has 2 numbers; expected 1, or one for each of 3 channel(s)",
        ),
        (
            ("pictures", "o.json", *FLAGS, "--mean_value=x"),
            1,
            "there is no mean 'x'; give a .npy or .binaryproto, numbers such as",
        ),
        (("pictures", "o.json", *FLAGS, "--context_pad=3"), 2, "--context_pad is for windows of pictures"),
        (("in.csv", "o.csv", "--threshold=0.5"), 2, "--threshold is for a detector"),
        (("deploy.prototxt", "o.json", *FLAGS), 1, "deploy.prototxt' is "),
        (("pictures", "none/o.json", *FLAGS), 1, "cannot write 'none/o.json': No such file or directory; create the"),
        (("in.mp4", "o.json", *FLAGS), 1, "'in.mp4' is no video that OpenCV can open; look whether a player can"),
        (
            ("pictures", "o.xml", *FLAGS),
            2,
            "OUTPUT_FILE 'o.xml' would hold JSON; call it .json or .csv, or give --format",
        ),
    ],
)
def test_mistakes(args: tuple[str, ...], code: int, said: str, run: Run) -> None:
    Path("in.mp4").write_bytes(b"no video")
    came, _, err = run(*args)
    assert (came, said in err) == (code, True), err
    assert not Path("o.json").exists()


def test_what_may_be_another_nets(run: Run, heard: io.StringIO) -> None:
    """Weights that lack a layer, a label map of other classes, or nothing that says how pixels are to be."""
    code = run("pictures/1.png", "o.json", *FLAGS, "--mean_value=4", "--input_scale=1")[0]
    assert code == 0 and "W" not in {line[:1] for line in heard.getvalue().splitlines()}, heard.getvalue()
    run("pictures/1.png", "o.json", *FLAGS)
    assert "has no data layer; if the net was trained otherwise, give --like" in heard.getvalue()
    for items in (MAP.replace("label: 2", "label: 3"), MAP[: MAP.index(" item")], MAP + 'item { name: "x" label: 3 }'):
        Path("map.prototxt").write_text(items)
        run("pictures/1.png", "o.json", *FLAGS)
        assert "and the net 3, with the background: names may be those of other" in heard.getvalue()
    net = caffemodel.read_net("w.caffemodel")
    del net.layer[[layer.name for layer in net.layer].index("loc")]
    caffemodel.write("part.caffemodel", net, {"conf": caffemodel.read("w.caffemodel")["conf"]})
    run("pictures/1.png", "o.json", *FLAGS, "--pretrained_model=part.caffemodel")
    assert "'part.caffemodel' has no weights for layer 'loc', which keeps random ones: are they" in heard.getvalue()


def test_names_in_other_letters_are_drawn(run: Run) -> None:
    """OpenCV has none of them, and would draw question marks."""
    seen = []
    for name in ("Café groß", "Cafe gross", "猫", "1"):
        Path("map.prototxt").write_text(f'item {{ name: "{name}" label: 1 }} item {{ name: "a" label: 2 }}')
        assert run("pictures/1.png", "--draw=seen", *FLAGS)[0] == 0
        seen.append(Path("seen/1.png").read_bytes())
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_a_gpu_where_there_is_none(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, _, err = run("pictures/1.png", "o.json", *FLAGS, "--gpu")
    assert (code, err) == (1, "Error: --gpu 0 asks for a GPU and there is none that PyTorch can use; run with --cpu")


def test_a_net_that_is_no_detector(run: Run) -> None:
    Path("deploy.prototxt").write_text(NET[: NET.index('layer { name: "prior"')])
    code, _, err = run("pictures", "o.json", *FLAGS)
    assert code == 1 and "is no detector's deploy net: expected one output of (1, 1, boxes, 7)" in err
