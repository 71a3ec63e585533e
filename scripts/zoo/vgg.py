"""VGG-16 and -19 (K. Simonyan, A. Zisserman, 2014), and the face net of the same shape (O. Parkhi and others, 2015)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from caffe.net_spec import NetSpec, Top
from scripts.zoo import parts
from scripts.zoo.imagenet import ilsvrc12
from scripts.zoo.model import Body, Model, deploy, lmdb, solver, train_val

#: Convolutions in each of the five blocks.
VGG16 = (2, 2, 3, 3, 3)
VGG19 = (2, 2, 4, 4, 4)
WIDTHS = (64, 128, 256, 512, 512)
FILLERS: dict[str, Any] = {"weight_filler": parts.XAVIER, "bias_filler": parts.constant()}
PIXELS: dict[str, Any] = {"mean_value": [103.939, 116.779, 123.68]}
FACE_PIXELS: dict[str, Any] = {"mean_value": [93.594, 104.7624, 129.1863]}
PEOPLE = 2622


def models() -> Iterator[Model]:
    for depth, blocks in ((16, VGG16), (19, VGG19)):
        yield model(
            f"vgg{depth}",
            f"VGG_ILSVRC_{depth}_layers",
            f"VGG-{depth} on ILSVRC 2012.",
            partial(vgg, blocks=blocks),
            ilsvrc12((32, 25), 224, **PIXELS),
            # the paper's: batches of 256, the rate lowered three times in 370,000 iterations
            {
                "iter_size": 8,
                "test_iter": [2000],
                "test_interval": 5000,
                "base_lr": 0.01,
                "stepsize": 100000,
                "max_iter": 370000,
            },
        )
    yield model(
        "vgg_face",
        "VGG_FACE_16_layers",
        "VGG-Face: 2,622 people.",
        partial(vgg, blocks=VGG16, classes=PEOPLE),
        lmdb("data/vgg_face/train_lmdb", "data/vgg_face/val_lmdb", (32, 25), mirror=True, crop_size=224, **FACE_PIXELS),
        {
            "iter_size": 2,
            "test_iter": [1000],
            "test_interval": 5000,
            "base_lr": 0.01,
            "stepsize": 100000,
            "max_iter": 300000,
        },
    )


def model(name: str, net_name: str, about: str, body: Body, sources: list[Any], settings: dict[str, Any]) -> Model:
    return Model(
        name,
        about,
        {
            "deploy.prototxt": deploy(net_name, (10, 3, 224, 224), body),
            "train_val.prototxt": train_val(net_name, sources, body, top5=True),
            "solver.prototxt": solver(
                name,
                test_initialization=False,
                lr_policy="step",
                gamma=0.1,
                weight_decay=0.0005,
                display=20,
                average_loss=20,
                snapshot=10000,
                **settings,
            ),
        },
    )


def vgg(n: NetSpec, data: Top, blocks: tuple[int, ...], classes: int = 1000) -> Top:
    top = data
    for number in range(1, 6):
        top = parts.max_pool(n, f"pool{number}", block(n, top, number, blocks[number - 1], **FILLERS), 2, 2)
    top = parts.inner(n, "fc6", top, 4096, relu="relu6", drop="drop6", **FILLERS)
    top = parts.inner(n, "fc7", top, 4096, relu="relu7", drop="drop7", **FILLERS)
    return parts.inner(n, "fc8", top, classes, **FILLERS)


def block(
    n: NetSpec, bottom: Top, number: int, convolutions: int, pad: int = 1, dilation: int = 1, **settings: Any
) -> Top:
    """A row of 3x3 convolutions; ``pad`` is the first one's, the others keep the picture's size."""
    top = bottom
    if dilation > 1:
        settings["dilation"] = dilation
    for index in range(1, convolutions + 1):
        name = f"{number}_{index}"
        around = pad if index == 1 else dilation
        top = parts.conv(n, f"conv{name}", top, WIDTHS[number - 1], 3, pad=around, relu=f"relu{name}", **settings)
    return top
