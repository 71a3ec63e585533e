"""Every model, by its name."""

from __future__ import annotations

from scripts.zoo import (
    caffenet,
    captions,
    faces,
    googlenet,
    mobilenet,
    nin,
    rcnn,
    resnet,
    segmentation,
    segnet,
    small,
    squeezenet,
    ssd,
    vgg,
    vgg_cnn,
    yolo,
)

FAMILIES = (
    googlenet,
    caffenet,
    nin,
    vgg,
    vgg_cnn,
    resnet,
    squeezenet,
    mobilenet,
    small,
    segmentation,
    segnet,
    ssd,
    yolo,
    rcnn,
    faces,
    captions,
)
MODELS = {model.name: model for family in FAMILIES for model in family.models()}
