"""Age and gender (G.

Levi, T. Hassner, 2015), and five points of a face (the plain net of Y. Wu and T. Hassner, 2015).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffecli.proto.caffe_pb2 import SolverParameter
from scripts.zoo import parts
from scripts.zoo.caffenet import classes
from scripts.zoo.model import Model, Source, deploy, lmdb, net, phases, solver, train_val


def models() -> Iterator[Model]:
    yield adience("age", "Age", 8, "one of eight ranges")
    yield adience("gender", "Gender", 2, "one of two")
    yield vanilla_cnn()


def adience(task: str, title: str, groups: int, among: str) -> Model:
    name = f"{task}_net"
    body = partial(small_caffenet, groups=groups)
    folder = "data/adience"
    sources = lmdb(
        f"{folder}/{task}_train_lmdb",
        f"{folder}/{task}_val_lmdb",
        (50, 50),
        mirror=True,
        crop_size=227,
        mean_file=f"{folder}/mean.binaryproto",
    )
    return Model(
        name,
        f"{title} from a face, {among}, on Adience's pictures.",
        {
            "deploy.prototxt": deploy("CaffeNet", (1 if task == "age" else 10, 3, 227, 227), body, input_name="input"),
            "train_val.prototxt": train_val("CaffeNet", sources, body),
            "solver.prototxt": solver(
                name,
                test_iter=[1000],
                test_interval=1000,
                base_lr=0.001,
                lr_policy="step",
                gamma=0.1,
                stepsize=10000,
                max_iter=50000,
                weight_decay=0.0005,
                display=20,
                snapshot=1000,
            ),
        },
    )


def small_caffenet(n: NetSpec, data: Top, groups: int) -> Top:
    """Three convolutions in CaffeNet's manner and two inner products of 512."""

    def conv(number: int, bottom: Top, num_output: int, kernel_size: int, bias: float, **settings: int) -> Top:
        fillers: dict[str, Any] = {"weight_filler": parts.gaussian(0.01), "bias_filler": parts.constant(bias)}
        return parts.conv(
            n, f"conv{number}", bottom, num_output, kernel_size, relu=f"relu{number}", **settings, **fillers
        )

    fillers: dict[str, Any] = {"weight_filler": parts.gaussian(0.005), "bias_filler": parts.constant(1)}
    top = conv(1, data, 96, 7, 0, stride=4)
    top = parts.lrn(n, "norm1", parts.max_pool(n, "pool1", top, 3, 2))
    top = conv(2, top, 256, 5, 1, pad=2)
    top = parts.lrn(n, "norm2", parts.max_pool(n, "pool2", top, 3, 2))
    top = parts.max_pool(n, "pool5", conv(3, top, 384, 3, 0, pad=1), 3, 2)
    top = parts.inner(n, "fc6", top, 512, relu="relu6", drop="drop6", **fillers)
    top = parts.inner(n, "fc7", top, 512, relu="relu7", drop="drop7", **fillers)
    return classes(n, "fc8", top, groups)


def vanilla_cnn() -> Model:
    def activate(n: NetSpec, number: int, bottom: Top) -> Top:
        """|tanh|."""
        n[f"ActivationTangH{number}"] = L.TanH(bottom)
        n[f"Abs{number}"] = L.AbsVal(n[f"ActivationTangH{number}"], name=f"ActivationAbs{number}")
        return n[f"Abs{number}"]

    def conv(n: NetSpec, number: int, bottom: Top, num_output: int, kernel_size: int, **settings: Any) -> Top:
        fillers: dict[str, Any] = {"weight_filler": parts.XAVIER, "bias_filler": parts.constant(0.2)}
        return activate(
            n, number, parts.conv(n, f"Conv{number}", bottom, num_output, kernel_size, **settings, **fillers)
        )

    def body(n: NetSpec, data: Top) -> Top:
        top = parts.max_pool(n, "Pool1", conv(n, 1, data, 16, 5, pad=2), 2, 2)
        top = parts.max_pool(n, "Pool2", conv(n, 2, top, 48, 3, pad=1), 2, 2)
        top = parts.max_pool(n, "Pool3", conv(n, 3, top, 64, 3), 3, 2)
        top = conv(n, 4, top, 64, 2)
        fillers: dict[str, Any] = {"weight_filler": parts.XAVIER, "bias_filler": parts.constant()}
        top = activate(n, 5, parts.inner(n, "Dense1", top, 100, **fillers))
        return parts.inner(n, "Dense2", top, 10, **fillers)

    def training(n: NetSpec) -> None:
        n.loss = L.EuclideanLoss(body(n, n.X), n.landmarks)

    def points(part: str, batch: int) -> Source:
        records = {"source": f"data/facial_points/{part}.txt", "batch_size": batch}
        return Source("HDF5Data", ("X", "landmarks"), {"hdf5_data_param": records}, "data")

    name = "vanilla_cnn"
    return Model(
        name,
        "Five points of a face in 40x40 pixels: x and y of each, from -0.5 to 0.5.",
        {
            "deploy.prototxt": deploy("vanila", (1, 3, 40, 40), body, input_name="input", prob=""),
            "train_val.prototxt": net("vanila", phases(points, ("train", 30), ("test", 10)), training),
            "solver.prototxt": solver(
                name,
                type="Adam",
                test_iter=[1000],
                test_interval=5000,
                base_lr=0.00001,
                momentum2=0.999,
                lr_policy="fixed",
                display=2500,
                max_iter=1400000,
                snapshot=5000,
                solver_mode=SolverParameter.CPU,
            ),
        },
    )
