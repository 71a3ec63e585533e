"""``caffe.proto.caffe_pb2``: the very module ``caffecli.proto.caffe_pb2``, so that messages of both are the same."""

from __future__ import annotations

import sys

from caffecli.proto import caffe_pb2

sys.modules[f"{__name__}.caffe_pb2"] = caffe_pb2

__all__ = ["caffe_pb2"]
