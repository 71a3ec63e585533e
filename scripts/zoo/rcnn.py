"""Faster R-CNN (S. Ren and others, 2015) over ZF and VGG-16, R-FCN (J. Dai and others, 2016) over ResNet-50: trained
end to end, with the layers and names of py-faster-rcnn and py-R-FCN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from caffe.net_spec import NetSpec, Top
from caffe.net_spec import layers as L
from caffe.net_spec import params as P
from scripts.zoo import parts, resnet
from scripts.zoo.model import Model, Source, inference, net, solver

#: VOC's twenty, and the background
CLASSES = 21
#: at each place; features have a sixteenth of the picture's size
ANCHORS = 9
SCALE = 1 / 16
DATA = "data/VOC0712/VOC0712_trainval_lmdb"
RATES = [{"lr_mult": 1}, {"lr_mult": 2}]
FIXED = [{"lr_mult": 0, "decay_mult": 0}] * 2
#: of the layers that are new to a net made for classes
NEW = {"param": RATES, "weight_filler": parts.gaussian(0.01), "bias_filler": parts.constant()}
#: of what anchors should become
NORMALIZED = {"RPN_NORMALIZE_TARGETS": True}
#: a net below its heads: what regions are proposed from, and what they are cut out of
Body = Callable[[NetSpec], tuple[Top, Top]]
#: what each region is, and where its object; ``learns``: or else it is used
Head = Callable[[NetSpec, Top, bool], tuple[Top, Top]]


def models() -> Iterator[Model]:
    sample = {"num_classes": CLASSES, "BBOX_NORMALIZE_TARGETS_PRECOMPUTED": True, "BG_THRESH_LO": 0.0}
    for name, net_name, about, body, head in (
        ("faster_rcnn_zf", "ZF", "ZF", zf, of_zf),
        ("faster_rcnn_vgg16", "VGG_ILSVRC_16_layers", "VGG-16", vgg, of_vgg),
    ):
        yield Model(
            name,
            f"Faster R-CNN over {about} on VOC 2007 and 2012, trained end to end.",
            {
                "deploy.prototxt": use(net_name, body, head),
                "train.prototxt": training(net_name, body, head, classified, sample),
                "solver.prototxt": learns(name, "train", stepsize=50000, max_iter=70000, average_loss=100),
            },
        )
    sample = {"num_classes": 2, "AGNOSTIC": True, "BBOX_NORMALIZE_TARGETS_PRECOMPUTED": True}
    mined = {**sample, "BATCH_SIZE": -1, "BG_THRESH_LO": 0.0}
    few = {"RPN_PRE_NMS_TOP_N": 6000, "RPN_POST_NMS_TOP_N": 300}
    name = "rfcn_resnet50"
    yield Model(
        name,
        "R-FCN over ResNet-50 on VOC 2007 and 2012, trained end to end, also with mining of hard regions (OHEM).",
        {
            "deploy.prototxt": use("ResNet-50", fifty, placed),
            "train.prototxt": training("ResNet-50", fifty, placed, all_placed, sample, few),
            "train_ohem.prototxt": training("ResNet-50", fifty, placed, hardest, mined, few, NORMALIZED),
            "solver.prototxt": learns(name, "train", stepsize=80000, max_iter=110000),
            "solver_ohem.prototxt": learns(name, "train_ohem", stepsize=80000, max_iter=110000),
        },
    )


def learns(model: str, file: str, **settings: Any) -> Any:
    prefix = model + file.removeprefix("train")
    settings = {"base_lr": 0.001, "lr_policy": "step", "gamma": 0.1, "display": 20, **settings}
    return solver(
        model, file=f"{file}.prototxt", prefix=prefix, weight_decay=0.0005, iter_size=2, snapshot=10000, **settings
    )


def python(module: str, layer: str, **settings: Any) -> dict[str, Any]:
    """A layer of py-faster-rcnn's, by the module and the class that its nets name."""
    text = ", ".join(f"{name!r}: {value!r}" for name, value in settings.items())
    return {"python_param": {"module": module, "layer": layer, "param_str": text}}


def use(name: str, body: Body, head: Head) -> Any:
    """The net that finds objects in a picture."""

    def build(n: NetSpec) -> None:
        proposing, features = body(n)
        proposals(n, proposing, "rois")
        scores, change = head(n, features, False)
        if change is n.tops.get("bbox_pred_pre"):  # of four axes, the regions along the first
            n.cls_prob_pre = L.Softmax(scores, name="cls_prob")
            n.cls_prob = L.Reshape(n.cls_prob_pre, shape={"dim": [-1, CLASSES]}, name="cls_prob_reshape")
            n.bbox_pred = L.Reshape(change, shape={"dim": [-1, 8]}, name="bbox_pred_reshape")
        else:
            n.cls_prob = L.Softmax(scores)

    picture = Source("Input", ("data",), {"shape": [{"dim": [1, 3, 600, 1000]}]})
    return inference(net(name, [picture, Source("Input", ("im_info",), {"shape": [{"dim": [1, 3]}]})], build))


def training(
    name: str,
    body: Body,
    head: Head,
    end: Callable[[NetSpec, Top, Top], None],
    sample: dict[str, Any],
    proposed: dict[str, Any] | None = None,
    anchors: dict[str, Any] | None = None,
) -> Any:
    """The net that learns to propose regions and what is in them; settings of the ``sample`` of regions, of how many
    are ``proposed``, and of what ``anchors`` should become.
    """
    anchors = anchors or {}

    def build(n: NetSpec) -> None:
        proposing, features = body(n)
        proposals(n, proposing, "rpn_rois", **(proposed or {}), **anchors)
        n.rpn_labels, n.rpn_bbox_targets, n.rpn_bbox_inside_weights, n.rpn_bbox_outside_weights = L.Python(
            n.rpn_cls_score, n.gt_boxes, n.im_info, n.data, ntop=4, name="rpn-data",
            **python("rpn.anchor_target_layer", "AnchorTargetLayer", feat_stride=16, **anchors),
        )  # fmt: skip
        n.rpn_cls_loss = L.SoftmaxWithLoss(
            n.rpn_cls_score_reshape, n.rpn_labels, name="rpn_loss_cls", propagate_down=[True, False],
            loss_param={"ignore_label": -1, "normalize": True},
        )  # fmt: skip
        n.rpn_loss_bbox = L.SmoothL1Loss(
            n.rpn_bbox_pred, n.rpn_bbox_targets, n.rpn_bbox_inside_weights, n.rpn_bbox_outside_weights,
            smooth_l1_loss_param={"sigma": 3},
        )  # fmt: skip
        n.rois, n.labels, n.bbox_targets, n.bbox_inside_weights, n.bbox_outside_weights = L.Python(
            n.rpn_rois, n.gt_boxes, ntop=5, name="roi-data",
            **python("rpn.proposal_target_layer", "ProposalTargetLayer", **sample),
        )  # fmt: skip
        end(n, *head(n, features, True))

    reads = python("roi_data_layer.layer", "RoIDataLayer", num_classes=CLASSES, source=DATA)
    return net(name, [Source("Python", ("data", "im_info", "gt_boxes"), reads, "input-data")], build)


def proposals(n: NetSpec, bottom: Top, regions: str, **settings: Any) -> None:
    """The region proposal network, whose regions are the top ``regions``."""
    channels = 256 if "norm1" in n.tops else 512
    n["rpn/output"] = L.Convolution(bottom, name="rpn_conv/3x3", num_output=channels, kernel_size=3, pad=1, **NEW)
    n["rpn_relu/3x3"] = L.ReLU(n["rpn/output"], in_place=True)
    n.rpn_cls_score = L.Convolution(n["rpn/output"], num_output=2 * ANCHORS, kernel_size=1, **NEW)
    n.rpn_bbox_pred = L.Convolution(n["rpn/output"], num_output=4 * ANCHORS, kernel_size=1, **NEW)
    n.rpn_cls_score_reshape = L.Reshape(n.rpn_cls_score, shape={"dim": [0, 2, -1, 0]})
    n.rpn_cls_prob = L.Softmax(n.rpn_cls_score_reshape)
    n.rpn_cls_prob_reshape = L.Reshape(n.rpn_cls_prob, shape={"dim": [0, 2 * ANCHORS, -1, 0]})
    n[regions] = L.Python(
        n.rpn_cls_prob_reshape, n.rpn_bbox_pred, n.im_info, name="proposal",
        **python("rpn.proposal_layer", "ProposalLayer", feat_stride=16, **settings),
    )  # fmt: skip


# -- the nets below ----------------------------------------------------------------------------------------------------


def zf(n: NetSpec) -> tuple[Top, Top]:
    top = n.data
    for i, (width, kernel_size, pad, stride) in enumerate(
        ((96, 7, 3, 2), (256, 5, 2, 2), (384, 3, 1, 1), (384, 3, 1, 1), (256, 3, 1, 1)), 1
    ):
        settings = {"pad": pad, "stride": stride, "param": RATES}
        top = parts.conv(n, f"conv{i}", top, width, kernel_size, relu=f"relu{i}", **settings)
        if i <= 2:
            n[f"norm{i}"] = L.LRN(
                top, local_size=3, alpha=0.00005, beta=0.75, norm_region=P.LRN.WITHIN_CHANNEL, engine=P.LRN.CAFFE
            )
            top = parts.max_pool(n, f"pool{i}", n[f"norm{i}"], 3, 2, pad=1)
    return top, top


def vgg(n: NetSpec) -> tuple[Top, Top]:
    """Its first two blocks stay as they are."""
    top = n.data
    for block, (count, width) in enumerate(((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), 1):
        for i in range(1, count + 1):
            name = f"{block}_{i}"
            settings = {"pad": 1, "param": FIXED if block <= 2 else RATES}
            top = parts.conv(n, f"conv{name}", top, width, 3, relu=f"relu{name}", **settings)
        if block < 5:
            top = parts.max_pool(n, f"pool{block}", top, 2, 2)
    return top, top


def fifty(n: NetSpec) -> tuple[Top, Top]:
    """ResNet-50 whose last stage keeps the size, and a convolution of 1024. Statistics and scales stay as they are, and
    so does all up to the second stage.
    """
    top = resnet.stages(n, n.data, 50, spread=True)
    for name in n.tops:
        layer = n[name].fn
        if layer.type_name == "Convolution":
            rate = {"lr_mult": 0 if name == "conv1" or name.startswith("res2") else 1}
            n.update(name, {"param": [rate] * len(layer.params["param"])})
        elif layer.type_name == "BatchNorm":
            n.update(name, {"use_global_stats": True})
        elif layer.type_name == "Scale":
            n.update(name, {"param": FIXED})
    return n.res4f, parts.conv(n, "conv_new_1", top, 1024, 1, relu="conv_new_1_relu", **NEW)


# -- the heads ---------------------------------------------------------------------------------------------------------


def of_zf(n: NetSpec, features: Top, learns: bool) -> tuple[Top, Top]:
    """Its Dropout does its scaling when the net is used, so that it is there then too."""
    n.roi_pool_conv5 = pooled(features, n.rois, 6)
    return fully(n, n.roi_pool_conv5, {"scale_train": False})


def of_vgg(n: NetSpec, features: Top, learns: bool) -> tuple[Top, Top]:
    n.pool5 = pooled(features, n.rois, 7, name="roi_pool5")
    return fully(n, n.pool5, {} if learns else None)


def pooled(features: Top, regions: Top, size: int, **settings: Any) -> Top:
    return L.ROIPooling(features, regions, pooled_w=size, pooled_h=size, spatial_scale=SCALE, **settings)


def fully(n: NetSpec, top: Top, dropout: dict[str, Any] | None) -> tuple[Top, Top]:
    for i in (6, 7):
        top = parts.inner(n, f"fc{i}", top, 4096, relu=f"relu{i}", param=RATES)
        if dropout is not None:
            n[f"drop{i}"] = top = L.Dropout(top, in_place=True, dropout_ratio=0.5, **dropout)
    n.cls_score = L.InnerProduct(top, num_output=CLASSES, **NEW)
    n.bbox_pred = L.InnerProduct(top, num_output=4 * CLASSES, **{**NEW, "weight_filler": parts.gaussian(0.001)})
    return n["cls_score"], n["bbox_pred"]


def placed(n: NetSpec, features: Top, learns: bool) -> tuple[Top, Top]:
    """R-FCN's: scores and boxes of 7 x 7 places of a region, and their means."""
    change = "bbox_pred" if learns else "bbox_pred_pre"
    for name, of, count, top in (("cls", "cls", CLASSES, "cls_score"), ("bbox", "loc", 8, change)):
        n[f"rfcn_{name}"] = L.Convolution(features, num_output=count * 49, kernel_size=1, **NEW)
        n[f"psroipooled_{of}_rois"] = L.PSROIPooling(
            n[f"rfcn_{name}"],
            n.rois,
            psroi_pooling_param={"spatial_scale": SCALE, "output_dim": count, "group_size": 7},
        )
        n[top] = L.Pooling(
            n[f"psroipooled_{of}_rois"], name=f"ave_{top.removesuffix('_pre')}_rois", pool=P.Pooling.AVE,
            kernel_size=7, stride=7,
        )  # fmt: skip
    return n.cls_score, n[change]


def classified(n: NetSpec, scores: Top, change: Top) -> None:
    n.loss_cls = L.SoftmaxWithLoss(scores, n.labels, propagate_down=[True, False])
    n.loss_bbox = L.SmoothL1Loss(change, n.bbox_targets, n.bbox_inside_weights, n.bbox_outside_weights)


def all_placed(n: NetSpec, scores: Top, change: Top) -> None:
    n.loss_cls = L.SoftmaxWithLoss(scores, n.labels, name="loss", propagate_down=[True, False])
    n.accuracy = L.Accuracy(scores, n.labels, propagate_down=[False, False])
    n.loss_bbox = box_loss(change, n.bbox_targets, n.bbox_inside_weights)
    n.silence = L.Silence(n.bbox_outside_weights, ntop=0)


def box_loss(*bottoms: Top) -> Top:
    return L.SmoothL1LossOHEM(
        *bottoms,
        propagate_down=[True, False, False],
        loss_param={"normalization": P.Loss.PRE_FIXED, "pre_fixed_normalizer": 128},
    )


def hardest(n: NetSpec, scores: Top, change: Top) -> None:
    """The losses of the 128 regions that have the largest."""
    none = {"propagate_down": [False] * 2}
    n.temp_loss_cls, n.temp_prob_cls, n.per_roi_loss_cls = L.SoftmaxWithLossOHEM(
        scores, n.labels, ntop=3, name="per_roi_loss_cls", loss_weight=[0, 0, 0], **none
    )
    n.temp_loss_bbox, n.per_roi_loss_bbox = L.SmoothL1LossOHEM(
        change, n.bbox_targets, n.bbox_inside_weights, ntop=2, name="per_roi_loss_bbox", loss_weight=[0, 0],
        propagate_down=[False] * 3,
    )  # fmt: skip
    n.per_roi_loss = L.Eltwise(n.per_roi_loss_cls, n.per_roi_loss_bbox, **none)
    n.labels_ohem, n.bbox_loss_weights_ohem = L.BoxAnnotatorOHEM(
        n.rois, n.per_roi_loss, n.labels, n.bbox_inside_weights, ntop=2, name="annotator_detector",
        propagate_down=[False] * 4, box_annotator_ohem_param={"roi_per_img": 128, "ignore_label": -1},
    )  # fmt: skip
    n.silence = L.Silence(n.bbox_outside_weights, n.temp_loss_cls, n.temp_prob_cls, n.temp_loss_bbox, ntop=0)
    ignored = {"loss_param": {"ignore_label": -1}}
    n.loss_cls = L.SoftmaxWithLoss(scores, n.labels_ohem, name="loss", propagate_down=[True, False], **ignored)
    n.accuracy = L.Accuracy(scores, n.labels_ohem, propagate_down=[False, False], ignore_label=-1)
    n.loss_bbox = box_loss(change, n.bbox_targets, n["bbox_loss_weights_ohem"])
