"""YOLO: Redmon and others, 2016 to 2018; yeahkun/caffe-yolo, gklz1982/caffe-yolov2, eric612/MobileNet-YOLO."""

from caffecli.layers.forks.yolo import data, output, region, reorg, v1, v3

__all__ = ["data", "output", "region", "reorg", "v1", "v3"]
