"""Network in Network (M. Lin, Q. Chen, S. Yan, 2013), for ILSVRC 2012 and for CIFAR-10."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from scripts.zoo import parts
from scripts.zoo.imagenet import IMAGE_MEAN, ilsvrc12
from scripts.zoo.model import Model, deploy, lmdb, solver, train_val


def models() -> Iterator[Model]:
    name = "nin_imagenet"
    yield Model(
        name,
        "Network in Network on ILSVRC 2012.",
        {
            "deploy.prototxt": deploy(name, (10, 3, 224, 224), imagenet),
            "train_val.prototxt": train_val(name, ilsvrc12((64, 50), 224, **IMAGE_MEAN), imagenet),
            "solver.prototxt": solver(
                name,
                prefix=f"{name}_train",
                test_iter=[1000],
                test_interval=1000,
                base_lr=0.01,
                lr_policy="step",
                gamma=0.1,
                stepsize=200000,
                max_iter=450000,
                weight_decay=0.0005,
                display=20,
                snapshot=10000,
            ),
        },
    )
    name = "nin_cifar10"
    data = "data/cifar10/cifar10"
    mean: dict[str, Any] = {"mean_file": "data/cifar10/mean.binaryproto"}
    yield Model(
        name,
        "Network in Network on CIFAR-10.",
        {
            "deploy.prototxt": deploy("CIFAR10_full", (10, 3, 32, 32), cifar10),
            "train_val.prototxt": train_val(
                "CIFAR10_full", lmdb(f"{data}_train_lmdb", f"{data}_test_lmdb", (128, 100), **mean), cifar10
            ),
            "solver.prototxt": solver(
                name,
                test_iter=[100],
                test_interval=500,
                base_lr=0.1,
                lr_policy="step",
                gamma=0.1,
                stepsize=100000,
                max_iter=120000,
                weight_decay=0.0001,
                display=100,
                snapshot=10000,
            ),
        },
    )


def conv(
    n: NetSpec, name: str, bottom: Top, num_output: int, kernel_size: int, relu: str, std: float = 0.05, **settings: Any
) -> Top:
    """A convolution whose top has its name up to a dash."""
    settings.setdefault("param", parts.learn())
    fillers: dict[str, Any] = {"weight_filler": parts.gaussian(std), "bias_filler": parts.constant()}
    top_name, _, rest = name.partition("-")
    named = {"name": name} if rest else {}
    n[top_name] = L.Convolution(bottom, num_output=num_output, kernel_size=kernel_size, **settings, **fillers, **named)
    return parts.rectify(n, relu, n[top_name])


def imagenet(n: NetSpec, data: Top) -> Top:
    top = conv(n, "conv1", data, 96, 11, "relu0", 0.01, stride=4)
    top = conv(n, "cccp1", top, 96, 1, "relu1")
    top = conv(n, "cccp2", top, 96, 1, "relu2")
    top = parts.max_pool(n, "pool0", top, 3, 2)
    top = conv(n, "conv2", top, 256, 5, "relu3", pad=2)
    top = conv(n, "cccp3", top, 256, 1, "relu5")
    top = conv(n, "cccp4", top, 256, 1, "relu6")
    top = parts.max_pool(n, "pool2", top, 3, 2)
    top = conv(n, "conv3", top, 384, 3, "relu7", 0.01, pad=1)
    top = conv(n, "cccp5", top, 384, 1, "relu8")
    top = conv(n, "cccp6", top, 384, 1, "relu9")
    top = parts.dropout(n, "drop", parts.max_pool(n, "pool3", top, 3, 2))
    top = conv(n, "conv4-1024", top, 1024, 3, "relu10", pad=1)
    top = conv(n, "cccp7-1024", top, 1024, 1, "relu11")
    top = conv(n, "cccp8-1024", top, 1000, 1, "relu12", 0.01)
    return parts.ave_pool(n, "pool4", top, 6, 1)


def cifar10(n: NetSpec, data: Top) -> Top:
    top = conv(n, "conv1", data, 192, 5, "relu1", pad=2)
    top = conv(n, "cccp1", top, 160, 1, "relu_cccp1")
    top = conv(n, "cccp2", top, 96, 1, "relu_cccp2")
    top = parts.dropout(n, "drop3", parts.max_pool(n, "pool1", top, 3, 2))
    top = conv(n, "conv2", top, 192, 5, "relu2", pad=2)
    top = conv(n, "cccp3", top, 192, 1, "relu_cccp3")
    top = conv(n, "cccp4", top, 192, 1, "relu_cccp4")
    top = parts.ave_pool(n, "pool2", top, 3, 2)
    top = parts.dropout(n, "drop6", top)
    top = conv(n, "conv3", top, 192, 3, "relu3", pad=1)
    top = conv(n, "cccp5", top, 192, 1, "relu_cccp5")
    slow = [{"lr_mult": 0.1, "decay_mult": 1}, {"lr_mult": 0.1, "decay_mult": 0}]
    top = conv(n, "cccp6", top, 10, 1, "relu_cccp6", param=slow)
    return parts.ave_pool(n, "pool3", top, 8, 1)
