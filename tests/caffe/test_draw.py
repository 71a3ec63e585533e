"""Pictures of nets: their text, and the program that draws them."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import Any

import pytest

from caffe import draw
from caffecli.errors import CaffeError
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from caffecli.spec import text

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="graphviz' program dot is not installed")

NET = """
name: "small"
layer { name: "in" type: "Data" top: "data" data_param { batch_size: 64 } include { phase: TRAIN } }
layer { name: "in" type: "Data" top: "data" data_param { batch_size: 100 } include { phase: TEST } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 20 kernel_size: 5 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
"""


def net(prototxt: str = NET) -> Any:
    return text.parse(prototxt, NetParameter())


def layer(prototxt: str) -> Any:
    return text.parse(prototxt, LayerParameter())


def test_the_text_of_a_picture() -> None:
    octagon = 'shape="octagon", style="filled", fillcolor="#E0E0E0"'
    box = 'shape="box", style="filled", fillcolor='
    assert draw.draw_net(net(), "LR", "dot", phase=TEST).decode().splitlines() == [
        'digraph "small" {',
        "  rankdir=LR;",
        "  node [fontname=Helvetica];",
        "  edge [fontname=Helvetica];",
        f'  "blob data" [label="data", {octagon}];',
        f'  "blob conv" [label="conv", {octagon}];',
        f'  "layer 0 in" [label="in\\n(Data)", {box}"#6495ED"];',
        '  "layer 0 in" -> "blob data" [label="Batch 100"];',
        f'  "layer 1 conv" [label="conv\\n(Convolution)\\nkernel size: 5\\nstride: 1\\npad: 0", {box}"#FF5050"];',
        '  "blob data" -> "layer 1 conv" [label=""];',
        '  "layer 1 conv" -> "blob conv" [label="20"];',
        f'  "layer 2 relu" [label="relu\\n(ReLU)", {box}"#90EE90"];',
        '  "blob conv" -> "layer 2 relu" [label=""];',
        '  "layer 2 relu" -> "blob conv" [label=""];',
        "}",
    ]


def test_phases_and_edge_labels() -> None:
    every = draw.get_pydot_graph(net(), "TB", label_edges=False).to_string()
    assert '"layer 0 in"' in every and '"layer 1 in"' in every and "Batch" not in every and "rankdir=TB" in every
    assert "Batch 64" in draw.get_pydot_graph(net(), "LR", phase=TRAIN).to_string()


def test_labels() -> None:
    conv = layer(
        'name: "c" type: "Convolution" convolution_param { kernel_h: 3 kernel_w: 5 stride: 2 pad: [1, 2] } param { '
        "lr_mult: 3 }"
    )
    assert draw.get_layer_label(conv, "LR") == r'"c\n(Convolution)\nkernel size: 3x5\nstride: 2\npad: 1x2"'
    assert draw.get_layer_label(conv, "TB", display_lrm=True).endswith('pad: 1x2 lr mult: 3.0, 1.0"')
    pool = layer('name: "p" type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 }')
    assert draw.get_layer_label(pool, "TB") == '"p (Pooling AVE) kernel size: 3 stride: 2 pad: 0"'
    pool.pooling_param.global_pooling = True
    assert draw.get_layer_label(pool, "TB") == '"p (Pooling AVE) global"'
    assert draw.get_layer_label(layer(r'name: "say \"a\\b\"" type: "ReLU"'), "TB") == r'"say \"a\\b\" (ReLU)"'
    assert draw.get_edge_label(layer('type: "InnerProduct" inner_product_param { num_output: 7 }')) == "7"
    assert draw.get_edge_label(pool) == '""'
    assert draw.get_edge_label(layer('type: "ConvolutionDepthwise" convolution_param { kernel_size: 3 }')) == '""'
    assert draw.choose_color_by_layertype("InnerProduct") == "#CC33FF" != draw.choose_color_by_layertype("LRN")
    with pytest.raises(ValueError, match="Pooling layers do not have a learning rate multiplier"):
        draw.get_layer_lr_mult(pool)


def test_old_nets_are_drawn_too() -> None:
    old = net('input: "data" input_dim: [1, 3, 8, 8] layers { name: "r" type: RELU bottom: "data" top: "out" }')
    assert "r\\n(ReLU)" in draw.draw_net(old, "LR", "raw").decode()
    assert old.layers, "the caller's net stays as it is"


@needs_dot
@pytest.mark.parametrize(
    ("name", "head"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF"), ("a.gv", b"digraph")]
)
def test_files(name: str, head: bytes, tmp_path: Path) -> None:
    draw.draw_net_to_file(net(), str(tmp_path / name))
    assert (tmp_path / name).read_bytes().startswith(head)


@needs_dot
def test_names_with_all_kinds_of_signs(tmp_path: Path) -> None:
    odd = net(r'layer { name: "a|b{c}<d>\"\\n;" type: "ReLU" bottom: "x:y" top: "\303\244 -> [" }')
    assert "ä -> [" in html.unescape(draw.draw_net(odd, "LR", "svg").decode())


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CaffeError, match="'' is no picture format; let the file's name end in"):
        draw.draw_net_to_file(net(), tmp_path / "picture")
    with pytest.raises(CaffeError, match="rankdir 'UP': expected one of TB, BT, LR, RL"):
        draw.draw_net(net(), "UP")
    if shutil.which("dot"):
        with pytest.raises(CaffeError, match='dot cannot draw xyz: Format: "xyz" not recognized'):
            draw.draw_net(net(), "LR", "xyz")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CaffeError, match="drawing png needs graphviz' program dot; install the package graphviz"):
        draw.draw_net_to_file(net(), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    draw.draw_net_to_file(net(), tmp_path / "a.dot")
