"""Losses that ask for a margin: HingeLoss between classes, ContrastiveLoss between pairs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from caffecli.layers.base import Shape
from caffecli.layers.labels import check_count, classes_of
from caffecli.layers.loss import Loss, full
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import HingeLossParameter


@register("HingeLoss")
class HingeLoss(Loss):
    """loss = sum_i sum_c max(0, 1 - s_ic x_ic)^p / N, s_ic = 1 where c is item i's own class and -1 elsewhere.

    Bottoms: scores (N, …), whose values are one class each, and labels (N). ``hinge_loss_param { norm }``: L1 (the default),
    p = 1, or L2, p = 2. Raises ShapeError where the labels' count differs, LabelError where a label is not a class; on an
    accelerator such a label makes the loss NaN. Source: ``hinge_loss_layer.cpp``.
    """

    label_bottoms = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.squared = self.param.hinge_loss_param.norm == HingeLossParameter.L2

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        tops = super().reshape(bottoms)
        items, *others = bottoms[0]
        check_count(self, 1, [(items, math.prod(others)), bottoms[1]])
        self.class_axis = 1 if len(others) == 1 else None
        return tops

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = full(x).reshape(x.shape[0], -1)
        target, bad = classes_of(self, labels, x.shape[1])
        own = -1.0 if bad is None else torch.where(bad, math.nan, -1.0).to(x.dtype)[:, None]
        sign = torch.ones_like(x).scatter(1, target[:, None], own)
        margins = torch.relu(1 + sign * x)
        return (margins.square() if self.squared else margins).sum() / x.shape[0]


@register("ContrastiveLoss")
class ContrastiveLoss(Loss):
    """loss = sum over pairs of e / (2 N): e = d^2 for similar pairs, max(0, margin - d)^2 for others, d = |a - b|.

    Bottoms: a and b (N, C), and similar (N): 0 for pairs that are not. ``contrastive_loss_param``: margin (1); legacy_version
    (false): e = max(0, margin - d^2) for pairs that are not similar. Both a and b get a gradient, in which Caffe divides by
    d + 0.0001 where the derivative has d. Raises ShapeError where the bottoms do not fit.
    Source: Hadsell, Chopra and LeCun, CVPR 2006; ``contrastive_loss_layer.cpp``.
    """

    label_bottoms = (2,)
    bottom_count = (3, 3)
    no_gradient = (2,)

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.param.contrastive_loss_param
        self.margin, self.legacy = param.margin, param.legacy_version

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        tops = super().reshape(bottoms)
        if tuple(bottoms[0][:2]) != tuple(bottoms[1][:2]) or any(math.prod(shape[2:]) != 1 for shape in bottoms[:2]):
            raise self.shape_error(f"expected two bottoms of one shape (N, C), got {self.listing(bottoms)}")
        pairs = bottoms[0][0]
        if math.prod(bottoms[2]) != pairs:
            raise self.shape_error(f"expected {pairs} values, one for each pair, as third bottom, got {self.listing(bottoms)}")
        return tops

    def forward(self, a: Tensor, b: Tensor, similar: Tensor) -> Tensor:
        a = full(a)
        difference = (a - b.reshape(a.shape).to(a.dtype)).reshape(a.shape[0], -1)
        alike = similar.detach().reshape(-1, 1).trunc() != 0
        loss: Tensor = _Contrast.apply(difference, alike, self.margin, self.legacy)  # type: ignore[no-untyped-call]
        return loss


class _Contrast(torch.autograd.Function):
    """The loss of the differences a - b (N, C). Written out because Caffe's gradient is not quite the derivative."""

    @staticmethod
    def forward(ctx: Any, difference: Tensor, alike: Tensor, margin: float, legacy: bool) -> Tensor:
        square = difference.square().sum(1, keepdim=True)
        if legacy:
            loss = (margin - square).clamp(min=0)
            slope = -(square < margin).to(square.dtype)
        else:
            distance = square.sqrt()
            gap = (margin - distance).clamp(min=0)
            loss, slope = gap.square(), -gap / (distance + 1e-4)
        ctx.save_for_backward(difference, torch.where(alike, 1, slope))
        return torch.where(alike, square, loss).sum() / (2 * len(difference))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        difference, slope = ctx.saved_tensors
        return difference * (slope * (grad / len(difference))), None, None, None
