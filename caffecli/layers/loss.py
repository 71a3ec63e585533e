"""Softmax and the loss layers: SoftmaxWithLoss, SigmoidCrossEntropyLoss, EuclideanLoss.

A loss layer's first top is one number, before its ``loss_weight``, which the net applies. Half-precision bottoms (autocast)
are summed in float32.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer, Shape
from caffecli.layers.labels import check_count, label_error, out_of_range, to_classes, torch_checks
from caffecli.layers.registry import register
from caffecli.layers.shape import listing
from caffecli.proto.caffe_pb2 import LossParameter

#: -log of the least normal float32: Caffe's softmax loss of one prediction goes no higher
_WORST = 126 * math.log(2)
#: an ignore_index that no label can have; torch's own default, -100, can be a (wrong) label
_NEVER = -(2**62) - 1


@register("Softmax")
class Softmax(Layer):
    """y_c = exp(x_c) / sum_k exp(x_k) along ``axis`` (1). One bottom and one top of the same shape."""

    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        self.softmax_axis = self.axis(self.param.softmax_param.axis, len(bottoms[0]))

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.softmax(x, self.softmax_axis)


class Loss(Layer):
    """What loss layers share: two bottoms with as many items, the labels second, and a number as top."""

    bottom_count = (2, 2)
    is_loss = True
    no_gradient: ClassVar[tuple[int, ...]] = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        if not bottoms[0] or not bottoms[1] or bottoms[0][0] != bottoms[1][0]:
            raise self.shape_error(f"expected bottoms with as many items (the first dimension), got {listing(self, bottoms)}")
        param = self.param.loss_param
        self.ignore_label = param.ignore_label if param.HasField("ignore_label") else None

    def infer(self, bottoms: list[Shape]) -> list[torch.Size]:
        """A number; and, of those that have a second top, the probabilities, one for each score."""
        return [torch.Size(), torch.Size(bottoms[0])][: max(1, len(self.param.top))]

    def normalization(self, default: int) -> int:
        """``normalization`` where it is set, else what the older ``normalize`` means, else ``default``."""
        param = self.param.loss_param
        if param.HasField("normalization"):
            return param.normalization
        if param.HasField("normalize"):
            return LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
        return default


def total(losses: Tensor, by: int | Tensor) -> Tensor:
    """The sum of ``losses`` divided by ``by``; as a mean, which is one step less each way, where it is one."""
    return losses.mean() if isinstance(by, int) and by == losses.numel() else losses.sum() / by


def normalizer(mode: int, items: int, count: int, kept: Tensor | None) -> int | Tensor:
    """What a loss over ``count`` predictions of ``items`` items is divided by, at least 1; ``kept`` masks those not ignored."""
    if mode == LossParameter.VALID and kept is not None:
        return kept.sum().clamp(min=1)
    if mode == LossParameter.NONE:
        return 1
    return max(1, items if mode == LossParameter.BATCH_SIZE else count)


def full(x: Tensor) -> Tensor:
    """``x`` in float32 where it is shorter than that."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(Loss):
    """loss = -sum_i log p_i[label_i] / normalizer, p the softmax of the scores along ``softmax_param.axis`` (1).

    Bottoms: scores (N, C, …), labels 0 to C - 1, one for each prediction: (N, …) or (N, 1, …). Tops: the loss and, where
    asked for, p.
    ``ignore_label``: predictions with this label do not count. ``normalization``: VALID (the default) divides by the
    predictions that count, FULL by all, BATCH_SIZE by N, NONE by 1. No single -log p counts for more than 87.3365, as in
    Caffe, but its gradient stays p - 1. Raises ShapeError where the labels' count differs, LabelError where a label is not
    a class; on an accelerator, which must not be waited for, such a label makes the loss NaN.
    """

    top_count = (1, 2)
    makes_inner_layer = True

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.softmax_axis = self.axis(self.param.softmax_param.axis, len(bottoms[0]))
        check_count(self, self.softmax_axis, bottoms)
        self.mode = self.normalization(LossParameter.VALID)
        self.with_prob = len(self.param.top) > 1

    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, ...]:  # type: ignore[override]
        axis, x = self.softmax_axis, full(x)
        outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
        shape = (outer,) if inner == 1 else (outer, inner)
        target, scores = to_classes(labels), x
        if target.shape != shape or x.dim() != len(shape) + 1 or axis != 1:
            target, scores = target.reshape(shape), x.reshape(outer, x.shape[axis], *shape[1:])
        nll = self._nll(scores, target, labels)
        nll.detach().clamp_(max=_WORST)  # caps the value and leaves the gradient, which does not depend on it
        kept = None if self.ignore_label is None else target != self.ignore_label
        loss = total(nll, normalizer(self.mode, outer, outer * inner, kept))
        return (loss, torch.softmax(x, axis)) if self.with_prob else loss

    def _nll(self, x: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """-log p of each prediction, 0 for the ignored ones."""
        classes, ignore = x.shape[1], self.ignore_label
        index = _NEVER if ignore is None else ignore
        if torch_checks(x):
            try:
                return F.cross_entropy(x, target, ignore_index=index, reduction="none")
            except (IndexError, RuntimeError) as error:
                raise label_error(self, labels, classes, ignore) or error from None
        bad = out_of_range(target, classes, ignore)
        nll = F.cross_entropy(x, target.masked_fill(bad, 0), ignore_index=index, reduction="none")
        return nll.masked_fill(bad, math.nan)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """loss = -sum_i (t_i log s(x_i) + (1 - t_i) log(1 - s(x_i))) / normalizer, s(x) = 1 / (1 + exp(-x)).

    Bottoms: scores and targets with as many values; targets are probabilities, 0 to 1. ``ignore_label``: targets whose whole
    part it is do not count. ``normalization``: BATCH_SIZE (the default) divides by N, VALID by the values that count, FULL by
    all, NONE by 1. Raises ShapeError where the counts differ.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.shape_error(f"expected as many targets as scores, got {listing(self, bottoms)}")
        self.mode = self.normalization(LossParameter.BATCH_SIZE)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:  # type: ignore[override]
        x = full(x)
        targets = targets.detach()
        if targets.dtype != x.dtype or targets.shape != x.shape:
            targets = targets.to(x.dtype).reshape(x.shape)
        if self.ignore_label is None:
            loss = F.binary_cross_entropy_with_logits(x, targets, reduction="sum")
            return loss / normalizer(self.mode, x.shape[0], x.numel(), None)
        kept = targets.trunc() != self.ignore_label
        loss = F.binary_cross_entropy_with_logits(x, targets, reduction="none") * kept
        return loss.sum() / normalizer(self.mode, x.shape[0], x.numel(), kept)


@register("EuclideanLoss")
class EuclideanLoss(Loss):
    """loss = sum (a - b)^2 / (2 N). Two bottoms with as many values in each of N items; both get a gradient.

    Raises ShapeError where the counts differ.
    """

    no_gradient = ()

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.shape_error(f"expected bottoms with as many values, got {listing(self, bottoms)}")

    def forward(self, a: Tensor, b: Tensor) -> Tensor:  # type: ignore[override]
        a = full(a)
        return F.mse_loss(a, b.to(a.dtype).reshape(a.shape), reduction="sum") / (2 * a.shape[0])
