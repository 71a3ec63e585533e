"""Words' corners in AnnotatedData, as TextBoxes++ has them: against its steps written out for one word."""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.formats import annotated
from caffecli.formats.db import open_reader, open_writer
from caffecli.proto.caffe_pb2 import TEST, TRAIN, AnnotatedDatum, Datum, ResizeParameter
from caffecli.sources import polygons
from caffecli.sources.augment import resized_boxes
from caffecli.sources.boxes import project
from converters.convert_annoset import Options, convert_annoset
from tests.sources.opening import opened
from tests.sources.test_annotations import layer

XML = """<annotation><size><width>40</width><height>20</height></size>
<object><name>text</name><bndbox><xmin>4</xmin><ymin>2</ymin><xmax>24</xmax><ymax>12</ymax>
<x1>4</x1><y1>3</y1><x2>24</x2><y2>2</y2><x3>24</x3><y3>11</y3><x4>4</x4><y4>12</y4></bndbox></object>
<object><name>text</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></object>
</annotation>"""
WORD = np.array([4 / 40, 3 / 20, 24 / 40, 2 / 20, 24 / 40, 11 / 20, 4 / 40, 12 / 20], np.float32)


def way_out(x: float, y: float, angle: float) -> float:
    if not (0 <= x <= 1 and 0 <= y <= 1):
        return math.inf
    sides = ((0 - y, math.sin(angle)), (1 - y, math.sin(angle)), (0 - x, math.cos(angle)), (1 - x, math.cos(angle)))
    return min((a / b for a, b in sides if b and a / b >= 0), default=math.inf)


def seen(points: list[tuple[float, float]]) -> list[float]:
    """TextBoxes++'s ``ClipPolygon``, by centre, sizes and angle."""
    tl, tr, br, bl = points
    x, y = (sum(each) / 4 for each in zip(*points, strict=True))

    def distance(a: tuple[float, float], b: tuple[float, float]) -> float:
        dx, dy = b[0] - a[0], b[1] - a[1]
        return abs(x * dy - y * dx + b[0] * a[1] - b[1] * a[0]) / (math.hypot(dx, dy) + 1e-6)

    width = (math.dist(tl, tr) + math.dist(bl, br)) / 2
    height = distance(tl, tr) + distance(bl, br)
    angle = (math.atan2(tr[1] - tl[1], tr[0] - tl[0]) + math.atan2(br[1] - bl[1], br[0] - bl[0])) / 2
    right, left = way_out(x, y, angle), way_out(x, y, angle + math.pi)
    cut = min(width / 2, right) + min(width / 2, left)
    move = (min(right - width / 2, 0) - min(left - width / 2, 0)) / 2
    x, y = x + math.cos(angle) * move, y + math.sin(angle) * move
    top = x + math.cos(angle - math.pi / 2) * height / 2, y + math.sin(angle - math.pi / 2) * height / 2
    ends = [(top[0] + math.cos(angle) * each, top[1] + math.sin(angle) * each) for each in (-cut / 2, cut / 2)]
    down = math.cos(angle + math.pi / 2) * height, math.sin(angle + math.pi / 2) * height
    return [*ends[0], *ends[1], ends[1][0] + down[0], ends[1][1] + down[1], ends[0][0] + down[0], ends[0][1] + down[1]]


def test_words_in_a_window() -> None:
    rng = np.random.default_rng(3)
    for low in ([0, 0], [0.3, 0.1], [-0.5, 0.2]):
        word = np.tile(WORD, (40, 1)) + rng.uniform(-0.1, 0.1, (40, 8)).astype(np.float32)
        boxes = np.concatenate([np.tile(np.array([[1, 0, 0.1, 0.1, 0.6, 0.6, 0]], np.float32), (40, 1)), word], 1)
        window = np.array([*low, 1, 0.9], np.float32)
        found = project(boxes.copy(), window, None)[:, annotated.POLYGON]
        moved = (word.reshape(-1, 4, 2) - window[:2]) / (window[2:] - window[:2])
        assert np.allclose(found, [seen([(p[0], p[1]) for p in each.tolist()]) for each in moved], atol=1e-4)
    assert polygons.mirrored(WORD[None]).round(3).tolist() == [
        pytest.approx([0.4, 0.1, 0.9, 0.15, 0.9, 0.6, 0.4, 0.55], abs=1e-3)
    ]


def test_words_begin_at_their_top_left_where_pictures_are_resized() -> None:
    boxes = np.concatenate([[[1, 0, 0.1, 0.1, 0.6, 0.6, 0]], WORD[None]], 1).astype(np.float32).repeat(4, 0)
    for turn in range(4):
        boxes[turn, annotated.POLYGON] = np.roll(WORD, 2 * turn)
    found = resized_boxes(boxes, (20, 40), ResizeParameter(height=30, width=30))
    assert np.allclose(found[:, annotated.POLYGON], WORD, atol=1e-6)


def test_from_annotations_to_batches(in_tmp: Path) -> None:
    Path("map").write_text('item { name: "text" label: 1 display_name: "text" }')
    Path("a.xml").write_text(XML)
    cv2.imwrite("a.png", np.zeros((20, 40, 3), np.uint8))
    Path("list").write_text("a.png a.xml\n")
    convert_annoset("", "list", "db", Options(anno_type="detection", label_map_file="map"))
    with open_reader("db") as db:
        record = AnnotatedDatum.FromString(next(iter(db))[1])
    first, second = record.annotation_group[0].annotation
    assert (first.polygon.x1, first.polygon.y4) == (pytest.approx(0.1), pytest.approx(0.6))
    assert not second.HasField("polygon")
    with closing(opened(layer("db", 1, "resize_param { height: 30 width: 30 }"), TEST, 1)) as source:
        assert source.shapes[1] == (1, 1, 2, 16)
        rows = source.next().arrays[1][0, 0]
    assert rows[0, :8].tolist() == pytest.approx([0, 1, 0, 0.1, 0.1, 0.6, 0.6, 0])
    assert np.allclose(rows[0, 8:], seen([(each[0], each[1]) for each in WORD.reshape(4, 2).tolist()]), atol=1e-5)
    assert not np.allclose(rows[0, 8:], WORD, atol=1e-3), "a rectangle in its place"


def test_records_without_words_before_one_that_has_some(in_tmp: Path) -> None:
    image = cv2.imencode(".png", np.zeros((16, 24, 3), np.uint8))[1].tobytes()
    records = [AnnotatedDatum(datum=Datum(data=image, encoded=True), type=AnnotatedDatum.BBOX) for _ in range(3)]
    box = records[1].annotation_group.add(group_label=1).annotation.add()
    box.bbox.xmax = box.bbox.ymax = box.polygon.x2 = box.polygon.x3 = box.polygon.y3 = box.polygon.y4 = 0.5
    with open_writer("db") as db:
        for i, each in enumerate(records):
            db.put(b"%08d" % i, each.SerializeToString())
    with closing(opened(layer("db", 1, "mirror: true"), TRAIN, 1)) as source:
        assert source.shapes[1] == (1, 1, 1, 8)
        batches = [source.next() for _ in range(3)]
        assert [batch.arrays[1].shape for batch in batches] == [(1, 1, 1, 8), (1, 1, 1, 16), (1, 1, 1, 16)]
        assert source.cut(batches[1], 0).arrays[1].tolist() == [[[[-1] * 16]]]
