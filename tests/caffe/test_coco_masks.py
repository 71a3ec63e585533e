"""Masks as COCO's compiled module has them; the texts are those that pycocotools 2.0.11 gives."""

from __future__ import annotations

import numpy as np
import pytest

from caffe import coco_masks as masks

MASK = np.zeros((7, 9, 2), np.uint8)
MASK[2:5, 3:6, 0] = 1
MASK[0, 0, 1] = MASK[:, 8, 1] = 1


def test_runs() -> None:
    encoded = masks.encode(MASK)
    assert encoded == [{"size": [7, 9], "counts": b"g034000c0"}, {"size": [7, 9], "counts": b"01g16"}]
    as_text = [each | {"counts": each["counts"].decode()} for each in encoded]
    for each in (encoded, as_text):
        np.testing.assert_array_equal(masks.decode(each), MASK)
    assert masks.area(encoded).tolist() == [9, 8]
    assert masks.toBbox(encoded).tolist() == [[3, 2, 3, 3], [0, 0, 9, 7]]
    np.testing.assert_array_equal(masks.decode([masks.merge(encoded)])[..., 0], MASK.max(2))
    nothing = masks.merge(encoded, intersect=True)
    assert masks.toBbox([nothing]).tolist() == [[0, 0, 0, 0]]


def test_overlaps() -> None:
    boxes = np.array([[0.0, 0, 10, 10], [5, 0, 10, 10], [40, 0, 1, 1]])
    np.testing.assert_allclose(masks.iou(boxes, boxes[:2], [0, 1]), np.array([[1, 0.5], [1 / 3, 1], [0, 0]]))
    encoded = masks.encode(MASK)
    whole = masks.encode(np.ones((7, 9, 1), np.uint8))
    np.testing.assert_allclose(masks.iou(encoded, whole, [0]), [[9 / 63], [8 / 63]])
    np.testing.assert_allclose(masks.iou(encoded, whole, [1]), [[1], [1]])
    assert masks.iou([], boxes, [0, 0, 0]) == []
    with pytest.raises(ValueError, match="expected boxes, or encoded masks, for both"):
        masks.iou(boxes, whole, [0])


def test_of_polygons_boxes_and_runs() -> None:
    polygons = [[1.2, 1.2, 6.7, 2.1, 4.4, 6.3], [0, 0, 5, 0, 5, 3, 2, 5], [-3, 2, 12, 2, 12, 4, -3, 4]]
    counts = [each["counts"] for each in masks.frPyObjects(polygons, 7, 9)]
    assert counts == [b"816101N1ON2O=", b"0163M1OO1Om0", b"225000000000000000N"]
    boxes = np.array([[1.0, 2, 3, 4], [2.5, 3.5, 2.6, 10]])
    assert [each["counts"] for each in masks.frPyObjects(boxes, 7, 9)] == [b"943000Q1", b"i0340h0"]
    assert masks.frPyObjects([{"size": [7, 9], "counts": [0, 1, 55, 7]}], 7, 9) == masks.encode(MASK)[1:]
