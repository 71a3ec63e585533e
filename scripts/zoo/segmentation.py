"""Nets that answer for every pixel, on VGG-16's convolutions.

FCN (J. Long, E. Shelhamer, T. Darrell, 2015), ParseNet (W. Liu, A. Rabinovich, A. Berg, 2015), HED
(S. Xie, Z. Tu, 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from caffe.coord_map import crop
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from scripts.zoo import parts, vgg
from scripts.zoo.model import Model, Source, deploy, lmdb, net, solver

CLASSES = 21  # of PASCAL VOC, the background one of them
PIXELS: dict[str, Any] = {"mean_value": [104.00699, 116.66877, 122.67892]}
FILLERS: dict[str, Any] = {"weight_filler": parts.XAVIER, "bias_filler": parts.constant()}


def models() -> Iterator[Model]:
    for stride, rate, score in ((32, 1e-10, 63.6), (16, 1e-12, 65.0), (8, 1e-14, 65.5)):
        name = f"fcn{stride}s"
        body = partial(fcn, stride=stride)
        about = f"FCN-{stride}s on PASCAL VOC: {score} mean IU on its validation part."
        yield model(
            name, "", about, body, test_iter=[736], lr_policy="fixed", base_lr=rate, momentum=0.99, max_iter=100000
        )
    yield model(
        "parsenet",
        "VGG_VOC2012ext",
        "ParseNet on PASCAL VOC: every place sees the whole picture's mean too.",
        parsenet,
        iter_size=8,
        test_iter=[736],
        lr_policy="poly",
        power=0.9,
        base_lr=1e-8,
        max_iter=20000,
    )
    yield hed()


def pictures(folder: str, parts_of_data: tuple[str, str]) -> list[Source]:
    """Pictures and their maps of labels, one at a time, from two databases of the same order."""
    paths = [f"data/{folder}/{part}" for part in parts_of_data]
    images = lmdb(f"{paths[0]}_image_lmdb", f"{paths[1]}_image_lmdb", (1, 1), tops=("data",), **PIXELS)
    return [*images, *lmdb(f"{paths[0]}_label_lmdb", f"{paths[1]}_label_lmdb", (1, 1), tops=("label",))]


def model(name: str, net_name: str, about: str, body: Callable[[NetSpec, Top], Top], **settings: Any) -> Model:
    """A net for PASCAL VOC; the loss is a sum over the pixels, hence the tiny rates of learning."""

    def training(n: NetSpec) -> None:
        n.loss = L.SoftmaxWithLoss(body(n, n.data), n.label, loss_param={"ignore_label": 255, "normalize": False})

    return Model(
        name,
        about,
        {
            "deploy.prototxt": without_dropout(deploy(net_name, (1, 3, 500, 500), body, input_name="input", prob="")),
            "train_val.prototxt": net(net_name, pictures("voc", ("train", "val")), training),
            "solver.prototxt": solver(
                name,
                test_interval=4000,
                test_initialization=False,
                display=20,
                average_loss=20,
                weight_decay=0.0005,
                snapshot=4000,
                **settings,
            ),
        },
    )


def without_dropout(made: Any) -> Any:
    """The net without its Dropout layers, which work in place, as the published nets for use are."""
    kept = [layer for layer in made.layer if layer.type != "Dropout"]
    del made.layer[:]
    made.layer.extend(kept)
    return made


def fully_convolutional(n: NetSpec, data: Top) -> Top:
    """VGG-16 with its inner products as convolutions, up to fc7;
    a wide border, so that every picture is large enough.
    """
    top = data
    for number in range(1, 6):
        pad = 100 if number == 1 else 1
        top = parts.max_pool(n, f"pool{number}", vgg.block(n, top, number, vgg.VGG16[number - 1], pad, **FILLERS), 2, 2)
    top = parts.conv(n, "fc6", top, 4096, 7, relu="relu6", **FILLERS)
    top = parts.dropout(n, "drop6", top)
    top = parts.conv(n, "fc7", top, 4096, 1, relu="relu7", **FILLERS)
    return parts.dropout(n, "drop7", top)


def score(n: NetSpec, name: str, bottom: Top) -> Top:
    """A class's evidence, zero at first."""
    return parts.conv(n, name, bottom, CLASSES, 1)


def enlarge(n: NetSpec, name: str, bottom: Top, factor: int) -> Top:
    """Interpolation between pixels by weights that do not learn, and which ``surgery.interpolate`` sets."""
    settings = {"num_output": CLASSES, "kernel_size": 2 * factor, "stride": factor, "bias_term": False}
    n[name] = L.Deconvolution(bottom, convolution_param=settings, param=[{"lr_mult": 0}])
    return n[name]


def fcn(n: NetSpec, data: Top, stride: int) -> Top:
    top = score(n, "score_fr", fully_convolutional(n, data))
    left = 32
    name = "upscore2"
    for pool in ("pool4", "pool3"):
        if left == stride:
            break
        larger = enlarge(n, name, top, 2)
        finer = score(n, f"score_{pool}", n[pool])
        n[f"score_{pool}c"] = crop(finer, larger)
        top = n[f"fuse_{pool}"] = L.Eltwise(larger, n[f"score_{pool}c"], operation=1)
        left //= 2
        name = f"upscore_{pool}"
    top = enlarge(n, "upscore" if stride == 32 else f"upscore{stride}", top, stride)
    n.score = crop(top, data)
    return n["score"]


def parsenet(n: NetSpec, data: Top) -> Top:
    """Each place's features beside their mean over the picture, both of length one before the learnt scales.

    VGG-16 with fc6 and fc7 thinned out as convolutions, a picture's eighth in size from pool3 on.
    """
    top = data
    for number in (1, 2, 3):
        top = parts.max_pool(n, f"pool{number}", vgg.block(n, top, number, vgg.VGG16[number - 1], **FILLERS), 2, 2)
    top = parts.max_pool(n, "pool4", vgg.block(n, top, 4, 3, **FILLERS), 3, 1, pad=1)
    top = parts.max_pool(n, "pool5", vgg.block(n, top, 5, 3, 2, 2, **FILLERS), 3, 1, pad=1)
    top = parts.conv(n, "fc6", top, 1024, 3, pad=12, dilation=12, relu="relu6", **FILLERS)
    top = parts.dropout(n, "drop6", top)
    top = parts.conv(n, "fc7", top, 1024, 1, relu="relu7", **FILLERS)
    local = parts.dropout(n, "drop7", top)
    n.fc7_norm = normalize(local)
    n.pool6_1x1_norm = normalize(parts.ave_pool(n, "pool6_1x1", local))
    whole = parts.dropout(n, "pool6_1x1_norm_drop", n.pool6_1x1_norm, 0.3)
    # a linear layer of the two, one after the other, is the sum of one of each; the picture's is the same everywhere
    here, everywhere = (
        parts.conv(n, name, bottom, CLASSES, 1, param=parts.learn(10), **FILLERS)
        for name, bottom in (("fc7_norm_score21", n.fc7_norm), ("pool6_1x1_norm_score21", whole))
    )
    n.pool6_1x1_norm_upscore21 = L.Flatten(everywhere)
    n.score21 = L.Bias(here, n.pool6_1x1_norm_upscore21, axis=0)
    each = {"num_output": CLASSES, "group": CLASSES, "kernel_size": 16, "stride": 8, "pad": 4}
    filters = {**each, "weight_filler": {"type": "bilinear"}, "bias_filler": parts.constant()}
    n.upscore21 = L.Deconvolution(n.score21, convolution_param=filters, param=parts.learn())
    n.score = L.Crop(n.upscore21, data, axis=2, offset=[0])
    return n["score"]


def normalize(bottom: Top) -> Top:
    norm = {"across_spatial": False, "scale_filler": parts.constant(10), "channel_shared": False}
    return L.Normalize(bottom, norm_param=norm)


def hed() -> Model:
    """Edges at five scales, each with its own loss, and their weighted sum with a loss too."""
    name = "hed"
    return Model(
        name,
        "HED: edges, from five scales.",
        {
            "deploy.prototxt": deploy("HED", (1, 3, 500, 500), _edges, prob=""),
            "train_val.prototxt": net("HED", pictures("hed_bsds", ("train", "test")), _learns_edges),
            "solver.prototxt": solver(
                name,
                test_iter=[200],
                test_interval=1000000,
                test_initialization=False,
                base_lr=0.000001,
                lr_policy="step",
                gamma=0.1,
                iter_size=10,
                stepsize=10000,
                display=20,
                max_iter=30001,
                weight_decay=0.0002,
                snapshot=1000,
            ),
        },
    )


def _sides(n: NetSpec, data: Top) -> Top:
    top = data
    for number in range(1, 6):
        pad = 35 if number == 1 else 1
        rates = parts.learn(100 if number == 5 else 1)  # the last block learns fastest
        bottom = parts.max_pool(n, f"pool{number - 1}", top, 2, 2) if number > 1 else top
        top = vgg.block(n, bottom, number, vgg.VGG16[number - 1], pad, param=rates, **FILLERS)
        n[f"upscore-dsn{number}"] = crop(_side(n, number, top), data)
    n["concat-upscore"] = L.Concat(*(n[f"upscore-dsn{number}"] for number in range(1, 6)), name="concat")
    n["upscore-fuse"] = L.Convolution(
        n["concat-upscore"],
        num_output=1,
        kernel_size=1,
        weight_filler=parts.constant(0.2),
        param=parts.learn(0.001),
        name="new-score-weighting",
    )
    return n["upscore-fuse"]


def _side(n: NetSpec, number: int, bottom: Top) -> Top:
    factor = 2 ** (number - 1)
    settings: dict[str, Any] = {
        "num_output": 1,
        "kernel_size": 1,
        "param": parts.learn(0.01),
        "name": f"score-dsn{number}",
    }
    top_name = f"score-dsn{number}" + ("-up" if number == 1 else "")
    top = n[top_name] = L.Convolution(bottom, **settings)
    if number > 1:
        filters = {
            "num_output": 1,
            "kernel_size": 2 * factor,
            "stride": factor,
            "weight_filler": {"type": "bilinear"},
        }
        fixed = [{"lr_mult": 0, "decay_mult": 1}, {"lr_mult": 0, "decay_mult": 0}]
        top = L.Deconvolution(top, convolution_param=filters, param=fixed, name=f"upsample_{factor}")
        n[f"score-dsn{number}-up"] = top
    return top


def _learns_edges(n: NetSpec) -> None:
    fused = _sides(n, n.data)
    for number in range(1, 6):
        n[f"dsn{number}_loss"] = L.SigmoidCrossEntropyLoss(n[f"upscore-dsn{number}"], n.label, loss_weight=1)
    n.fuse_loss = L.SigmoidCrossEntropyLoss(fused, n.label, loss_weight=1)


def _edges(n: NetSpec, data: Top) -> Top:
    fused = _sides(n, data)
    for number in range(1, 6):
        n[f"sigmoid-dsn{number}"] = L.Sigmoid(n[f"upscore-dsn{number}"])
    n["sigmoid-fuse"] = L.Sigmoid(fused)
    return n["sigmoid-fuse"]
