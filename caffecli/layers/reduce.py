"""Layers that make one value, or a few, of many: ArgMax, Reduction."""

from __future__ import annotations

import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape, exporting
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import ReductionParameter

#: along an axis of at least so many values, comparing with the maximum is faster than argmax
_FEW = 100


@register("ArgMax")
class ArgMax(Layer):
    """The places, counted from 0, of the ``top_k`` (1) largest values, largest first;
    of equals, the later place comes first.

    With ``axis`` they are taken along it: bottom (..., n, ...), top (..., top_k, ...), the values themselves with
    ``out_max_val``. Without, all values of an item are one row: bottom (N, ...), top (N, 1, top_k, 1, ...) with as many
    axes as the bottom and at least 3, or (N, 2, top_k, 1, ...) with ``out_max_val``: the places, then the values. No
    gradient.
    Raises SpecError where top_k is 0 or past the values, or the axis out of range. Source: ``argmax_layer.cpp``.
    """

    no_gradient = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.argmax_param
        self.by_axis = param.HasField("axis")
        self.values, self.top_k = param.out_max_val, param.top_k

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shape = tuple(bottoms[0])
        if not shape:
            raise self.shape_error("expected a bottom of at least one axis, got a single value")
        self.along = self.axis(self.param.argmax_param.axis, len(shape)) if self.by_axis else 1
        count = shape[self.along] if self.by_axis else torch.Size(shape[1:]).numel()
        if not 1 <= self.top_k <= count:
            where = f"axis {self.along}" if self.by_axis else "each item"
            raise self.spec_error(
                f"expected top_k from 1 to {count}, the values along {where} of {shape}, got {self.top_k}"
            )
        if self.by_axis:
            return [torch.Size((*shape[: self.along], self.top_k, *shape[self.along + 1 :]))]
        return [torch.Size((shape[0], 1 + self.values, self.top_k, *(1,) * (len(shape) - 3)))]

    def forward(self, x: Tensor) -> Tensor:
        x = x.detach()
        if x.dtype in (torch.float16, torch.bfloat16):  # which could not count the places
            x = x.float()
        if self.by_axis:
            place = _largest(x, self.along, self.top_k)
            return x.gather(self.along, place.long()) if self.values else place.to(x.dtype)
        rows = x if x.dim() == 2 else x.reshape(x.shape[0], -1)
        place = _largest(rows, 1, self.top_k)
        top = torch.stack((place.to(x.dtype), rows.gather(1, place.long())), 1) if self.values else place.to(x.dtype)
        return top.reshape(x.shape[0], 1 + self.values, self.top_k, *(1,) * (x.dim() - 3))


def _largest(x: Tensor, axis: int, count: int) -> Tensor:
    """The places of the ``count`` largest values along an axis, of equals the later first;
    as int64 or in ``x``'s type.
    """
    last = x.shape[axis] - 1
    eager = x.device.type == "cpu" and not torch.compiler.is_compiling()
    if count == 1:
        if not eager or not _FEW <= last < 2**24:  # above that, not all places are float32 numbers
            return last - x.flip(axis).argmax(axis, keepdim=True)
        # The maximum is vectorized, its place is not. Of the places of all values that equal it, the last.
        largest = torch.ge(x, x.amax(axis, keepdim=True), out=torch.empty_like(x))
        places = torch.arange(last + 1, dtype=x.dtype).view(-1, *(1,) * (x.dim() - axis - 1))
        return largest.mul_(places).amax(axis, keepdim=True)
    if eager:
        value, place = x.topk(
            min(count, last) + 1, axis
        )  # one more than asked for, to see that no equals compete for a place
        if value.diff(dim=axis).amax().item() < 0:
            return place.to(x.dtype).narrow(axis, 0, count)
    if x.dtype != torch.float32 or exporting():  # a sort, which ONNX has too
        return last - x.flip(axis).argsort(dim=axis, descending=True, stable=True).narrow(axis, 0, count)
    # torch.topk leaves the order of equals open. Whole numbers that rise with the value, then with the place, have no
    # equals.
    bits = (x + 0.0).view(torch.int32)  # the sum makes -0 a 0
    bits.bitwise_xor_((bits >> 31).bitwise_and_(0x7FFFFFFF))
    places = torch.arange(last + 1, device=x.device).view(-1, *(1,) * (x.dim() - axis - 1))
    keys = bits.long().mul_(2**32).add_(places)
    return keys.topk(count, axis)[0].bitwise_and_(2**32 - 1)


@register("Reduction")
class Reduction(Layer):
    """y = coeff * f(x) over all axes from ``axis`` (0) on: SUM x (the default), MEAN x, ASUM |x| or SUMSQ x^2;
    coeff is 1.

    Bottom (d0, d1, ...), top the axes before ``axis``: by default a single value. At 0 the gradient of ASUM is 0.
    Raises SpecError where the axis is out of range. Source: ``reduction_layer.cpp``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        self.operation, self.coeff = self.param.reduction_param.operation, self.param.reduction_param.coeff

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        dims = len(bottoms[0])
        first = self.axis(self.param.reduction_param.axis, dims)
        self.axes = tuple(range(first, dims))
        return [torch.Size(bottoms[0][:first])]

    def forward(self, x: Tensor) -> Tensor:
        if self.operation == ReductionParameter.MEAN:
            y = x.mean(self.axes)
        elif self.operation == ReductionParameter.ASUM:
            y = x.abs().sum(self.axes)
        else:
            y = (x.square() if self.operation == ReductionParameter.SUMSQ else x).sum(self.axes)
        return y if self.coeff == 1 else y * self.coeff
