"""SSD: Liu et al., ECCV 2016, weiliu89/caffe."""

from caffecli.layers.forks.ssd import annotated, channels, detection, evaluate, multibox, priors, video

__all__ = ["annotated", "channels", "detection", "evaluate", "multibox", "priors", "video"]
