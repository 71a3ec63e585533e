"""What nets of the R-CNN family find, beside py-faster-rcnn's way, written out in NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import caffe
from caffecli.errors import DataError, SpecError
from caffecli.formats.proposals import write
from caffecli.tools.detect_regions import RegionNet, RegionOptions, knows

PICTURE = np.random.default_rng(0).integers(0, 255, (30, 50, 3), dtype=np.uint8)
DATA = """layer { name: "in" type: "Input" top: "data" top: "%s" input_param {
  shape { dim: 1 dim: 3 dim: 9 dim: 9 } shape { dim: 1 dim: %d } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 12 kernel_size: 4 stride: 4 weight_filler { type: "xavier" } } }
"""
PROPOSE = """layer { name: "rpn_score" type: "Convolution" bottom: "conv" top: "rpn_score"
  convolution_param { num_output: 6 kernel_size: 1 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "rpn_bbox_pred" type: "Convolution" bottom: "conv" top: "rpn_bbox_pred"
  convolution_param { num_output: 12 kernel_size: 1 weight_filler { type: "gaussian" std: 0.001 } } }
layer { name: "proposal" type: "Python" bottom: "rpn_score" bottom: "rpn_bbox_pred" bottom: "im_info" top: "rois" %s
  python_param { module: "rpn.proposal_layer" layer: "ProposalLayer"
    param_str: "'feat_stride': 4, 'scales': [1], 'RPN_MIN_SIZE': 2, 'RPN_POST_NMS_TOP_N': 30" } }
"""
SCORE = """layer { name: "pool" type: "ROIPooling" bottom: "conv" bottom: "rois" top: "pool"
  roi_pooling_param { pooled_w: 2 pooled_h: 2 spatial_scale: 0.25 } }
layer { name: "cls_score" type: "InnerProduct" bottom: "pool" top: "cls_score"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.02 } } }
layer { name: "cls_prob" type: "Softmax" bottom: "cls_score" top: "cls_prob" }
"""
BOXES = """layer { name: "bbox_pred" type: "InnerProduct" bottom: "pool" top: "bbox_pred" inner_product_param {
  num_output: %d weight_filler { type: "gaussian" std: 0.001 } bias_filler { type: "constant" value: 0.2 } } }
"""


def options(**given: Any) -> RegionOptions:
    settings: dict[str, Any] = {
        "model_def": "net.prototxt", "weights": "w.caffemodel", "mean": None, "like": None, "input_scale": None,
        "bgr": True, "side": 60, "max_side": 90, "proposals": None, "nms_threshold": 0.3, "threshold": 0.2,
    }  # fmt: skip
    return RegionOptions(**{**settings, **given})


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    caffe.set_mode_cpu()
    caffe.set_random_seed(5)


def net(text: str) -> Any:
    Path("net.prototxt").write_text(text)
    made = caffe.Net("net.prototxt", caffe.TEST)
    made.save("w.caffemodel")
    return made


def expected(made: Any, regions: np.ndarray, values: int) -> np.ndarray:
    """The objects by the loops of test.py."""
    scores = made.blobs["cls_prob"].data
    found = []
    for label in (1, 2):
        rows = []
        for region, score, change in zip(regions, scores[:, label], made.blobs["bbox_pred"].data, strict=True):
            x, y, X, Y = region
            dx, dy, dw, dh = change.reshape(-1, 4)[label if values == 12 else 1]
            w, h = X - x + 1, Y - y + 1
            cx, cy = x + w / 2 + dx * w, y + h / 2 + dy * h
            w, h = w * np.exp(dw), h * np.exp(dh)
            box = np.clip([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 0, [49, 29, 49, 29])
            if score >= 0.2:
                rows.append([*box, score])
        dets = np.array(rows, np.float32)
        found += [[label, dets[i, 4], *dets[i, :4]] for i in caffe.rcnn_helpers.gpu_nms(dets, 0.3)]
    return np.array(sorted(found, key=lambda row: -row[1]))


@pytest.mark.parametrize("values", [12, 8])
def test_objects(values: int) -> None:
    """Changes of each class, and as in R-FCN of all together."""
    import caffe.rcnn_helpers  # noqa: F401

    made = net(DATA % ("im_info", 3) + PROPOSE % "" + SCORE + BOXES % values)
    assert knows(made.blobs, made.outputs)
    found = RegionNet(made, options()).find("a.jpg", PICTURE)
    assert made.blobs["data"].shape == (1, 3, 54, 90)  # the longer side is the most
    np.testing.assert_allclose(made.blobs["im_info"].data, [[54, 90, 1.8]], rtol=1e-6)
    pixels = PICTURE.astype(np.float32) - np.array([102.9801, 115.9465, 122.7717], np.float32)
    seen = cv2.resize(pixels, None, fx=1.8, fy=1.8).transpose(2, 0, 1)
    np.testing.assert_allclose(made.blobs["data"].data[0], seen, atol=1e-3)
    regions = made.blobs["rois"].data[:, 1:] / 1.8
    assert len(regions) > 5 and len(found) > 3
    np.testing.assert_allclose(found, expected(made, regions, values), atol=1e-3)


def test_regions_that_are_given() -> None:
    made = net(DATA % ("rois", 5) + SCORE + BOXES % 12)
    regions = np.array([[2, 3, 20, 18], [10, 5, 40, 25], [30, 1, 45, 29]], np.float32)
    write("p.h5", [("a", regions), ("b", regions[:0])])
    finds = RegionNet(made, options(proposals="p.h5", side=30, max_side=1000))
    found = finds.find("a.jpg", PICTURE)
    np.testing.assert_allclose(made.blobs["rois"].data, np.insert(regions, 0, 0, 1))
    np.testing.assert_allclose(found, expected(made, regions, 12), atol=1e-3)
    finds.find("b.jpg", PICTURE)
    np.testing.assert_allclose(made.blobs["rois"].data, [[0, 0, 0, 49, 29]])


def test_a_net_that_proposes_alone() -> None:
    made = net(DATA % ("im_info", 3) + PROPOSE % 'top: "scores"')
    found = RegionNet(made, options(threshold=0)).find("a.jpg", PICTURE)
    np.testing.assert_allclose(found[:, 2:], made.blobs["rois"].data[:, 1:] / 1.8, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], made.blobs["scores"].data[:, 0])
    assert set(found[:, 0]) == {1}


@pytest.mark.parametrize("values", [12, 8])
def test_weights_that_learned_normalized_changes(values: int) -> None:
    """The file of weights says so by the settings of the layers that taught them."""
    made = net(DATA % ("im_info", 3) + PROPOSE % "" + SCORE + BOXES % values)
    before = {name: [blob.data.copy() for blob in blobs] for name, blobs in made.params.items()}
    text = "'num_classes': 3, 'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True, 'BBOX_NORMALIZE_MEANS': [0, 0.5, 0, 0]"
    text += f", 'AGNOSTIC': {values == 8}"
    taught = f"""layer {{ name: "input-data" type: "Python" top: "d" python_param {{ module: "roi_data_layer.layer"
      layer: "RoIDataLayer" param_str: "'num_classes': 3, 'SCALES': [33], 'PIXEL_MEANS': [1, 2, 3]" }} }}
    layer {{ name: "roi-data" type: "Python" bottom: "d" top: "r" python_param {{
      module: "rpn.proposal_target_layer" layer: "ProposalTargetLayer" param_str: "{text}" }} }}
    layer {{ name: "rpn-data" type: "Python" bottom: "d" top: "s" python_param {{ module: "rpn.anchor_target_layer"
      layer: "AnchorTargetLayer" param_str: "'feat_stride': 4, 'RPN_NORMALIZE_TARGETS': True" }} }}"""
    from google.protobuf import text_format

    Path("w.caffemodel").write_bytes(
        text_format.Parse(taught, caffe.proto.caffe_pb2.NetParameter()).SerializeToString()
    )
    RegionNet(made, options(side=None)).find("a.jpg", PICTURE)
    assert made.blobs["data"].shape == (1, 3, 33, 55)
    seen = cv2.resize(PICTURE.astype(np.float32) - np.array([1, 2, 3], np.float32), None, fx=1.1, fy=1.1)
    np.testing.assert_allclose(made.blobs["data"].data[0], seen.transpose(2, 0, 1), atol=1e-3)
    deviation, means = np.array([0.1, 0.1, 0.2, 0.2]), np.array([0, 0.5, 0, 0])
    for name, mean in (("bbox_pred", means), ("rpn_bbox_pred", 0 * means)):
        weights, bias = (blob.data for blob in made.params[name])
        each = np.tile(deviation, len(bias) // 4)
        np.testing.assert_allclose(weights, (before[name][0].T * each).T, rtol=1e-5)
        np.testing.assert_allclose(bias, before[name][1] * each + np.tile(mean, len(bias) // 4), rtol=1e-5)
    np.testing.assert_array_equal(made.params["cls_score"][0].data, before["cls_score"][0])


def test_no_layer_of_the_name_to_scale() -> None:
    """Boxes would be wrong, and nothing would say so."""
    made = net((DATA % ("rois", 5) + SCORE + BOXES % 12).replace('name: "bbox_pred"', 'name: "boxes"'))
    write("p.h5", [("a", np.array([[0, 0, 9, 9]]))])
    definition = caffe.proto.caffe_pb2.NetParameter()
    python = definition.layer.add(name="roi", type="Python").python_param
    python.module, python.layer = "rpn.proposal_target_layer", "ProposalTargetLayer"
    python.param_str = "'num_classes': 3, 'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True"
    Path("w.caffemodel").write_bytes(definition.SerializeToString())
    with pytest.raises(SpecError, match="has no layer bbox_pred or rfcn_bbox whose weights could be scaled"):
        RegionNet(made, options(proposals="p.h5"))


def test_position_sensitive_weights_are_scaled_by_place() -> None:
    """R-FCN's rfcn_bbox has each of its values in k x k places."""
    from caffecli.layers.forks.rois import learned
    from caffecli.proto.caffe_pb2 import NetParameter

    definition = NetParameter()
    python = definition.layer.add(name="roi", type="Python").python_param
    python.module, python.layer = "rpn.proposal_target_layer", "ProposalTargetLayer"
    python.param_str = "'num_classes': 3, 'AGNOSTIC': True, 'BBOX_NORMALIZE_TARGETS_PRECOMPUTED': True"
    mean, deviation = learned(definition, {"rfcn_bbox": 32}).normalized["rfcn_bbox"]
    assert not mean.any()
    torch.testing.assert_close(deviation, torch.tensor([0.1, 0.1, 0.2, 0.2]).repeat_interleave(4).repeat(2))


def test_errors() -> None:
    given = net(DATA % ("rois", 5) + SCORE)
    with pytest.raises(
        SpecError, match=r"'net\.prototxt' takes regions, its input rois: give their file by --proposals"
    ):
        RegionNet(given, options())
    own = net(DATA % ("im_info", 3) + PROPOSE % "")
    with pytest.raises(SpecError, match=r"'net\.prototxt' proposes its regions itself"):
        RegionNet(own, options(proposals="p.h5"))
    with pytest.raises(DataError, match="has 2 numbers; expected 1, or one for each of 3 channel"):
        RegionNet(own, options(mean="1,2"))
    wrong = net(DATA % ("rois", 5) + SCORE + BOXES % 20)
    write("p.h5", [("a", np.array([[0, 0, 9, 9]]))])
    with pytest.raises(SpecError, match=r"'net\.prototxt': bbox_pred has 5 boxes for 3 classes"):
        RegionNet(wrong, options(proposals="p.h5")).find("a.jpg", PICTURE)
