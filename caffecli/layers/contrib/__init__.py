"""Layers of Caffe's forks, those that people bring most. Settings have the fork's own names and numbers: ``proto.forks``."""

from caffecli.layers.contrib import batch, channels, depthwise, detection, priors, regions, resize

__all__ = ["batch", "channels", "depthwise", "detection", "priors", "regions", "resize"]
