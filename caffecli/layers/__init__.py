"""Every layer type. Importing this package registers them all; ``registry.create`` makes one."""

from caffecli.layers import activation, conv, data, linear, loss, metric, norm, pool, shape
from caffecli.layers.base import Layer
from caffecli.layers.registry import create, types

__all__ = ["Layer", "activation", "conv", "create", "data", "linear", "loss", "metric", "norm", "pool", "shape", "types"]
