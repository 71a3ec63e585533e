"""CNN-F, -M and -S (K. Chatfield and others, Return of the Devil in the Details, 2014)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from caffe.net_spec import NetSpec, Top
from scripts.zoo import parts
from scripts.zoo.imagenet import ilsvrc12
from scripts.zoo.model import Model, deploy, solver, train_val

FILLERS: dict[str, Any] = {"weight_filler": parts.gaussian(0.01), "bias_filler": parts.constant()}
MEAN: dict[str, Any] = {"mean_file": "data/ilsvrc12/VGG_mean.binaryproto"}


@dataclass(frozen=True)
class Shape:
    """What the three differ in: conv1 and conv2 as (outputs, kernel, stride, pad), the poolings as (kernel, stride)."""

    speed: str
    conv1: tuple[int, int, int, int]
    pool1: tuple[int, int]
    conv2: tuple[int, int, int, int]
    norm2: bool
    pool2: tuple[int, int]
    width: int
    pool5: tuple[int, int]


SHAPES = {
    "f": Shape("fast", (64, 11, 4, 0), (3, 2), (256, 5, 1, 2), True, (3, 2), 256, (3, 2)),
    "m": Shape("medium", (96, 7, 2, 0), (3, 2), (256, 5, 2, 1), True, (3, 2), 512, (3, 2)),
    "s": Shape("slow", (96, 7, 2, 0), (3, 3), (256, 5, 1, 0), False, (2, 2), 512, (3, 3)),
}


def models() -> Iterator[Model]:
    for letter, shape in SHAPES.items():
        name = f"vgg_cnn_{letter}"
        net_name = f"VGG_CNN_{letter.upper()}"
        body = partial(cnn, shape=shape)
        yield Model(
            name,
            f"CNN-{letter.upper()}, the {shape.speed} one of three, on ILSVRC 2012.",
            {
                "deploy.prototxt": deploy(net_name, (10, 3, 224, 224), body),
                "train_val.prototxt": train_val(net_name, ilsvrc12((128, 50), 224, **MEAN), body, top5=True),
                "solver.prototxt": solver(
                    name,
                    test_iter=[1000],
                    test_interval=5000,
                    test_initialization=False,
                    base_lr=0.01,
                    lr_policy="step",
                    gamma=0.1,
                    stepsize=200000,
                    max_iter=800000,
                    weight_decay=0.0005,
                    display=20,
                    snapshot=10000,
                ),
            },
        )


def cnn(n: NetSpec, data: Top, shape: Shape) -> Top:
    def conv(number: int, bottom: Top, num_output: int, kernel_size: int, stride: int, pad: int) -> Top:
        given = {key: value for key, value in (("stride", stride), ("pad", pad)) if value > (key == "stride")}
        return parts.conv(n, f"conv{number}", bottom, num_output, kernel_size, relu=f"relu{number}", **given, **FILLERS)

    def norm(name: str, bottom: Top) -> Top:
        return parts.lrn(n, name, bottom, 0.0005, k=2)

    top = norm("norm1", conv(1, data, *shape.conv1))
    top = conv(2, parts.max_pool(n, "pool1", top, *shape.pool1), *shape.conv2)
    top = norm("norm2", top) if shape.norm2 else top
    top = parts.max_pool(n, "pool2", top, *shape.pool2)
    for number in (3, 4, 5):
        top = conv(number, top, shape.width, 3, 1, 1)
    top = parts.max_pool(n, "pool5", top, *shape.pool5)
    top = parts.inner(n, "fc6", top, 4096, relu="relu6", drop="drop6", **FILLERS)
    top = parts.inner(n, "fc7", top, 4096, relu="relu7", drop="drop7", **FILLERS)
    return parts.inner(n, "fc8", top, 1000, **FILLERS)
