"""Labels as Caffe keeps them: floats, one for each prediction, whose whole part is a class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caffecli.errors import DataError
from caffecli.layers.base import Layer, Shape

#: whether the processor casts NaN to a negative integer, as x86 does and ARM does not
_CAST_TELLS = bool((torch.full((64,), math.nan).long() < 0).all())


class LabelError(DataError):
    """A label outside the classes; ``item`` is the index in the batch of the record it belongs to."""

    def __init__(self, message: str, item: int = 0) -> None:
        super().__init__(message)
        self.item = item


def check_count(layer: Layer, axis: int, bottoms: list[Shape]) -> None:
    """Raise ShapeError unless the second bottom has a label for each prediction of the first along ``axis``."""
    scores, labels = bottoms
    wanted = math.prod(scores[:axis]) * math.prod(scores[axis + 1 :])
    if math.prod(labels) != wanted:
        expected = f"expected {wanted} labels, one for each prediction along axis {axis}"
        several = math.prod(labels) == math.prod(scores)
        hint = "; for a 0 or 1 of each class, several to a record, take SigmoidCrossEntropyLoss" if several else ""
        raise layer.shape_error(f"{expected}, got {math.prod(labels)}: {layer.listing(bottoms)}{hint}")


def to_classes(labels: Tensor) -> Tensor:
    """Labels as int64, truncated toward zero as a C cast does; NaN becomes a negative number, which is no class."""
    if labels.is_floating_point() and not (_CAST_TELLS and labels.device.type == "cpu"):
        labels = labels.nan_to_num(nan=-(2.0**31))
    return labels.long()


def torch_checks(x: Tensor) -> bool:
    """Whether torch raises an error for a wrong class on the device of ``x``;
    on others it aborts, or reads outside the blob.
    """
    return x.device.type in ("cpu", "meta")


def out_of_range(labels: Tensor, classes: int, ignore: int | None) -> Tensor:
    """A mask of the labels (int64) that are no class and not ``ignore``."""
    bad = (labels < 0) | (labels >= classes)
    return bad if ignore is None else bad & (labels != ignore)


def classes_of(layer: Layer, labels: Tensor, classes: int, ignore: int | None = None) -> tuple[Tensor, Tensor | None]:
    """The labels as a vector of int64 that is safe as an index: ignored labels become class 0.

    On the CPU a label that is no class raises LabelError, and the second value is None. On an accelerator, where a
    check would have to wait for the device, such a label becomes class 0 too, and the second value is a mask of them.
    """
    target = to_classes(labels).flatten()
    if labels.device.type == "cpu":
        error = label_error(layer, labels, classes, ignore)
        if error is not None:
            raise error
        return (target if ignore is None else target.masked_fill(target == ignore, 0)), None
    return target.masked_fill(out_of_range(target, classes, None), 0), out_of_range(target, classes, ignore)


def label_error(layer: Layer, labels: Tensor, classes: int, ignore: int | None) -> LabelError | None:
    """The error for the first of ``labels`` that is no class; None where all are.

    For the CPU only, as it reads values.
    """
    bad = out_of_range(to_classes(labels), classes, ignore).flatten()
    if not bool(bad.any()):
        return None
    index = int(torch.nonzero(bad)[0])
    value = float(labels.flatten()[index])
    item = index * labels.shape[0] // labels.numel() if labels.dim() else 0
    scores = repr(layer.bottom_names[0]) if layer.bottom_names else "the scores"
    remedy = "mend the data"
    if math.isnan(value):
        what = "is not a number"
    elif value < 0:
        what = "is negative"
        remedy += f", or set ignore_label: {int(value)} to leave such labels out" if value >= -(2**31) else ""
    else:
        what = f"is past the {classes} classes of {scores}"
        remedy += ", or let the layer before have more outputs"
    text = f"label {value:.10g} of item {item} {what}; labels run from 0 to {classes - 1}: {remedy}"
    return LabelError(f"layer {layer.name!r}: {text}", item)
