"""BoxData: boxes by cells and in lists, beside NumPy written box by box, of the databases that hold them."""

from __future__ import annotations

import functools
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli import sources
from caffecli.errors import CaffeError, DataError, SpecError
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.layers.base import Context
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, TRAIN, AnnotatedDatum, Datum, LayerParameter, NetParameter
from caffecli.sources.cells import cells, cut, listed
from caffecli.spec import text

#: class, difficult, centre x, centre y, width, height; the second and the third have their centres in the same of 3 x 3
BOXES = np.array(
    [[2, 0, 0.1, 0.9, 0.2, 0.1], [0, 1, 0.5, 0.5, 0.5, 0.25], [1, 0, 0.4, 0.6, 0.25, 0.5], [3, 0, 1, 0.2, 0.5, 0.2]],
    np.float32,
)


def write(path: str, records: list[Datum | AnnotatedDatum]) -> None:
    with open_writer(path) as db:
        for i, made in enumerate(records):
            db.put(b"%08d" % i, made.SerializeToString())


def record(boxes: np.ndarray = BOXES, encoded: bool = True) -> Datum:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    made = from_array(pixels.transpose(2, 0, 1))
    if encoded:
        made = Datum(data=cv2.imencode(".png", pixels)[1].tobytes(), encoded=True)
    made.float_data.extend(boxes.ravel().tolist())
    return made


def layer(side: str = "side: 3", transform: str = "", tops: int = 2, batch: int = 2) -> LayerParameter:
    named = "".join(f'top: "t{i}" ' for i in range(tops))
    return text.parse(
        f'name: "data" type: "BoxData" {named} transform_param {{ {transform} }} '
        f'data_param {{ source: "db" batch_size: {batch} backend: LMDB {side} }}',
        LayerParameter(),
    )


def batch(param: LayerParameter, phase: int = TEST, many_boxes: bool = False) -> tuple[np.ndarray, ...]:
    reads = functools.partial(sources.BoxSource, listed=many_boxes)
    with closing(sources.create(reads, param, phase, 1)) as source:
        arrays = source.next().arrays
        assert tuple(each.shape for each in arrays) == source.shapes
        return arrays


def by_hand(boxes: np.ndarray, side: int) -> np.ndarray:
    """One box after another, as the fork's loop has it."""
    count = side * side
    label = np.zeros(7 * count, np.float32)
    label[2 * count : 3 * count] = -1
    for kind, hard, x, y, w, h in boxes:
        at = min(int(y * side), side - 1) * side + min(int(x * side), side - 1)
        label[at], label[count + at], label[2 * count + at] = hard, 1, kind
        label[3 * count + 4 * at : 3 * count + 4 * at + 4] = x, y, w, h
    return label


def test_boxes_by_cells(in_tmp: Path) -> None:
    write("db", [record(), record(BOXES[:1], encoded=False), record(BOXES[:0])])
    data, first, second = batch(layer("side: 3 side: 2", "force_color: true", 3, 3))
    assert data.shape == (3, 3, 30, 40)
    for side, labels in ((3, first), (2, second)):
        np.testing.assert_array_equal(labels, [by_hand(BOXES[:count], side) for count in (4, 1, 0)])
    np.testing.assert_array_equal(batch(layer(tops=1))[0], data[:2])
    assert batch(layer(""))[1].shape == (2, 7 * 49)


def test_boxes_in_a_list(in_tmp: Path) -> None:
    write("db", [record(), record(np.repeat(BOXES, 8, 0))])
    _, labels = batch(layer(), many_boxes=True)
    rows = labels.reshape(2, 30, 5)
    np.testing.assert_array_equal(rows[0, :4], BOXES[:, [0, 2, 3, 4, 5]])
    assert not rows[0, 4:].any()
    np.testing.assert_array_equal(rows[1], np.repeat(BOXES, 8, 0)[:30, [0, 2, 3, 4, 5]])
    assert listed(BOXES[:0]).shape == (150,)


def test_a_database_of_convert_annoset(in_tmp: Path) -> None:
    """Its classes count from 1."""
    made = AnnotatedDatum(datum=record(BOXES[:0]), type=AnnotatedDatum.BBOX)
    for kind, hard, x, y, w, h in BOXES.tolist():
        box = made.annotation_group.add(group_label=int(kind) + 1).annotation.add().bbox
        box.xmin, box.ymin, box.xmax, box.ymax, box.difficult = x - w / 2, y - h / 2, x + w / 2, y + h / 2, bool(hard)
    write("db", [made])
    np.testing.assert_allclose(batch(layer(batch=1))[1][0], by_hand(BOXES, 3), atol=1e-7)


def test_mirrored_with_the_picture(in_tmp: Path) -> None:
    write("db", [record(BOXES[:3])])
    plain, boxes = batch(layer(batch=8, transform="force_color: true"))
    data, labels = batch(layer(batch=8, transform="mirror: true force_color: true"))
    seen = set()
    for picture, label in zip(data, labels, strict=True):
        turned = not np.array_equal(picture, plain[0])
        seen.add(turned)
        if turned:
            np.testing.assert_array_equal(picture, plain[0, ..., ::-1])
            other = BOXES[:3].copy()
            other[:, 2] = 1 - other[:, 2]
            np.testing.assert_allclose(label, by_hand(other, 3), atol=1e-6)
        else:
            np.testing.assert_allclose(label, boxes[0], atol=1e-6)
    assert seen == {True, False}


def test_a_part_of_the_picture() -> None:
    """The box's pixels stay in its box; at times only one of two is left."""
    picture = np.zeros((1, 60, 80), np.uint8)
    picture[:, 15:25, 20:40] = 200
    boxes = np.array([[0, 0, 30 / 80, 20 / 60, 20 / 80, 10 / 60], [1, 0, 0.95, 0.95, 0.1, 0.1]], np.float32)
    rng, counts = np.random.default_rng(0), set()
    for _ in range(60):
        image, kept = cut(picture, boxes, rng)
        assert image.shape == picture.shape and image.dtype == np.uint8
        counts.add(tuple(kept[:, 0]))
        (x, y, w, h) = kept[0, 2:] * [80, 60, 80, 60]
        if kept[0, 0] == 0:
            ys, xs = np.nonzero(image[0] > 100)
            np.testing.assert_allclose([xs.min(), ys.min()], [x - w / 2, y - h / 2], atol=1.5)
            np.testing.assert_allclose([xs.max(), ys.max()], [x + w / 2, y + h / 2], atol=1.8)
            assert 20 <= w <= 20 / 0.68
    assert counts == {(0.0,), (0.0, 1.0)}


def test_training_draws_and_a_picture_without_boxes_stays(in_tmp: Path) -> None:
    write("db", [record(), record(BOXES[:0])])
    plain, whole = batch(layer(transform="force_color: true"))
    data, labels = batch(layer(transform="force_color: true"), TRAIN)
    again = batch(layer(transform="force_color: true"), TRAIN)
    np.testing.assert_array_equal(data, again[0])
    np.testing.assert_array_equal(labels, again[1])
    assert not np.array_equal(data[0], plain[0]) and not np.array_equal(labels[0], whole[0])
    np.testing.assert_array_equal(data[1], plain[1])
    np.testing.assert_array_equal(labels[1], cells(BOXES[:0], 3))
    np.testing.assert_array_equal(batch(layer(tops=1, transform="force_color: true"), TRAIN)[0], plain)


NET = """layer { name: "data" type: "BoxData" top: "data" top: "label"
  data_param { source: "db" batch_size: 1 backend: LMDB side: 3 } }
layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 %s } } }
layer { name: "eval" type: "EvalDetection" bottom: "x" bottom: "label" top: "eval"
  eval_detection_param { side: 3 num_class: 4 num_object: 1 %s } }
layer { name: "also" type: "Silence" bottom: "label" bottom: "data" }
"""


@pytest.mark.parametrize(
    ("dims", "more", "size"), [("dim: 81", "", 63), ("dim: 9 dim: 3 dim: 3", "biases: 1 biases: 2", 150)]
)
def test_the_net_tells_which_version_it_is(in_tmp: Path, dims: str, more: str, size: int) -> None:
    write("db", [record()])
    net = Net(text.parse(NET % (dims, more) + "state { phase: TEST }", NetParameter()), Context(seed=1))
    with closing(net):
        assert tuple(net.shape("label")) == (1, size)


def test_errors(in_tmp: Path) -> None:
    for made, words in (
        (from_array(np.zeros((3, 4, 4), np.float32)), "is no picture with boxes: expected its data, and"),
        (record(BOXES[:, :5]), "got 20 numbers"),
        (record(BOXES - 1), "has a box of class -1; YOLO's classes begin at 0, which is 1 in a database of convert_an"),
    ):
        write("db", [made])
        with pytest.raises(DataError, match=words):
            batch(layer())
        Path("db").rename(f"db{len(list(Path().iterdir()))}")
    write("db", [record()])
    for side, words in (
        ("side: 3 side: 2", "expected a side for each of the 1 tops"),
        ("side: 0", "side of 1 to 1000"),
    ):
        param = NetParameter(layer=[layer(side)])
        with pytest.raises((SpecError, CaffeError), match=words):
            Net(param, Context(seed=1))
