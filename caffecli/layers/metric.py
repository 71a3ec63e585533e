"""Layers that score and have no gradient: Accuracy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape
from caffecli.layers.labels import check_count, label_error, out_of_range, to_classes, torch_checks
from caffecli.layers.registry import register


@register("Accuracy")
class Accuracy(Layer):
    """accuracy = the share of predictions whose true class is among the ``top_k`` (1) highest scores along ``axis``
    (1).

    A class with the same score as the true one counts as above it, so a net that says the same for all classes scores
    0; scores that are not numbers never count as right.
    Bottoms: scores (N, C, …) and labels, one for each prediction. Tops: the accuracy and, where asked for, that of each
    class (C), 0 for a class without labels. Predictions labelled ``ignore_label`` do not count; where none counts, the
    accuracy is 0.
    Raises ShapeError where the labels' count differs, SpecError where top_k passes the classes, LabelError where a
    label is not a class; on an accelerator, which must not be waited for, such a label makes the accuracy NaN.
    """

    greater_is_better = True
    compiles = False
    label_bottoms = (1,)
    bottom_count = (2, 2)
    top_count = (1, 2)
    no_gradient = (0, 1)
    class_axis: int

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.accuracy_param
        self.top_k = param.top_k
        self.per_class = len(self.param.top) > 1
        self.ignore_label = param.ignore_label if param.HasField("ignore_label") else None

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.class_axis = self.axis(self.param.accuracy_param.axis, len(bottoms[0]))
        check_count(self, self.class_axis, bottoms)
        classes = bottoms[0][self.class_axis]
        if self.top_k > classes:
            raise self.spec_error(f"top_k {self.top_k} is past the {classes} classes of {self.listing(bottoms[:1])}")
        return [torch.Size(), torch.Size((classes,))][: 1 + self.per_class]

    def forward(self, x: Tensor, labels: Tensor) -> Tensor | tuple[Tensor, ...]:
        axis, classes, ignore = self.class_axis, x.shape[self.class_axis], self.ignore_label
        x, target = x.detach(), to_classes(labels)
        if x.dim() != 2 or axis != 1:
            x = x.reshape(math.prod(x.shape[:axis]), classes, math.prod(x.shape[axis + 1 :]))
        target = target.reshape(x.shape[0], 1, *x.shape[2:])
        bad = None
        if not torch_checks(x):
            bad = out_of_range(target, classes, ignore)
            target = target.masked_fill(bad, 0)
        kept = None if ignore is None else target != ignore
        index = target if kept is None else target.where(kept, 0)
        try:
            true_score = x.gather(1, index)
        except (IndexError, RuntimeError) as error:
            raise label_error(self, labels, classes, ignore) or error from None
        dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        below = torch.lt(
            x, true_score, out=torch.empty_like(x)
        )  # of numbers, as comparing into truth values is not vectorized
        right = below.sum(1, keepdim=True, dtype=dtype) >= classes - self.top_k
        if kept is None:
            accuracy = right.mean(dtype=dtype)
        else:
            right = right.logical_and_(kept)
            accuracy = right.sum(dtype=dtype) / kept.sum().clamp(min=1)
        if bad is not None:
            accuracy = accuracy.masked_fill(bad.any(), math.nan)
        if not self.per_class:
            return accuracy
        counted = torch.ones_like(index, dtype=dtype) if kept is None else kept.to(dtype)
        per_class = torch.zeros((2, classes), dtype=dtype, device=x.device)
        per_class.scatter_add_(
            1, index.reshape(1, -1).expand(2, -1), torch.stack((right.flatten().to(dtype), counted.flatten()))
        )
        return accuracy, per_class[0] / per_class[1].clamp(min=1)
