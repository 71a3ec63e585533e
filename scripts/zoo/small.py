"""Small nets: MNIST's autoencoder and siamese net, and cifar10_full with sigmoids,
without and with batch normalisation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffecli.proto.caffe_pb2 import TEST, TRAIN, DataParameter
from scripts.zoo import parts
from scripts.zoo.model import Model, Source, deploy, lmdb, net, solver, train_val

#: The autoencoder's layers: 784 pixels to 30 numbers and back.
WIDTHS = (1000, 500, 250, 30)


def models() -> Iterator[Model]:
    yield autoencoder()
    yield siamese()
    yield cifar10_sigmoid("cifar10_full_sigmoid", 111, normalised=False)
    yield cifar10_sigmoid("cifar10_full_sigmoid_bn", 100, normalised=True)


def autoencoder() -> Model:
    def inner(n: NetSpec, name: str, bottom: Top, num_output: int) -> Top:
        rates = [{"lr_mult": 1, "decay_mult": 1}, {"lr_mult": 1, "decay_mult": 0}]
        fillers: dict[str, Any] = {"weight_filler": parts.gaussian(1, sparse=15), "bias_filler": parts.constant()}
        return parts.inner(n, name, bottom, num_output, param=rates, **fillers)

    def body(n: NetSpec, data: Top) -> Top:
        top = data
        for number, width in enumerate(WIDTHS, 1):
            top = inner(n, f"encode{number}", top, width)
            if number < len(WIDTHS):
                top = n[f"encode{number}neuron"] = L.Sigmoid(top)
        for number, width in zip((4, 3, 2, 1), (*WIDTHS[2::-1], 784), strict=True):
            top = inner(n, f"decode{number}", top, width)
            if number > 1:
                top = n[f"decode{number}neuron"] = L.Sigmoid(top)
        return top

    def picture(n: NetSpec, data: Top) -> Top:
        top = n.decode1neuron = L.Sigmoid(body(n, data))
        return top

    def training(n: NetSpec) -> None:
        n.flatdata = L.Flatten(n.data)
        scores = body(n, n.data)
        n.cross_entropy_loss = L.SigmoidCrossEntropyLoss(scores, n.flatdata, loss_weight=1)
        n.decode1neuron = L.Sigmoid(scores)
        n.l2_error = L.EuclideanLoss(n.decode1neuron, n.flatdata, loss_weight=0)

    def source(phase: int, database: str, stage: str = "") -> Source:
        rule = {"phase": phase, "stage": [stage]} if stage else {"phase": phase}
        records = {"source": f"data/mnist/mnist_{database}_lmdb", "batch_size": 100, "backend": DataParameter.LMDB}
        transform = {"scale": 0.0039215684}  # Caffe's, a float's last digit below 1/255
        return Source("Data", ("data",), {"include": [rule], "transform_param": transform, "data_param": records})

    name = "mnist_autoencoder"
    sources = [source(TRAIN, "train"), source(TEST, "train", "test-on-train"), source(TEST, "test", "test-on-test")]
    settings: dict[str, Any] = {
        "test_state": [{"stage": ["test-on-train"]}, {"stage": ["test-on-test"]}],
        "test_iter": [500, 100],
        "test_interval": 500,
        "test_compute_loss": True,
        "base_lr": 0.01,
        "display": 100,
        "max_iter": 65000,
        "weight_decay": 0.0005,
        "snapshot": 10000,
    }
    step = {"lr_policy": "step", "gamma": 0.1, "stepsize": 10000}
    kinds: dict[str, dict[str, Any]] = {
        "": step,
        "_adadelta": {"type": "AdaDelta", "base_lr": 1, "lr_policy": "fixed", "momentum": 0.95, "delta": 1e-8},
        "_adagrad": {"type": "AdaGrad", "lr_policy": "fixed", "momentum": 0},
        "_nesterov": {"type": "Nesterov", "momentum": 0.95, **step},
    }
    return Model(
        name,
        "An autoencoder of MNIST's digits: 784 pixels to 30 numbers and back.",
        {
            "deploy.prototxt": deploy("MNISTAutoencoder", (64, 1, 28, 28), picture, prob=""),
            "train_val.prototxt": net("MNISTAutoencoder", sources, training),
            **{
                f"solver{kind}.prototxt": solver(name, prefix=name + kind, **{**settings, **own})
                for kind, own in kinds.items()
            },
        },
    )


def siamese() -> Model:
    def branch(n: NetSpec, data: Top, suffix: str = "", shared: bool = True) -> Top:
        """LeNet's layers and two coordinates; branches share what they learn by name."""

        def learnt(make: Any, name: str, bottom: Top, num_output: int, **settings: int) -> Top:
            names = ({"name": f"{name}_w"}, {"name": f"{name}_b"}) if shared else ({}, {})
            rates = [{**names[0], "lr_mult": 1}, {**names[1], "lr_mult": 2}]
            fillers: dict[str, Any] = {"weight_filler": parts.XAVIER, "bias_filler": parts.constant()}
            return make(n, name + suffix, bottom, num_output, param=rates, **settings, **fillers)

        top = learnt(parts.conv, "conv1", data, 20, kernel_size=5)
        top = parts.max_pool(n, f"pool1{suffix}", top, 2, 2)
        top = learnt(parts.conv, "conv2", top, 50, kernel_size=5)
        top = parts.max_pool(n, f"pool2{suffix}", top, 2, 2)
        top = parts.rectify(n, f"relu1{suffix}", learnt(parts.inner, "ip1", top, 500))
        return learnt(parts.inner, "feat", learnt(parts.inner, "ip2", top, 10), 2)

    def training(n: NetSpec) -> None:
        n.data, n.data_p = L.Slice(n.pair_data, axis=1, slice_point=[1], ntop=2, name="slice_pair")
        n.loss = L.ContrastiveLoss(branch(n, n["data"]), branch(n, n["data_p"], "_p"), n.sim, margin=1)

    name = "mnist_siamese"
    pairs = "data/mnist/mnist_siamese"
    sources = lmdb(
        f"{pairs}_train_leveldb", f"{pairs}_test_leveldb", (64, 100), tops=("pair_data", "sim"), scale=0.00390625
    )
    for source in sources:
        source.settings["data_param"]["backend"] = DataParameter.LEVELDB
    return Model(
        name,
        "Pairs of MNIST's digits to points of a plane: near ones for the same digit.",
        {
            "deploy.prototxt": deploy(name, (64, 1, 28, 28), branch, prob=""),
            "train_val.prototxt": net(f"{name}_train_test", sources, training),
            "solver.prototxt": solver(
                name,
                test_iter=[100],
                test_interval=500,
                base_lr=0.01,
                weight_decay=0,
                lr_policy="inv",
                gamma=0.0001,
                power=0.75,
                display=100,
                max_iter=50000,
                snapshot=5000,
            ),
        },
    )


def cifar10_sigmoid(name: str, batch: int, normalised: bool) -> Model:
    """cifar10_full without its local normalisation, sigmoids in place of its ReLUs."""

    def conv(n: NetSpec, number: int, bottom: Top, num_output: int, std: float, bias_rate: float) -> Top:
        settings: dict[str, Any] = {"weight_filler": parts.gaussian(std), "pad": 2}
        if normalised:
            settings.update(param=[{"lr_mult": 1}], bias_term=False)
        else:
            settings.update(param=[{"lr_mult": 1}, {"lr_mult": bias_rate}], bias_filler=parts.constant())
        return parts.conv(n, f"conv{number}", bottom, num_output, 5, **settings)

    def sigmoid(n: NetSpec, number: int, bottom: Top) -> Top:
        if normalised:
            bottom = n[f"bn{number}"] = L.BatchNorm(bottom)
        n[f"Sigmoid{number}"] = L.Sigmoid(bottom)
        return n[f"Sigmoid{number}"]

    def body(n: NetSpec, data: Top) -> Top:
        top = parts.max_pool(n, "pool1", conv(n, 1, data, 32, 0.0001, 2), 3, 2)
        top = sigmoid(n, 2, conv(n, 2, sigmoid(n, 1, top), 32, 0.01, 2))
        top = parts.ave_pool(n, "pool2", top, 3, 2)
        top = parts.ave_pool(n, "pool3", sigmoid(n, 3, conv(n, 3, top, 64, 0.01, 1)), 3, 2)
        rates = ((1, 1), (1, 0)) if normalised else ((1, 0), (2, 0))
        param = [{"lr_mult": rate, "decay_mult": decay} for rate, decay in rates]
        return parts.inner(
            n, "ip1", top, 10, param=param, weight_filler=parts.gaussian(0.01), bias_filler=parts.constant()
        )

    data = "data/cifar10/cifar10"
    mean: dict[str, Any] = {"mean_file": "data/cifar10/mean.binaryproto"}
    sources = lmdb(f"{data}_train_lmdb", f"{data}_test_lmdb", (batch, 1000), name="cifar", **mean)
    return Model(
        name,
        "cifar10_full with sigmoids" + (" and batch normalisation." if normalised else "."),
        {
            "deploy.prototxt": deploy("CIFAR10_full", (1, 3, 32, 32), body),
            "train_val.prototxt": train_val("CIFAR10_full", sources, body),
            "solver.prototxt": solver(
                name,
                test_iter=[10],
                test_interval=1000,
                base_lr=0.001,
                lr_policy="step",
                gamma=1,
                stepsize=5000,
                display=100,
                max_iter=60000,
                snapshot=10000,
            ),
        },
    )
