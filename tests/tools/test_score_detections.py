"""score_detections: average precisions of what detect and DetectionOutput write, beside COCO files and databases."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from caffecli import logs
from caffecli.errors import CaffeError, DataError, FormatError
from caffecli.formats.db import open_writer
from caffecli.formats.detections import read
from caffecli.proto.caffe_pb2 import AnnotatedDatum
from caffecli.tools.score_detections import COCO_FIGURES, ScoreOptions, Scores, score_detections
from converters.convert_annoset import Options, convert_annoset

#: two pictures of 100 × 50 pixels; COCO's ids are neither the pictures' numbers nor the label map's
TRUTH: dict[str, Any] = {
    "images": [
        {"id": 7, "file_name": "test/1.jpg", "width": 100, "height": 50},
        {"id": 9, "file_name": "test/2.jpg", "width": 100, "height": 50},
    ],
    "categories": [{"id": 13, "name": "dog"}, {"id": 4, "name": "tea cup"}, {"id": 5, "name": "seal"}],
    "annotations": [
        {"image_id": 7, "category_id": 13, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0},
        {"image_id": 9, "category_id": 13, "bbox": [10, 10, 40, 40], "area": 1200, "iscrowd": 0},
        {"image_id": 9, "category_id": 13, "bbox": [60, 0, 40, 50], "area": 2000, "iscrowd": 1},
        {"image_id": 9, "category_id": 4, "bbox": [0, 0, 30, 30], "area": 900, "iscrowd": 0},
    ],
}
MAP = 'item { name: "none" label: 0 display_name: "background" } ' + "".join(
    f'item {{ name: "{name}" label: {label} display_name: "{name}" }} '
    for label, name in ((1, "tea cup"), (2, "dog"), (3, "seal"))
)
#: (picture, label of the map, score, corners in pixels): of the dogs one is hit, one is found twice, one is a crowd,
#: the other is missed by a little; the cup is overlooked for another one
FOUND = [
    ("1", 2, 0.9, (0, 0, 20, 20)),
    ("1", 2, 0.8, (1, 0, 21, 20)),
    ("2", 2, 0.7, (30, 10, 70, 50)),
    ("2", 2, 0.6, (60, 0, 100, 50)),
    ("2", 1, 0.5, (70, 20, 100, 50)),
    ("2", 1, 0.4, (0, 0, 30, 24)),
]
NAMES = {1: "tea cup", 2: "dog", 3: "seal"}


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("truth.json").write_text(json.dumps(TRUTH))
    Path("map.prototxt").write_text(MAP)


def make_database() -> None:
    Path("test").mkdir()
    for name in ("1", "2"):
        cv2.imwrite(f"test/{name}.jpg", np.zeros((50, 100, 3), np.uint8))
    Path("list.txt").write_text("test/1.jpg truth.json\ntest/2.jpg truth.json\n")
    settings: Any = {"anno_type": "detection", "label_type": "json", "label_map_file": "map.prototxt", "encoded": True}
    convert_annoset("", "list.txt", "db", Options(**settings))


def write(form: str, found: list[Any] = FOUND) -> str:
    """The boxes in one of the forms; the file's name."""
    if form == "json":
        items = [
            {"picture": f"{name}.jpg", "width": 100, "height": 50, "objects": [
                {"label": one[1], "name": NAMES[one[1]], "score": one[2]}
                | dict(zip(("xmin", "ymin", "xmax", "ymax"), one[3], strict=True)) for one in found if one[0] == name
            ]} for name in ("1", "2")
        ]  # fmt: skip
        Path("found.json").write_text(json.dumps(items))
        return "found.json"
    if form == "csv":
        lines = [f"{one[0]}.jpg,{one[1]},{NAMES[one[1]]},{one[2]},{','.join(map(str, one[3]))}" for one in found]
        Path("found.csv").write_text("\n".join(["picture,label,name,score,xmin,ymin,xmax,ymax", *lines]) + "\n")
        return "found.csv"
    if form == "coco":
        items = [
            {"image_id": {"1": 7, "2": 9}[name], "category_id": {1: 4, 2: 13, 3: 5}[label], "score": score,
             "bbox": [x1, y1, x2 - x1, y2 - y1]} for name, label, score, (x1, y1, x2, y2) in found
        ]  # fmt: skip
        Path("coco.json").write_text(json.dumps(items))
        return "coco.json"
    if form == "voc":
        Path("voc").mkdir(exist_ok=True)
        for label, name in ((1, "tea_cup"), (2, "dog")):
            lines = [f"{one[0]} {one[2]} {' '.join(map(str, one[3]))}\n" for one in found if one[1] == label]
            Path(f"voc/comp4_det_test_{name}.txt").write_text("".join(lines))
        return "voc"
    lines = [f"{one[0]} {one[1]} {one[2]} {' '.join(map(str, one[3]))}\n" for one in found]
    Path("ilsvrc.txt").write_text("".join(lines))
    return "ilsvrc.txt"


def score(results: str, truth: str = "truth.json", **settings: Any) -> Scores:
    return score_detections(ScoreOptions(results=results, truth=truth, label_map_file="map.prototxt", **settings))


def test_by_hand_in_each_form(capsys: pytest.CaptureFixture[str]) -> None:
    make_database()
    for form in ("json", "csv", "coco", "voc", "ilsvrc"):
        for truth in ("truth.json",) if form == "coco" else ("truth.json", "db"):
            found = score(write(form), truth)
            # dog: of two objects the first box finds one; the fourth, of the crowd, does not count
            assert found.classes["dog"] == (2, 4, {"AP": 0.5}), (form, truth)
            # cup: a miss, then a hit, whose overlap is 24 / 30
            assert found.classes["tea cup"] == (1, 2, {"AP": 0.5})
            assert found.mean == (3, 6, {"AP": 0.5})
    assert capsys.readouterr().out.endswith(
        "2 pictures, 3 objects, 6 boxes; Integral, overlap 0.5\n\n"
        "class    objects  boxes     AP\n"
        "tea cup        1      2  0.500\n"
        "dog            2      4  0.500\n"
        "mean           3      6  0.500\n"
    )


def test_the_settings() -> None:
    results = write("json")
    assert score(results, evaluate_difficult_gt=True).classes["dog"].figures["AP"] == pytest.approx(1 / 3 + 0.5 / 3)
    assert score(results, overlap_threshold=0.81).classes["tea cup"].figures["AP"] == 0
    assert score(results, ap_version="11point").classes["dog"].figures["AP"] == pytest.approx(6 / 11)


def test_coco_as_its_own_code_has_it() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    draw = np.random.default_rng(3)
    truth = {**TRUTH, "annotations": [], "images": [
        {"id": 3 * i + 1, "file_name": f"{i:04}.jpg", "width": 640, "height": 480} for i in range(12)
    ]}  # fmt: skip
    found = []
    for image in truth["images"]:
        for category in (13, 4):
            for _ in range(draw.integers(0, 5)):
                x, y, w, h = (draw.uniform(4, 300, 4) * draw.uniform(0.2, 1)).round(2).tolist()
                common = {"image_id": image["id"], "category_id": category}
                crowd = int(draw.random() < 0.1)
                truth["annotations"].append(
                    common
                    | {"id": len(truth["annotations"]) + 1, "bbox": [x, y, w, h], "iscrowd": crowd}
                    | {"area": w * h * 0.8}
                )
                box = (np.array([x, y, w, h]) + draw.normal(0, 0.1 * w, 4)).clip(1).round(2).tolist()
                if draw.random() < 0.8:
                    found.append(common | {"bbox": box, "score": draw.random()})
    Path("truth.json").write_text(json.dumps(truth))
    Path("coco.json").write_text(json.dumps(found))
    own = score("coco.json", ap_version="COCO")
    with contextlib.redirect_stdout(io.StringIO()):
        true = coco.COCO("truth.json")
        judge = cocoeval.COCOeval(true, true.loadRes("coco.json"), "bbox")
        judge.evaluate(), judge.accumulate(), judge.summarize()
    assert list(own.mean.figures) == list(COCO_FIGURES)
    assert list(own.mean.figures.values()) == pytest.approx(judge.stats[:6].tolist(), abs=1e-6)
    assert 0.2 < own.mean.figures["AP"] < 0.9
    single = judge.eval["precision"][:, :, 0, 0, -1].mean()
    assert own.classes["tea cup"].figures["AP"] == pytest.approx(single, abs=1e-6)


def test_coco_of_nothing_found() -> None:
    pytest.importorskip("pycocotools")
    Path("none.json").write_text("[]")
    found = score("none.json", ap_version="COCO")
    assert found.mean.figures == {"AP": 0, "AP50": 0, "AP75": 0, "small": 0, "medium": 0, "large": None}
    assert found.classes["dog"] == (2, 0, found.classes["dog"].figures)


def test_coco_without_pycocotools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(CaffeError, match=r"needs pycocotools; pip install 'caffecli\[coco\]'"):
        score(write("json"), ap_version="COCO")


def warnings(results: str, truth: str = "truth.json", **settings: Any) -> list[str]:
    """What is said in lines W of the log."""
    lines = io.StringIO()
    handler = logs.show(lines)
    try:
        score(results, truth, **settings)
    finally:
        logs.hide(handler)
    return [line.partition("] ")[2] for line in lines.getvalue().splitlines() if line.startswith("W")]


def test_what_makes_scores_doubtful_is_told() -> None:
    whole = [*FOUND, ("1", 1, 0.1, (9, 9, 5, 5))]
    assert warnings(write("json", whole)) == ["1 of the 7 boxes have no area; they count as wrong"]
    assert warnings(write("json")) == [
        "the least score is 0.4: objects below caffecli detect's --threshold count as not found"
    ]
    file = Path(write("csv", [*FOUND, ("3", 1, 0.1, (0, 0, 5, 5)), ("1", 1, 0.1, (200, 0, 250, 50))]))
    first, second = warnings(str(file))
    assert first == "1 pictures of 'found.csv', as '3.jpg', are none of the truth's"
    assert second.startswith("1 of the 8 boxes reach far beyond their pictures")
    items = json.loads(Path(write("json", whole[:2] + whole[6:])).read_text())
    Path("found.json").write_text(json.dumps(items[:1]))
    assert warnings("found.json")[1] == "1 pictures of the truth, as 'test/2.jpg', are not in 'found.json'"


def test_boxes_in_pixels_of_another_size() -> None:
    """detect's JSON says of what size the pictures were."""
    items = json.loads(Path(write("json")).read_text())
    for item in items:
        item["width"], item["height"] = 200, 150
        for one in item["objects"]:
            one |= {"xmin": one["xmin"] * 2, "xmax": one["xmax"] * 2, "ymin": one["ymin"] * 3, "ymax": one["ymax"] * 3}
    Path("found.json").write_text(json.dumps(items))
    assert score("found.json").mean == (3, 6, {"AP": 0.5})


def test_cocos_numbers_are_told_from_the_label_maps() -> None:
    """SSD's map has COCO's numbers as names; where it has others, a number that is both is doubtful."""
    found = [{"image_id": 7, "category_id": 13, "score": 0.9, "bbox": [0, 0, 20, 20]}]
    Path("coco.json").write_text(json.dumps(found))
    Path("map.prototxt").write_text('item { name: "13" label: 2 display_name: "dog" } item { name: "4" label: 13 }')
    assert score("coco.json").classes["dog"] == (2, 1, {"AP": 0.5})
    Path("found.txt").write_text("1 2 0.9 0 0 20 20\n")
    assert score("found.txt").classes["dog"] == (2, 1, {"AP": 0.5})
    Path("map.prototxt").write_text('item { name: "seal" label: 13 display_name: "seal" }')
    with pytest.raises(DataError, match="category_id 13 is 'dog' by the truth, and 'seal' by the label map"):
        score("coco.json")


def test_a_picture_that_may_be_several() -> None:
    images = [*TRUTH["images"], {"id": 11, "file_name": "train/1.jpg", "width": 100, "height": 50}]
    Path("truth.json").write_text(json.dumps(TRUTH | {"images": images}))
    with pytest.raises(DataError, match=r"'1.jpg' may be 'test/1.jpg' or 'train/1.jpg'"):
        score(write("csv"))
    assert score(write("coco")).mean.figures == {"AP": 0.5}


def test_a_database_alone_has_numbers() -> None:
    make_database()
    for form in ("json", "ilsvrc"):
        found = score_detections(ScoreOptions(results=write(form), truth="db"))
        assert list(found.classes) == ["1", "2"] and found.mean.figures == {"AP": 0.5}
    with pytest.raises(DataError, match="give --labels: the database has classes by number alone"):
        score_detections(ScoreOptions(results=write("voc"), truth="db"))
    with pytest.raises(DataError, match="give --labels: the results have classes by number alone"):
        score_detections(ScoreOptions(results=write("ilsvrc"), truth="truth.json"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": []}, "has no images"),
        ({"images": [{"id": 7, "file_name": "1.jpg"}]}, "the image '1.jpg' has no width and height"),
        ({"images": [{"id": 7}]}, "expected images of an id and a file_name"),
        ({"images": TRUTH["images"] * 2}, "there twice"),
        ({"categories": [{"id": "a", "name": "dog"}]}, "the category 'dog' has the id a; expected a number"),
        ({"categories": []}, "is of category 13, which is none of its own"),
        ({"annotations": [{"image_id": 7, "category_id": 13, "bbox": [0, 0, float("nan"), 1]}]}, "expected a number"),
        ({"annotations": None}, "expected lists"),
    ],
)
def test_wrong_truth(change: dict[str, Any], words: str) -> None:
    results = write("json")
    Path("truth.json").write_text(json.dumps(TRUTH | change))
    with pytest.raises(DataError) as error:
        score(results)
    assert words in str(error.value) and "'truth.json'" in str(error.value)


def test_wrong_database() -> None:
    record = AnnotatedDatum(type=AnnotatedDatum.BBOX)
    record.datum.height = record.datum.width = 8
    box = record.annotation_group.add(group_label=1).annotation.add().bbox
    box.xmin = float("nan")
    with open_writer("nan") as db:
        db.put(b"00000000_1.jpg", record.SerializeToString())
    with open_writer("empty") as db:
        pass
    for truth, words in (
        ("nan", "^'nan': record '00000000_1.jpg': a box of class 1 has the corners nan 0 0 0"),
        ("empty", "'empty' is empty"),
    ):
        with pytest.raises(DataError, match=words):
            score(write("json"), truth)
    for results, truth in (("none.json", "truth.json"), (write("json"), "none"), (write("json"), ".")):
        with pytest.raises(FormatError):
            score(results, truth)
    Path("folder").mkdir()
    with pytest.raises(FormatError, match="has no results of VOC's"):
        read("folder")


COCO = '[{"image_id": 7, "category_id": 13, "score": 1, "bbox": [0, 0, 1, 1]}]'
HEAD = "picture,label,name,score,xmin,ymin,xmax,ymax\n"
WRONG = [
    ("[1]", "[0]: expected a picture with its objects"),
    ("[", "it is no JSON"),
    ("[" * 100_000, "JSON within JSON"),
    (json.dumps(TRUTH), "it looks like the truth, which comes second"),
    (COCO.replace('"score": 1', '"score": NaN'), "[0]: score: expected a number, got nan"),
    (COCO.replace(", 1]", "]"), "[0]: expected an image_id"),
    (COCO.replace("13", "1.5"), "category_id: expected a category's id"),
    (COCO.replace("13", "77"), "has no class '77'; its ids are "),
    (COCO.replace("13", "2"), "has no class '2'"),
    (COCO.replace("7", "70"), "no picture in common"),
    ('[{"picture": "1.jpg", "width": 0, "height": 50, "objects": []}]', "[0]: expected the picture's width"),
    ("picture,label,score\n", "its first line has no 'xmin'"),
    (HEAD + "1.jpg,2,dog,0.5,1,2,3\n", "line 2: ymax: expected a number, got None"),
    (HEAD + "1.jpg,x,dog,0.5,1,2,3,4\n", "line 2: label: expected a number"),
    (HEAD + ",2,dog,0.5,1,2,3,4\n", "line 2: it names no picture"),
    (HEAD + "1.jpg,2,dgo,0.5,1,2,3,4\n", "has no class 'dgo'; did you mean 'dog'?"),
    ("1 0.5 1 2 3\n", "line 1: expected picture score xmin"),
    ("1 0.5 1 2 3 4\n", "has no class 'wrong'"),
    ("1 2 0.5 1 2 3 inf\n", "line 1: expected a number, got 'inf'"),
    ("1 2 0.5 1 2 3 4\n1 2 0.5 1 2 3\n", "line 2: expected picture label score xmin"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_wrong_results(text: str, words: str) -> None:
    Path("wrong.txt").write_text(text)
    with pytest.raises(DataError) as error:
        score("wrong.txt")
    assert words in str(error.value) and "'wrong.txt'" in str(error.value) and "\n" not in str(error.value)
