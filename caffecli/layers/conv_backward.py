"""A convolution whose weight gradient is computed channels-first, for processors where that is quicker.

Nets lie channels-last, where convolutions run fastest. With AVX2 alone there is one exception: PyTorch's gradient of
the weights, which takes up to four times as long there for pictures of many channels. ``docs/benchmarks.md`` has the
figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: with fewer channels than this the copies cost what the gradient saves
_CHANNELS = 64


def gains(channels: int, kernel: Sequence[int], group: int) -> bool:
    """Whether such a convolution trains faster by ``convolve`` on this processor."""
    alone = torch.backends.cpu.get_cpu_capability() == "AVX2"
    return alone and len(kernel) == 2 and group == 1 and channels >= _CHANNELS and max(kernel) > 1


def learns(x: Tensor, weight: Tensor) -> bool:
    """Whether this pass computes in float on the processor, and a gradient of the weight is wanted."""
    return (
        weight.requires_grad
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


class _Convolve(torch.autograd.Function):
    """``F.conv2d`` of one group, and its gradients."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        pad: Sequence[int],
        dilation: Sequence[int],
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.windows = stride, pad, dilation
        return F.conv2d(x, weight, bias, stride, pad, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        windows = (*ctx.windows, False, [0, 0], 1)  # not transposed, no output padding, one group
        backward = torch.ops.aten.convolution_backward
        of_x, of_weight, of_bias = None, None, None
        if wanted[0]:
            of_x = backward(grad, x, weight, None, *windows, [True, False, False])[0]
        if wanted[1]:
            first = [t.contiguous() for t in (grad, x, weight)]
            of_weight = backward(*first, None, *windows, [False, True, False])[1]
            of_weight = of_weight.contiguous(memory_format=torch.channels_last)
        if wanted[2]:
            of_bias = grad.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None, None, None


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int]
) -> Tensor:
    """``F.conv2d`` of one group."""
    y: Tensor = _Convolve.apply(x, weight, bias, stride, pad, dilation)  # type: ignore[no-untyped-call]
    return y
