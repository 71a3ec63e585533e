"""Pictures for Faster R-CNN: their size, their objects, and going on where a run stopped."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import TRAIN, AnnotatedDatum, DataParameter, LayerParameter
from caffecli.sources import ObjectSource

PIXELS = np.random.default_rng(0).integers(0, 255, (3, 30, 40), dtype=np.uint8)
CORNERS = [0.1, 0.2, 0.5, 1.0]


@pytest.fixture
def param(tmp_path: Path) -> LayerParameter:
    with open_writer(tmp_path / "db") as writer:
        for i in range(5):
            record = AnnotatedDatum(type=AnnotatedDatum.BBOX, datum=from_array(PIXELS, -1))
            if i < 4:
                group = record.annotation_group.add(group_label=7)
                box = group.annotation.add(instance_id=0).bbox
                box.xmin, box.ymin, box.xmax, box.ymax = CORNERS
            writer.put(b"%08d" % i, record.SerializeToString())
    made = LayerParameter(name="d", top=["data", "im_info", "gt_boxes"])
    made.data_param.source, made.data_param.batch_size = str(tmp_path / "db"), 1
    made.data_param.backend = DataParameter.LMDB
    return made


@pytest.mark.parametrize(("side", "most", "size"), [(60, 1000, (60, 80)), (60, 60, (45, 60)), (30, 1000, (30, 40))])
def test_sizes(side: float, most: float, size: tuple[int, int], param: LayerParameter) -> None:
    source = ObjectSource(param, TRAIN, sides=(side,), most=most, flipped=False, means=(10, 20, 30))
    assert source.shapes == ((1, 3, *size), (1, 3), (1, 5))
    data, info, objects = source.next().arrays
    scale = size[0] / 30
    np.testing.assert_allclose(info, [[*size, scale]], rtol=1e-6)
    np.testing.assert_allclose(objects, [[4 * scale, 6 * scale, 20 * scale, 29 * scale, 7]], rtol=1e-6)
    plain = PIXELS.transpose(1, 2, 0).astype(np.float32) - [10, 20, 30]
    expected = cv2.resize(plain.astype(np.float32), None, fx=scale, fy=scale)
    np.testing.assert_allclose(data[0].transpose(1, 2, 0), expected, atol=1e-4)


def test_mirrored_by_chance(param: LayerParameter) -> None:
    source = ObjectSource(param, TRAIN, 3, sides=(30,))
    kinds = set()
    for _ in range(24):
        data, _, objects = source.next().arrays
        mirrored = np.array_equal(data[0], PIXELS[..., ::-1].astype(np.float32))
        assert mirrored or np.array_equal(data[0], PIXELS.astype(np.float32))
        if len(objects):
            np.testing.assert_allclose(objects[0, [0, 2]], [19, 35] if mirrored else [4, 20], atol=1e-5)
        kinds.add((mirrored, len(objects)))
    assert kinds == {(False, 0), (False, 1), (True, 0), (True, 1)}


def test_goes_on_as_if_never_stopped(param: LayerParameter) -> None:
    param.data_param.shuffle = True
    first, other = (ObjectSource(param, TRAIN, seed, sides=(30, 45, 60)) for seed in (1, 2))
    for _ in range(7):
        first.next()
    other.restore(json.loads(json.dumps(first.state)))
    for _ in range(7):
        expected, came = first.next(), other.next()
        assert expected.keys == came.keys
        assert all(map(np.array_equal, expected.arrays, came.arrays))
    assert len({tuple(first.next().arrays[0].shape) for _ in range(30)}) == 3
