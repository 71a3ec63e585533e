"""The nets of models/ that export can write."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
#: detectors, whose boxes no program makes: their export is refused
DETECTORS = {
    "faster_rcnn_vgg16",
    "faster_rcnn_zf",
    "mobilenet_ssd",
    "mobilenet_yolov3",
    "rfcn_resnet50",
    "ssd300_vgg16",
}
EXPORTED = {path.parent.name for path in ROOT.glob("models/*/deploy.prototxt")} - DETECTORS
