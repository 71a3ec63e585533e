"""``import caffe``: the Python interface that Caffe's users know, over ``caffecli``."""

from __future__ import annotations
