"""GoogLeNet (C. Szegedy and others, Going Deeper with Convolutions, 2014), as BVLC trained it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffecli.proto.caffe_pb2 import TEST
from scripts.zoo import parts
from scripts.zoo.imagenet import CHANNEL_MEAN, ilsvrc12
from scripts.zoo.model import Model, deploy, net, solver

conv = partial(parts.conv, weight_filler=parts.XAVIER, bias_filler=parts.constant(0.2))
inner = partial(parts.inner, weight_filler=parts.XAVIER)

#: Outputs of 1x1, of 3x3 and what reduces its input, of 5x5 and what reduces its input, of the projection after
#: pooling.
INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
SIDE_LOSSES = {"4a": "loss1", "4d": "loss2"}


def models() -> Iterator[Model]:
    name = "bvlc_googlenet"
    shared: dict[str, Any] = {
        "test_iter": [1000],
        "test_interval": 4000,
        "test_initialization": False,
        "display": 40,
        "average_loss": 40,
        "base_lr": 0.01,
        "weight_decay": 0.0002,
        "snapshot": 40000,
    }
    yield Model(
        name,
        "GoogLeNet on ILSVRC 2012.",
        {
            "deploy.prototxt": deploy("GoogleNet", (10, 3, 224, 224), body),
            "train_val.prototxt": net("GoogleNet", ilsvrc12((32, 50), 224, **CHANNEL_MEAN), training),
            "solver.prototxt": solver(name, lr_policy="step", stepsize=320000, gamma=0.96, max_iter=10000000, **shared),
            "quick_solver.prototxt": solver(
                name, prefix=f"{name}_quick", lr_policy="poly", power=0.5, max_iter=2400000, **shared
            ),
        },
    )


def training(n: NetSpec) -> None:
    """The body with its three losses; those at the sides count 0.3 each."""

    def side(loss: str, bottom: Top) -> None:
        parts.ave_pool(n, f"{loss}/ave_pool", bottom, 5, 3)
        top = conv(n, f"{loss}/conv", n[f"{loss}/ave_pool"], 128, 1, relu=f"{loss}/relu_conv")
        top = inner(n, f"{loss}/fc", top, 1024, relu=f"{loss}/relu_fc", bias_filler=parts.constant(0.2))
        top = parts.dropout(n, f"{loss}/drop_fc", top, 0.7)
        top = inner(n, f"{loss}/classifier", top, 1000, bias_filler=parts.constant())
        score(n, loss, top, f"{loss}/loss", 0.3)

    score(n, "loss3", body(n, n.data, side), "loss3/loss3", 1)


def score(n: NetSpec, loss: str, scores: Top, layer: str, weight: float) -> None:
    number = loss[-1]
    n[f"{loss}/loss{number}"] = L.SoftmaxWithLoss(scores, n.label, loss_weight=weight, name=layer)
    n[f"{loss}/top-1"] = L.Accuracy(scores, n.label, include=[{"phase": TEST}])
    n[f"{loss}/top-5"] = L.Accuracy(scores, n.label, include=[{"phase": TEST}], top_k=5)


def body(n: NetSpec, data: Top, side: Callable[[str, Top], None] | None = None) -> Top:
    top = conv(n, "conv1/7x7_s2", data, 64, 7, pad=3, stride=2, relu="conv1/relu_7x7")
    top = parts.lrn(n, "pool1/norm1", parts.max_pool(n, "pool1/3x3_s2", top, 3, 2))
    top = conv(n, "conv2/3x3_reduce", top, 64, 1, relu="conv2/relu_3x3_reduce")
    top = conv(n, "conv2/3x3", top, 192, 3, pad=1, relu="conv2/relu_3x3")
    top = parts.max_pool(n, "pool2/3x3_s2", parts.lrn(n, "conv2/norm2", top), 3, 2)
    for name, outputs in INCEPTIONS.items():
        top = inception(n, f"inception_{name}", top, *outputs)
        if side and name in SIDE_LOSSES:
            side(SIDE_LOSSES[name], top)
        if name in ("3b", "4e"):
            top = parts.max_pool(n, f"pool{int(name[0])}/3x3_s2", top, 3, 2)
    top = parts.ave_pool(n, "pool5/7x7_s1", top, 7, 1)
    top = parts.dropout(n, "pool5/drop_7x7_s1", top, 0.4)
    return inner(n, "loss3/classifier", top, 1000, bias_filler=parts.constant())


def inception(
    n: NetSpec, name: str, bottom: Top, one: int, reduce3: int, three: int, reduce5: int, five: int, proj: int
) -> Top:
    """Convolutions of three sizes and a pooling, side by side."""

    def branch(size: str, bottom: Top, num_output: int, kernel_size: int = 1, pad: int = 0) -> Top:
        around = {"pad": pad} if pad else {}
        return conv(n, f"{name}/{size}", bottom, num_output, kernel_size, relu=f"{name}/relu_{size}", **around)

    tops = [
        branch("1x1", bottom, one),
        branch("3x3", branch("3x3_reduce", bottom, reduce3), three, 3, 1),
        branch("5x5", branch("5x5_reduce", bottom, reduce5), five, 5, 2),
    ]
    pooled = parts.max_pool(n, f"{name}/pool", bottom, 3, 1, pad=1)
    tops.append(branch("pool_proj", pooled, proj))
    n[f"{name}/output"] = L.Concat(*tops)
    return n[f"{name}/output"]
