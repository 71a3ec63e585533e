"""LSTMUnit: one step of an LSTM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from caffecli.layers.base import Layer, Shape
from caffecli.layers.loss import full
from caffecli.layers.registry import register


@register("LSTMUnit")
class LSTMUnit(Layer):
    """c = cont s(f) c_prev + s(i) tanh(g), h = s(o) tanh(c), s(x) = 1 / (1 + exp(-x)).

    Bottoms: c_prev (1, N, D), the gates' inputs i, f, o and g (1, N, 4 D), cont (1, N). Tops: c and h, (1, N, D).
    Where cont is neither 0 nor 1 the gradient to f is Caffe's, (cont s)(1 - cont s) for cont s (1 - s).
    Raises ShapeError where the bottoms do not fit. Source: ``lstm_unit_layer.cpp``.
    """

    bottom_count = (3, 3)
    top_count = (2, 2)
    no_gradient = (2,)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        c = tuple(bottoms[0])
        if len(c) != 3 or c[0] != 1 or tuple(bottoms[1]) != (1, c[1], 4 * c[2]) or tuple(bottoms[2]) != (1, c[1]):
            raise self.shape_error(f"expected bottoms of (1, N, D), (1, N, 4 D) and (1, N), got {self.listing(bottoms)}")
        return [torch.Size(c)] * 2

    def forward(self, c: Tensor, sums: Tensor, cont: Tensor) -> tuple[Tensor, Tensor]:
        c = full(c)
        return lstm_unit(c, sums.to(c.dtype), cont.detach()[..., None].to(c.dtype))


def lstm_unit(c: Tensor, sums: Tensor, go_on: Tensor) -> tuple[Tensor, Tensor]:
    """c and h after one step of an LSTM, of c before it, the gates' inputs (…, 4 D), and cont (…, 1)."""
    i, f, o, g = sums.chunk(4, -1)
    forget: Tensor = _Forget.apply(f, go_on)  # type: ignore[no-untyped-call]
    c = forget * c + torch.sigmoid(i) * torch.tanh(g)
    return c, torch.sigmoid(o) * torch.tanh(c)


class _Forget(torch.autograd.Function):
    """y = cont s(x), with Caffe's gradient y (1 - y), the derivative where cont is 0 or 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cont: Tensor) -> Tensor:
        y = torch.sigmoid(x) * cont
        ctx.save_for_backward(y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return grad * y * (1 - y), None
