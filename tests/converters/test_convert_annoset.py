"""convert_annoset: records as SSD's tool writes them, from each form of annotation; and files that are none."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

from caffecli import logs
from caffecli.errors import DataError, FormatError, SpecError
from caffecli.formats import annotated
from caffecli.formats.annotation_files import AnnotationReader
from caffecli.formats.db import open_reader
from caffecli.proto.caffe_pb2 import AnnotatedDatum
from converters.convert_annoset import Options, convert_annoset, scale_factor

LABELS = """
item { name: "none_of_the_above" label: 0 display_name: "background" }
item { name: "cat" label: 8 display_name: "cat" }
item { name: "dog" label: 12 display_name: "dog" }
item { name: "18" label: 3 display_name: "bird" }
"""

VOC = """<?xml version="1.0" encoding="utf-8"?>
<annotation>
  <folder>VOC2007</folder><filename>a.jpg</filename>
  <size><width>24</width><height>16</height><depth>3</depth></size>
  <object>
    <name>dog</name><pose>Left</pose><truncated>1</truncated><difficult>0</difficult>
    <bndbox><xmin>3</xmin><ymin>2</ymin><xmax>21</xmax><ymax>13</ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>
  <object>
    <name>cat</name><bndbox><xmax>8</xmax><xmin>1</xmin><ymax>9</ymax><ymin>7</ymin></bndbox>
    <difficult>1</difficult>
  </object>
  <object>
    <name> dog </name><difficult>1</difficult>
    <bndbox><xmin>4.5</xmin><ymin>2</ymin><xmax>6</xmax><ymax>7</ymax></bndbox>
  </object>
</annotation>
"""

#: what all forms below say: (class, instance, xmin, ymin, xmax, ymax in pixels of 24 × 16, difficult)
ROWS = [(12, 0, 3, 2, 21, 13, 0), (12, 1, 4.5, 2, 6, 7, 1), (8, 0, 1, 7, 8, 9, 1)]

COCO_BOXES: list[dict[str, Any]] = [
    {"image_id": 7, "category_id": 2, "bbox": [3, 2, 18, 11], "iscrowd": 0},
    {"image_id": 9, "category_id": 1, "bbox": [0, 0, 1, 1], "iscrowd": 0},
    {"image_id": 7, "category_id": 1, "bbox": [1, 7, 7, 2], "iscrowd": 1},
    {"image_id": 7, "category_id": 2, "bbox": [4.5, 2, 1.5, 5], "iscrowd": 1},
]
COCO: dict[str, Any] = {
    "images": [{"id": 7, "file_name": "a.jpg", "width": 24, "height": 16}, {"id": 8, "file_name": "none.jpg"}],
    "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    "annotations": COCO_BOXES,
}
SSD = {
    "image": {"width": 24, "height": 16, "file_name": "a.jpg"},
    "annotation": [
        box | {"category_id": {1: "cat", 2: "dog"}[box["category_id"]]} for box in COCO_BOXES if box["image_id"] == 7
    ],
}
LABELME = {
    "imageWidth": 24,
    "imageHeight": 16,
    "imageData": None,
    "shapes": [
        {"label": "dog", "points": [[21, 2], [3, 13]], "shape_type": "rectangle"},
        {"label": "cat", "points": [[1, 8], [4, 7], [8, 9]], "shape_type": "polygon", "difficult": True},
        {"label": "dog", "points": [[4.5, 2], [6, 2], [6, 7], [5, 4]], "difficult": True},
    ],
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a picture of 24 × 16, a.jpg, and a label map."""
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    cv2.imwrite("a.jpg", image)
    Path("map.prototxt").write_text(LABELS)
    return tmp_path


def options(label_type: str = "xml", **more: Any) -> Options:
    return Options(anno_type="detection", label_type=label_type, label_map_file="map.prototxt", **more)  # type: ignore[arg-type]


def records(db: str = "db") -> dict[bytes, AnnotatedDatum]:
    with open_reader(db, "lmdb") as reader:
        return {key: AnnotatedDatum.FromString(value) for key, value in reader}


def converted(annotation: str, label_type: str = "xml", **more: Any) -> AnnotatedDatum:
    """The record of a.jpg with an annotation file of that text."""
    Path("a.txt").write_text(annotation)
    Path("list.txt").write_text("a.jpg a.txt\n")
    assert convert_annoset("", "list.txt", "db", options(label_type, **more)) == 1
    return records()[b"00000000_a.jpg"]


def heard(annotation: str, label_type: str = "xml", **more: Any) -> list[str]:
    """The warnings of a conversion."""
    stream = io.StringIO()
    handler = logs.show(stream)
    try:
        converted(annotation, label_type, **more)
    finally:
        logs.hide(handler)
    return [line.partition("] ")[2] for line in stream.getvalue().splitlines() if line[0] in "WE"]


def rows(record: AnnotatedDatum) -> np.ndarray:
    found = annotated.boxes(record)
    found[:, 2:6] *= [24, 16, 24, 16]
    return found


@pytest.mark.parametrize(
    ("label_type", "text"),
    [
        ("xml", VOC),
        ("json", json.dumps(SSD)),
        ("json", json.dumps(COCO)),
        ("json", json.dumps(LABELME)),
    ],
    ids=["voc", "ssd", "coco", "labelme"],
)
def test_each_form_says_the_same(label_type: str, text: str) -> None:
    record = converted(text, label_type)
    np.testing.assert_allclose(rows(record), ROWS, atol=1e-5)
    assert record.type == AnnotatedDatum.BBOX and record.HasField("type")
    assert [group.group_label for group in record.annotation_group] == [12, 8]


def test_txt_has_the_classes_numbers() -> None:
    record = converted("12 3 2 21 13\n\n8 1 7 8 9\r\n12 4.5 2 6 7\n", "txt")
    np.testing.assert_allclose(rows(record)[:, :6], np.array(ROWS)[:, :6], atol=1e-5)
    Path("map.prototxt").unlink()
    Path("list.txt").write_text("a.jpg a.txt\n")
    assert convert_annoset("", "list.txt", "db2", Options(anno_type="detection", label_type="txt")) == 1


def test_the_record_is_what_ssds_tool_writes() -> None:
    """Byte for byte: every field that it sets is there, false ones too, in the order of their numbers."""
    converted(VOC.replace("4.5", "4"), encoded=True, encode_type="jpg")
    expected = text_format.Parse(
        """
        datum { channels: 3 height: 16 width: 24 label: -1 encoded: true }
        type: BBOX
        annotation_group { group_label: 12
          annotation { instance_id: 0 bbox { difficult: false } }
          annotation { instance_id: 1 bbox { difficult: true } } }
        annotation_group { group_label: 8 annotation { instance_id: 0 bbox { difficult: true } } }
        """,
        AnnotatedDatum(),
    )
    expected.datum.data = Path("a.jpg").read_bytes()
    boxes = [(3, 2, 21, 13), (4, 2, 6, 7), (1, 7, 8, 9)]
    made = [each.bbox for group in expected.annotation_group for each in group.annotation]
    for box, corners in zip(made, boxes, strict=True):
        box.xmin, box.ymin, box.xmax, box.ymax = (
            np.array(corners, np.float32) / np.array([24, 16] * 2, np.float32)
        ).tolist()
    with open_reader("db", "lmdb") as reader:
        assert next(iter(reader)) == (b"00000000_a.jpg", expected.SerializeToString())


def test_raw_pixels() -> None:
    record = converted(VOC)
    image = cv2.imread("a.jpg")
    datum = record.datum
    assert (datum.channels, datum.height, datum.width, datum.label, datum.encoded) == (3, 16, 24, -1, False)
    assert datum.data == image.transpose(2, 0, 1).tobytes()


def test_gray_and_resized() -> None:
    record = converted(VOC, gray=True, resize_width=12, resize_height=8)
    assert (record.datum.channels, record.datum.height, record.datum.width, len(record.datum.data)) == (1, 8, 12, 96)
    np.testing.assert_allclose(rows(record), ROWS, atol=1e-5)  # parts of the picture stay the same


@pytest.mark.parametrize(
    ("size", "least", "most", "factor"),
    [
        ((16, 24), 0, 0, 1),
        ((16, 24), 32, 0, 2),
        ((16, 24), 8, 0, 1),  # it only enlarges
        ((16, 24), 0, 12, 0.5),
        ((16, 24), 32, 36, 1.5),  # the longer side goes first
        ((16, 24), 0, 24, 1),
    ],
)
def test_min_dim_and_max_dim(size: tuple[int, int], least: int, most: int, factor: float) -> None:
    assert scale_factor(size, least, most) == pytest.approx(factor)


def test_min_dim_goes_before_resize() -> None:
    record = converted(VOC, min_dim=32, resize_width=5, resize_height=5)
    assert (record.datum.height, record.datum.width) == (32, 48)


def test_classification() -> None:
    Path("list.txt").write_text("a.jpg 5\n")
    assert convert_annoset("", "list.txt", "db") == 1
    (record,) = records().values()
    assert record.datum.label == 5
    assert not record.HasField("type") and not record.annotation_group


def test_pictures_and_annotations_that_are_not_there() -> None:
    Path("b.xml").write_text(VOC)
    Path("list.txt").write_text("a.jpg no.xml\nnone.jpg b.xml\n\na.jpg\tb.xml\n")
    stream = io.StringIO()
    handler = logs.show(stream)
    try:
        assert convert_annoset("", "list.txt", "db", options()) == 2
    finally:
        logs.hide(handler)
    assert "there is no 'no.xml': their pictures have no boxes" in stream.getvalue()
    found = records()
    assert list(found) == [b"00000000_a.jpg", b"00000003_a.jpg"]
    assert [len(record.annotation_group) for record in found.values()] == [0, 2]
    assert found[b"00000000_a.jpg"].type == AnnotatedDatum.BBOX


def test_a_coco_file_without_the_picture() -> None:
    other = {**COCO, "images": [{"id": 7, "file_name": "b.jpg"}]}
    assert heard(json.dumps(other), "json") == [
        "there is no 'a.txt': their pictures have no boxes; check the list if it is meant"
    ]


def test_cocos_classes_by_number() -> None:
    """The label map of SSD's scripts has COCO's numbers as names."""
    said = {**COCO, "categories": [{"id": 18, "name": "birdie"}], "annotations": [COCO_BOXES[0] | {"category_id": 18}]}
    assert converted(json.dumps(said), "json").annotation_group[0].group_label == 3


def test_warnings() -> None:
    outside = VOC.replace("<xmax>21</xmax>", "<xmax>25</xmax>")
    assert heard(outside) == [
        "a.txt: bounding box exceeds image boundary: dog 3 2 25 13; it is kept as it is: cut it at 24 × 16, if it is "
        "of this picture"
    ]
    Path("db").rename("db1")
    inside_out = VOC.replace("<ymin>7</ymin>", "<ymin>12</ymin>")
    assert heard(inside_out) == [
        "a.txt: bounding box irregular: cat 1 12 8 9; it is kept, and nothing can meet it: write its smaller x and y "
        "first"
    ]
    Path("db").rename("db2")
    other_size = VOC.replace("<width>24</width>", "<width>48</width>")
    assert heard(other_size) == [
        "a.txt: it says that the picture is 48 × 16 (width × height), which is 24 × 16; boxes are taken as parts of "
        "what it says: is it another picture's?"
    ]
    assert annotated.boxes(records()[b"00000000_a.jpg"])[0, 2] == np.float32(3 / 48)


def test_parts_of_the_picture_are_told() -> None:
    """All numbers of 1 or less; one that is more makes them pixels."""
    (said,) = heard("1 0.1 0.2 0.5 1\n2 0.1 0.1 0.2 0.2\n", "txt")
    assert said.startswith("no box of 'list.txt' reaches beyond pixel 1: the numbers may be parts of the picture, and")
    Path("db").rename("db1")
    assert heard("1 0.1 0.2 0.5 1\n2 0.1 0.1 0.2 2\n", "txt") == []


def test_annotation_files_where_labels_are_expected() -> None:
    Path("list.txt").write_text("a.jpg a.xml\n")
    with pytest.raises(DataError, match=r"'a.xml' is no whole number; .*; for annotation files give --anno_type=det"):
        convert_annoset("./", "list.txt", "db", Options())
    Path("list.txt").write_text("a.jpg b\n")
    with pytest.raises(DataError) as error:
        convert_annoset("./", "list.txt", "db", Options())
    assert "anno_type" not in str(error.value)


def test_sizes_that_a_file_does_not_have_are_the_pictures() -> None:
    for i, size in enumerate(("", "<size><width>0</width><height>0</height></size>")):
        start, rest = VOC.split("<size>")[0], VOC.split("</size>")[1]
        np.testing.assert_allclose(rows(converted(start + size + rest)), ROWS, atol=1e-5)
        Path("db").rename(f"db{i}")


def fails(annotation: str, label_type: str = "xml", **more: Any) -> str:
    with pytest.raises((DataError, FormatError, SpecError)) as error:
        converted(annotation, label_type, **more)
    assert not Path("db").exists()
    assert "\n" not in str(error.value)
    return str(error.value)


BOMB = """<?xml version="1.0"?>
<!DOCTYPE annotation [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""
EXTERNAL = (
    """<!DOCTYPE annotation [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><name>&x;</name></annotation>"""
)


@pytest.mark.parametrize(
    ("label_type", "text", "words"),
    [
        ("xml", BOMB, "'a.txt': it has a DOCTYPE, which annotations do without; take it out"),
        ("xml", EXTERNAL, "'a.txt': it has a DOCTYPE"),
        ("xml", "hello", "'a.txt': it is no XML (syntax error: line 1, column 0); give --label_type"),
        ("xml", "", "'a.txt': it is no XML (no element found"),
        ("xml", VOC[:-30], "'a.txt': it is no XML (unclosed token"),
        ("xml", "<html></html>", "it begins with <html>, expected <annotation>"),
        ("xml", "<annotation><object></object></annotation>", "'a.txt': object 1 has no <name>"),
        ("xml", "<annotation><object><name>cat</name></object></annotation>", "object 1 (cat) has no <bndbox>"),
        ("xml", VOC.replace("<xmax>21</xmax>", ""), "object 1 (dog): <xmax> is missing"),
        ("xml", VOC.replace("<xmax>21<", "<xmax>wide<"), "object 1 (dog): <xmax>: expected a number, got 'wide'"),
        ("xml", VOC.replace("<xmax>21<", "<xmax>nan<"), "object 1 (dog): <xmax>: expected a number, got 'nan'"),
        ("xml", VOC.replace("dog", "dgo"), "'a.txt': the label map has no class 'dgo'; did you mean 'dog'?"),
        ("xml", VOC.replace("dog", "elephant"), "has no class 'elephant'; add it, or take it out of the annotations"),
        ("json", "hello", "it is no JSON (Expecting value: line 1 column 1 (char 0)); give --label_type"),
        ("json", "[" * 100_000, "'a.txt': it is no"),
        ("json", "[]", "expected lists 'annotation' (SSD's), 'shapes' (LabelMe's), or COCO's 'images'"),
        (
            "json",
            '{"annotation": [5]}',
            "expected annotations of a category_id and a bbox [x, y, width, height], got 5",
        ),
        ("json", '{"annotation": [{"category_id": "cat", "bbox": [1, 2, 3]}]}', "a bbox [x, y, width, height], got"),
        (
            "json",
            '{"annotation": [{"category_id": "cat", "bbox": [1, 2, 3, "x"]}]}',
            "bbox: expected a number, got 'x'",
        ),
        (
            "json",
            '{"annotation": [{"category_id": "cat", "bbox": [1, 2, 3, NaN]}]}',
            "bbox: expected a number, got nan",
        ),
        ("json", '{"images": [1], "annotations": [], "categories": []}', "images[0]: expected an object, got 1"),
        ("json", '{"shapes": [{"label": "cat"}]}', "expected shapes of a label and points"),
        (
            "json",
            '{"shapes": [{"label": "cat", "points": [[1, 2]], "shape_type": "point"}]}',
            "shape 'cat' is a point of 1 points; boxes are made of rectangles, polygons and circles",
        ),
        (
            "json",
            '{"shapes": [{"label": "cat", "points": [[1, 2], [3]]}]}',
            "shape 'cat': expected points [x, y], got [3]",
        ),
        ("txt", "12 3 2 21\n", "line 1: expected a class's number, xmin, ymin, xmax, ymax"),
        ("txt", "1 1 1 2 2\ncat 3 2 21 3\n", "line 2: expected a class's number, xmin, ymin, xmax, ymax"),
        ("txt", "12 3 2 21 x\n", "line 1: expected a number, got 'x'"),
        ("txt", "12 3 2 21 inf\n", "line 1: expected a number, got 'inf'"),
        ("txt", "12 3 2 21 1_0\n", "line 1: expected a number, got '1_0'"),
        ("txt", "99999999999 3 2 21 3\n", "line 1: expected a class's number"),
        ("xml", VOC.replace("<xmax>21<", "<xmax>1e300<"), "object 1 (dog): <xmax>: expected a number, got '1e300'"),
        ("xml", VOC.replace("utf-8", "nonsense"), "'a.txt': it is no XML (unknown encoding: nonsense)"),
        ("xml", VOC.replace("dog", "x" * 9000), f"the label map has no class '{'x' * 79}; add it"),
        ("json", '{"annotation": [{"category_id": "cat", "bbox": [1, 2, 3, 1e39]}]}', "expected a number, got 1e+39"),
    ],
)
def test_files_that_are_none(label_type: str, text: str, words: str) -> None:
    assert words in fails(text, label_type)


@pytest.mark.parametrize("size", ["0", "-3", "x", "9" * 400, "99999999999999"])
def test_a_size_that_no_picture_has_is_not_looked_at(size: str) -> None:
    text = VOC.replace("<width>24<", f"<width>{size}<")
    np.testing.assert_allclose(rows(converted(text, "xml")), ROWS, atol=1e-5)


def test_a_flat_picture_keeps_a_pixel() -> None:
    cv2.imwrite("a.png", np.zeros((2, 400, 3), np.uint8))
    Path("a.xml").write_text(VOC)
    Path("list.txt").write_text("a.png a.xml\n")
    Path("map.prototxt").write_text(LABELS)
    settings: Any = {"anno_type": "detection", "label_map_file": "map.prototxt"}
    convert_annoset("", "list.txt", "flat", Options(**settings, max_dim=50))
    with open_reader("flat") as reader:
        (datum,) = (annotated.decode(value).datum for _, value in reader)
    assert (datum.height, datum.width) == (1, 50)
    with pytest.raises(DataError, match=r"'a.png' \(line 1\): no memory for .* pixels; lower --min_dim"):
        convert_annoset("", "list.txt", "large", Options(**settings, min_dim=2**31 - 1))


def test_a_circle_is_a_box_around_it() -> None:
    text = json.dumps({"shapes": [{"label": "cat", "points": [[10, 8], [13, 12]], "shape_type": "circle"}]})
    np.testing.assert_allclose(rows(converted(text, "json"))[0, 2:6], [5, 3, 15, 13], atol=1e-5)


def test_a_large_file_of_all_pictures_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("coco.json").write_text(json.dumps(COCO))
    reader = AnnotationReader("json")
    first = reader.read("coco.json", "x/a.jpg")
    assert first is not None and len(first.objects) == 3
    Path("coco.json").unlink()
    assert reader.read("coco.json", "a.jpg") == first
    assert reader.read("coco.json", "b.jpg") is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a.jpg\n", "'list.txt', line 1: expected a picture and its annotation file"),
        ("\n", "'list.txt' lists no pictures; expected a picture and its annotation file a line"),
    ],
)
def test_lists_that_are_none(text: str, words: str) -> None:
    Path("list.txt").write_text(text)
    with pytest.raises((DataError, FormatError), match=words):
        convert_annoset("", "list.txt", "db", options())


@pytest.mark.parametrize(
    ("text", "more", "words"),
    [
        (LABELS + LABELS, {"check_label": True}, "'map.prototxt': the name 'none_of_the_above' is there twice, as 0"),
        ("hello", {}, "map.prototxt"),
    ],
)
def test_label_maps_that_are_none(text: str, more: dict[str, Any], words: str) -> None:
    Path("map.prototxt").write_text(text)
    assert words in fails(VOC, **more)


def test_a_label_map_is_needed() -> None:
    Path("list.txt").write_text("a.jpg a.xml\n")
    with pytest.raises(DataError, match="--label_map_file is missing: the file that create_label_map makes"):
        convert_annoset("", "list.txt", "db", Options(anno_type="detection"))


def test_pictures_of_different_sizes_are_refused_by_check_size() -> None:
    cv2.imwrite("b.jpg", np.zeros((5, 5, 3), np.uint8))
    Path("a.xml").write_text(VOC)
    Path("list.txt").write_text("a.jpg a.xml\nb.jpg a.xml\n")
    with pytest.raises(DataError, match=r"list.txt:2: 'b.jpg' has 5 × 5 × 3, the first picture 16 × 24 × 3"):
        convert_annoset("", "list.txt", "db", options(check_size=True))
