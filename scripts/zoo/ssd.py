"""SSD (W. Liu and others, 2016): VGG-16 and, as chuanqi305's MobileNet-SSD, MobileNet below the predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from caffe import model_libs
from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffecli.proto.caffe_pb2 import TEST, TRAIN, DataParameter, EmitConstraint
from scripts.zoo import parts
from scripts.zoo.model import Model, Source, image, inference, net, phases, solver

#: VOC's twenty, and the background
CLASSES = 21
VARIANCE = [0.1, 0.1, 0.2, 0.2]
DATA = "data/VOC0712"
#: pictures of VOC 2007's test set
TESTED = 4952
#: MobileNet's blocks: outputs, stride
MOBILE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
ANY_WAY = (P.Resize.LINEAR, P.Resize.AREA, P.Resize.NEAREST, P.Resize.CUBIC, P.Resize.LANCZOS4)
OVERLAPS = (None, 0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Head:
    """What predicts, for ``CreateMultiBoxHead``, and what is kept of it."""

    layers: Sequence[str]
    settings: dict[str, Any]
    top_k: int = 400
    keep_top_k: int = 200
    confidence: float = 0.01


VGG = Head(
    ("conv4_3", "fc7", "conv6_2", "conv7_2", "conv8_2", "conv9_2"),
    {
        "min_sizes": [30.0, 60.0, 111.0, 162.0, 213.0, 264.0],
        "max_sizes": [60.0, 111.0, 162.0, 213.0, 264.0, 315.0],
        "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        "steps": [8, 16, 32, 64, 100, 300],
        "normalizations": [20, -1, -1, -1, -1, -1],
        "kernel_size": 3,
        "pad": 1,
    },
)
MOBILENET = Head(
    ("conv11", "conv13", "conv14_2", "conv15_2", "conv16_2", "conv17_2"),
    {
        "min_sizes": [60.0, 105.0, 150.0, 195.0, 240.0, 285.0],
        "max_sizes": [[], 150.0, 195.0, 240.0, 285.0, 300.0],
        "aspect_ratios": [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2, 3]],
    },
    top_k=100,
    keep_top_k=100,
    confidence=0.25,
)


def models() -> Iterator[Model]:
    yield model(
        "ssd300_vgg16",
        "VGG_VOC0712_SSD_300x300",
        "SSD 300x300 over VGG-16 on VOC 2007 and 2012.",
        vgg,
        VGG,
        {"mean_value": [104, 117, 123]},
        {
            "iter_size": 4,
            "base_lr": 0.001,
            "max_iter": 120000,
            "stepvalue": [80000, 100000, 120000],
            "weight_decay": 0.0005,
        },
    )
    yield model(
        "mobilenet_ssd",
        "MobileNet-SSD",
        "SSD 300x300 over MobileNet on VOC 2007 and 2012.",
        mobile,
        MOBILENET,
        {"mean_value": [127.5, 127.5, 127.5], "scale": 0.007843},
        {
            "iter_size": 4,
            "base_lr": 0.0005,
            "max_iter": 120000,
            "stepvalue": [20000, 40000],
            "gamma": 0.5,
            "weight_decay": 0.00005,
            "type": "RMSProp",
            "momentum": 0,
        },
    )


def model(
    name: str,
    net_name: str,
    about: str,
    body: Callable[[NetSpec, bool], None],
    head: Head,
    pixels: dict[str, Any],
    settings: dict[str, Any],
) -> Model:
    def training(n: NetSpec) -> None:
        body(n, True)
        tops = predictions(n, head)
        n.mbox_loss = L.MultiBoxLoss(*tops, n.label, **loss())
        found = detections(n, tops, head, include=[{"phase": TEST}])
        n.detection_eval = scored(n, found, name_size_file=f"{DATA}/test_name_size.txt")

    def use(n: NetSpec) -> None:
        body(n, False)
        detections(n, predictions(n, head), head)

    batch = 8
    return Model(
        name,
        about,
        {
            "deploy.prototxt": inference(net(net_name, [image((1, 3, 300, 300))], use)),
            "train_val.prototxt": net(
                net_name, annotated((batch, batch), pixels, [resized(300, ANY_WAY)], 300), training
            ),
            "solver.prototxt": solver(
                name,
                test_iter=[TESTED // batch],
                test_interval=10000,
                test_initialization=False,
                lr_policy="multistep",
                display=10,
                average_loss=10,
                snapshot=20000,
                eval_type="detection",
                ap_version="11point",
                show_per_class_result=True,
                **{"gamma": 0.1, **settings},
            ),
        },
    )


def resized(side: int, interp_mode: Sequence[int], prob: float = 1) -> dict[str, Any]:
    return {
        "prob": prob,
        "resize_mode": P.Resize.WARP,
        "height": side,
        "width": side,
        "interp_mode": list(interp_mode),
    }


#: how SSD changes the colours of what it learns from
DISTORTED = {
    "brightness_prob": 0.5,
    "brightness_delta": 32,
    "contrast_prob": 0.5,
    "contrast_lower": 0.5,
    "contrast_upper": 1.5,
    "hue_prob": 0.5,
    "hue_delta": 18,
    "saturation_prob": 0.5,
    "saturation_lower": 0.5,
    "saturation_upper": 1.5,
    "random_order_prob": 0,
}


def annotated(
    batches: tuple[int, int],
    pixels: dict[str, Any],
    sizes: list[dict[str, Any]],
    side: int,
    learning: dict[str, Any] | None = None,
    tested: Sequence[dict[str, Any]] = (),
) -> list[Source]:
    """SSD's pictures of both phases: changed in colour, size (one of ``sizes``) and place where it learns, of ``side``
    where it is tested. ``learning`` is more of what AnnotatedData does where it learns, ``tested`` the batch samplers
    of the tests.
    """
    changes = {
        "mirror": True,
        "resize_param": sizes[0],
        "resize_other": sizes[1:],
        "emit_constraint": {"emit_type": EmitConstraint.CENTER},
        "distort_param": DISTORTED,
        "expand_param": {"prob": 0.5, "max_expand_ratio": 4},
    }
    window = {"min_scale": 0.3, "max_scale": 1, "min_aspect_ratio": 0.5, "max_aspect_ratio": 2}
    windows: list[dict[str, Any]] = [
        {"max_sample": 1, "max_trials": 1}
        if overlap is None
        else {
            "sampler": window,
            "sample_constraint": {"min_jaccard_overlap": overlap},
            "max_sample": 1,
            "max_trials": 50,
        }
        for overlap in OVERLAPS
    ]
    windows.append(
        {"sampler": window, "sample_constraint": {"max_jaccard_overlap": 1}, "max_sample": 1, "max_trials": 50}
    )

    def make(split: str, batch: int, transform: dict[str, Any], samplers: list[dict[str, Any]], **own: Any) -> Source:
        return Source(
            "AnnotatedData",
            ("data", "label"),
            {
                "transform_param": {**pixels, **transform},
                "data_param": {
                    "source": f"{DATA}/VOC0712_{split}_lmdb",
                    "batch_size": batch,
                    "backend": DataParameter.LMDB,
                },
                "annotated_data_param": {
                    "batch_sampler": samplers,
                    "label_map_file": f"{DATA}/labelmap_voc.prototxt",
                    **own,
                },
            },
        )

    learns = functools.partial(make, **(learning or {}))
    one = {"resize_param": resized(side, [P.Resize.LINEAR])}
    return phases(
        lambda kind, *rest: kind(*rest),
        (learns, "trainval", batches[0], changes, windows),
        (make, "test", batches[1], one, list(tested)),
    )


def predictions(n: NetSpec, head: Head) -> list[Top]:
    return model_libs.CreateMultiBoxHead(
        n,
        from_layers=head.layers,
        num_classes=CLASSES,
        use_batchnorm=False,
        share_location=True,
        flip=True,
        clip=False,
        prior_variance=VARIANCE,
        **head.settings,
    )


def loss() -> dict[str, Any]:
    return {
        "include": [{"phase": TRAIN}],
        "propagate_down": [True, True, False, False],
        "loss_param": {"normalization": P.Loss.VALID},
        "multibox_loss_param": {
            "loc_loss_type": P.MultiBoxLoss.SMOOTH_L1,
            "conf_loss_type": P.MultiBoxLoss.SOFTMAX,
            "loc_weight": 1,
            "num_classes": CLASSES,
            "share_location": True,
            "match_type": P.MultiBoxLoss.PER_PREDICTION,
            "overlap_threshold": 0.5,
            "use_prior_for_matching": True,
            "background_label_id": 0,
            "use_difficult_gt": True,
            "neg_pos_ratio": 3,
            "neg_overlap": 0.5,
            "code_type": P.PriorBox.CENTER_SIZE,
            "ignore_cross_boundary_bbox": False,
            "mining_type": P.MultiBoxLoss.MAX_NEGATIVE,
        },
    }


def detections(n: NetSpec, tops: list[Top], head: Head, **settings: Any) -> Any:
    """Scores of the predictions, and the boxes that stay; ``settings`` of each layer say when they are wanted."""
    loc, conf, priors = tops
    n.mbox_conf_reshape = L.Reshape(conf, shape={"dim": [0, -1, CLASSES]}, **settings)
    n.mbox_conf_softmax = L.Softmax(n.mbox_conf_reshape, axis=2, **settings)
    n.mbox_conf_flatten = L.Flatten(n.mbox_conf_softmax, axis=1, **settings)
    n.detection_out = L.DetectionOutput(
        loc,
        n.mbox_conf_flatten,
        priors,
        detection_output_param={
            "num_classes": CLASSES,
            "share_location": True,
            "background_label_id": 0,
            "nms_param": {"nms_threshold": 0.45, "top_k": head.top_k},
            "code_type": P.PriorBox.CENTER_SIZE,
            "keep_top_k": head.keep_top_k,
            "confidence_threshold": head.confidence,
        },
        **settings,
    )
    return n.detection_out


def scored(n: NetSpec, found: Top, **settings: Any) -> Top:
    """Which of the boxes are hits, of VOC's classes and the background, in tests."""
    evaluated = {"num_classes": CLASSES, "background_label_id": 0, "overlap_threshold": 0.5}
    evaluated |= {"evaluate_difficult_gt": False, **settings}
    return L.DetectionEvaluate(found, n.label, include=[{"phase": TEST}], detection_evaluate_param=evaluated)


def vgg(n: NetSpec, learns: bool) -> None:
    """VGG-16 with fc6 and fc7 as convolutions of 1024, and eight more."""
    model_libs.VGGNetBody(n, "data", fully_conv=True, reduced=True, dilated=True, dropout=False)
    further(n, "relu7", (6, 256, 512, 2), (7, 128, 256, 2), (8, 128, 256, 1), (9, 128, 256, 1))


def further(n: NetSpec, top: str, *blocks: tuple[int, int, int, int]) -> None:
    """Blocks of a 1x1 and a 3x3 convolution, without a pad where the stride is 1."""
    for block, narrow, wide, stride in blocks:
        for i, (width, kernel_size, pad, step) in enumerate(((narrow, 1, 0, 1), (wide, 3, stride - 1, stride)), 1):
            name = f"conv{block}_{i}"
            model_libs.ConvBNLayer(n, top, name, False, True, width, kernel_size, pad, step)
            top = name


def mobile(n: NetSpec, learns: bool) -> None:
    """MobileNet without its classes, and eight more convolutions; each with BatchNorm and Scale where it learns, and
    without where those have been folded into the weights, as into the published ones.
    """
    top = mobilenet(n, learns)
    for i, (narrow, wide) in enumerate(((256, 512), (128, 256), (128, 256), (64, 128)), 14):
        top = unit(n, f"conv{i}_1", top, narrow, 1, learns)
        top = unit(n, f"conv{i}_2", top, wide, 3, learns, pad=1, stride=2)


def mobilenet(n: NetSpec, learns: bool, rate: float = 1) -> Top:
    """MobileNet up to conv13, learning and decaying at ``rate``."""
    top = unit(n, "conv0", n.data, 32, 3, learns, rate, pad=1, stride=2)
    width = 32
    for i, (wide, stride) in enumerate(MOBILE, 1):
        top = separable(n, f"conv{i}", top, width, wide, learns, rate, stride=stride)
        width = wide
    return top


def separable(
    n: NetSpec,
    name: str,
    bottom: Top,
    width: int,
    wide: int,
    learns: bool,
    rate: float = 1,
    stride: int = 1,
    to: str = "",
) -> Top:
    """A 3x3 convolution of each of ``width`` channels by itself, then a 1x1 convolution of all, called ``to``."""
    top = unit(n, f"{name}/dw", bottom, width, 3, learns, rate, pad=1, stride=stride, group=width)
    return unit(n, to or name, top, wide, 1, learns, rate)


def unit(
    n: NetSpec, name: str, bottom: Top, width: int, kernel_size: int, learns: bool, rate: float = 1, **settings: Any
) -> Top:
    """A convolution and its ReLU, with BatchNorm and Scale between where it learns."""
    settings["weight_filler"] = parts.MSRA
    n[name] = top = L.Convolution(bottom, num_output=width, kernel_size=kernel_size, bias_term=not learns, **settings)
    if learns:
        n.update(name, {"param": [{"lr_mult": rate, "decay_mult": rate}]})
        n[f"{name}/bn"] = top = L.BatchNorm(top, in_place=True)
        n[f"{name}/scale"] = top = L.Scale(
            top, in_place=True, bias_term=True, param=[{"lr_mult": rate * i, "decay_mult": 0} for i in (1, 2)]
        )
    n[f"{name}/relu"] = L.ReLU(top, in_place=True)
    return n[f"{name}/relu"]
