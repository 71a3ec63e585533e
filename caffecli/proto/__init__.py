"""Caffe's messages: ``caffe.proto`` and the Python classes made of it."""

from caffecli.proto import caffe_pb2

__all__ = ["caffe_pb2"]
