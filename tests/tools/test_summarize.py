"""summarize: shapes, parameters, multiply-adds and memory, against recorded shapes,
well-known totals and counts by hand.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import ShapeError, SpecError
from caffecli.formats import caffemodel
from caffecli.net.net import Net
from caffecli.net.weights import definition, export
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from caffecli.tools.summarize import LayerSummary, NetSummary, summarize

ROOT = Path(__file__).parents[2]
INPUT = 'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {} }} }} }}'


def dims(*shape: int) -> str:
    return INPUT.format(" ".join(f"dim: {d}" for d in shape))


@pytest.fixture
def summed(tmp_path: Path) -> Any:
    def call(text: str, **more: Any) -> NetSummary:
        (tmp_path / "net.prototxt").write_text(text)
        return summarize(tmp_path / "net.prototxt", TEST, **more)

    return call


@pytest.mark.parametrize(
    ("model", "parameters", "multiply_adds"),
    [
        ("lenet", 431_080, 2_293_000),
        ("cifar10_quick", 145_578, None),
        ("bvlc_alexnet", 60_965_224, 724_406_816),
        ("bvlc_reference_caffenet", 60_965_224, 724_406_816),
    ],
)
def test_published_nets(golden: Path, model: str, parameters: int, multiply_adds: int | None) -> None:
    net = summarize(ROOT / "models" / model / "deploy.prototxt", TEST, batch=1)
    assert net.parameters == parameters
    assert multiply_adds is None or net.multiply_adds == multiply_adds
    recorded = {layer["layer"]: layer for layer in json.loads((golden / "model_shapes.json").read_text())[model]}
    for layer in net.layers:
        if layer.type != "Input":
            wanted = recorded[layer.name]
            assert layer.type == wanted["type"]
            assert [(name, shape[1:]) for name, shape in layer.tops.items()] == [
                (n, tuple(s[1:])) for n, s in wanted["tops"]
            ]
            assert layer.parameters == sum(math.prod(shape) for shape in wanted["params"])


CONV = (
    'layer {{ name: "c" type: "{}" bottom: "x" top: "c" convolution_param {{ num_output: 6 kernel_size: 3 stride: 2 {} '
    "}} }}"
)


@pytest.mark.parametrize(
    ("text", "layer"),
    [
        (dims(2, 4, 9, 11) + CONV.format("Convolution", ""), ((2, 6, 4, 5), 6 * 4 * 9 + 6, 2 * 6 * 4 * 5 * 4 * 9)),
        (dims(2, 4, 9, 11) + CONV.format("Convolution", "group: 2 bias_term: false"),
         ((2, 6, 4, 5), 6 * 2 * 9, 2 * 6 * 4 * 5 * 2 * 9)),
        (dims(2, 4, 9) + CONV.format("Convolution", ""), ((2, 6, 4), 6 * 4 * 3 + 6, 2 * 6 * 4 * 4 * 3)),
        (dims(2, 4, 5, 3) + CONV.format("Deconvolution", ""), ((2, 6, 11, 7), 6 * 4 * 9 + 6, 2 * 5 * 3 * 4 * 6 * 9)),
        (
            dims(2, 3, 4, 5)
            + 'layer { name: "c" type: "InnerProduct" bottom: "x" top: "c" inner_product_param { num_output: 7 } }',
            ((2, 7), 7 * 60 + 7, 2 * 7 * 60),
        ),
        (
            dims(2, 3, 5) + 'layer { name: "c" type: "InnerProduct" bottom: "x" top: "c" '
            "inner_product_param { num_output: 7 axis: 2 bias_term: false } }",
            ((2, 3, 7), 35, 2 * 3 * 35),
        ),
        (dims(2, 3) + 'layer { name: "c" type: "ReLU" bottom: "x" top: "c" }', ((2, 3), 0, 0)),
    ],
)  # fmt: skip
def test_counts_by_hand(summed: Any, text: str, layer: tuple[tuple[int, ...], int, int]) -> None:
    found = summed(text).layers[-1]
    assert (found.tops["c"], found.parameters, found.multiply_adds) == layer
    assert found.memory == 4 * math.prod(layer[0])


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("RNN", 1)])
@pytest.mark.parametrize("static", [False, True])
def test_recurrent_layers(summed: Any, kind: str, gates: int, static: bool) -> None:
    steps, streams, width, out, still = 5, 3, 7, 4, 6
    text = dims(steps, streams, width) + dims(steps, streams).replace('"x"', '"cont"')
    text += dims(streams, still).replace('"x"', '"s"') if static else ""
    bottom = 'bottom: "s"' if static else ""
    text += f'layer {{ name: "r" type: "{kind}" bottom: "x" bottom: "cont" {bottom} top: "r"'
    text += f" recurrent_param {{ num_output: {out} }} }}"
    wanted = gates * out * (width + out) * steps * streams
    wanted += out * out * steps * streams if kind == "RNN" else 0
    wanted += gates * out * still * streams if static else 0
    assert summed(text).layers[-1].multiply_adds == wanted


def test_sharing_splits_and_layers_in_place(summed: Any) -> None:
    shared = (
        'layer {{ name: "{0}" type: "InnerProduct" bottom: "x" top: "{0}" param {{ name: "w" }} param {{ name: "b" }}'
    )
    shared += " inner_product_param {{ num_output: 5 }} }}"
    net = summed(
        dims(2, 3) + shared.format("a") + shared.format("b") + 'layer { name: "r" type: "ReLU" bottom: "a" top: "a" }'
    )
    assert [layer.name for layer in net.layers] == ["x", "a", "b", "r"]
    assert [layer.parameters for layer in net.layers] == [0, 20, 0, 0]
    assert [layer.memory for layer in net.layers] == [24, 40, 40, 0]
    assert (net.parameters, net.multiply_adds, net.memory) == (20, 60, 104)


def test_batch_and_what_is_not_there() -> None:
    path = ROOT / "models" / "bvlc_reference_caffenet" / "train_val.prototxt"
    net = summarize(path, TRAIN, batch=3)
    assert net.layers[0] == LayerSummary(
        "data", "Input", {"data": (3, 3, 227, 227), "label": (3,)}, 0, 0, 4 * (3 * 3 * 227**2 + 3)
    )
    assert net.multiply_adds == 3 * 724_406_816
    assert net.layers[-1].tops == {"loss": ()}


def test_records_that_are_not_there(summed: Any) -> None:
    data = (
        'layer { name: "data" type: "Data" top: "x" top: "t" data_param { source: "no_lmdb" batch_size: 8 backend: '
        "LMDB } %s }"
    )
    with pytest.raises(
        SpecError, match=r"layer 'data': there is no 'no_lmdb'; give its pictures' shape, --input 3,256,256"
    ):
        summed(data % "")
    assert summed(data % "", picture=(1, 28, 30)).layers[0].tops == {"x": (8, 1, 28, 30), "t": (8,)}
    assert summed(data % "transform_param { crop_size: 24 }", picture=(1, 28, 30)).layers[0].tops["x"] == (8, 1, 24, 24)
    assert summed(data % "transform_param { crop_size: 24 force_gray: true }").layers[0].tops["x"] == (8, 1, 24, 24)


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        ("crop_h: 20 crop_w: 30 resize_param { height: 40 width: 50 }", (3, 20, 30)),
        ("resize_param { height: 40 width: 50 }", (3, 40, 50)),
        ("force_gray: true resize_param { height: 40 width: 50 resize_mode: FIT_LARGE_SIZE_AND_PAD }", (1, 40, 50)),
    ],
)
def test_boxes_that_are_not_there(summed: Any, transform: str, shape: tuple[int, ...]) -> None:
    found = summed(
        'layer { name: "data" type: "AnnotatedData" top: "data" top: "label" '
        f'transform_param {{ {transform} }} data_param {{ source: "no_lmdb" batch_size: 4 }} }}'
    )
    assert found.layers[0].tops == {"data": (4, *shape), "label": (1, 1, 1, 8)}


def test_sizes_of_pictures_that_are_not_there(summed: Any) -> None:
    """They go with the records, and are not asked for."""
    found = summed(
        'layer { name: "x" type: "Input" top: "x" top: "t" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 7 } '
        'shape { dim: 1 dim: 1 dim: 2 dim: 8 } } } layer { name: "e" type: "DetectionEvaluate" bottom: "x" bottom: "t" '
        'top: "e" detection_evaluate_param { num_classes: 3 name_size_file: "sizes.txt" } }'
    )
    assert found.layers[1].tops == {"e": (1, 1, 4, 5)}


def test_boxes_of_yolo_that_are_not_there(summed: Any) -> None:
    sizes = "".join(f"resize_param {{ prob: 0.5 height: {side} width: {side} }} " for side in (64, 96))
    found = summed(
        f'layer {{ name: "data" type: "AnnotatedData" top: "data" top: "label" transform_param {{ {sizes} }} '
        'annotated_data_param { yolo_data_type: 1 } data_param { source: "no_lmdb" batch_size: 4 } }'
    )
    assert found.layers[0].tops == {"data": (4, 3, 64, 64), "label": (4, 1, 300, 5)}


def test_weights(tmp_path: Path) -> None:
    text = (
        dims(2, 3)
        + 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
    )
    path = tmp_path / "net.prototxt"
    path.write_text(text)
    param = text_format.Parse(text, NetParameter())
    net = Net(param)
    with torch.no_grad():
        net.params[0].tensor.copy_(torch.tensor([[1.0, 2, 3], [4, 0, 2]]))
    caffemodel.write(tmp_path / "w.caffemodel", definition(net), export(net))
    ip = summarize(path, TEST, weights=tmp_path / "w.caffemodel").layers[-1]
    assert (ip.mean, ip.zeros) == (1.5, 3 / 8)
    assert ip.deviation == pytest.approx(math.sqrt((1 + 4 + 9 + 16 + 4) / 8 - 1.5**2))
    path.write_text(text.replace("num_output: 2", "num_output: 4"))
    with pytest.raises(ShapeError, match=r"layer 'ip', blob 0: expected \(4, 3\)"):
        summarize(path, TEST, weights=tmp_path / "w.caffemodel")
