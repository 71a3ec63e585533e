"""Pictures for Fast and Faster R-CNN: size, objects, regions, and going on where a run stopped."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.errors import DataError
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.formats.proposals import Proposals, write
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


def test_pictures_with_the_regions_proposed_for_them(param: LayerParameter, tmp_path: Path) -> None:
    """In batches, with zeros around the smaller pictures."""
    regions = np.array([[2, 3, 10, 12], [0, 0, 39, 29]], np.float32)
    write(tmp_path / "p.h5", [(f"{i:08d}", regions[: 2 - (i == 3)]) for i in range(5)])
    param.data_param.batch_size = 2
    source = ObjectSource(param, TRAIN, 1, sides=(15, 30), proposals=Proposals(tmp_path / "p.h5"))
    seen = set()
    for turn in range(20):
        data, proposed, objects = source.next().arrays
        assert len(data) == 2 and data.shape[1] == 3
        for i, picture in enumerate(data):
            number = (2 * turn + i) % 5
            filled = picture.any(0)
            height, width = int(filled.any(1).sum()), int(filled.any(0).sum())
            assert not picture[:, height:].any() and not picture[:, :, width:].any()
            scale = height / 30
            left = PIXELS[..., ::-1].astype(np.float32)
            small = cv2.resize(left.transpose(1, 2, 0), (width, height)).transpose(2, 0, 1)
            mirrored = np.allclose(picture[:, :height, :width], small, atol=1e-3)
            own = proposed[proposed[:, 0] == i, 1:]
            expected = regions[: 2 - (number == 3)].copy()
            if mirrored:
                expected[:, [0, 2]] = 39 - expected[:, [2, 0]]
            np.testing.assert_allclose(own, expected * scale, atol=1e-5)
            assert (objects[:, 0] == i).sum() == (number < 4) and (objects[:, 5] == 7).all()
            seen.add((height, mirrored, data.shape[2]))
    assert len(seen) == 6  # the small one beside a large one too


def test_a_picture_without_regions(param: LayerParameter, tmp_path: Path) -> None:
    write(tmp_path / "p.h5", [("00000000", np.zeros((1, 4)))])
    source = ObjectSource(param, TRAIN, proposals=Proposals(tmp_path / "p.h5"))
    source.next()
    with pytest.raises(DataError, match=r"layer 'd'.*p.h5' has no regions of '00000001'; expected a dataset of one of"):
        source.next()


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
