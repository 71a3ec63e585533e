"""Every layer type. Importing this package registers them all; ``registry.create`` makes one."""

from caffecli.layers import (
    activation,
    conv,
    data,
    hdf5_output,
    im2col,
    information,
    linear,
    loss,
    lstm_unit,
    margin,
    metric,
    norm,
    pool,
    recurrent,
    reduce,
    select,
    sequences,
    shape,
)
from caffecli.layers.base import Layer
from caffecli.layers.registry import create, types

__all__ = [
    "Layer",
    "activation",
    "conv",
    "create",
    "data",
    "hdf5_output",
    "im2col",
    "information",
    "linear",
    "loss",
    "lstm_unit",
    "margin",
    "metric",
    "norm",
    "pool",
    "recurrent",
    "reduce",
    "select",
    "sequences",
    "shape",
    "types",
]
