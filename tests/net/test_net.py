"""Nets: wiring, shapes, sharing, gradients, and what is wrong with a definition."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import nn

from caffecli.errors import CaffeError, ShapeError, SpecError
from caffecli.formats import caffemodel
from caffecli.layers.base import Context
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 8 dim: 7 } } } '
LABELS = 'layer { name: "in2" type: "Input" top: "t" input_param { shape { dim: 2 } } } '
CONV = (
    'layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3 %s '
    "} } "
)
IP = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 5 %s } %s } '
RELU = 'layer { name: "%s" type: "ReLU" bottom: "x" top: "%s" } '
GAUSS = 'weight_filler { type: "gaussian" std: 0.3 }'


def build(text: str, phase: int = TEST) -> Net:
    param = text_format.Parse(text, NetParameter())
    param.state.phase = phase
    return Net(param)


def test_blobs_shapes_and_outputs() -> None:
    net = build(INPUT + CONV % GAUSS + 'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }')
    assert net.inputs == ["x"]
    assert net.outputs == ["c"]
    assert net.shape("c") == (2, 4, 6, 5)
    assert [(p.owner.name, p.index, tuple(p.tensor.shape)) for p in net.params] == [
        ("conv", 0, (4, 3, 3, 3)),
        ("conv", 1, (4,)),
    ]
    x = torch.randn(2, 3, 8, 7)
    conv = net.layer("conv")
    expected = nn.functional.conv2d(x, conv.blobs[0], conv.blobs[1]).relu()
    torch.testing.assert_close(net({"x": x})["c"], expected)


def test_net_is_a_torch_module() -> None:
    net = build(INPUT + CONV % GAUSS)
    assert set(net.state_dict()) == {"layers.conv.weight", "layers.conv.bias"}
    other = build(INPUT + CONV % GAUSS)
    other.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 8, 7)
    torch.testing.assert_close(net({"x": x})["c"], other({"x": x})["c"])
    assert net.double()({"x": x.double()})["c"].dtype == torch.float64


def test_other_batch_sizes_and_pictures_run_too() -> None:
    net = build(INPUT + CONV % GAUSS)
    assert net({"x": torch.randn(5, 3, 10, 12)})["c"].shape == (5, 4, 8, 10)


def test_outputs_are_sorted_by_name() -> None:
    names = ["zeta", "alpha", "mid"]
    relus = "".join(f'layer {{ name: "{n}" type: "ReLU" bottom: "x" top: "{n}" }}' for n in names)
    assert build(INPUT + relus).outputs == sorted(names)


def test_stepwise_equals_the_whole_graph() -> None:
    text = (
        INPUT + LABELS + CONV % GAUSS + 'layer { name: "r" type: "ReLU" bottom: "c" top: "c" }'
        'layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { kernel_size: 2 stride: 2 } }'
        f'layer {{ name: "a" type: "InnerProduct" bottom: "p" top: "a" '
        f"inner_product_param {{ num_output: 5 {GAUSS} }} }}"
        f'layer {{ name: "b" type: "InnerProduct" bottom: "p" top: "b" '
        f"inner_product_param {{ num_output: 5 {GAUSS} }} }}"
        'layer { name: "s" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }'
        'layer { name: "l" type: "SoftmaxWithLoss" bottom: "s" bottom: "t" top: "l" loss_weight: 0.3 }'
        'layer { name: "m" type: "SoftmaxWithLoss" bottom: "a" bottom: "t" top: "m" }'
    )  # fmt: skip
    net = build(text)
    inputs = {"x": torch.randn(2, 3, 8, 7), "t": torch.tensor([1.0, 4.0])}
    result = Whole(net).forward(inputs)
    result.loss.backward()
    whole = [p.tensor.grad.clone() for p in net.params]
    for p in net.params:
        p.tensor.grad = None
    steps = Stepwise(net)
    again = steps.forward(inputs)
    assert again.loss.item() == pytest.approx(result.loss.item(), rel=1e-6)
    steps.backward(again)
    for param, expected in zip(net.params, whole, strict=True):
        torch.testing.assert_close(param.tensor.grad, expected)


SHARED = "".join(
    f'layer {{ name: "{n}" type: "InnerProduct" bottom: "x" top: "{n}" param {{ name: "w" %s }}'
    f" inner_product_param {{ num_output: 5 bias_term: false {GAUSS} }} }}"
    for n in ("a", "b")
)


def test_shared_parameters_are_one_tensor_and_their_diffs_add_up() -> None:
    net = build(INPUT + SHARED % ("", ""))
    assert len(net.params) == 1
    assert net.layer("a").blobs[0] is net.layer("b").blobs[0]
    x = torch.randn(2, 3, 8, 7)
    outputs = net({"x": x})
    (outputs["a"].sum() + outputs["b"].sum()).backward()
    torch.testing.assert_close(net.params[0].tensor.grad, 2 * x.reshape(2, -1).sum(0).expand(5, -1))


def test_permissive_sharing_of_other_shapes() -> None:
    text = INPUT + (
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }'
        "  inner_product_param { num_output: 2 bias_term: false } }"
        'layer { name: "f" type: "Reshape" bottom: "x" top: "f" reshape_param { shape { dim: -1 dim: 84 } } }'
        'layer { name: "b" type: "InnerProduct" bottom: "f" top: "b" param { name: "w" share_mode: PERMISSIVE }'
        "  inner_product_param { num_output: 4 bias_term: false } }"
    )  # fmt: skip
    net = build(text)
    with torch.no_grad():
        net.params[0].tensor.normal_()
    assert net.layer("b").blobs[0].shape == (4, 84)
    torch.testing.assert_close(net.layer("b").blobs[0].reshape(-1), net.layer("a").blobs[0].reshape(-1))
    outputs = net({"x": torch.ones(2, 3, 8, 7)})
    (outputs["a"].sum() + outputs["b"].sum()).backward()
    torch.testing.assert_close(net.params[0].tensor.grad, torch.full((2, 168), 2.0 + 4.0))


def test_permissive_sharing_between_train_and_test_net() -> None:
    text = INPUT + (
        'layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }'
        "  inner_product_param { num_output: 5 bias_term: false } }"
        'layer { name: "b" type: "Convolution" bottom: "x" top: "b" param { name: "w" share_mode: PERMISSIVE }'
        "  convolution_param { num_output: 5 kernel_h: 8 kernel_w: 7 bias_term: false } }"
    )  # fmt: skip
    trained, tested = build(text, TRAIN), build(text)
    weights.share(tested, trained)
    with torch.no_grad():
        trained.params[0].tensor.fill_(0.5)
    assert tested({"x": torch.ones(2, 3, 8, 7)})["b"].sum().item() == 2 * 5 * 168 * 0.5


def test_definition_holds_what_building_settles() -> None:
    text = (
        INPUT
        + LABELS
        + 'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "x" param { lr_mult: 0 decay_mult: 2 } } '
    )
    text += IP % ("", "") + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" } '
    param = weights.definition(build('force_backward: true name: "n" ' + text))
    assert (param.name, param.HasField("state"), param.force_backward) == ("n", False, False)
    assert {layer.phase for layer in param.layer} == {TEST}
    assert [(spec.lr_mult, spec.decay_mult) for spec in param.layer[2].param] == [(0, 2), (0, 1), (0, 1)]
    assert [list(layer.loss_weight) for layer in param.layer] == [[], [], [], [], [1.0]]


def test_export_without_what_is_shared() -> None:
    net = build(INPUT + SHARED % ("", ""))
    assert [blob.size for blobs in weights.export(net).values() for blob in blobs] == [840, 840]
    assert [blob.size for blobs in weights.export(net, shared=False).values() for blob in blobs] == [840, 0]


def test_log_names_sharers_where_they_are_built_and_needs_before_forcing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "caffecli")
    logger = logging.getLogger("caffecli")
    logger.addHandler(caplog.handler)
    try:
        build(
            "force_backward: true "
            + INPUT
            + RELU % ("r", "r")
            + SHARED.replace('bottom: "x"', 'bottom: "r"') % ("", "")
        )
    finally:
        logger.removeHandler(caplog.handler)
    said = [record.getMessage() for record in caplog.records]
    sharing = said.index("Sharing parameters 'w' owned by layer 'a', param index 0")
    assert said[sharing - 1].startswith("Memory required") and said[sharing - 2].startswith("Top shape")
    assert "r does not need backward computation." in said


def test_propagate_down_and_lr_mult() -> None:
    second = (
        'layer { name: "ip2" type: "InnerProduct" bottom: "y" top: "z" propagate_down: false'
        "  inner_product_param { num_output: 2 %s } }"
    )
    net = build(INPUT + IP % (GAUSS, "param { lr_mult: 0 }") + second % GAUSS)
    assert [p.tensor.requires_grad for p in net.params] == [False, True, True, True]
    net({"x": torch.randn(2, 3, 8, 7)})["z"].sum().backward()
    assert net.params[1].tensor.grad is None
    assert net.params[2].tensor.grad is not None


def test_force_backward_reaches_the_input() -> None:
    x = torch.randn(2, 3, 8, 7)
    net = build("force_backward: true " + INPUT + IP % (GAUSS, "param { lr_mult: 0 }"))
    steps = Stepwise(net)
    steps.backward(steps.forward({"x": x}), {"y": torch.ones(2, 5)})
    torch.testing.assert_close(
        steps.diff[steps.slot("x")], net.layer("ip").blobs[0].sum(0).reshape(1, 3, 8, 7).expand_as(x)
    )


def test_force_backward_outweighs_propagate_down() -> None:
    second = 'layer { name: "p" type: "Power" bottom: "y" top: "z" propagate_down: false loss_weight: 1 } '
    net = build("force_backward: true " + INPUT + IP % (GAUSS, "") + second)
    x = torch.randn(2, 3, 8, 7, requires_grad=True)
    Whole(net).forward({"x": x}).loss.backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_a_loss_without_a_top_counts() -> None:
    net = build(
        INPUT + LABELS + IP % (GAUSS, "") + 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" }'
    )
    result = Whole(net).forward({"x": torch.randn(2, 3, 8, 7), "t": torch.zeros(2)})
    assert float(result.loss.detach()) > 0
    assert net.outputs == []


def test_weights_by_layer_name() -> None:
    net = build(INPUT + IP % ("", ""))
    new: dict[str, list[np.ndarray]] = {
        "ip": [np.full((5, 168), 2, np.float32), np.arange(5, dtype=np.float32)],
        "gone": [np.zeros(3, np.float32)],
    }
    weights.copy(net, new, "w.caffemodel")
    assert (net.layer("ip").blobs[0] == 2).all()
    np.testing.assert_array_equal(weights.export(net)["ip"][1], np.arange(5))


@pytest.mark.parametrize(("name", "line"), [("w.caffemodel", "net.cpp:746"), ("w.caffemodel.h5", "net.cpp:801")])
def test_layers_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, line: str) -> None:
    caplog.set_level("INFO", "caffecli")
    trained = build(INPUT + IP % ("", "") + CONV % "")
    caffemodel.write(tmp_path / name, weights.definition(trained), weights.export(trained))
    logging.getLogger("caffecli").addHandler(caplog.handler)
    try:
        weights.load(build(INPUT + IP % ("", "")), tmp_path / name)
    finally:
        logging.getLogger("caffecli").removeHandler(caplog.handler)
    said = {record.getMessage(): vars(record)["source"] for record in caplog.records}
    assert said["Ignoring source layer conv"] == line


def test_four_dimensional_weights_of_2013() -> None:
    net = build(INPUT + IP % ("", ""))
    old = {"ip": [np.ones((1, 1, 5, 168), np.float32), np.ones((1, 1, 1, 5), np.float32)]}
    weights.copy(net, old, "old.caffemodel")
    assert (net.layer("ip").blobs[0] == 1).all()


def test_nothing_is_copied_unless_all_fits() -> None:
    net = build(INPUT + CONV % "" + IP % ("", ""))
    wrong: dict[str, list[np.ndarray]] = {
        "conv": [np.ones((4, 3, 3, 3), np.float32), np.ones(4, np.float32)],
        "ip": [np.ones((7, 168), np.float32)] * 2,
    }
    with pytest.raises(
        ShapeError, match=r"layer 'ip', blob 0: expected \(5, 168\), 'w' has \(7, 168\).*blob 1.*rename the layer"
    ):
        weights.copy(net, wrong, "w")
    assert not net.layer("conv").blobs[0].any()


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ('layer { name: "r" type: "ReLU" bottom: "xx" top: "y" }', SpecError, "did you mean 'x'"),
        (RELU % ("r", "y") + RELU % ("q", "y"), SpecError,
            "layer 'q': top blob 'y' is already produced by another layer"),
        ('layer { name: "r" type: "ReLU" bottom: "x" bottom: "x" top: "y" }', SpecError,
            "expected 1 bottom blob(s), got 2"),
        ('layer { name: "r" type: "Relu" bottom: "x" top: "y" }', SpecError,
            "unknown type 'Relu'; did you mean 'ReLU'"),
        (CONV % "" + IP.replace('"ip"', '"conv"') % ("", ""), SpecError, "layer 'conv' is defined twice"),
        (CONV % "group: 2", CaffeError, "layer 'conv'"),
        (IP % ("", "param { } param { } param { }"), SpecError, "3 param settings for 2 blob(s)"),
        (IP % ("", "propagate_down: true propagate_down: true"), SpecError,
            "propagate_down is given 2 times for 1 bottom(s)"),
        (IP % ("", "loss_weight: 1 loss_weight: 2"), SpecError, "loss_weight is given 2 times for 1 top(s)"),
        (SHARED % ("lr_mult: 1", "lr_mult: 2"), SpecError, "lr_mult 2 differs from 1; sharers must agree"),
        (IP % ("axis: 9", ""), CaffeError, "layer 'ip'"),
        (IP.replace("num_output: 5", "num_output: 2000000000") % ("", ""), ShapeError, "over 2^31 - 1"),
    ],
)  # fmt: skip
def test_wrong_definitions(text: str, kind: type[CaffeError], words: str) -> None:
    with pytest.raises(kind) as caught:
        build(INPUT + text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "setting"),
    [("Pooling", "pooling_param { kernel_size: 2 }"), ("MVN", ""), ("Im2col", "convolution_param { kernel_size: 1 }"),
     ("Deconvolution", "convolution_param { num_output: 2 kernel_size: 2 }"), ("Upsample", "")],
)  # fmt: skip
def test_bottoms_without_values(kind: str, setting: str) -> None:
    source = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 0 dim: 4 dim: 4 } } } '
        f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" {setting} }}'
    )
    with pytest.raises(ShapeError, match=r"cannot run on 'x' \(2, 0, 4, 4\): it needs values, and a dimension is 0$"):
        Net(text_format.Parse(source, NetParameter()))({"x": torch.zeros(2, 0, 4, 4)})


def test_slices_without_values() -> None:
    source = (
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 0 dim: 4 } } } '
        'layer { name: "l" type: "Slice" bottom: "x" top: "y" top: "z" }'
    )
    tops = Net(text_format.Parse(source, NetParameter()))({"x": torch.zeros(2, 0, 4)})
    assert [top.shape for top in tops.values()] == [(2, 0, 4)] * 2


def test_layers_that_keep_nothing_may_share_a_name(tmp_path: Path) -> None:
    """As those of Caffe's autoencoder do; a layer with weights may share its name with them.

    PyTorch's words are free too.
    """
    weighted = IP.replace('"ip"', '"relu"') % (GAUSS, "")
    net = build(
        INPUT + RELU % ("relu", "a") + weighted + RELU % ("relu", "b") + RELU % ("training", "d") + RELU % ("keys", "e")
    )
    assert len(net.layers) == len(net.nodes) == 7
    assert set(net({"x": torch.randn(2, 3, 8, 7)})) == {"a", "b", "d", "e", "y"}
    assert [array.shape for array in weights.export(net)["relu"]] == [(5, 168), (5,)]
    other = build(INPUT + RELU % ("relu", "b") + weighted)
    weights.copy(other, weights.export(net), "w")
    assert torch.equal(other.params[0].tensor, net.params[0].tensor)
    weights.share(other, net)
    assert other.nodes[-1].layer.blobs[0] is net.nodes[3].layer.blobs[0]


def test_inputs_that_do_not_fit() -> None:
    net = build(INPUT + IP % ("", ""))
    with pytest.raises(SpecError, match="no input blob 'z'; its inputs: x"):
        net({"z": torch.zeros(1)})
    with pytest.raises(ShapeError, match=r"layer 'ip' \(InnerProduct\): cannot run on 'x' \(2, 3, 9, 9\)"):
        net({"x": torch.zeros(2, 3, 9, 9)})


def test_a_python_layer_beside_its_net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beside_the_net.py").write_text(
        "from caffecli.layers.python import PythonLayerBase\n"
        "class Double(PythonLayerBase):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].shape)\n"
        "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
        "    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    layer = (
        'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "beside_the_net" layer: "Double" '
        "} }"
    )
    param = text_format.Parse(INPUT + layer, NetParameter())
    with pytest.raises(CaffeError, match="beside_the_net"):
        Net(param)
    x = torch.randn(2, 3, 8, 7)
    torch.testing.assert_close(Net(param, Context(folders=(tmp_path,)))({"x": x})["y"], 2 * x)
