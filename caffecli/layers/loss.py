"""Softmax and the loss layers: cross entropies, distances, margins between classes and between pairs.

A loss layer's first top is one number, before its ``loss_weight``, which the net applies. Half-precision bottoms
(autocast) are summed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from caffecli.formats import blob as blobs
from caffecli.formats.atomic import read_bytes
from caffecli.formats.foreign import describe
from caffecli.layers.base import Coordinates, Layer, Shape
from caffecli.layers.labels import check_count, classes_of, label_error, out_of_range, to_classes, torch_checks
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import BlobProto, HingeLossParameter, LossParameter

#: -log of the least normal float32: Caffe's softmax loss of one prediction goes no higher
WORST = 126 * math.log(2)
#: an ignore_index that no label can have; torch's own default, -100, can be a (wrong) label
_NEVER = -(2**62) - 1
#: a smaller probability counts as this one, as in Caffe
_LEAST = 1e-20


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
            raise self.shape_error(
                f"expected bottoms with as many items (the first dimension), got {self.listing(bottoms)}"
            )
        return [torch.Size(), torch.Size(bottoms[0])][: max(1, len(self.param.top))]

    def normalization(self, default: int) -> int:
        """``normalization`` where it is set, else what the older ``normalize`` means, else ``default``."""
        param = self.param.loss_param
        if param.HasField("normalization"):
            if param.normalization == LossParameter.PRE_FIXED:
                raise self.spec_error("only SmoothL1LossOHEM takes normalization: PRE_FIXED")
            return param.normalization
        if param.HasField("normalize"):
            return LossParameter.VALID if param.normalize else LossParameter.BATCH_SIZE
        return default


def normalizer(mode: int, items: int, count: int, kept: Tensor | None) -> int | Tensor:
    """What a loss over ``count`` predictions of ``items`` items is divided by, at least 1;
    ``kept`` masks those not ignored.
    """
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
    """loss = -sum_i w_i log p_i[label_i] / normalizer, p the softmax of the scores along ``softmax_param.axis`` (1).

    Bottoms: scores (N, C, …), labels 0 to C - 1, one for each prediction: (N, …) or (N, 1, …); where given, weights w,
    one for each prediction, or one for each of N items. Tops: the loss and, where asked for, p.
    ``ignore_label``: predictions with this label do not count. ``normalization``: VALID (the default) divides by the
    predictions that count, FULL by all, BATCH_SIZE by N, NONE by 1; weights do not change it. ``weight_by_label_freqs``
    with ``class_weighting``, a weight for each class, which w is multiplied by (1 without either). No single -log p
    counts for more than 87.3365, as in Caffe, but its gradient stays p - 1. Only the scores have a gradient. Raises
    ShapeError where the counts of labels or weights differ, LabelError where a label is not a class; on an accelerator,
    which must not be waited for, such a label makes the loss NaN.

    Differences: the weights are not the reference's. ``class_weighting`` is SegNet's (alexgkendall/caffe-segnet,
    ``softmax_loss_layer.cpp``), the third bottom that of several forks' WeightedSoftmaxWithLoss.
    """

    label_bottoms = (1,)
    bottom_count = (2, 3)
    top_count = (1, 2)
    no_gradient = (1, 2)
    makes_inner_layer = True
    class_axis: int
    classes: int
    class_weights: Tensor | None

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.param.loss_param
        self.mode = self.normalization(LossParameter.VALID)
        self.with_prob = len(self.param.top) > 1
        weights = torch.tensor(param.class_weighting) if param.weight_by_label_freqs else None
        self.register_buffer("class_weights", weights, persistent=False)
        self.mean = (
            self.ignore_label is None
            and self.mode in (LossParameter.VALID, LossParameter.FULL)
            and weights is None
            and len(bottoms) < 3
        )

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        tops = super().reshape(bottoms)
        self.class_axis = self.axis(self.param.softmax_param.axis, len(bottoms[0]))
        check_count(self, self.class_axis, bottoms[:2])
        self.classes = bottoms[0][self.class_axis]
        if self.class_weights is not None and len(self.class_weights) != self.classes:
            raise self.shape_error(
                f"expected a class_weighting for each of {self.classes} classes, got {len(self.class_weights)}"
            )
        counts = {math.prod(bottoms[1]), bottoms[0][0]}
        if len(bottoms) > 2 and math.prod(bottoms[2]) not in counts:
            expected = " or ".join(map(str, sorted(counts, reverse=True)))
            raise self.shape_error(
                f"expected {expected} weights, one for each prediction or for each item, got {self.listing(bottoms)}"
            )
        return tops

    def weigh_classes(self, weights: Sequence[float]) -> None:
        """Set ``class_weighting`` of a layer that has none. Raises SpecError, ShapeError."""
        param = self.param.loss_param
        if self.class_weights is not None:
            raise self.spec_error("has a class_weighting already; take it out, or ask for no others")
        if len(weights) != self.classes:
            raise self.shape_error(f"expected a weight for each of {self.classes} classes, got {len(weights)}")
        param.weight_by_label_freqs = True
        param.class_weighting.extend(weights)
        self.class_weights, self.mean = torch.tensor(weights, device=self.context.device), False

    def forward(self, x: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        axis, x, target = self.class_axis, full(x), to_classes(labels)
        scores = x
        if axis != 1 or x.dim() != 2 or target.dim() != 1:
            outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
            rest = () if inner == 1 else (inner,)
            scores, target = x.reshape(outer, classes, *rest), target.reshape(outer, *rest)
        log_p = torch.log_softmax(scores, 1)
        log_p.data.clamp_(min=-WORST)  # past autograd, and exp(-87) is 0 to the gradient, which so stays p - 1
        loss = self._loss(log_p, target, labels, weights)
        return (loss, torch.softmax(x, axis)) if self.with_prob else loss

    def _loss(self, log_p: Tensor, target: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
        """The normalized sum of -w log p over the targets that count."""
        ignore, bad = self.ignore_label, None
        kept = None if ignore is None else target != ignore
        if not torch_checks(log_p):
            bad = out_of_range(target, log_p.shape[1], ignore)
            target = target.masked_fill(bad, 0)
        by_class = None if self.class_weights is None else self.class_weights.to(log_p.dtype)
        reduction = "none" if weights is not None else "mean" if self.mean else "sum"
        try:
            index = _NEVER if ignore is None else ignore
            loss = F.nll_loss(log_p, target, weight=by_class, ignore_index=index, reduction=reduction)
        except (IndexError, RuntimeError) as error:
            raise label_error(self, labels, log_p.shape[1], ignore) or error from None
        if weights is not None:
            own = weights.detach().to(loss.dtype).flatten()
            loss = (loss.flatten() * own.repeat_interleave(loss.numel() // len(own))).sum()
        if not self.mean:
            loss = loss / normalizer(self.mode, log_p.shape[0], target.numel(), kept)
        return loss if bad is None else loss.masked_fill(bad.any(), math.nan)


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(Loss):
    """loss = -sum_i (t_i log s(x_i) + (1 - t_i) log(1 - s(x_i))) / normalizer, s(x) = 1 / (1 + exp(-x)).

    Bottoms: scores and targets with as many values; targets are probabilities, 0 to 1. ``ignore_label``: targets whose
    whole part it is do not count. ``normalization``: BATCH_SIZE (the default) divides by N, VALID by the values that
    count, FULL by all, NONE by 1. MNC's has a third bottom, as many weights w: loss = -sum_i w_i (...) / sum_i w_i,
    whatever ``loss_param`` says, and 0 where they are all 0. Raises ShapeError where the counts differ.
    """

    bottom_count = (2, 3)
    no_gradient = (1, 2)
    compares_values = True

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.mode = self.normalization(LossParameter.BATCH_SIZE)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.shape_error(f"expected as many targets as scores, got {self.listing(bottoms)}")
        if math.prod(bottoms[0]) != math.prod(bottoms[-1]):
            raise self.shape_error(f"expected as many weights as scores, got {self.listing(bottoms)}")
        return super().reshape(bottoms)

    def forward(self, x: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        x = full(x)
        targets = targets.detach()
        if targets.dtype != x.dtype or targets.shape != x.shape:
            targets = targets.to(x.dtype).reshape(x.shape)
        if weights is not None:
            weights = weights.detach().to(x.dtype).reshape(x.shape)
            total = weights.sum()
            loss = F.binary_cross_entropy_with_logits(x, targets, weights, reduction="sum")
            return loss / torch.where(total > 0, total, 1)
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
    compares_values = True

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.shape_error(f"expected bottoms with as many values, got {self.listing(bottoms)}")
        return super().reshape(bottoms)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a = full(a)
        return F.mse_loss(a, b.to(a.dtype).reshape(a.shape), reduction="sum") / (2 * a.shape[0])


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Loss):
    """loss = -sum_i log max(p_i[label_i], 1e-20) / N.

    Bottoms: probabilities (N, …), as Softmax makes them, whose values are one class each, and labels (N). The gradient
    is -1 / max(p, 1e-20) / N. After a Softmax use SoftmaxWithLoss instead, whose gradient is steadier. Raises
    ShapeError where the labels' count differs, LabelError where a label is not a class; on an accelerator such a label
    makes the loss NaN. Source: ``multinomial_logistic_loss_layer.cpp``.
    """

    label_bottoms = (1,)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        tops = super().reshape(bottoms)
        items, *others = bottoms[0]
        check_count(self, 1, [(items, math.prod(others)), bottoms[1]])
        self.class_axis = 1 if len(others) == 1 else None
        return tops

    def forward(self, p: Tensor, labels: Tensor) -> Tensor:
        p = full(p).reshape(p.shape[0], -1)
        target, bad = classes_of(self, labels, p.shape[1])
        own = p.gather(1, target[:, None])
        own.detach().clamp_(min=_LEAST)  # caps the value, and the gradient is the cap's
        loss = -own.log().sum() / p.shape[0]
        return loss if bad is None else loss.masked_fill(bad.any(), math.nan)


@register("InfogainLoss")
class InfogainLoss(Loss):
    """loss = -sum_i sum_c H[label_i, c] log max(p_i[c], 1e-20) / normalizer, p the softmax of the scores along ``axis``
    (1).

    Bottoms: scores (N, C, …), labels 0 to C - 1, one for each prediction, and H, C x C values in any shape, unless
    ``infogain_loss_param { source }`` names a binaryproto file that has it. Tops: the loss and, where asked for, p.
    H is the unit matrix in SoftmaxWithLoss. ``loss_param``: ignore_label; normalization: VALID (the default)
    divides by the predictions that count, FULL by all, BATCH_SIZE by the items before ``axis``, NONE by 1. The gradient
    is p sum_c H[label, c] - H[label]. Raises SpecError without H or with ``normalize``, ShapeError where counts differ,
    LabelError where a label is not a class; on an accelerator such a label makes the loss NaN.
    Source: ``infogain_loss_layer.cpp``.
    """

    label_bottoms = (1,)
    bottom_count = (2, 3)
    top_count = (1, 2)
    no_gradient = (1, 2)
    makes_inner_layer = True
    matrix: Tensor | None
    class_axis: int

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        param = self.param.infogain_loss_param
        if self.param.loss_param.HasField("normalize"):
            raise self.spec_error("normalize is too old for this layer; use normalization")
        self.mode = self.param.loss_param.normalization
        self.with_prob = len(self.param.top) > 1
        self.register_buffer("matrix", None, persistent=False)
        if len(bottoms) < 3:
            if not param.HasField("source"):
                what = "the infogain matrix is missing"
                raise self.spec_error(
                    f"{what}; name its file in infogain_loss_param {{ source }}, or give it as third bottom"
                )
            self.matrix = self._read(param.source)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        tops = super().reshape(bottoms)
        param = self.param.infogain_loss_param
        self.class_axis = self.axis(param.axis, len(bottoms[0]))
        check_count(self, self.class_axis, bottoms[:2])
        classes = bottoms[0][self.class_axis]
        if self.matrix is None:
            count, where = math.prod(bottoms[2]), self.listing(bottoms)
        else:
            count, where = self.matrix.numel(), f"{param.source!r} {tuple(self.matrix.shape)}"
        if count != classes**2:
            raise self.shape_error(
                f"expected an infogain matrix of {classes} x {classes} values for {classes} classes, got {where}"
            )
        return tops

    def _read(self, path: str) -> Tensor:
        data = read_bytes(path)
        blob = blobs.parse(BlobProto, data)
        if blob is None or not (blob.data or blob.double_data):
            raise describe(path, data, "an infogain matrix")
        return torch.from_numpy(blobs.to_array(blob))

    def forward(self, x: Tensor, labels: Tensor, matrix: Tensor | None = None) -> Tensor | tuple[Tensor, ...]:
        axis, x = self.class_axis, full(x)
        outer, classes, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
        log_p = torch.log_softmax(x, axis)
        values = log_p.reshape(outer, classes, inner).transpose(1, 2).clone()
        values.detach().clamp_(min=math.log(_LEAST))  # caps the value and leaves the gradient
        target, bad = classes_of(self, labels, classes, self.ignore_label)
        gains = self._gains(matrix, classes, x)[target].reshape(outer, inner, classes)
        kept = None
        if self.ignore_label is not None:
            kept = to_classes(labels).reshape(outer, inner, 1) != self.ignore_label
            gains = gains * kept
        loss = -(gains * values).sum() / normalizer(self.mode, outer, outer * inner, kept)
        loss = loss if bad is None else loss.masked_fill(bad.any(), math.nan)
        return (loss, log_p.exp()) if self.with_prob else loss

    def _gains(self, bottom: Tensor | None, classes: int, like: Tensor) -> Tensor:
        matrix = self.matrix if bottom is None else bottom
        if matrix is None:
            raise ValueError("no infogain matrix")
        return matrix.detach().reshape(classes, classes).to(like)


@register("HingeLoss")
class HingeLoss(Loss):
    """loss = sum_i sum_c max(0, 1 - s_ic x_ic)^p / N, s_ic = 1 where c is item i's own class and -1 elsewhere.

    Bottoms: scores (N, …), whose values are one class each, and labels (N). ``hinge_loss_param { norm }``: L1
    (the default), p = 1, or L2, p = 2. Raises ShapeError where the labels' count differs, LabelError where a label is
    not a class; on an accelerator such a label makes the loss NaN. Source: ``hinge_loss_layer.cpp``.
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

    Bottoms: a and b (N, C), and similar (N): 0 for pairs that are not. ``contrastive_loss_param``: margin (1);
    legacy_version (false): e = max(0, margin - d^2) for pairs that are not similar. Both a and b get a gradient, in
    which Caffe divides by d + 0.0001 where the derivative has d. Raises ShapeError where the bottoms do not fit.
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
            raise self.shape_error(
                f"expected {pairs} values, one for each pair, as third bottom, got {self.listing(bottoms)}"
            )
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
