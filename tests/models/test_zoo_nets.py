"""The zoo's nets at work: they run forward, and a step down the gradient lowers the loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.net.net import Net
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from caffecli.spec import load, text
from caffecli.spec.filter import filter_net
from caffecli.spec.upgrade import needs_upgrade
from scripts.zoo.catalogue import MODELS as ZOO
from scripts.zoo.model import MODELS
from scripts.zoo.surgery import interpolation

#: Over five seconds, or over a gigabyte.
LARGE = {
    *("vgg16", "vgg19", "vgg_face", "vgg_cnn_f", "vgg_cnn_m", "vgg_cnn_s", "resnet50", "resnet101", "resnet152"),
    *("fcn32s", "fcn16s", "fcn8s", "parsenet", "hed", "segnet", "s2vt", "bvlc_googlenet", "binary_hashing"),
    *("ssd300_vgg16", "finetune_flickr_style", "bvlc_reference_rcnn_ilsvrc13", "nin_imagenet"),
    *("faster_rcnn_zf", "faster_rcnn_vgg16", "rfcn_resnet50"),
}
#: Where the pictures may have any size, small ones.
SMALL = {
    **dict.fromkeys(("fcn32s", "fcn16s", "fcn8s", "parsenet", "hed"), (1, 3, 64, 64)),
    **dict.fromkeys(("faster_rcnn_zf", "faster_rcnn_vgg16", "rfcn_resnet50"), (1, 3, 128, 160)),
    **dict.fromkeys(
        ("squeezenet_v1.0", "squeezenet_v1.1", "mobilenet", "mobilenet_v2", "mobilenet_yolov3"), (2, 3, 96, 96)
    ),
}
#: Data whose shapes are not a picture's and a class's.
SHAPES = {
    "mnist_autoencoder": {"data": (4, 1, 28, 28)},
    "mnist_siamese": {"pair_data": (4, 2, 28, 28), "sim": (4,)},
    "vanilla_cnn": {"X": (4, 3, 40, 40), "landmarks": (4, 10)},
    "segnet": {"data": (1, 3, 360, 480), "label": (1, 1, 360, 480)},
    **{name: {"data": (2, 3, 300, 300), "label": (1, 1, 3, 8)} for name in ("ssd300_vgg16", "mobilenet_ssd")},
    "mobilenet_yolov3": {"data": (2, 3, 96, 96), "label": (2, 1, 2, 5)},
    "s2vt": {
        **dict.fromkeys(("cont_sentence", "input_sentence", "target_sentence", "stage_indicator"), (3, 2)),
        "frame_fc7": (3, 2, 4096),
    },
    **{
        name: {"data": SMALL[name], "label": (1, 1, 64, 64)}
        for name in ("fcn32s", "fcn16s", "fcn8s", "parsenet", "hed")
    },
}
#: item, class, instance, corners, difficult
BOXES = [[0, 3, 0, 0.1, 0.1, 0.5, 0.6, 0], [0, 7, 0, 0.4, 0.3, 0.9, 0.9, 0], [1, 3, 0, 0.2, 0.05, 0.6, 0.4, 0]]
#: class, centre, size
YOLO_BOXES = [[[3, 0.3, 0.35, 0.4, 0.5], [7, 0.65, 0.6, 0.5, 0.6]], [[3, 0.4, 0.2, 0.4, 0.35], [0, 0, 0, 0, 0]]]
WHOLE = ("sim", "cont_sentence", "input_sentence", "target_sentence", "stage_indicator")
TRAINED = [name for name in ZOO if "train_val.prototxt" in ZOO[name].files]


def cases(names):
    return [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in names]


def read(name: str, file: str, phase: int) -> NetParameter:
    param = text.read(MODELS / name / file, NetParameter)
    assert not needs_upgrade(param)
    param.state.phase = phase  # type: ignore[assignment]
    return filter_net(param, param.state)


def shapes_of(name: str) -> dict[str, tuple[int, ...]]:
    if name in SHAPES:
        return SHAPES[name]  # type: ignore[return-value]
    dims = load.load_net(MODELS / name / "deploy.prototxt").layer[0].input_param.shape[0].dim
    shape = SMALL.get(name, (2, *dims[1:]))
    return {"data": shape, "label": shape[:1]}


def fed_by_hand(param: NetParameter, shapes: dict[str, tuple[int, ...]]) -> NetParameter:
    """The net with Inputs in place of its data layers and without its Dropouts, so that two passes can be compared."""
    made = NetParameter(name=param.name, state=param.state)
    for name, shape in shapes.items():
        layer = LayerParameter(name=f"given {name}", type="Input", top=[name])
        layer.input_param.shape.add().dim.extend(shape)
        made.layer.append(layer)
    made.layer.extend(layer for layer in param.layer if layer.bottom and layer.type != "Dropout")
    return made


def batch(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    given = {}
    for name, shape in shapes.items():
        count = int(np.prod(shape))
        if name == "label" and shape[-1] == 8 and len(shape) == 4:
            values = torch.tensor(BOXES)
        elif name == "label" and shape[-1] == 5 and len(shape) == 4:
            values = torch.tensor(YOLO_BOXES)
        elif name == "label":
            values = torch.ones(count)
        elif name == "im_info":
            values = torch.tensor([128.0, 160, 1])
        elif name in WHOLE:
            values = (torch.arange(count) % 2).float()
        else:
            values = torch.randn(count, generator=random)
        given[name] = values.reshape(shape)
    return given


def interpolate(net: Net) -> None:
    for node in net.nodes:
        if (
            node.layer.type == "Deconvolution" and node.layer.param.convolution_param.group == 1
        ):  # Caffe's filler does for others
            weights = node.layer.blobs[0]
            with torch.no_grad():
                weights.copy_(torch.from_numpy(interpolation(tuple(weights.shape))))


@pytest.mark.parametrize("name", ZOO)
def test_every_layer_and_every_loss_has_a_name_of_its_own(name):
    for file in ZOO[name].files:
        if file == "deploy.prototxt" or file == "train_val.prototxt":
            for phase in (TRAIN, TEST):
                names = [layer.name for layer in read(name, file, phase).layer]
                assert len(set(names)) == len(names) and all(names)


@pytest.mark.parametrize("name", cases(ZOO))
def test_deploy_runs_forward(name):
    torch.manual_seed(1)
    param = read(name, "deploy.prototxt", TEST)
    for layer in param.layer:
        if layer.type == "Input":
            dims = layer.input_param.shape[0].dim
            small = SMALL.get(name, (1, *dims[1:]))
            dims[:] = small if len(dims) == 4 else dims
    net = Net(param)
    with torch.no_grad():
        outputs = net(batch({blob: tuple(net.shape(blob)) for blob in net.inputs}))
    assert outputs
    for blob, values in outputs.items():
        assert torch.isfinite(values).all(), blob
        if net.nodes[-1].layer.type == "Softmax" and blob in net.nodes[-1].layer.param.top:
            total = values.sum(net.nodes[-1].layer.param.softmax_param.axis)
            torch.testing.assert_close(total, torch.ones_like(total))


@pytest.mark.parametrize("name", cases(TRAINED))
def test_a_step_down_the_gradient_lowers_the_loss(name):
    torch.manual_seed(1)
    shapes = shapes_of(name)
    net = Net(fed_by_hand(read(name, "train_val.prototxt", TRAIN), shapes))
    interpolate(net)
    given = batch(shapes)
    learnt = [param.tensor for param in net.params if param.lr_mult]
    loss = Whole(net).forward(given).loss
    before = float(loss.detach())
    gradients = torch.autograd.grad(loss, learnt, allow_unused=True)
    length = sum(float((each**2).sum()) for each in gradients if each is not None)
    assert np.isfinite(length) and length > 0
    done = 0.0
    for step in (0.1, 0.01, 0.001):  # what part of the loss a step would take away if the gradient stayed
        rate = step * before / length
        with torch.no_grad():
            for value, gradient in zip(learnt, gradients, strict=True):
                if gradient is not None:
                    value -= (rate - done) * gradient
            done = rate
            after = float(Whole(net).forward(given).loss.detach())
        if after < before:
            return
    pytest.fail(f"the loss went from {before} to {after}")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("faster_rcnn_zf", "train"),
        ("faster_rcnn_vgg16", "train"),
        ("rfcn_resnet50", "train"),
        ("rfcn_resnet50", "train_ohem"),
    ],
)
def test_nets_of_regions_learn_the_blobs_that_are_used(name, file):
    def settings(layer):
        kept = LayerParameter(name=layer.name, type=layer.type)
        for field in ("convolution_param", "inner_product_param"):
            if layer.HasField(field):
                param = getattr(kept, field)
                param.CopyFrom(getattr(layer, field))
                param.ClearField("weight_filler")
                param.ClearField("bias_filler")
        return kept

    learned = {layer.name: settings(layer) for layer in read(name, f"{file}.prototxt", TRAIN).layer}
    with_blobs = ("Convolution", "InnerProduct", "BatchNorm", "Scale")
    used = [layer for layer in read(name, "deploy.prototxt", TEST).layer if layer.type in with_blobs]
    assert len(used) > 6
    for layer in used:
        assert learned[layer.name] == settings(layer)
