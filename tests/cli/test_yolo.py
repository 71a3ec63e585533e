"""Small nets of YOLO, versions 2 and 3, from the command line: trained at two scales, scored, and used by detect."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.proto.caffe_pb2 import AnnotatedDatum

#: width and height of the anchors, in pixels
ANCHORS = ((10, 10), (17, 17))
Command = Callable[..., tuple[int, str]]


def picture(draws: np.random.Generator) -> tuple[np.ndarray, int, tuple[int, ...]]:
    """Noise of 32 × 32 with a square of green (class 1) or red (2), and its corners."""
    pixels = draws.integers(0, 90, (3, 32, 32)).astype(np.uint8)
    side, kind = int(draws.integers(8, 20)), int(draws.integers(1, 3))
    x, y = (int(value) for value in draws.integers(0, 32 - side, 2))
    pixels[kind, y : y + side, x : x + side] = 250
    return pixels, kind, (x, y, x + side, y + side)


def write(path: Path, count: int, seed: int) -> None:
    draws = np.random.default_rng(seed)
    with open_writer(path) as writer:
        for i in range(count):
            pixels, kind, corners = picture(draws)
            record = AnnotatedDatum(type=AnnotatedDatum.BBOX)
            box = record.annotation_group.add(group_label=kind).annotation.add(instance_id=0).bbox
            box.xmin, box.ymin, box.xmax, box.ymax = (value / 32 for value in corners)
            record.datum.CopyFrom(from_array(pixels, -1))
            writer.put(b"%08d" % i, record.SerializeToString())


def body() -> str:
    layers, bottom = [], "data"
    for i, width in enumerate((16, 32, 32), 1):
        layers.append(
            f'layer {{ name: "conv{i}" type: "Convolution" bottom: "{bottom}" top: "conv{i}" convolution_param {{ '
            f'num_output: {width} kernel_size: 3 pad: 1 stride: 2 weight_filler {{ type: "msra" }} }} }} '
            f'layer {{ name: "relu{i}" type: "ReLU" bottom: "conv{i}" top: "conv{i}" }}'
        )
        bottom = f"conv{i}"
    layers.append(
        'layer { name: "out" type: "Convolution" bottom: "conv3" top: "out" '
        'convolution_param { num_output: 14 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }'
    )
    return "\n".join(layers)


def data(split: str, batch: int, sizes: str, annotated: str) -> str:
    return (
        f'layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label" include {{ phase: {split.upper()} }} '
        f'transform_param {{ mean_value: 60 scale: 0.015625 {sizes} }} data_param {{ source: "squares_{split}" '
        f"batch_size: {batch} backend: LMDB }} annotated_data_param {{ {annotated} }} }}\n"
    )


def size(side: int, prob: float = 1) -> str:
    return f"resize_param {{ prob: {prob} height: {side} width: {side} interp_mode: LINEAR }} "


def anchors(scale: float) -> str:
    return " ".join(f"biases: {side / scale}" for anchor in ANCHORS for side in anchor)


#: the loss and the output of each version
HEADS = {
    "2": (
        'type: "RegionLoss" region_loss_param { num: 2 num_class: 2 thresh: 0.6 object_scale: 5 noobject_scale: 1 '
        f"coord_scale: 1 rescore: 0 {anchors(8)} }}",
        f'type: "YoloDetectionOutput" yolo_detection_output_param {{ num_classes: 2 num_box: 2 {anchors(8)} }}',
    ),
    "3": (
        'type: "Yolov3" yolov3_param { num: 2 num_class: 2 thresh: 0.6 anchors_scale: 8 mask: 0 mask: 1 '
        f"{anchors(1)} }}",
        'type: "Yolov3DetectionOutput" yolov3_detection_output_param { num_classes: 2 num_box: 2 mask: 0 mask: 1 '
        f"mask_group_num: 1 anchors_scale: 8 {anchors(1)} }}",
    ),
}


@pytest.mark.parametrize("version", HEADS)
def test_a_small_yolo_learns_drawn_boxes(version: str, folder: Path, command: Command) -> None:
    write(folder / "squares_train", 128, 0)
    write(folder / "squares_test", 32, 1)
    loss, output = HEADS[version]
    found = f'layer {{ name: "found" bottom: "out" top: "found" {output} '
    (folder / "net.prototxt").write_text(
        data("train", 16, size(32, 0.5) + size(40, 0.5), "yolo_data_type: 1 yolo_data_jitter: 0.1")
        + data("test", 8, size(32), "batch_sampler {}")
        + body()
        + f'\nlayer {{ name: "loss" bottom: "out" bottom: "label" top: "loss" include {{ phase: TRAIN }} {loss} }}\n'
        + found + "include { phase: TEST } }\n"
        + 'layer { name: "score" type: "DetectionEvaluate" bottom: "found" bottom: "label" top: "score" '
        "include { phase: TEST } detection_evaluate_param { num_classes: 3 } }\n"
    )  # fmt: skip
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" type: "Adam" lr_policy: "multifixed" stagelr: 0.005 stageiter: 110 stagelr: 0.001 '
        "stageiter: 200 momentum: 0.9 max_iter: 150 display: 149 average_loss: 8 test_iter: 4 test_interval: 150 "
        'test_initialization: false eval_type: "detection" snapshot_prefix: "yolo" solver_mode: CPU random_seed: 3'
    )
    code, said = command("train", "--solver=solver.prototxt")
    assert code == 0, said
    score = re.search(r"score = ([\d.]+)", said)
    assert score and float(score[1]) > 0.7, said[-3000:]
    (folder / "deploy.prototxt").write_text(
        'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 32 dim: 32 } } }\n'
        + body() + found + "}"
    )  # fmt: skip
    pixels, kind, corners = picture(np.random.default_rng(7))
    cv2.imwrite(str(folder / "one.png"), pixels.transpose(1, 2, 0))
    find = (
        "detect",
        "one.png",
        "found.json",
        "--model_def=deploy.prototxt",
        "--pretrained_model=yolo_iter_150.caffemodel",
    )
    items = "".join(f'item {{ name: "{name}" label: {label} }} ' for label, name in enumerate(("none", "green", "red")))
    for text, told in ((items, False), (items[: items.rindex("item")], True)):
        (folder / "map.prototxt").write_text(text)
        code, said = command(*find, "--label_map_file=map.prototxt")
        assert code == 0 and ("and the net 3, with the background: names may be" in said) == told, said
    (one,) = json.loads((folder / "found.json").read_text())
    best = max(one["objects"], key=lambda each: each["score"])
    assert best["label"] == kind
    np.testing.assert_allclose([best[name] for name in ("xmin", "ymin", "xmax", "ymax")], corners, atol=5)


def test_a_small_first_version_learns_drawn_boxes(folder: Path, command: Command) -> None:
    """BoxData over a database of convert_annoset, and EvalDetection scored as a test of detections."""
    write(folder / "squares_train", 128, 0)
    write(folder / "squares_test", 32, 1)
    read = (
        'layer {{ name: "data" type: "BoxData" top: "data" top: "label" include {{ phase: {} }} '
        "transform_param {{ mean_value: 60 scale: 0.015625 }} "
        'data_param {{ source: "squares_{}" batch_size: {} backend: LMDB side: 4 }} }}\n'
    )
    settings = "side: 4 num_class: 2 num_object: 2 sqrt: true constriant: true"
    head = body().replace("num_output: 14 kernel_size: 3 pad: 1", "num_output: 12 kernel_size: 3 pad: 1")
    (folder / "net.prototxt").write_text(
        read.format("TRAIN", "train", 16) + read.format("TEST", "test", 8) + head
        + f"""
layer {{ name: "loss" type: "DetectionLoss" bottom: "out" bottom: "label" top: "loss"
  detection_loss_param {{ {settings} }} }}
layer {{ name: "score" type: "EvalDetection" bottom: "out" bottom: "label" bottom: "data" top: "score"
  include {{ phase: TEST }} eval_detection_param {{ {settings} nms: 0.5 }} }}
"""
    )  # fmt: skip
    (folder / "solver.prototxt").write_text(
        'net: "net.prototxt" type: "Adam" lr_policy: "fixed" base_lr: 0.004 momentum: 0.9 max_iter: 120 display: 119 '
        'test_iter: 4 test_interval: 120 test_initialization: false eval_type: "detection" ap_version: "11point" '
        'snapshot_prefix: "yolo" solver_mode: CPU random_seed: 3'
    )
    code, said = command("train", "--solver=solver.prototxt", "--best", "--csv=a.csv")
    assert code == 0, said
    score, loss = (re.search(rf"Test net output #\d: {name} = ([\d.]+)", said) for name in ("score", "loss"))
    assert score and loss and float(score[1]) > 0.3, said[-3000:]
    assert "test0/score" in (folder / "a.csv").read_text() and (folder / "yolo_best.caffemodel").exists()
    net = ("--model=net.prototxt", "--weights=yolo_iter_120.caffemodel", "--iterations=4")
    code, said = command("test", *net, "--ap_version=11point")
    again = re.search(r"\] score = ([\d.]+)", said)
    assert code == 0 and again and float(again[1]) == pytest.approx(float(score[1]), abs=1e-5), said[-3000:]
