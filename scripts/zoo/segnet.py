"""SegNet (V. Badrinarayanan, A. Kendall, R. Cipolla, 2015): VGG-16's convolutions there and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffecli.proto.caffe_pb2 import TEST
from scripts.zoo import parts, vgg
from scripts.zoo.model import Model, deploy, lmdb, net, solver

CLASSES = 11
UNLABELLED = 11
#: of the authors: the median class's share of CamVid's pixels, divided by each class's
WEIGHTS = (0.2595, 0.1826, 4.564, 0.1417, 0.9051, 0.3826, 9.6446, 1.8418, 0.6823, 6.2478, 7.3614)
#: Sizes that doubling does not give, as 360 and 180 pixels are odd multiples of what the pools leave.
ODD_SIZES = {5: {"upsample_w": 30, "upsample_h": 23}, 4: {"upsample_w": 60, "upsample_h": 45}}


def models() -> Iterator[Model]:
    name = "segnet"
    net_name = "VGG_ILSVRC_16_layer"
    images = lmdb("data/camvid/train_image_lmdb", "data/camvid/test_image_lmdb", (4, 1), tops=("data",))
    labels = lmdb("data/camvid/train_label_lmdb", "data/camvid/test_label_lmdb", (4, 1), tops=("label",))
    yield Model(
        name,
        "SegNet on CamVid's streets, 480 by 360 pixels, 11 classes.",
        {
            "deploy.prototxt": deploy(net_name, (1, 3, 360, 480), body),
            "train_val.prototxt": net(net_name, [*images, *labels], training),
            "solver.prototxt": solver(
                name,
                test_iter=[233],
                test_interval=1000,
                test_initialization=False,
                base_lr=0.001,
                lr_policy="step",
                gamma=1,  # the rate stays
                stepsize=10000000,
                max_iter=40000,
                weight_decay=0.0005,
                display=20,
                snapshot=1000,
            ),
        },
    )


def training(n: NetSpec) -> None:
    scores = body(n, n.data)
    weighted = {"ignore_label": UNLABELLED, "weight_by_label_freqs": True, "class_weighting": list(WEIGHTS)}
    n.loss = L.SoftmaxWithLoss(scores, n.label, loss_param=weighted)
    n.accuracy = L.Accuracy(scores, n.label, include=[{"phase": TEST}], accuracy_param={"ignore_label": UNLABELLED})


def body(n: NetSpec, data: Top) -> Top:
    top = data
    for number in range(1, 6):
        for index in range(1, vgg.VGG16[number - 1] + 1):
            top = unit(n, f"{number}_{index}", top, vgg.WIDTHS[number - 1])
        pooled = L.Pooling(top, pool=P.Pooling.MAX, kernel_size=2, stride=2, ntop=2, name=f"pool{number}")
        n[f"pool{number}"], n[f"pool{number}_mask"] = pooled
        top = n[f"pool{number}"]
    for number in range(5, 0, -1):
        size = {"scale": 2, **ODD_SIZES.get(number, {})}
        top = L.Upsample(top, n[f"pool{number}_mask"], upsample_param=size, name=f"upsample{number}")
        n[f"pool{number}_D"] = top
        for index in range(vgg.VGG16[number - 1], 0, -1):
            width = vgg.WIDTHS[number - 1 if index > 1 else max(number - 2, 0)]
            last = number == index == 1
            top = unit(n, f"{number}_{index}_D", top, CLASSES if last else width, bare=last)
    return top


def unit(n: NetSpec, name: str, bottom: Top, num_output: int, bare: bool = False) -> Top:
    """A convolution, batch normalisation and ReLU; ``bare``: the convolution alone."""
    fillers: dict[str, Any] = {"weight_filler": parts.MSRA, "bias_filler": parts.constant()}
    top = parts.conv(n, f"conv{name}", bottom, num_output, 3, pad=1, **fillers)
    if bare:
        return top
    bn = {"scale_filler": parts.constant(1), "shift_filler": parts.constant(0.001)}
    rates = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 1, "decay_mult": 0}]
    n[f"conv{name}_bn"] = L.BN(top, bn_param=bn, param=rates, in_place=True)
    return parts.rectify(n, f"relu{name}", n[f"conv{name}_bn"])
