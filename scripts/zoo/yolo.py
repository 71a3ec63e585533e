"""YOLO, version 3 (J. Redmon and A. Farhadi, 2018), over MobileNet: eric612's MobileNet-YOLOv3-Lite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from caffe.net_spec import NetSpec
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from caffecli.proto.caffe_pb2 import TEST, TRAIN
from scripts.zoo import parts, ssd
from scripts.zoo.model import Model, image, inference, net, solver

#: VOC's twenty, without a background
CLASSES = 20
#: width and height of the anchors in pixels, of both scales
BIASES = [10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319]
#: for each scale its layer, the pixels of its cells, and which of the anchors are its own
SCALES = (("conv19", 32, [3, 4, 5]), ("conv20", 16, [0, 1, 2]))
SIDES = (608, 416, 320, 352, 384, 448, 480, 512, 544, 576)
TESTED_AT = 320


def models() -> Iterator[Model]:
    def use(n: NetSpec) -> None:
        body(n, False)
        found(n)

    def training(n: NetSpec) -> None:
        body(n, True)
        for i, (layer, pixels, mask) in enumerate(SCALES, 1):
            n[f"det_loss{i}"] = L.Yolov3(
                n[layer],
                n.label,
                name=f"Yolov3Loss{i}",
                include=[{"phase": TRAIN}],
                loss_weight=1,
                yolov3_param={
                    "num_class": CLASSES,
                    "num": len(mask),
                    "object_scale": 5,
                    "noobject_scale": 1,
                    "class_scale": 1,
                    "coord_scale": 1,
                    "thresh": 0.6,
                    "anchors_scale": pixels,
                    "biases": BIASES,
                    "mask": mask,
                },
            )
        found(n, include=[{"phase": TEST}])
        n.detection_eval = ssd.scored(n, n.detection_out)

    sizes = [ssd.resized(side, (P.Resize.LINEAR, P.Resize.AREA, P.Resize.LANCZOS4), 0.1) for side in SIDES]
    pixels = {"mean_value": [127.5, 127.5, 127.5], "scale": 0.007843}
    sources = ssd.annotated((7, 1), pixels, sizes, TESTED_AT, {"yolo_data_type": 1}, [{}])
    yield Model(
        "mobilenet_yolov3",
        "YOLO, version 3, over MobileNet on VOC 2007 and 2012.",
        {
            "deploy.prototxt": inference(net("MobileNet-YOLO", [image((1, 3, TESTED_AT, TESTED_AT))], use)),
            "train_val.prototxt": net("MobileNet-YOLO", sources, training),
            "solver.prototxt": solver(
                "mobilenet_yolov3",
                iter_size=9,
                test_iter=[ssd.TESTED],
                test_interval=1000,
                test_initialization=False,
                type="RMSProp",
                momentum=0,
                base_lr=0.0005,
                lr_policy="multistep",
                gamma=0.5,
                stepvalue=[10000, 20000, 30000, 40000],
                max_iter=50000,
                weight_decay=0.00005,
                display=10,
                average_loss=10,
                snapshot=1000,
                eval_type="detection",
                ap_version="11point",
                show_per_class_result=True,
            ),
        },
    )


def body(n: NetSpec, learns: bool) -> None:
    """MobileNet without its classes; a coarse scale on its end, a fine one on that and its eleventh block. Each
    convolution with BatchNorm and Scale where it learns, and without where those have been folded into the weights, as
    into the published ones.
    """
    top = ssd.mobilenet(n, learns, rate=0.1)
    coarse = ssd.separable(n, "conv15", top, 1024, 1024, learns)
    n.upsample = L.Deconvolution(
        coarse,
        param=[{"lr_mult": 0, "decay_mult": 0}],
        convolution_param={
            "num_output": 512,
            "group": 512,
            "kernel_size": 1,
            "stride": 2,
            "pad": 0,
            "weight_filler": parts.constant(1),
            "bias_term": False,
        },
    )
    n.maxpool = L.Pooling(n.upsample, pool=P.Pooling.MAX, kernel_size=2, stride=1, pad=1)
    beside = ssd.separable(n, "conv17", n["conv11/relu"], 512, 512, learns)
    n["conv17/sum"] = L.Eltwise(n.maxpool, beside)
    fine = ssd.separable(n, "conv18", n["conv17/sum"], 512, 1024, learns, to="conv18_new")
    for name, bottom in (("conv19", coarse), ("conv20", fine)):
        parts.conv(n, name, bottom, 3 * (5 + CLASSES), 1, weight_filler=parts.XAVIER, bias_filler=parts.constant())


def found(n: NetSpec, **settings: Any) -> None:
    n.detection_out = L.Yolov3DetectionOutput(
        *[n[layer] for layer, _, _ in SCALES],
        yolov3_detection_output_param={
            "num_classes": CLASSES,
            "confidence_threshold": 0.01,
            "nms_threshold": 0.45,
            "biases": BIASES,
            "anchors_scale": [pixels for _, pixels, _ in SCALES],
            "mask_group_num": len(SCALES),
            "mask": [anchor for _, _, mask in SCALES for anchor in mask],
        },
        **settings,
    )
