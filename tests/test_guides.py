"""The pages for programmers: each page's files and code, in their order, in one program."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

import caffe
from caffecli.cli import main
from caffecli.formats import annotated
from caffecli.formats.db import open_reader
from caffecli.formats.proposals import Proposals
from caffecli.proto.caffe_pb2 import LabelMap
from caffecli.solver.learning_rate import POLICIES
from caffecli.spec.text import read
from converters.create_label_map import create_label_map

ROOT = Path(__file__).parents[1]


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page: what they are, and their text."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its four commands on drawn pictures, with a short training."""
    monkeypatch.chdir(tmp_path)
    for shade, kind in ((40, "cat"), (200, "dog")):
        Path("pictures", kind).mkdir(parents=True)
        for index in range(6):
            cv2.imwrite(f"pictures/{kind}/{index}.jpg", np.full((40, 30, 3), shade + index, np.uint8))
    cv2.imwrite("new.jpg", np.full((40, 30, 3), 203, np.uint8))
    out = ""
    (example,) = (text for kind, text in blocks("README.md") if not kind and "caffecli new" in text)
    for line in example.replace("\\\n", "").splitlines():
        monkeypatch.setattr(sys, "argv", shlex.split(line))
        with pytest.raises(SystemExit) as end:
            main.main("caffecli")
        out, err = capsys.readouterr()
        assert not end.value.code, err
        if " new " in line:
            solver = Path("pictures_net/solver.prototxt")
            solver.write_text(re.sub(r"(max_iter|test_interval): \d+", r"\1: 2", solver.read_text()))
    assert re.search(r"\b(cat|dog)\b", out)


@pytest.mark.parametrize("page", ["docs/your-own-layer.md", "docs/watching.md"])
def test_a_page_for_programmers(page: str, tmp_path: Path) -> None:
    program = ""
    for kind, text in blocks(page):
        file = re.match(r"# (\w+\.\w+)\n", text)
        if file:
            (tmp_path / file[1]).write_text(text)
        elif kind == "python":
            program += text
    env = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_page_of_unbalanced_classes(tmp_path: Path) -> None:
    """Its programs print what it shows, and its losses are the same number."""
    page = "docs/unbalanced-classes.md"
    programs = [text for kind, text in blocks(page) if kind == "python"]
    layers = [text for kind, text in blocks(page) if kind == "prototxt"]
    net = tmp_path / "net.prototxt"
    head = 'layer { name: "data" type: "Input" top: "score" top: "label" top: "weight" input_param { '
    head += "shape { dim: 10 dim: 2 } shape { dim: 10 } shape { dim: 10 } } } "
    net.write_text(head + "".join(text.replace('"loss"', f'"loss{i}"') for i, text in enumerate(layers)))
    run = (
        "import caffe, numpy as np\n"
        "net = caffe.Net('net.prototxt', caffe.TRAIN)\n"
        "net.blobs['score'].data[...] = np.random.RandomState(0).randn(10, 2)\n"
        "net.blobs['label'].data[3] = 1\n"
        "net.blobs['weight'].data[...] = np.where(np.arange(10) == 3, 5, 0.553)\n"
        "net.forward()\n"
        "losses = [float(net.blobs[f'loss{i}'].data) for i in range(3)]\n"
        "assert np.allclose(losses, losses[0], rtol=0.01), losses\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", "\n".join([*programs, run])]
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == re.search(r"^```text\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)[1]


def test_the_page_of_learning_rates_has_every_policy() -> None:
    page = (ROOT / "docs/learning-rates.md").read_text()
    assert set(re.findall(r'^\| `"(\w+)"`', page, re.MULTILINE)) == set(POLICIES)


def to_labelme(boxes: list[tuple[str, list[int]]]) -> str:
    shapes = [{"label": name, "shape_type": "rectangle", "points": [box[:2], box[2:]]} for name, box in boxes]
    return json.dumps({"shapes": shapes, "imageWidth": 96, "imageHeight": 96})


def to_coco(boxes: dict[str, list[tuple[str, list[int]]]]) -> str:
    numbers = {"square": 3, "circle": 5, "triangle": 9}
    images = [{"id": i, "file_name": name, "width": 96, "height": 96} for i, name in enumerate(boxes, 10)]
    annotations = [
        {"image_id": i, "category_id": numbers[name], "bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": 0}
        for i, each in enumerate(boxes.values(), 10)
        for name, (x1, y1, x2, y2) in each
    ]
    categories = [{"id": number, "name": name} for name, number in numbers.items()]
    return json.dumps({"images": images, "annotations": annotations, "categories": categories})


def test_the_page_of_annotated_data_from_each_form_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tutorial's shapes, few of them, as VOC's, LabelMe's and COCO's files: lists, databases, a short training of
    its net, the score and a look.
    """
    monkeypatch.chdir(tmp_path)
    page, tutorial = (
        [*blocks("docs/annotated-data.md"), *blocks("docs/detect.md")],
        blocks("docs/tutorials/09-find-objects.md"),
    )
    draw, net, solver = (text for kind, text in tutorial if kind == "python" and "seen" not in text)
    names: dict[str, Any] = {}
    exec(draw.replace('("train", 800), ("test", 100)', '("train", 16), ("test", 4)'), names)
    root = names["ROOT"]
    (root / "images").mkdir()
    (root / "labels").mkdir()
    boxes: dict[str, list[tuple[str, list[int]]]] = {}
    for path in sorted(root.glob("t*/*.jpg")):
        name = f"{path.parent.name}_{path.name}"
        path.rename(root / "images" / name)
        path.with_suffix(".xml").rename(root / "labels" / f"{Path(name).stem}.xml")
        objects = ElementTree.parse(root / "labels" / f"{Path(name).stem}.xml").iterfind("object")
        boxes[name] = [(one.findtext("name"), [int(side.text) for side in one.find("bndbox")]) for one in objects]
        (root / "labels" / f"{Path(name).stem}.json").write_text(to_labelme(boxes[name]))
    (root / "annotations.json").write_text(to_coco(boxes))
    commands = [
        shlex.split(line) for line in "".join(text for kind, text in page if not kind).replace("\\\n", "").splitlines()
    ]

    def call(which: str, *more: str) -> str:
        """Run the page's commands of a name; what the last one prints."""
        out = ""
        for words in commands:
            if words[1] == which:
                monkeypatch.setattr(sys, "argv", [*words, *more])
                with pytest.raises(SystemExit) as end:
                    main.main("caffecli")
                out, err = capsys.readouterr()
                assert not end.value.code, err
        return out

    monkeypatch.chdir(root)
    found = []
    voc, labelme, coco, ids, split = (text for kind, text in page if kind == "python")
    for form, program in (("xml", voc), ("json", labelme), ("json", coco)):
        for folder in ("train_lmdb", "test_lmdb"):
            shutil.rmtree(folder, ignore_errors=True)
        exec(voc.partition("pairs")[0] + program + split, names)
        call("create_label_map")
        call("convert_annoset", f"--label_type={form}")
        with open_reader("train_lmdb") as reader:
            found.append([(key, annotated.boxes(annotated.decode(value)).tolist()) for key, value in reader])
        assert len(found[-1]) == 18 and Path("names.txt").read_text() == "circle\nsquare\ntriangle\n"
    by_class = [[(key, sorted(rows)) for key, rows in each] for each in found]
    assert by_class[0] == by_class[1] == by_class[2]
    exec(ids, names)
    create_label_map("ids.txt", "ids.prototxt", delimiter=",")
    items = read("ids.prototxt", LabelMap).item
    known = {each["name"]: each["id"] for each in names["said"]["categories"]}
    assert [(item.label, item.name) for item in items[1:]] == [
        (i, str(known[items[i].display_name])) for i in (1, 2, 3)
    ]

    monkeypatch.chdir(tmp_path)
    exec(net + solver.replace("500", "2"), names)
    (root / "solver.prototxt").write_text(
        (root / "solver.prototxt").read_text().replace("test_iter: 10", "test_iter: 1")
    )
    monkeypatch.setattr(sys, "argv", ["caffecli", "train", "--solver", str(root / "solver.prototxt")])
    with pytest.raises(SystemExit) as end:
        main.main("caffecli")
    assert not end.value.code
    monkeypatch.chdir(root)
    Path("ssd_iter_2.caffemodel").rename("ssd_iter_500.caffemodel")
    out = call("detect")
    assert out.endswith("Wrote found.json\n") and len(list(Path("seen").iterdir())) == 20
    assert call("score_detections").startswith("2 pictures, ")
    assert call("score_detections", "--ap_version=Integral").count("\n") == 7


def test_the_page_of_faster_rcnn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that are scaled for other programs, and selective search's regions as a file of ours."""
    io = pytest.importorskip("scipy.io")
    monkeypatch.chdir(tmp_path)
    scaled, searched = (text for kind, text in blocks("docs/faster-rcnn.md") if kind == "python")
    Path("deploy.prototxt").write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 } } } layer { '
        'name: "bbox_pred" type: "InnerProduct" bottom: "data" top: "bbox_pred" inner_product_param { num_output: 8 '
        'weight_filler { type: "constant" value: 1 } bias_filler { type: "constant" value: 1 } } }'
    )
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    net.save("faster_rcnn_iter_70000.caffemodel")
    exec(scaled, {})
    net.copy_from("faster_rcnn_final.caffemodel")
    for blob in net.params["bbox_pred"]:
        np.testing.assert_allclose(blob.data.reshape(8, -1)[:, 0], [0.1, 0.1, 0.2, 0.2] * 2, rtol=1e-6)
    boxes, images = np.empty((1, 2), object), np.empty((2, 1), object)
    for i, name in enumerate(("000005", "000007")):
        boxes[0, i], images[i, 0] = np.array([[11, 21, 31, 41 + i]], float), name
    io.savemat("voc_2007_trainval.mat", {"boxes": boxes, "images": images})
    exec(searched, {})
    assert Proposals("proposals.h5").of("00000001_VOC2007/JPEGImages/000007.jpg").tolist() == [[20, 10, 41, 30]]
