"""Layers of Caffe's forks, by project. Settings have the fork's own names and numbers: ``caffecli.proto.forks``."""

from caffecli.layers.forks import (
    ctpn,
    deeplab,
    found,
    mnc,
    mobile,
    rcnn,
    rfcn,
    rois,
    rpn,
    segnet,
    senet,
    ssd,
    unit_length,
    yolo,
)

__all__ = [
    "ctpn",
    "deeplab",
    "found",
    "mnc",
    "mobile",
    "rcnn",
    "rfcn",
    "rois",
    "rpn",
    "segnet",
    "senet",
    "ssd",
    "unit_length",
    "yolo",
]
