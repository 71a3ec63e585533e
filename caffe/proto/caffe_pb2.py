"""The very module ``caffe.proto.caffe_pb2``, for programs that put this folder on the path and ``import caffe_pb2``."""

import sys

from caffecli.proto import caffe_pb2

sys.modules[__name__] = caffe_pb2
