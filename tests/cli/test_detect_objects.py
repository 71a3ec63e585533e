"""detect with a detector: a net whose boxes are its priors, on pictures, folders and videos."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

import caffe
from caffecli.cli import main

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
MAP = 'item { name: "cat" label: 1 display_name: "cat" } item { name: "44" label: 2 display_name: "44" }'
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
    assert out == "1.png: 1 cat (1.00), 1 44 (0.60)\nWrote found.json\n"
    (found,) = json.loads(Path("found.json").read_text())
    assert (found["picture"], found["width"], found["height"]) == ("1.png", 80, 60)
    cat, other = found["objects"]
    assert (cat["label"], cat["name"], other["label"], other["name"]) == (1, "cat", 2, "44")
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
    assert "44" not in out


def test_results_of_coco_and_voc(run: Run) -> None:
    assert run("pictures", "coco.json", *FLAGS, "--format=coco")[0] == 0
    found = json.loads(Path("coco.json").read_text())
    assert [(one["image_id"], one["category_id"]) for one in found] == [(1, 1), (1, 44), (2, 1), (2, 44)]
    assert found[0]["bbox"] == pytest.approx([20, 15, 40, 30], abs=1e-4)
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


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("pictures/1.png", "o.json"), 2, "give a detector by --model_def and --pretrained_model"),
        (("pictures/1.png", *FLAGS), 2, "give OUTPUT_FILE, or --draw FOLDER, or both"),
        (("pictures/9.png", "o.json", *FLAGS), 1, "9.png"),
        (("none.mp4", "o.json", *FLAGS), 1, "there is no video 'none.mp4'"),
        (("pictures", "o.json", *FLAGS, "--mean_value=1,2"), 1, "a mean_value, or one for each of its channels"),
        (("pictures", "o.json", *FLAGS, "--mean_value=x"), 2, "is not numbers"),
        (("pictures", "o.json", *FLAGS, "--context_pad=3"), 2, "--context_pad is for windows of pictures"),
        (("in.csv", "o.csv", "--threshold=0.5"), 2, "--threshold is for a detector"),
        (("deploy.prototxt", "o.json", *FLAGS), 1, "deploy.prototxt' is "),
    ],
)
def test_mistakes(args: tuple[str, ...], code: int, said: str, run: Run) -> None:
    came, _, err = run(*args)
    assert (came, said in err) == (code, True), err
    assert not Path("o.json").exists()


def test_a_net_that_is_no_detector(run: Run) -> None:
    Path("deploy.prototxt").write_text(NET[: NET.index('layer { name: "prior"')])
    code, _, err = run("pictures", "o.json", *FLAGS)
    assert code == 1 and "is no detector's deploy net: expected one output of (1, 1, boxes, 7)" in err
