"""Losses that weigh the information in probabilities: MultinomialLogisticLoss, InfogainLoss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffecli.formats import blob as blobs
from caffecli.formats.atomic import read_bytes
from caffecli.formats.foreign import describe
from caffecli.layers.base import Shape
from caffecli.layers.labels import check_count, classes_of, to_classes
from caffecli.layers.loss import Loss, full, normalizer
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import BlobProto

#: no probability counts as less, as in Caffe
_LEAST = 1e-20


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(Loss):
    """loss = -sum_i log max(p_i[label_i], 1e-20) / N.

    Bottoms: probabilities (N, …), as Softmax makes them, whose values are one class each, and labels (N). The gradient is
    -1 / max(p, 1e-20) / N. After a Softmax use SoftmaxWithLoss instead, whose gradient is steadier. Raises ShapeError where the
    labels' count differs, LabelError where a label is not a class; on an accelerator such a label makes the loss NaN.
    Source: ``multinomial_logistic_loss_layer.cpp``.
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
    """loss = -sum_i sum_c H[label_i, c] log max(p_i[c], 1e-20) / normalizer, p the softmax of the scores along ``axis`` (1).

    Bottoms: scores (N, C, …), labels 0 to C - 1, one for each prediction, and H, C x C values in any shape, unless
    ``infogain_loss_param { source }`` names a binaryproto file that has it. Tops: the loss and, where asked for, p.
    H is the unit matrix in SoftmaxWithLoss. ``loss_param``: ignore_label; normalization: VALID (the default)
    divides by the predictions that count, FULL by all, BATCH_SIZE by the items before ``axis``, NONE by 1. The gradient is
    p sum_c H[label, c] - H[label]. Raises SpecError without H or with ``normalize``, ShapeError where counts differ, LabelError
    where a label is not a class; on an accelerator such a label makes the loss NaN. Source: ``infogain_loss_layer.cpp``.
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
                raise self.spec_error(f"{what}; name its file in infogain_loss_param {{ source }}, or give it as third bottom")
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
