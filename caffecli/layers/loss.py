"""Softmax and the loss layers: SoftmaxWithLoss, SigmoidCrossEntropyLoss, EuclideanLoss.

A loss layer's first top is one number, before its ``loss_weight``, which the net applies. Half-precision bottoms (autocast)
are summed in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Shape
from caffecli.layers.labels import check_count, label_error, out_of_range, to_classes, torch_checks
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LossParameter

#: -log of the least normal float32: Caffe's softmax loss of one prediction goes no higher
_WORST = 126 * math.log(2)
#: an ignore_index that no label can have; torch's own default, -100, can be a (wrong) label
_NEVER = -(2**62) - 1


@register("Softmax")
class Softmax(Layer):
    """y_c = exp(x_c) / sum_k exp(x_k) along ``axis`` (1). One bottom and one top of the same shape."""

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True
    class_axis: int

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.class_axis = self.axis(self.param.softmax_param.axis, len(bottoms[0]))
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        return torch.softmax(x, self.class_axis)


class Loss(Layer):
    """What loss layers share: two bottoms with as many items, the labels second, and a number as top."""

    greater_is_better = False
    compiles = False
    bottom_count = (2, 2)
    is_loss = True
    no_gradient: tuple[int, ...] = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.loss_param
        self.ignore_label = param.ignore_label if param.HasField("ignore_label") else None

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        """A number; and, of those that have a second top, the probabilities, one for each score."""
        if not bottoms[0] or not bottoms[1] or bottoms[0][0] != bottoms[1][0]:
            raise self.shape_error(f"expected bottoms with as many items (the first dimension), got {self.listing(bottoms)}")
        return [torch.Size(), torch.Size(bottoms[0])][: max(1, len(self.param.top))]

    def normalization(self, default: int) -> int:
        """``normalization`` where it is set, else what the older ``normalize`` means, else ``default``."""
        param = self.param.loss_param
        if param.HasField("normalization"):
            return param.normalization
        if param.HasField("normalize"):
            return LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
        return default


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

    label_bottoms = (1,)
    top_count = (1, 2)
    makes_inner_layer = True
    class_axis: int

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.mode = self.normalization(LossParameter.VALID)
        self.mean = self.ignore_label is None and self.mode in (LossParameter.VALID, LossParameter.FULL)
        self.with_prob = len(self.param.top) > 1

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        tops = super().reshape(bottoms)
        self.class_axis = self.axis(self.param.softmax_param.axis, len(bottoms[0]))
        check_count(self, self.class_axis, bottoms)
        return tops

    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, ...]:
        axis, x, target = self.class_axis, full(x), to_classes(labels)
        scores = x
        if axis != 1 or x.dim() != 2 or target.dim() != 1:
            outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
            rest = () if inner == 1 else (inner,)
            scores, target = x.reshape(outer, classes, *rest), target.reshape(outer, *rest)
        log_p = torch.log_softmax(scores, 1)
        log_p.data.clamp_(min=-_WORST)  # past autograd, and exp(-87) is 0 to the gradient, which so stays p - 1
        loss = self._loss(log_p, target, labels)
        return (loss, torch.softmax(x, axis)) if self.with_prob else loss

    def _loss(self, log_p: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """The normalized sum of -log p over the targets that count."""
        ignore, bad = self.ignore_label, None
        kept = None if ignore is None else target != ignore
        if not torch_checks(log_p):
            bad = out_of_range(target, log_p.shape[1], ignore)
            target = target.masked_fill(bad, 0)
        try:
            index = _NEVER if ignore is None else ignore
            loss = F.nll_loss(log_p, target, ignore_index=index, reduction="mean" if self.mean else "sum")
        except (IndexError, RuntimeError) as error:
            raise label_error(self, labels, log_p.shape[1], ignore) or error from None
        if not self.mean:
            loss = loss / normalizer(self.mode, log_p.shape[0], target.numel(), kept)
        return loss if bad is None else loss.masked_fill(bad.any(), math.nan)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """loss = -sum_i (t_i log s(x_i) + (1 - t_i) log(1 - s(x_i))) / normalizer, s(x) = 1 / (1 + exp(-x)).

    Bottoms: scores and targets with as many values; targets are probabilities, 0 to 1. ``ignore_label``: targets whose whole
    part it is do not count. ``normalization``: BATCH_SIZE (the default) divides by N, VALID by the values that count, FULL by
    all, NONE by 1. Raises ShapeError where the counts differ.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.mode = self.normalization(LossParameter.BATCH_SIZE)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.shape_error(f"expected as many targets as scores, got {self.listing(bottoms)}")
        return super().reshape(bottoms)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
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

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.shape_error(f"expected bottoms with as many values, got {self.listing(bottoms)}")
        return super().reshape(bottoms)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a = full(a)
        return F.mse_loss(a, b.to(a.dtype).reshape(a.shape), reduction="sum") / (2 * a.shape[0])
