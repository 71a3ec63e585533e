"""Every layer type. Importing this package registers them all; ``registry.create`` makes one."""

from caffecli.layers import activation, conv, linear, norm, pool
from caffecli.layers.base import Layer
from caffecli.layers.registry import create, types

__all__ = ["Layer", "activation", "conv", "create", "linear", "norm", "pool", "types"]
