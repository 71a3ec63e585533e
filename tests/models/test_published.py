"""Blobs of published weights, by layer: what the published definitions give,
of nets of which Caffe's record says nothing.

Each net's readme names the definition. The others are held to tests/golden/model_shapes.json.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter, SolverParameter
from caffecli.spec import load, text
from caffecli.spec.filter import filter_net

MODELS = Path(__file__).parents[2] / "models"

# A layer's name and its weights' shape; its bias has as many values as the first axis. A layer without a bias ends in
# an exclamation mark, and where there are other blobs all are given.
VGG16 = """
conv1_1 64x3x3x3 conv1_2 64x64x3x3 conv2_1 128x64x3x3 conv2_2 128x128x3x3 conv3_1 256x128x3x3 conv3_2 256x256x3x3
conv3_3 256x256x3x3 conv4_1 512x256x3x3 conv4_2 512x512x3x3 conv4_3 512x512x3x3 conv5_1 512x512x3x3 conv5_2 512x512x3x3
conv5_3 512x512x3x3
"""
VGG19 = """
conv1_1 64x3x3x3 conv1_2 64x64x3x3 conv2_1 128x64x3x3 conv2_2 128x128x3x3 conv3_1 256x128x3x3 conv3_2 256x256x3x3
conv3_3 256x256x3x3 conv3_4 256x256x3x3 conv4_1 512x256x3x3 conv4_2 512x512x3x3 conv4_3 512x512x3x3 conv4_4 512x512x3x3
conv5_1 512x512x3x3 conv5_2 512x512x3x3 conv5_3 512x512x3x3 conv5_4 512x512x3x3
"""
CNN_M = """
conv1 96x3x7x7 conv2 256x96x5x5 conv3 512x256x3x3 conv4 512x512x3x3 conv5 512x512x3x3 fc6 4096x18432 fc7 4096x4096
fc8 1000x4096
"""
FCN = f"{VGG16} fc6 4096x512x7x7 fc7 4096x4096x1x1 score_fr 21x4096x1x1"
FACE = "conv1 96x3x7x7 conv2 256x96x5x5 conv3 384x256x3x3 fc6 512x18816 fc7 512x512"
PUBLISHED = {
    "vgg16": f"{VGG16} fc6 4096x25088 fc7 4096x4096 fc8 1000x4096",
    "vgg19": f"{VGG19} fc6 4096x25088 fc7 4096x4096 fc8 1000x4096",
    "vgg_face": f"{VGG16} fc6 4096x25088 fc7 4096x4096 fc8 2622x4096",
    "vgg_cnn_f": """
        conv1 64x3x11x11 conv2 256x64x5x5 conv3 256x256x3x3 conv4 256x256x3x3 conv5 256x256x3x3 fc6 4096x9216 fc7
          4096x4096
        fc8 1000x4096
    """,
    "vgg_cnn_m": CNN_M,
    "vgg_cnn_s": CNN_M,
    "nin_imagenet": """
        conv1 96x3x11x11 cccp1 96x96x1x1 cccp2 96x96x1x1 conv2 256x96x5x5 cccp3 256x256x1x1 cccp4 256x256x1x1 conv3
          384x256x3x3
        cccp5 384x384x1x1 cccp6 384x384x1x1 conv4-1024 1024x384x3x3 cccp7-1024 1024x1024x1x1 cccp8-1024 1000x1024x1x1
    """,
    "nin_cifar10": """
        conv1 192x3x5x5 cccp1 160x192x1x1 cccp2 96x160x1x1 conv2 192x96x5x5 cccp3 192x192x1x1 cccp4 192x192x1x1 conv3
          192x192x3x3
        cccp5 192x192x1x1 cccp6 10x192x1x1
    """,
    "age_net": f"{FACE} fc8 8x512",
    "gender_net": f"{FACE} fc8 2x512",
    "binary_hashing": """
        conv1 96x3x11x11 conv2 256x48x5x5 conv3 384x256x3x3 conv4 384x192x3x3 conv5 256x192x3x3 fc6 4096x9216 fc7
          4096x4096
        fc8_kevin 48x4096
    """,
    "vanilla_cnn": "Conv1 16x3x5x5 Conv2 48x16x3x3 Conv3 64x48x3x3 Conv4 64x64x2x2 Dense1 100x576 Dense2 10x100",
    "fcn32s": f"{FCN} upscore 21x21x64x64!",
    "fcn16s": f"{FCN} upscore2 21x21x4x4! score_pool4 21x512x1x1 upscore16 21x21x32x32!",
    "parsenet": f"""
        {VGG16} fc6 1024x512x3x3 fc7 1024x1024x1x1 fc7_norm 1024! pool6_1x1_norm 1024! fc7_norm_score21 21x1024x1x1
        pool6_1x1_norm_score21 21x1024x1x1 upscore21 21x1x16x16
    """,
    "hed": f"""
        {VGG16} score-dsn1 1x64x1x1 score-dsn2 1x128x1x1 score-dsn3 1x256x1x1 score-dsn4 1x512x1x1 score-dsn5 1x512x1x1
        upsample_2 1x1x4x4 upsample_4 1x1x8x8 upsample_8 1x1x16x16 upsample_16 1x1x32x32 new-score-weighting 1x5x1x1
    """,
    "s2vt": """
        embed_encoder 500x4096 embedding 46168x500! lstm1 4000x500,4000,4000x1000 lstm2 4000x1501,4000,4000x1000
        predict 46168x1000
    """,
}
SEGNET_BACK = """
conv5_3_D 512x512x3x3 conv5_2_D 512x512x3x3 conv5_1_D 512x512x3x3 conv4_3_D 512x512x3x3 conv4_2_D 512x512x3x3
conv4_1_D 256x512x3x3 conv3_3_D 256x256x3x3 conv3_2_D 256x256x3x3 conv3_1_D 128x256x3x3 conv2_2_D 128x128x3x3
conv2_1_D 64x128x3x3 conv1_2_D 64x64x3x3 conv1_1_D 11x64x3x3
"""


def blobs_of(name: str) -> dict[str, list[tuple[int, ...]]]:
    param = load.load_net(MODELS / name / "deploy.prototxt")
    param.state.phase = TEST
    net = Net(param)
    return {
        node.name: [tuple(blob.shape) for blob in node.layer.blobs] for node in net.nodes if len(list(node.layer.blobs))
    }


def told(table: str) -> dict[str, list[tuple[int, ...]]]:
    words = table.split()
    blobs = {}
    for name, shapes in zip(words[::2], words[1::2], strict=True):
        each = [tuple(map(int, shape.split("x"))) for shape in shapes.rstrip("!").split(",")]
        blobs[name] = each if len(each) > 1 or shapes.endswith("!") else [each[0], each[0][:1]]
    return blobs


@pytest.fixture(autouse=True)
def without_fillers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes alone: VGG's 138 million values need not be drawn."""
    monkeypatch.setattr("caffecli.layers.base.fill", lambda *arguments: None)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_weights_fit_by_name_and_shape(name):
    assert blobs_of(name) == told(PUBLISHED[name])


def test_published_weights_of_segnet_fit_by_name_and_shape():
    convolutions = told(VGG16 + SEGNET_BACK)
    normed = {
        f"{name}_bn": [(1, shapes[0][0], 1, 1)] * 2 for name, shapes in convolutions.items() if name != "conv1_1_D"
    }
    assert blobs_of("segnet") == convolutions | normed


def layers_of(name: str, file: str, phase: int = TRAIN) -> dict:
    param = text.read(MODELS / name / file, NetParameter)
    param.state.phase = phase  # type: ignore[assignment]
    return {layer.name: layer for layer in filter_net(param, param.state).layer}


@pytest.mark.parametrize(
    ("name", "norms", "pools"),
    [
        ("vgg_cnn_f", ("norm1", "norm2"), {"pool1": (3, 2), "pool2": (3, 2), "pool5": (3, 2)}),
        ("vgg_cnn_m", ("norm1", "norm2"), {"pool1": (3, 2), "pool2": (3, 2), "pool5": (3, 2)}),
        ("vgg_cnn_s", ("norm1",), {"pool1": (3, 3), "pool2": (2, 2), "pool5": (3, 3)}),
    ],
)
def test_cnn_f_m_and_s_normalise_and_pool_as_published(name, norms, pools):
    layers = layers_of(name, "deploy.prototxt")
    found = {layer.name: layer.lrn_param for layer in layers.values() if layer.type == "LRN"}
    assert tuple(found) == norms
    for norm in found.values():
        assert (norm.local_size, norm.k) == (5, 2)
        assert (norm.alpha, norm.beta) == pytest.approx((0.0005, 0.75))
    assert {
        layer.name: (layer.pooling_param.kernel_size, layer.pooling_param.stride)
        for layer in layers.values()
        if layer.type == "Pooling"
    } == pools


def test_parsenet_keeps_an_eighth_of_the_picture_and_sees_far():
    layers = layers_of("parsenet", "train_val.prototxt")
    pools = {f"pool{number}": (2, 2, 0) if number < 4 else (3, 1, 1) for number in range(1, 6)}
    assert {
        name: (
            layers[name].pooling_param.kernel_size,
            layers[name].pooling_param.stride,
            layers[name].pooling_param.pad,
        )
        for name in pools
    } == pools
    spread = {"conv4_3": [], "conv5_1": [2], "conv5_2": [2], "conv5_3": [2], "fc6": [12]}
    assert {name: list(layers[name].convolution_param.dilation) for name in spread} == spread
    assert [list(layers[name].convolution_param.pad) for name in ("conv5_1", "conv5_3", "fc6")] == [[2], [2], [12]]
    assert [param.lr_mult for param in layers["fc7_norm_score21"].param] == [10, 20]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("age_net", {"base_lr": 0.001, "stepsize": 10000, "max_iter": 50000, "weight_decay": 0.0005}),
        ("binary_hashing", {"base_lr": 0.001, "stepsize": 25000, "max_iter": 50000, "weight_decay": 0.0005}),
        ("fcn8s", {"base_lr": 1e-14, "momentum": 0.99, "max_iter": 100000, "weight_decay": 0.0005}),
        ("hed", {"base_lr": 1e-6, "stepsize": 10000, "max_iter": 30001, "weight_decay": 0.0002, "iter_size": 10}),
        (
            "nin_cifar10",
            {"base_lr": 0.1, "lr_policy": "step", "stepsize": 100000, "max_iter": 120000, "weight_decay": 0.0001},
        ),
        ("nin_imagenet", {"base_lr": 0.01, "stepsize": 200000, "max_iter": 450000, "weight_decay": 0.0005}),
        ("s2vt", {"base_lr": 0.01, "gamma": 0.5, "stepsize": 20000, "max_iter": 25000, "clip_gradients": 10}),
        ("segnet", {"base_lr": 0.001, "lr_policy": "step", "gamma": 1, "max_iter": 40000, "weight_decay": 0.0005}),
        (
            "squeezenet_v1.1",
            {"base_lr": 0.04, "lr_policy": "poly", "power": 1, "max_iter": 170000, "weight_decay": 0.0002},
        ),
        ("vanilla_cnn", {"type": "Adam", "base_lr": 1e-5, "momentum2": 0.999, "max_iter": 1400000}),
    ],
)
def test_solvers_have_the_published_settings(name, settings):
    solver = text.read(MODELS / name / "solver.prototxt", SolverParameter)
    assert {key: getattr(solver, key) for key in settings} == {
        key: pytest.approx(value) if isinstance(value, float) else value for key, value in settings.items()
    }
