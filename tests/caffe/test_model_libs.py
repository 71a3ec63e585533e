"""SSD's caffe.model_libs: nets as its scripts put them together."""

from __future__ import annotations

import tempfile
from typing import Any

import pytest

from caffe.model_libs import (
    ConvBNLayer,
    CreateAnnotatedDataLayer,
    CreateMultiBoxHead,
    CreateRefineDetHead,
    DeconvBNLayer,
    EltwiseLayer,
    InceptionV3Body,
    L,
    ResNet101Body,
    ResNet152Body,
    UnpackVariable,
    VGGNetBody,
    ZFNetBody,
    caffe,
    make_if_not_exist,
)
from caffe.net_spec import NetSpec
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter


def spec(size: int = 300) -> NetSpec:
    net = NetSpec()
    net.data = L.Input(shape={"dim": [1, 3, size, size]})
    return net


def shapes(net: NetParameter) -> dict[str, tuple[int, ...]]:
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(str(net))
        file.flush()
        return {name: tuple(blob.shape) for name, blob in caffe.Net(file.name, caffe.TEST).blobs.items()}


def extra_layers(net: NetSpec, use_batchnorm: bool = False, lr_mult: float = 1) -> None:
    """What SSD300's script puts behind VGG-16."""
    top = net.keys()[-1]
    for name, width, kernel_size, pad, stride in (
        ("conv6_1", 256, 1, 0, 1), ("conv6_2", 512, 3, 1, 2), ("conv7_1", 128, 1, 0, 1), ("conv7_2", 256, 3, 1, 2),
        ("conv8_1", 128, 1, 0, 1), ("conv8_2", 256, 3, 0, 1), ("conv9_1", 128, 1, 0, 1), ("conv9_2", 256, 3, 0, 1),
    ):  # fmt: skip
        ConvBNLayer(net, top, name, use_batchnorm, True, width, kernel_size, pad, stride, lr_mult=lr_mult)
        top = name


def ssd300() -> NetSpec:
    net = spec()
    VGGNetBody(net, from_layer="data", fully_conv=True, reduced=True, dilated=True, dropout=False)
    extra_layers(net)
    CreateMultiBoxHead(
        net,
        data_layer="data",
        from_layers=["conv4_3", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"],
        use_batchnorm=False,
        min_sizes=[30.0, 60.0, 111.0, 162.0, 213.0, 264.0],
        max_sizes=[60.0, 111.0, 162.0, 213.0, 264.0, 315.0],
        aspect_ratios=[[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        steps=[8, 16, 32, 64, 100, 300],
        normalizations=[20, -1, -1, -1, -1, -1],
        num_classes=21,
        share_location=True,
        flip=True,
        clip=False,
        prior_variance=[0.1, 0.1, 0.2, 0.2],
        kernel_size=3,
        pad=1,
        lr_mult=1,
    )
    return net


def test_ssd300_has_its_8732_priors_and_published_names() -> None:
    found = shapes(ssd300().to_proto())
    assert found["mbox_priorbox"] == (1, 2, 8732 * 4)
    assert (found["mbox_loc"], found["mbox_conf"]) == ((1, 8732 * 4), (1, 8732 * 21))
    assert found["conv4_3_norm"] == (1, 512, 38, 38) and found["fc7"] == (1, 1024, 19, 19)
    assert {"conv4_3_norm_mbox_loc", "fc7_mbox_conf_flat", "conv9_2_mbox_priorbox"} <= set(found)


@pytest.mark.parametrize(
    ("settings", "fc6", "fc7"),
    [
        ({}, (1, 4096), (1, 4096)),
        ({"fully_conv": True}, (1, 4096, 10, 10), (1, 4096, 10, 10)),
        ({"fully_conv": True, "reduced": True, "dilated": True}, (1, 1024, 19, 19), (1, 1024, 19, 19)),
        ({"fully_conv": True, "dilate_pool4": True, "dropout": False}, (1, 4096, 19, 19), (1, 4096, 19, 19)),
        ({"fully_conv": True, "nopool": True}, (1, 4096, 10, 10), (1, 4096, 10, 10)),
    ],
)
def test_forms_of_vgg(settings: dict[str, bool], fc6: tuple[int, ...], fc7: tuple[int, ...]) -> None:
    net = spec(300)
    assert VGGNetBody(net, "data", **settings, freeze_layers=["conv1_1", "none"]) is net
    made = net.to_proto()
    layers = {layer.name: layer for layer in made.layer}
    frozen = [name for name, layer in layers.items() if layer.param and not any(p.lr_mult for p in layer.param)]
    assert frozen == ["conv1_1"]
    assert ("drop6" in layers) == settings.get("dropout", True)
    assert layers["fc6"].type == ("Convolution" if settings.get("fully_conv") else "InnerProduct")
    for name in ("fc6", "fc7"):  # small enough to be built
        part = (
            layers[name].inner_product_param if layers[name].type == "InnerProduct" else layers[name].convolution_param
        )
        part.num_output //= 64
    found = shapes(made)
    assert [found[name][2:] for name in ("fc6", "fc7")] == [fc6[2:], fc7[2:]]


@pytest.mark.parametrize(("dilated", "size"), [(False, 11), (True, 20)])
def test_zfnet(dilated: bool, size: int) -> None:
    net = ZFNetBody(spec(300), "data", fully_conv=True, reduced=True, dilated=dilated, need_fc8=True)
    found = shapes(net.to_proto())
    assert found["fc7"] == found["fc6"] and found["fc7"][1] == 1024
    assert found["conv5"][2:] == (20, 20) and found["pool5"][2:] == (size, size)
    assert found["prob"][1] == 1000


def test_resnets_and_inception() -> None:
    for body, last, count in ((ResNet101Body, "res4b22", 101), (ResNet152Body, "res4b35", 152)):
        layers = body(spec(224), "data", use_dilation_conv5=True).to_proto().layer
        names = {layer.name for layer in layers}
        assert {last, "res5c_relu", "bn5c_branch2b", "scale2a_branch1", "pool5"} <= names
        convolutions = [layer for layer in layers if layer.type == "Convolution"]
        assert (
            len([layer for layer in convolutions if "branch1" not in layer.name]) == count - 1
        )  # and the last, fc1000
        assert {layer.name for layer in convolutions if list(layer.convolution_param.dilation) == [2]} == {
            f"res5{block}_branch2b" for block in "abc"
        }
    found = shapes(InceptionV3Body(spec(299), "data", output_pred=True).to_proto())
    assert found["mixed_2/join"] == (1, 288, 35, 35)
    assert found["mixed_7/join"] == (1, 768, 17, 17)
    assert found["mixed_10/join"] == (1, 2048, 8, 8)
    assert found["softmax_prob"] == (1, 1008)


def test_annotated_data() -> None:
    net = NetSpec()
    net.data, net.label = CreateAnnotatedDataLayer(
        "VOC0712_test_lmdb", batch_size=8, train=False, label_map_file="labelmap_voc.prototxt", anno_type=None
    )
    (layer,) = net.to_proto().layer
    assert (layer.name, list(layer.top), layer.include[0].phase) == ("data", ["data", "label"], TEST)
    assert layer.data_param.batch_size == 8 and layer.annotated_data_param.label_map_file == "labelmap_voc.prototxt"
    assert len(layer.annotated_data_param.batch_sampler) == 1
    net = NetSpec()
    net.data = CreateAnnotatedDataLayer("x_lmdb", output_label=False)
    assert net.to_proto().layer[0].include[0].phase == TRAIN


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "give num_classes"),
        ({"num_classes": 3}, "min_sizes has 0 values for 1 from_layers"),
        ({"num_classes": 3, "min_sizes": [1], "steps": [1, 2]}, "steps has 2 values for 1 from_layers"),
        ({"num_classes": 3, "min_sizes": [1], "data_layer": "none"}, "the net has no layer 'none'; it has data"),
        ({"num_classes": 3, "min_sizes": [1], "max_sizes": [[2, 3]]}, "expected as many max_sizes as min_sizes"),
    ],
)
def test_wrong_settings_of_a_head(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(RuntimeError, match=said):
        CreateMultiBoxHead(spec(), from_layers=["data"], **settings)


def test_small_helpers(tmp_path: object) -> None:
    assert UnpackVariable(3, 2) == UnpackVariable([3], 2) == [3, 3] and UnpackVariable([1, 2], 2) == [1, 2]
    with pytest.raises(RuntimeError, match="expected one value or 2"):
        UnpackVariable([1, 2, 3], 2)
    make_if_not_exist(f"{tmp_path}/a/b")
    make_if_not_exist(f"{tmp_path}/a/b")
    assert caffe.model_libs.check_if_exist(f"{tmp_path}/a/b") and not caffe.model_libs.check_if_exist(f"{tmp_path}/c")


def test_the_two_stages_of_refinedet() -> None:
    """Names, outputs and settings are those of RefineDet's file: its scripts' 36 nets came out the same with both."""
    net = spec(64)
    ConvBNLayer(net, "data", "c1", False, True, 8, 3, 1, 8)
    ConvBNLayer(net, "c1", "c2", True, True, 8, 3, 1, 2)
    DeconvBNLayer(net, "c2", "up", False, False, 8, 2, 0, 2)
    DeconvBNLayer(net, "c2", "p2", True, True, 8, 2, 0, 2)
    EltwiseLayer(net, ["c1", "up"], "p1")
    tops = CreateRefineDetHead(
        net, num_classes=5, from_layers=["c1", "c2"], from_layers2=["p1", "p2"], normalizations=[10, -1],
        use_batchnorm=False, min_sizes=[16, 32], aspect_ratios=[[2], [2]], steps=[8, 16], img_height=64, img_width=64,
        inter_layer_depth=[0, 1], kernel_size=3, pad=1, prior_variance=[0.1, 0.1, 0.2, 0.2],
    )  # fmt: skip
    made = net.to_proto()
    layers = {layer.name: layer for layer in made.layer}
    outputs = {name: layer.convolution_param.num_output for name, layer in layers.items()}
    assert outputs["c1_norm_mbox_loc"] == 12 and outputs["c1_norm_mbox_conf"] == 6, "two classes in the first stage"
    assert outputs["p1_norm_mbox_loc"] == 12 and outputs["p1_norm_mbox_conf"] == 15
    assert list(layers["arm_priorbox"].bottom) == ["c1_norm_mbox_priorbox", "resc2_inter_mbox_priorbox"]
    assert list(layers["odm_conf"].bottom) == ["p1_norm_mbox_conf_flat", "resp2_inter_mbox_conf_flat"]
    assert layers["p2_bn"].type == "BatchNorm" and layers["p2_scale"].scale_param.bias_term
    assert "odm_priorbox" not in layers and outputs["p2"] == 8 and len(tops) == 5
    found = shapes(made)
    assert found["arm_loc"] == (1, (64 + 16) * 12) and found["arm_priorbox"] == (1, 2, (64 + 16) * 12)
    with pytest.raises(RuntimeError, match="min_sizes has 2 values for 1 from_layers"):
        CreateRefineDetHead(net, num_classes=5, from_layers=["c1"], from_layers2=["p1"], min_sizes=[16, 32])
    with pytest.raises(RuntimeError, match="give num_classes"):
        CreateRefineDetHead(net, from_layers=["c1"], from_layers2=["p1"], min_sizes=[16])
