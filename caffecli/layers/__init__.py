"""Every layer type. Importing this package registers them all; ``registry.create`` makes one."""

from caffecli.layers import (
    activation,
    conv,
    data,
    forks,
    hdf5_output,
    linear,
    loss,
    metric,
    norm,
    pool,
    python,
    recurrent,
    reduce,
    select,
    shape,
)
from caffecli.layers.base import Layer
from caffecli.layers.registry import create, layer_class, types

__all__ = [
    "Layer",
    "activation",
    "conv",
    "create",
    "data",
    "forks",
    "hdf5_output",
    "layer_class",
    "linear",
    "loss",
    "metric",
    "norm",
    "pool",
    "python",
    "recurrent",
    "reduce",
    "select",
    "shape",
    "types",
]
