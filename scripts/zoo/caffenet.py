"""CaffeNet's layers up to fc7, and the nets that end them otherwise: R-CNN, Flickr style, binary hash codes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from scripts.zoo import parts
from scripts.zoo.imagenet import IMAGE_MEAN
from scripts.zoo.model import Model, Source, deploy, lmdb, phases, solver, train_val

#: Of the published nets: biases of 1 in the even convolutions and the inner products.
ONE = parts.constant(1)
inner = partial(parts.inner, weight_filler=parts.gaussian(0.005), bias_filler=ONE)
HASH_BITS = 48


def models() -> Iterator[Model]:
    yield rcnn()
    yield flickr_style()
    yield binary_hashing()


def caffenet(n: NetSpec, data: Top) -> Top:
    def conv(number: int, bottom: Top, num_output: int, kernel_size: int, bias: float, **settings: int) -> Top:
        fillers: dict[str, Any] = {"weight_filler": parts.gaussian(0.01), "bias_filler": parts.constant(bias)}
        return parts.conv(
            n, f"conv{number}", bottom, num_output, kernel_size, relu=f"relu{number}", **settings, **fillers
        )

    top = conv(1, data, 96, 11, 0, stride=4)
    top = parts.lrn(n, "norm1", parts.max_pool(n, "pool1", top, 3, 2))
    top = conv(2, top, 256, 5, 1, pad=2, group=2)
    top = parts.lrn(n, "norm2", parts.max_pool(n, "pool2", top, 3, 2))
    top = conv(3, top, 384, 3, 0, pad=1)
    top = conv(4, top, 384, 3, 1, pad=1, group=2)
    top = conv(5, top, 256, 3, 1, pad=1, group=2)
    top = parts.max_pool(n, "pool5", top, 3, 2)
    top = inner(n, "fc6", top, 4096, relu="relu6", drop="drop6")
    return inner(n, "fc7", top, 4096, relu="relu7", drop="drop7")


def classes(n: NetSpec, name: str, bottom: Top, num_output: int, rate: float = 10) -> Top:
    """The classes of a task of one's own: its weights, new ones, learn faster than the others."""
    fillers: dict[str, Any] = {"weight_filler": parts.gaussian(0.01), "bias_filler": parts.constant()}
    return parts.inner(n, name, bottom, num_output, param=parts.learn(rate), **fillers)


def rcnn() -> Model:
    def body(n: NetSpec, data: Top) -> Top:
        return classes(n, "fc-rcnn", caffenet(n, data), 200, 1)

    return Model(
        "bvlc_reference_rcnn_ilsvrc13",
        "R-CNN's 200 detectors of ILSVRC 2013 as the last layer of a CaffeNet: scores of windows, not probabilities.",
        {"deploy.prototxt": deploy("R-CNN-ilsvrc13", (10, 3, 227, 227), body, prob="")},
    )


def flickr_style() -> Model:
    def body(n: NetSpec, data: Top) -> Top:
        return classes(n, "fc8_flickr", caffenet(n, data), 20)

    name = "finetune_flickr_style"
    sources = phases(
        lambda source, mirror: Source(
            "ImageData",
            ("data", "label"),
            {
                "transform_param": {"mirror": mirror, "crop_size": 227, **IMAGE_MEAN},
                "image_data_param": {
                    "source": f"data/flickr_style/{source}.txt",
                    "batch_size": 50,
                    "new_height": 256,
                    "new_width": 256,
                },
            },
        ),
        ("train", True),
        ("test", False),
    )
    return Model(
        name,
        "CaffeNet, taught 20 styles of Flickr's pictures from its weights for ILSVRC 2012.",
        {
            "deploy.prototxt": deploy("FlickrStyleCaffeNet", (10, 3, 227, 227), body),
            "train_val.prototxt": train_val("FlickrStyleCaffeNet", sources, body),
            "solver.prototxt": solver(
                name,
                test_iter=[100],
                test_interval=1000,
                base_lr=0.001,
                lr_policy="step",
                gamma=0.1,
                stepsize=20000,
                max_iter=100000,
                weight_decay=0.0005,
                display=20,
                snapshot=10000,
            ),
        },
    )


def binary_hashing() -> Model:
    def codes(n: NetSpec, data: Top) -> Top:
        latent = inner(n, "fc8_kevin", caffenet(n, data), HASH_BITS)
        n.fc8_kevin_encode = L.Sigmoid(latent)
        return n["fc8_kevin_encode"]

    def body(n: NetSpec, data: Top) -> Top:
        return classes(n, "fc8_pascal", codes(n, data), 10)

    name = "binary_hashing"
    folder = "data/cifar10/cifar10_256"
    sources = lmdb(f"{folder}_train_lmdb", f"{folder}_test_lmdb", (32, 100), mirror=True, crop_size=227, **IMAGE_MEAN)
    return Model(
        name,
        f"CaffeNet with {HASH_BITS} units of hash code before its classes, on CIFAR-10's pictures at 256x256.",
        {
            "deploy.prototxt": deploy("KevinNet_CIFAR10", (10, 3, 227, 227), codes, prob=""),
            "train_val.prototxt": train_val("KevinNet_CIFAR10", sources, body),
            "solver.prototxt": solver(
                name,
                test_iter=[100],
                test_interval=100,
                base_lr=0.001,
                lr_policy="step",
                gamma=0.1,
                stepsize=25000,
                max_iter=50000,
                weight_decay=0.0005,
                display=20,
                snapshot=10000,
            ),
        },
    )
