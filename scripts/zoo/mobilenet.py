"""MobileNet (A.

Howard and others, 2017) and MobileNetV2 (M. Sandler and others, 2018), with the names of S. Yang's weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from scripts.zoo import parts
from scripts.zoo.imagenet import ilsvrc12
from scripts.zoo.model import Body, Model, deploy, solver, train_val

#: Stage, outputs of its last block, outputs of the others, blocks; the last block of a stage shrinks the picture.
SEPARABLE = ((2, 128, 64, 2), (3, 256, 128, 2), (4, 512, 256, 2), (5, 1024, 512, 6))
#: Version 2: block, widening, outputs, stride.
INVERTED = (
    ("2_1", 1, 16, 1),
    ("2_2", 6, 24, 2),
    ("3_1", 6, 24, 1),
    ("3_2", 6, 32, 2),
    ("4_1", 6, 32, 1),
    ("4_2", 6, 32, 1),
    ("4_3", 6, 64, 1),
    ("4_4", 6, 64, 1),
    ("4_5", 6, 64, 1),
    ("4_6", 6, 64, 1),
    ("4_7", 6, 96, 2),
    ("5_1", 6, 96, 1),
    ("5_2", 6, 96, 1),
    ("5_3", 6, 160, 2),
    ("6_1", 6, 160, 1),
    ("6_2", 6, 160, 1),
    ("6_3", 6, 320, 1),
)
PIXELS: dict[str, Any] = {"mean_value": [103.94, 116.78, 123.68], "scale": 0.017}


def models() -> Iterator[Model]:
    yield model("mobilenet", "MOBILENET", "MobileNet 1.0, 224", mobilenet, 0.00004)
    yield model("mobilenet_v2", "MOBILENET_V2", "MobileNetV2 1.0, 224", mobilenet_v2, 0.00004)


def model(name: str, net_name: str, about: str, body: Body, weight_decay: float) -> Model:
    return Model(
        name,
        f"{about}, on ILSVRC 2012.",
        {
            "deploy.prototxt": deploy(net_name, (1, 3, 224, 224), body, input_name="input"),
            "train_val.prototxt": train_val(net_name, ilsvrc12((64, 50), 224, **PIXELS), body, top5=True),
            "solver.prototxt": solver(
                name,
                iter_size=4,  # batches of 256
                test_iter=[1000],
                test_interval=5000,
                test_initialization=False,
                base_lr=0.1,
                lr_policy="poly",
                power=1,
                max_iter=500000,
                weight_decay=weight_decay,
                display=20,
                average_loss=20,
                snapshot=10000,
            ),
        },
    )


def mobilenet(n: NetSpec, data: Top) -> Top:
    top = unit(n, "conv1", "relu1", data, 32, 3, pad=1, stride=2)
    for stage, last, inside, blocks in SEPARABLE:
        for block in range(1, blocks + 1):
            shrinks = block == blocks
            top = separable(n, f"{stage}_{block}", top, last if shrinks else inside, 2 if shrinks else 1)
    return classifier(n, separable(n, "6", top, 1024, 1))


def separable(n: NetSpec, name: str, bottom: Top, num_output: int, stride: int) -> Top:
    """A 3x3 convolution of each channel by itself, then a 1x1 convolution of all."""
    top = depthwise(n, f"conv{name}/dw", f"relu{name}/dw", bottom, stride)
    return unit(n, f"conv{name}/sep", f"relu{name}/sep", top, num_output, 1)


def mobilenet_v2(n: NetSpec, data: Top) -> Top:
    top = unit(n, "conv1", "relu1", data, 32, 3, apart=True, pad=1, stride=2)
    width = 32
    for name, widening, num_output, stride in INVERTED:
        bottom = top
        top = unit(n, f"conv{name}/expand", f"relu{name}/expand", bottom, width * widening, 1, apart=True)
        top = depthwise(n, f"conv{name}/dwise", f"relu{name}/dwise", top, stride, apart=True)
        top = unit(n, f"conv{name}/linear", "", top, num_output, 1, apart=True)
        if stride == 1 and width == num_output:
            n[f"block_{name}"] = L.Eltwise(bottom, top)
            top = n[f"block_{name}"]
        width = num_output
    return classifier(n, unit(n, "conv6_4", "relu6_4", top, 1280, 1, apart=True))


def classifier(n: NetSpec, bottom: Top) -> Top:
    filler: dict[str, Any] = {"weight_filler": parts.MSRA, "bias_filler": parts.constant()}
    return parts.conv(n, "fc7", parts.ave_pool(n, "pool6", bottom), 1000, 1, **filler)


def depthwise(n: NetSpec, name: str, relu: str, bottom: Top, stride: int, apart: bool = False) -> Top:
    """A 3x3 convolution of each channel by itself."""
    channels = outputs(bottom)
    strides = {"stride": stride} if stride > 1 else {}
    return unit(
        n, name, relu, bottom, channels, 3, apart=apart, pad=1, group=channels, engine=P.Convolution.CAFFE, **strides
    )


def outputs(top: Top) -> int:
    """The channels of a top of convolutions and of what keeps their number."""
    while top.fn.type_name != "Convolution":
        top = top.fn.inputs[0]
    return top.fn.params["num_output"]


def unit(
    n: NetSpec,
    name: str,
    relu: str,
    bottom: Top,
    num_output: int,
    kernel_size: int,
    *,
    apart: bool = False,
    **settings: Any,
) -> Top:
    """A convolution, its batch normalisation (in place, or ``apart`` under its own name), a learnt scale,
    and a ReLU if named.
    """
    top = parts.conv(n, name, bottom, num_output, kernel_size, bias_term=False, weight_filler=parts.MSRA, **settings)
    n[f"{name}/bn"] = L.BatchNorm(top, eps=1e-5, in_place=not apart)
    rate = {"lr_mult": 1, "decay_mult": 0}
    n[f"{name}/scale"] = L.Scale(n[f"{name}/bn"], bias_term=True, param=[rate, rate], in_place=True)
    return parts.rectify(n, relu, n[f"{name}/scale"]) if relu else n[f"{name}/scale"]
