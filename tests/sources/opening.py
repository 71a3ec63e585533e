"""The source that a data layer's text describes."""

from __future__ import annotations

from caffecli import sources
from caffecli.layers.data import SourceLayer
from caffecli.layers.registry import layer_class
from caffecli.proto.caffe_pb2 import LayerParameter


def opened(param: LayerParameter, phase: int, seed: int, shard: tuple[int, int] = (0, 1)) -> sources.Source:
    """As a net would open it."""
    kind = layer_class(param.type)
    assert issubclass(kind, SourceLayer)
    return sources.create(kind.reads, param, phase, seed, shard)
