"""Fast R-CNN's data: pictures with a sample of the regions that were proposed for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.errors import CaffeError
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.formats.proposals import write
from caffecli.layers import registry
from caffecli.layers.base import Context, as_tuple
from caffecli.layers.forks.rois import RoIData, learned
from caffecli.proto.caffe_pb2 import TRAIN, AnnotatedDatum, NetParameter
from tests.layers.oracle import layer_param

#: of a picture of 40 x 30: near the object, beside it, away from it
REGIONS = np.array([[10, 8, 28, 24], [22, 8, 38, 24], [0, 26, 5, 29]], np.float32)
OBJECT = [10, 8, 30, 24]


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Three pictures: with an object, with an object but nothing proposed, with neither."""
    monkeypatch.chdir(tmp_path)
    with open_writer("db") as writer:
        for i in range(3):
            record = AnnotatedDatum(type=AnnotatedDatum.BBOX, datum=from_array(np.full((3, 30, 40), 9, np.uint8), -1))
            if i < 2:
                box = record.annotation_group.add(group_label=2).annotation.add(instance_id=0).bbox
                box.xmin, box.ymin, box.xmax, box.ymax = np.array(OBJECT) / [40, 30, 40, 30]
            writer.put(b"%08d" % i, record.SerializeToString())
    write("p.h5", [("00000000", REGIONS), ("00000001", REGIONS[:0]), ("00000002", REGIONS[:0])])
    return "'num_classes': 3, 'source': 'db', 'proposals': 'p.h5', 'SCALES': [60], 'USE_FLIPPED': False"


def made(param_str: str, tops: str = "abcdef") -> RoIData:
    text = f'module: "roi_data_layer.layer" layer: "RoIDataLayer" param_str: "{param_str}"'
    names = " ".join(f'top: "{top}"' for top in tops)
    layer = registry.create(layer_param(f'type: "Python" {names} python_param {{ {text} }}'), TRAIN, Context(seed=3))
    assert isinstance(layer, RoIData)
    layer.setup([])
    return layer


def batches(layer: RoIData, count: int) -> list[tuple[Tensor, ...]]:
    torch.manual_seed(0)
    return [as_tuple(layer()) for _ in range(count)]


def test_samples(settings: str) -> None:
    layer = made(settings + ", 'IMS_PER_BATCH': 1, 'BATCH_SIZE': 8")
    assert [tuple(shape) for shape in layer.reshape([])] == [(1, 3, 60, 80), (1, 5), (1,), *[(1, 12)] * 3]
    kinds = set()
    for data, regions, classes, change, inside, outside in batches(layer, 12):
        assert data.shape == (1, 3, 60, 80)
        kinds.add(len(regions))
        if len(regions) == 3:  # the region, the object itself; and what is beside it: away from it is neither
            order = regions[:, 1:].sum(1).argsort()
            np.testing.assert_allclose(
                regions[order], [[0, 20, 16, 56, 48], [0, 20, 16, 60, 48], [0, 44, 16, 76, 48]], atol=1e-4
            )
            assert classes[order].tolist() == [2, 2, 0]
            wide, far = np.log(41 / 37), (20 + 41 / 2 - 20 - 37 / 2) / 37
            np.testing.assert_allclose(change[order][:, 8:], [[far, 0, wide, 0], [0] * 4, [0] * 4], atol=1e-5)
            assert not change[:, :8].any()
            np.testing.assert_array_equal(inside[order][:, 8:], [[1] * 4, [1] * 4, [0] * 4])
        elif classes.tolist() == [0]:  # neither object nor region: the whole picture
            np.testing.assert_allclose(regions, [[0, 0, 0, 79, 59]])
        else:
            np.testing.assert_allclose(regions, [[0, 20, 16, 60, 48]], atol=1e-4)
            assert classes.tolist() == [2]
        np.testing.assert_array_equal(outside, inside > 0)
    assert kinds == {1, 3}


def test_a_batch_of_pictures_shares_its_regions(settings: str) -> None:
    layer = made(settings + ", 'IMS_PER_BATCH': 3, 'BATCH_SIZE': 6, 'FG_FRACTION': 0.5")
    for data, regions, classes, *_ in batches(layer, 4):
        assert len(data) == 3
        counts = torch.bincount(regions[:, 0].long(), minlength=3).tolist()
        assert sorted(counts) == [1, 1, 2]  # of two each one may be an object
        assert sorted(classes.tolist()) == [0, 0, 2, 2]


@pytest.mark.parametrize("flipped", [False, True])
def test_normalized_by_the_statistics_of_all_pictures(settings: str, flipped: bool) -> None:
    """Three regions and objects are near an object, one of them beside it; the settings are saved as precomputed."""
    write("q.h5", [("0", REGIONS[:1] + 1), ("00000000", REGIONS), ("00000001", REGIONS[:0]), ("00000002", REGIONS)])
    given = settings.replace("p.h5", "q.h5").replace("False", str(flipped)) + ", 'IMS_PER_BATCH': 1, 'BATCH_SIZE': 8"
    layer = made(given + ", 'BBOX_NORMALIZE_TARGETS': True")
    moves = np.array([move(region, OBJECT) for region in (REGIONS[0], OBJECT, OBJECT)])
    mean, deviation = moves.mean(0), moves.std(0)
    if flipped:
        both = np.concatenate([moves, moves * [-1, 1, 1, 1]])
        mean, deviation = both.mean(0), both.std(0)
    deviation[deviation == 0] = 1
    means, deviations = (np.reshape(layer.given[f"BBOX_NORMALIZE_{what}"], (3, 4)) for what in ("MEANS", "STDS"))
    np.testing.assert_allclose(means, [[0] * 4, [0] * 4, mean], atol=1e-6)
    np.testing.assert_allclose(deviations, [[1] * 4, [1] * 4, deviation], atol=1e-6)
    if not flipped:
        values = np.concatenate([change[classes == 2][:, 8:] for _, _, classes, change, *_ in batches(layer, 30)])
        assert len(values) >= 20
        for row in values:
            near = np.abs((moves - mean) / deviation - row).max(1)
            assert near.min() < 0.1, row  # of the picture twice as large, whose boxes' ends are no pixel more
    again = made(layer.param.python_param.param_str)
    assert again.given == layer.given
    found = learned(NetParameter(layer=[layer.param]), {"bbox_pred": 12}).normalized["bbox_pred"]
    np.testing.assert_allclose(found[0].reshape(3, 4), means, atol=1e-6)


def move(box: Sequence[float], target: Sequence[float]) -> list[float]:
    """The change of a box, both ends in it."""
    (w, h), (tw, th) = ((b[2] - b[0] + 1, b[3] - b[1] + 1) for b in (box, target))
    x, y = target[0] + tw / 2 - box[0] - w / 2, target[1] + th / 2 - box[1] - h / 2
    return [x / w, y / h, float(np.log(tw / w)), float(np.log(th / h))]


def test_fewer_tops(settings: str) -> None:
    """Without boxes to learn, and of fast-rcnn, whose loss has one kind of weights."""
    for tops in ("abc", "abcde"):
        assert len(as_tuple(made(settings, tops)())) == len(tops)


def test_errors(settings: str) -> None:
    beside, _, _ = settings.partition(", 'proposals'")
    for text, said in (
        (beside, "has the tops of Fast R-CNN, which learns on regions proposed beforehand: name their file in its"),
        (beside + ", 'proposals': 'none.h5'", "none.h5"),
        (settings + ", 'IMS_PER_BATCH': 0", "expected an IMS_PER_BATCH of at least 1"),
        ("'num_classes': 3, 'proposals': 'p.h5'", "name a database of convert_annoset"),
        ("'num_classes': 3, 'BBOX_NORMALIZE_TARGETS': True", "name a database of convert_annoset"),
        (beside + ", 'BBOX_NORMALIZE_TARGETS': True", "over all regions, which are not known beforehand; set"),
        (settings + ", 'BBOX_NORMALIZE_MEANS': [0, 0]", "4 numbers for 'BBOX_NORMALIZE_MEANS', or 4 for each of 3 cl"),
    ):
        with pytest.raises(CaffeError) as error:
            made(text)
        assert said in str(error.value)
