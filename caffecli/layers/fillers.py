"""The first values of a blob: what ``weight_filler { type: "xavier" }`` asks for.

=================  =====================================================================
constant           value (0)
uniform            U(min, max) (0 to 1)
gaussian           N(mean, std^2) (0, 1); ``sparse: s`` keeps each value with probability s / outputs
positive_unitball  U(0, 1), then each output's values divided by their sum
xavier             U(-a, a), a = sqrt(3 / n); Glorot and Bengio, AISTATS 2010
msra               N(0, 2 / n); He, Zhang, Ren and Sun, ICCV 2015
bilinear           the kernel that interpolates when a Deconvolution enlarges; 4 axes, square
=================  =====================================================================

n follows ``variance_norm``: FAN_IN (the default), FAN_OUT, or their AVERAGE. The fans are counted from the blob's shape
alone: fan_in = count / shape[0], fan_out = count / shape[1]; for an InnerProduct they are the true ones only when it is
not transposed. Random values come from torch's default generator. Source: ``caffe/filler.hpp``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import FillerParameter
from caffecli.wording import did_you_mean


def fill(tensor: Tensor, filler: FillerParameter, layer_name: str) -> None:
    """Write ``filler``'s values into ``tensor``, in place.

    Raises SpecError, naming the layer, for an unknown type or a setting that the type cannot take.
    """
    rule = _FILLERS.get(filler.type)
    if rule is None:
        hint = did_you_mean(filler.type, _FILLERS) or ";"
        raise SpecError(
            f"layer {layer_name!r}: unknown filler {filler.type!r}{hint} known fillers: {', '.join(_FILLERS)}"
        )
    try:
        if filler.sparse != -1 and filler.type != "gaussian":
            raise _Unfit(f"sparse is for gaussian fillers only, got sparse: {filler.sparse}")
        with torch.no_grad():
            rule(tensor, filler)
    except _Unfit as unfit:
        raise SpecError(f"layer {layer_name!r}, {filler.type} filler: {unfit}") from None


class _Unfit(Exception):
    """A setting or shape that a filler cannot take."""


def _constant(tensor: Tensor, filler: FillerParameter) -> None:
    tensor.fill_(filler.value)


def _uniform(tensor: Tensor, filler: FillerParameter) -> None:
    if filler.min > filler.max:
        raise _Unfit(f"expected min <= max, got min: {filler.min:g} and max: {filler.max:g}")
    tensor.uniform_(filler.min, filler.max)


def _gaussian(tensor: Tensor, filler: FillerParameter) -> None:
    if filler.std <= 0:
        raise _Unfit(f"expected std > 0, got {filler.std:g}; for equal values use a constant filler")
    tensor.normal_(filler.mean, filler.std)
    if filler.sparse == -1:
        return
    # `sparse` is the mean number of non-zero weights into an output of an InnerProduct, yet Caffe divides by the
    # outputs.
    outputs = _shape(tensor)[0]
    if not 0 <= filler.sparse <= outputs:
        raise _Unfit(f"expected sparse from 0 to {outputs}, the blob's first dimension, got {filler.sparse}")
    tensor.mul_(torch.empty_like(tensor).bernoulli_(filler.sparse / outputs))


def _positive_unitball(tensor: Tensor, filler: FillerParameter) -> None:
    outputs = _shape(tensor)[0]
    rows = torch.rand(outputs, tensor.numel() // outputs, dtype=tensor.dtype, device=tensor.device)
    tensor.copy_((rows / rows.sum(1, keepdim=True)).view(tensor.shape))


def _xavier(tensor: Tensor, filler: FillerParameter) -> None:
    bound = math.sqrt(3 / _fan(tensor, filler))
    tensor.uniform_(-bound, bound)


def _msra(tensor: Tensor, filler: FillerParameter) -> None:
    tensor.normal_(0, math.sqrt(2 / _fan(tensor, filler)))


def _bilinear(tensor: Tensor, filler: FillerParameter) -> None:
    if tensor.dim() != 4 or tensor.shape[2] != tensor.shape[3]:
        raise _Unfit(f"expected a blob of 4 axes with a square kernel, got {tuple(tensor.shape)}")
    width = tensor.shape[3]
    factor = math.ceil(width / 2)
    centre = (width - 1) / (2 * factor)
    line = 1 - (torch.arange(width, dtype=tensor.dtype, device=tensor.device) / factor - centre).abs()
    tensor.copy_(line[:, None] * line)


def _fan(tensor: Tensor, filler: FillerParameter) -> float:
    """The n of xavier and msra."""
    shape = _shape(tensor)
    fan_in = tensor.numel() // shape[0]
    fan_out = tensor.numel() // (shape[1] if len(shape) > 1 else 1)
    if filler.variance_norm == FillerParameter.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if filler.variance_norm == FillerParameter.FAN_OUT else fan_in


def _shape(tensor: Tensor) -> torch.Size:
    """The tensor's shape, which must have a first axis: the outputs."""
    if not tensor.dim():
        raise _Unfit("expected a blob of at least one axis, got a single value; use constant, uniform or gaussian")
    return tensor.shape


_FILLERS: dict[str, Callable[[Tensor, FillerParameter], None]] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
