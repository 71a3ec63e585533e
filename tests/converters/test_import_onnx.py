"""ONNX in: nets that give what onnxruntime gives, of every operator and form that is read."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from caffecli.errors import SpecError
from caffecli.net import exported
from converters.from_onnx import compare, graph
from converters.import_ import convert
from tests.converters.importing import module_of
from tests.converters.onnx_models import SHAPE, floats, ints, model, node, one, runtime
from tests.converters.torch_modules import MODULES, OPERATIONS

pytest.importorskip("onnxruntime")


def imported(made, tmp_path, audience="both", **given):
    path = tmp_path / "m.onnx"
    path.write_bytes(made.SerializeToString())
    return convert(graph.read(path, **given), "net", None, audience)


def check(made, tmp_path, audience="both", x=None, tolerance=1e-5):
    """The net gives what onnxruntime gives, in the same shapes."""
    dims = [dim.dim_value for dim in made.graph.input[0].type.tensor_type.shape.dim]
    x = floats(*dims) if x is None else x
    net = imported(made, tmp_path, audience)
    for came, wanted in zip(compare.outputs(net, [x]), runtime(made, x), strict=True):
        assert came.shape == wanted.shape
        np.testing.assert_allclose(came, wanted, rtol=0, atol=tolerance * max(np.abs(wanted).max(), 1e-3))
    return net


#: (channels) and (out, in, height, width)
C6, W = floats(6), floats(4, 6, 3, 3)
#: one node of each operator, with settings that matter
NODES = {
    "Abs": one("Abs"),
    "Add": one("Add", floats(6, 1, 1)),
    "Add a number": one("Add", np.float32(3)),
    "AveragePool": one("AveragePool", kernel_shape=[3, 2], strides=[2, 2]),
    "AveragePool pads": one("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "AveragePool pads counted": one(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 1, 1, 0], count_include_pad=1
    ),
    "AveragePool same": one("AveragePool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    "AveragePool 1": one("AveragePool", kernel_shape=[3], strides=[2], pads=[1, 1], shape=(2, 6, 9)),
    "BatchNormalization": one("BatchNormalization", C6, floats(6, seed=2), C6, np.abs(C6) + 0.5, epsilon=1e-3),
    "BatchNormalization of rows": one("BatchNormalization", C6, C6, C6, np.abs(C6) + 0.5, shape=(2, 6)),
    "Cast": one("Cast", to=1),
    "Celu": one("Celu", alpha=2.0),
    "Clip": one("Clip", np.float32(-0.5), np.float32(0.75)),
    "Clip 6": one("Clip", opset=6 + 3, min=0.0, max=6.0),
    "Clip above": one("Clip", None, np.float32(0.75)),
    "Conv": one("Conv", W, floats(4), pads=[1, 0, 1, 0], strides=[2, 1]),
    "Conv 1": one("Conv", floats(4, 6, 3), pads=[1, 1], shape=(2, 6, 9)),
    "Conv dilated": one("Conv", W, dilations=[2, 2], pads=[2, 2, 2, 2]),
    "Conv groups": one("Conv", floats(9, 2, 3, 3), group=3),
    "Conv lower": one("Conv", floats(4, 6, 4, 4), auto_pad="SAME_LOWER"),
    "Conv sides": one("Conv", W, pads=[0, 1, 2, 1]),
    "Conv upper": one("Conv", W, auto_pad="SAME_UPPER", strides=[2, 2]),
    "Conv valid": one("Conv", W, auto_pad="VALID"),
    "ConvTranspose": one("ConvTranspose", floats(6, 4, 3, 3), floats(4), strides=[2, 2], pads=[1, 1, 1, 1]),
    "ConvTranspose more": one(
        "ConvTranspose", floats(6, 4, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    "ConvTranspose sides": one("ConvTranspose", floats(6, 4, 3, 3), strides=[2, 2], pads=[0, 0, 1, 1]),
    "ConvTranspose same": one("ConvTranspose", floats(6, 4, 3, 3), strides=[2, 2], auto_pad="SAME_UPPER"),
    "ConvTranspose shape": one("ConvTranspose", floats(6, 4, 3, 3), strides=[2, 2], output_shape=[18, 17]),
    "DepthToSpace": one("DepthToSpace", blocksize=2, shape=(2, 8, 3, 5)),
    "DepthToSpace CRD": one("DepthToSpace", blocksize=2, mode="CRD", shape=(2, 8, 3, 5)),
    "Div": one("Div", floats(6, 1, 1) + 3),
    "Dropout 7": one("Dropout", opset=9, ratio=0.3),
    "Dropout": one("Dropout", np.float32(0.3)),
    "Elu": one("Elu", alpha=0.5),
    "Erf": one("Erf"),
    "Exp": one("Exp"),
    "Expand": one("Expand", ints(2, 6, 9, 8), shape=(2, 6, 1, 1)),
    "Flatten": one("Flatten", axis=1),
    "Gather": one("Gather", np.int64(2), axis=1),
    "Gather places": one("Gather", ints(3, 1, 1), axis=1),
    "Gelu": one("Gelu", opset=20),
    "Gelu tanh": one("Gelu", opset=20, approximate="tanh"),
    "Gemm": one("Gemm", floats(6, 5), floats(5), shape=(2, 6)),
    "Gemm all": one("Gemm", floats(5, 6), floats(1, 5), transB=1, alpha=0.5, beta=2.0, shape=(2, 6)),
    "GlobalAveragePool": one("GlobalAveragePool"),
    "GlobalAveragePool 1": one("GlobalAveragePool", shape=(2, 6, 9)),
    "GlobalMaxPool": one("GlobalMaxPool"),
    "GroupNormalization": one("GroupNormalization", C6, C6, opset=21, num_groups=3),
    "HardSigmoid": one("HardSigmoid", alpha=0.3, beta=0.4),
    "HardSwish": one("HardSwish"),
    "Identity": one("Identity"),
    "InstanceNormalization": one("InstanceNormalization", C6, C6),
    "LRN": one("LRN", size=3, alpha=0.5, beta=0.6, bias=2.0),
    "LayerNormalization": one("LayerNormalization", floats(8), floats(8)),
    "LayerNormalization of all": one("LayerNormalization", floats(6, 9, 8), axis=1),
    "LeakyRelu": one("LeakyRelu", alpha=0.1),
    "LogSoftmax": one("LogSoftmax", axis=1),
    "LpNormalization": one("LpNormalization", axis=1),
    "MatMul": one("MatMul", floats(8, 5)),
    "MatMul rows": one("MatMul", floats(6, 5), shape=(2, 6)),
    "Max": one("Max", np.float32(0.3)),
    "MaxPool": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "MaxPool ceil": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
    "MaxPool floor": one("MaxPool", kernel_shape=[2, 3], strides=[2, 2]),
    "MaxPool lower": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER", shape=(2, 6, 8, 8)),
    "MaxPool sides": one("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
    "MaxPool behind": one("MaxPool", kernel_shape=[3, 3], strides=[1, 1], pads=[0, 0, 2, 1]),
    "MaxPool upper": one("MaxPool", kernel_shape=[2, 2], auto_pad="SAME_UPPER"),
    "MeanVarianceNormalization": one("MeanVarianceNormalization", axes=[2, 3]),
    "Min": one("Min", np.float32(0.3)),
    "Mish": one("Mish", opset=18),
    "Mul": one("Mul", floats(6, 1, 1)),
    "Neg": one("Neg"),
    "PRelu": one("PRelu", floats(6, 1, 1)),
    "PRelu one": one("PRelu", floats(1)),
    "Pad": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 3)),
    "Pad 2": one("Pad", opset=9, pads=[0, 0, 1, 2, 0, 0, 0, 3]),
    "Pad axes": one("Pad", ints(1, 2), None, ints(2), opset=18),
    "Pad cut": one("Pad", ints(0, 0, -1, 2, 0, 0, -2, 0)),
    "Pad edge": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 3), mode="edge"),
    "Pad reflect": one("Pad", ints(0, 0, 1, 2, 0, 0, 0, 3), mode="reflect"),
    "Pow": one("Pow", np.float32(2)),
    "ReduceL2": one("ReduceL2", axes=[1]),
    "ReduceMax": one("ReduceMax", axes=[2, 3], keepdims=0),
    "ReduceMean": one("ReduceMean", axes=[2, 3]),
    "ReduceMean 18": one("ReduceMean", ints(-1, -2), opset=18, keepdims=0),
    "ReduceMean of channels": one("ReduceMean", axes=[1]),
    "ReduceMean of rows": one("ReduceMean", axes=[3]),
    "ReduceMean of columns": one("ReduceMean", axes=[2], keepdims=0),
    "ReduceMean of items": one("ReduceMean", axes=[1, 2, 3]),
    "ReduceSum 11": one("ReduceSum", opset=11, axes=[2, 3]),
    "ReduceSum": one("ReduceSum", ints(1), opset=13),
    "Relu": one("Relu"),
    "Reshape": one("Reshape", ints(0, 3, -1, 8)),
    "Resize bilinear": one("Resize", None, np.asarray([1, 1, 2, 2], np.float32), mode="linear"),
    "Resize bilinear to": one("Resize", None, None, ints(2, 6, 13, 5), mode="linear"),
    "Resize corners": one(
        "Resize", None, None, ints(2, 6, 17, 12), mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "Resize cubic": one("Resize", None, np.asarray([1, 1, 2, 1.5], np.float32), mode="cubic", cubic_coeff_a=-0.5),
    "Resize nearest": one("Resize", None, np.asarray([1, 1, 2, 3], np.float32), nearest_mode="floor"),
    "Resize nearest 10": one("Resize", np.asarray([1, 1, 2, 2], np.float32), opset=10),
    "Resize odd": one(
        "Resize", None, np.asarray([1, 1, 1.7, 0.6], np.float32), coordinate_transformation_mode="asymmetric"
    ),
    "Selu": one("Selu"),
    "Sigmoid": one("Sigmoid"),
    "Slice 9": one("Slice", opset=9, starts=[1, 2], ends=[4, 100], axes=[1, 2]),
    "Slice": one("Slice", ints(1, -7), ints(4, -2), ints(1, 2)),
    "Slice steps": one("Slice", ints(1, 0), ints(99, 99), ints(2, 3), ints(2, 3)),
    "Slice back": one("Slice", ints(-1), ints(-99), ints(1), ints(-1)),
    "Softmax": one("Softmax", axis=-1),
    "Softmax 11": one("Softmax", opset=11),
    "Softmax 11 of rows": one("Softmax", opset=11, shape=(2, 6)),
    "Softplus": one("Softplus"),
    "Softsign": one("Softsign"),
    "SpaceToDepth": one("SpaceToDepth", blocksize=2, shape=(2, 3, 4, 6)),
    "Squeeze": one("Squeeze", ints(2, 3), shape=(2, 6, 1, 1)),
    "Squeeze 11": one("Squeeze", opset=11, axes=[2], shape=(2, 6, 1, 8)),
    "Sub": one("Sub", floats(9, 8)),
    "Swish": one("Swish", opset=24, alpha=1.5),
    "Tanh": one("Tanh"),
    "ThresholdedRelu": one("ThresholdedRelu", alpha=0.5),
    "Tile": one("Tile", ints(1, 2, 1, 3)),
    "Transpose": one("Transpose", perm=[0, 2, 1], shape=(2, 6, 9)),
    "Unsqueeze": one("Unsqueeze", ints(2), shape=(2, 6)),
    "Unsqueeze 11": one("Unsqueeze", opset=11, axes=[2], shape=(2, 6)),
    "Upsample": one("Upsample", np.asarray([1, 1, 2, 2], np.float32), opset=9),
    "Upsample 7": one("Upsample", opset=7, scales=[1.0, 1.0, 2.0, 2.0], mode="linear"),
    "Upsample bilinear": one("Upsample", np.asarray([1, 1, 2, 2], np.float32), opset=9, mode="linear"),
}


@pytest.mark.parametrize("name", [*NODES])
def test_gives_what_onnxruntime_gives(name, tmp_path):
    check(NODES[name], tmp_path)


@pytest.mark.parametrize("audience", ["caffe", "forks", "opencv"])
def test_for_each_audience(audience, tmp_path):
    for name in ("Clip", "Clip 6", "MaxPool floor", "MaxPool sides", "AveragePool pads counted", "Resize corners"):
        check(NODES[name], tmp_path, audience)
    types = {layer.type for layer in imported(NODES["Resize corners"], tmp_path, audience).net.layer}
    assert ("Interp" in types) == (audience == "forks")


BN = {"g": C6, "h": floats(6, seed=3), "m": floats(6, seed=4), "v": np.abs(C6) + 0.5}


def resnet(opset=13, shape=SHAPE):
    """A block of a ResNet, with the names that torch's exporter gives."""
    nodes = [
        node("Conv", "x conv.weight", "c", "/layer1/layer1.0/conv1/Conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c g h m v", "n", "/layer1/layer1.0/bn1/BatchNormalization"),
        node("Relu", "n", "r", "/layer1/layer1.0/relu/Relu"),
        node("Conv", "r conv2.weight bias", "d", "/layer1/layer1.0/conv2/Conv"),
        node("Add", "d x", "s", "/layer1/layer1.0/Add"),
        node("Relu", "s", "t", "/layer1/layer1.0/relu_1/Relu"),
        node("GlobalAveragePool", "t", "p", "/avgpool/GlobalAveragePool"),
        node("Flatten", "p", "f", "/Flatten"),
        node("Gemm", "f fc.weight fc.bias", "logits", "/fc/Gemm", transB=1),
    ]
    arrays = {
        "conv.weight": floats(6, 6, 3, 3),
        "conv2.weight": floats(6, 6, 1, 1),
        "bias": floats(6, seed=5),
        "fc.weight": floats(10, 6),
        "fc.bias": floats(10),
    }
    return model(nodes, arrays | BN, shape, "logits", opset)


@pytest.mark.parametrize("opset", [9, 13, 17, 21])
def test_a_resnets_names_and_weights_stay(opset, tmp_path):
    made = resnet(opset)
    net = check(made, tmp_path)
    assert [layer.name for layer in net.net.layer] == [
        "x",
        "layer1.0.conv1",
        "layer1.0.bn1",
        "layer1.0.bn1/scale",
        "layer1.0.relu",
        "layer1.0.conv2",
        "layer1.0.add",
        "layer1.0.relu_1",
        "avgpool",
        "fc",
    ]
    assert net.inputs == ["x"]
    assert net.outputs == ["logits"]
    np.testing.assert_array_equal(net.weights["fc"][0], floats(10, 6))
    np.testing.assert_array_equal(net.weights["layer1.0.conv1"][0], floats(6, 6, 3, 3))


def test_a_free_batch(tmp_path):
    made = resnet(shape=("batch", 6, 9, 8))
    for batch in (None, 5):
        net = imported(made, tmp_path, batch=batch)
        assert net.net.layer[0].input_param.shape[0].dim == [batch or 1, 6, 9, 8]
    x = floats(3, 6, 9, 8)
    net.net.layer[0].input_param.shape[0].dim[0] = 3
    np.testing.assert_allclose(compare.outputs(net, [x])[0], runtime(made, x)[0], rtol=0, atol=1e-5)


def test_channels_last_as_tensorflow_writes_them(tmp_path):
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Transpose", "c", "t", perm=[0, 2, 3, 1]),
        node("Add", "t bias", "b"),
        node("Relu", "b", "r"),
        node("Transpose", "r", "u", perm=[0, 3, 1, 2]),
        node("MaxPool", "u", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Transpose", "p", "q", perm=[0, 2, 3, 1]),
        node("ReduceMean", "q", "m", axes=[1, 2], keepdims=0),
        node("MatMul", "m matrix", "f"),
        node("Add", "f shift", "y"),
    ]
    arrays = {"w": floats(4, 6, 3, 3), "bias": floats(4), "matrix": floats(4, 3), "shift": floats(3)}
    made = check(model(nodes, arrays, (2, 6, 8, 8)), tmp_path)
    assert not {layer.type for layer in made.net.layer} & {"Permute", "Slice", "Concat"}


def test_inputs_that_are_weights_and_constants_among_nodes(tmp_path):
    """As old exporters write them: weights are inputs too, and shapes are computed."""
    made = model(
        [
            node("Constant", "", "w", value=numpy_helper.from_array(floats(4, 6, 3, 3))),
            node("Conv", "x w", "c"),
            node("Shape", "c", "s"),
            node("Constant", "", "zero", value=numpy_helper.from_array(np.int64(0))),
            node("Gather", "s zero", "n"),
            node("Unsqueeze", "n", "n1", axes=[0]),
            node("Concat", "n1 rest", "shape", axis=0),
            node("Reshape", "c shape", "r"),
            node("Gemm", "r matrix bias", "y"),
        ],
        {"rest": ints(-1), "matrix": floats(4 * 7 * 6, 3), "bias": floats(3)},
        opset=9,
    )
    made.graph.input.append(helper.make_tensor_value_info("rest", TensorProto.INT64, [1]))
    net = check(made, tmp_path)
    assert [layer.type for layer in net.net.layer] == ["Input", "Convolution", "InnerProduct"]


def test_a_branch_that_is_decided_by_a_constant(tmp_path):
    then, other = (
        helper.make_graph([node(kind, "x", f"{kind}_y")], kind, [], [helper.make_empty_tensor_value_info(f"{kind}_y")])
        for kind in ("Relu", "Abs")
    )
    nodes = [node("Shape", "x", "s"), node("Gather", "s one", "n"), node("Equal", "n six", "c")]
    nodes += [node("If", "c", "z", "if", then_branch=then, else_branch=other), node("Neg", "z", "y")]
    made = check(model(nodes, {"one": np.int64(1), "six": np.int64(6)}), tmp_path)
    assert [layer.type for layer in made.net.layer] == ["Input", "ReLU", "Power"]


def test_several_outputs_of_which_one_is_read(tmp_path):
    made = check(model([node("Relu", "x", "mid"), node("Abs", "mid", "end")], outputs="mid end"), tmp_path)
    assert made.outputs == ["mid", "end"]


def yolo_head(anchors=3, values=7):
    """YOLOv5's: boxes of a grid, of which each is a row."""
    grid = floats(1, anchors, 9, 8, 2)
    return model(
        [
            node("Conv", "x w b", "c", "/model.24/m.0/Conv"),
            node("Reshape", "c five", "r"),
            node("Transpose", "r", "t", perm=[0, 1, 3, 4, 2]),
            node("Sigmoid", "t", "s"),
            node("Split", "s parts", "xy wh rest", axis=4),
            node("Mul", "xy two", "xy2"),
            node("Add", "xy2 grid", "xy3"),
            node("Mul", "xy3 stride", "xy4"),
            node("Mul", "wh two", "wh2"),
            node("Pow", "wh2 two", "wh3"),
            node("Mul", "wh3 grid", "wh4"),
            node("Concat", "xy4 wh4 rest", "all", axis=4),
            node("Reshape", "all rows", "y"),
        ],
        {
            "w": floats(anchors * values, 6, 1, 1),
            "b": floats(anchors * values),
            "five": ints(2, anchors, values, 9, 8),
            "rows": ints(2, -1, values),
            "parts": ints(2, 2, values - 4),
            "two": np.float32(2),
            "stride": np.float32(8),
            "grid": grid,
        },
    )


@pytest.mark.parametrize("audience", ["both", "caffe", "forks", "opencv"])
def test_heads_of_yolo(audience, tmp_path):
    check(yolo_head(), tmp_path, audience)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("opset", [11, 17])
@pytest.mark.parametrize("name", [*MODULES])
def test_modules_by_torchs_exporter(name, opset, tmp_path):
    _exported(name, tmp_path, dynamo=False, opset_version=opset)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*MODULES, *OPERATIONS])
def test_by_torchs_other_exporter(name, tmp_path):
    _exported(name, tmp_path, dynamo=True, external_data=False, verbose=False)


def _exported(name, tmp_path, **given):
    module, example = module_of(name)
    path = tmp_path / "m.onnx"
    try:
        with exported.quiet(), torch.no_grad():
            torch.onnx.export(module, (example,), path, **given)
    except Exception as error:
        pytest.skip(f"torch.onnx does not export it: {error!s:.80}")
    try:
        check(onnx.load(path), tmp_path, x=example.numpy())
    except SpecError as error:  # torch.export decomposes some into gathering, and LRN into pooling of volumes
        known = (
            "GatherND (no such layer)",
            "its windows have 3 axes",
            "its indices are read",
            "chooses between values",
        )
        if not any(reason in str(error) for reason in known):
            raise
        pytest.skip("torch.onnx writes it by what Caffe has not")
