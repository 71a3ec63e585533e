"""Linear layers: InnerProduct, Embed, the products and sums with a blob that is broadcast, Scale and Bias;
and Parameter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.folding import Array, Foldable, FoldTarget, Unfoldable, fold_rows, per_channel
from caffecli.layers.registry import register
from caffecli.layers.select import row_error, to_rows
from caffecli.proto.caffe_pb2 import BiasParameter, FillerParameter, LayerParameter, ScaleParameter


@register("InnerProduct")
class InnerProduct(FoldTarget, Layer):
    """y = x W' + b, where the bottom's axes from ``axis`` (1) on are one vector of length K, those before it a batch.

    ``inner_product_param``: num_output; bias_term (true); weight_filler, bias_filler; transpose (false). Blobs: weight
    (num_output, K), or (K, num_output) when transposed, and bias (num_output). Top: the axes before ``axis``, then
    num_output. Source: ``inner_product_layer.cpp``.
    """

    read_by_opencv = True
    precision = Precision.BFLOAT16
    blob_order = ("weight", "bias")
    fold_settings = "inner_product_param"
    color = "#CC33FF"
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def fold_weight(cls, settings: Any, blob: Array) -> Array:
        return blob.reshape(-1, blob.shape[-1])  # old files have four axes

    @classmethod
    def fold_outputs(cls, settings: Any, weight: Array) -> int:
        return int(weight.shape[1 if settings.transpose else 0])

    @classmethod
    def fold_behind(cls, settings: Any, weight: Array, factor: Array) -> Array:
        return weight * (factor if settings.transpose else factor[:, None])

    @classmethod
    def fold_before(cls, settings: Any, weight: Array, factor: Array, shift: Array) -> tuple[Array, Array]:
        rows, bias = fold_rows(weight.T if settings.transpose else weight, 1, len(factor), factor, shift)
        return rows.T if settings.transpose else rows, bias

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.inner_product_param
        if param.num_output < 1:
            raise self.spec_error("num_output is missing; expected at least 1")
        self.transpose = param.transpose
        self.length = math.prod(bottoms[0][self.axis(param.axis, len(bottoms[0])) :])
        shape = (self.length, param.num_output) if self.transpose else (param.num_output, self.length)
        self.add_blob("weight", shape, param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (param.num_output,), param.bias_filler)
        else:
            self.bias = None

    def multiply_adds(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        """Weights × inner products taken (batch, where axis is 1)."""
        return self.weight.numel() * (math.prod(tops[0]) // self.param.inner_product_param.num_output)

    def filters(self, bottom: Shape) -> Tensor:
        """The rows; those over a blob of (channels, height, width) have that shape."""
        weight = self.weight.detach().t() if self.transpose else self.weight.detach()
        spatial = len(bottom) == 4 and self.first == 1 and max(bottom[2:]) > 1
        return weight.reshape(len(weight), *bottom[1:]) if spatial else weight.reshape(len(weight), -1)

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        return str(param.inner_product_param.num_output)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.first = self.axis(self.param.inner_product_param.axis, len(bottoms[0]))
        self.check_fit("vectors of length", self.length, math.prod(bottoms[0][self.first :]), bottoms)
        return [torch.Size((*bottoms[0][: self.first], self.param.inner_product_param.num_output))]

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.flatten(self.first), self.weight.t() if self.transpose else self.weight, self.bias)


class Broadcast(Layer):
    """What Scale and Bias share: a second blob that spans some axes of the first bottom, from ``axis`` (1) on.

    It is the second bottom or, with one bottom, a blob of the layer over ``num_axes`` (1) axes: -1 takes all that
    follow, 0 makes it a single value. A single value fits any bottom, whatever ``axis`` is.
    """

    coordinates = Coordinates.SAME
    keeps_shape = True
    bottom_count = (1, 2)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        span = self.span(bottoms)
        for blob in self.blobs:
            self.check_fit("the shape", tuple(blob.shape), span, bottoms)
        start = self.start(bottoms)
        self.tail = len(bottoms[0]) - start - len(span) if span else 0
        return super().reshape(bottoms)

    def broadcast_settings(self) -> ScaleParameter | BiasParameter:
        """The settings with ``axis`` and ``num_axes``."""
        raise NotImplementedError

    def start(self, bottoms: list[Shape]) -> int:
        """The axis of the first bottom from which on the second blob lies."""
        if len(bottoms) > 1 and not len(bottoms[1]):
            return 0
        return self.axis(self.broadcast_settings().axis, len(bottoms[0]))

    def span(self, bottoms: list[Shape]) -> tuple[int, ...]:
        """The second blob's shape."""
        shape = tuple(bottoms[0])
        start, num_axes = self.start(bottoms), self.broadcast_settings().num_axes
        if len(bottoms) == 2:
            span = tuple(bottoms[1])
            if shape[start : start + len(span)] != span:
                raise self.shape_error(f"second bottom {span} does not match the first, {shape}, from axis {start} on")
        else:
            if num_axes < -1:
                raise self.spec_error(
                    f"expected num_axes of at least 0, or -1 for all that follow axis, got {num_axes}"
                )
            if start + num_axes > len(shape):
                raise self.spec_error(f"axis {start} and num_axes {num_axes} reach past the bottom's {len(shape)} axes")
            span = shape[start:] if num_axes == -1 else shape[start : start + num_axes]
        return span

    def stretch(self, blob: Tensor) -> Tensor:
        """``blob`` with axes of size 1 behind it, so that torch broadcasts it over the bottom."""
        return blob.reshape(blob.shape + (1,) * self.tail)


@register("Scale")
class Scale(Foldable, Broadcast):
    """y = x * scale, and + bias with bias_term (false); scale and bias repeat over the axes that they do not span.

    ``scale_param``: axis (1), num_axes (1), filler (constant 1), bias_term, bias_filler (0). Blobs: scale, unless it is
    the second bottom, then bias, of the same shape. Source: ``scale_layer.cpp``.
    """

    read_by_opencv = True
    usually_in_place = True
    blob_order = ("scale", "bias")
    scale: Tensor
    bias: Tensor

    @classmethod
    def names_of_blobs(cls, param: LayerParameter, count: int) -> tuple[str, ...]:
        return ("bias",)[:count] if len(param.bottom) == 2 else super().names_of_blobs(param, count)

    @classmethod
    def factor_and_shift(cls, param: LayerParameter, blobs: Sequence[Array]) -> tuple[Array, Array]:
        settings = param.scale_param
        if settings.axis != 1 or settings.num_axes != 1:
            what = f"it scales {settings.num_axes} axes from axis {settings.axis} on"
            raise Unfoldable(f"{what}, expected the channels, axis 1, alone")
        if len(blobs) != 1 + settings.bias_term:
            raise Unfoldable(f"the caffemodel has {len(blobs)} blob(s) for it, expected {1 + settings.bias_term}")
        factor, *shift = per_channel(blobs)
        return factor, shift[0] if shift else np.zeros(len(factor))

    def setup(self, bottoms: list[Shape]) -> None:
        param, span = self.param.scale_param, self.span(bottoms)
        if len(bottoms) == 1:
            self.add_blob("scale", span, param.filler if param.HasField("filler") else FillerParameter(value=1))
        self.bias_term = self.makes_inner_layer = param.bias_term
        if self.bias_term:
            self.add_blob("bias", span, param.bias_filler)

    def broadcast_settings(self) -> ScaleParameter:
        return self.param.scale_param

    def forward(self, x: Tensor, second: Tensor | None = None) -> Tensor:
        scale = self.stretch(self.scale if second is None else second)
        return (x * scale).add_(self.stretch(self.bias)) if self.bias_term else x * scale


@register("Bias")
class Bias(Broadcast):
    """y = x + bias; bias repeats over the axes that it does not span.

    ``bias_param``: axis (1), num_axes (1), filler (0). Blob: bias, unless it is the second bottom.
    Source: ``bias_layer.cpp``.
    """

    blob_order = ("bias",)
    bias: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        if len(bottoms) == 1:
            self.add_blob("bias", self.span(bottoms), self.param.bias_param.filler)

    def broadcast_settings(self) -> BiasParameter:
        return self.param.bias_param

    def forward(self, x: Tensor, second: Tensor | None = None) -> Tensor:
        return x + self.stretch(self.bias if second is None else second)


@register("Embed")
class Embed(Layer):
    """y = weight[x] + bias: for each index its row of a table; gradients of an index that comes more than once add up.

    ``embed_param``: num_output; input_dim, the rows; bias_term (true); weight_filler, bias_filler. Blobs: weight
    (input_dim, num_output) and bias (num_output). Bottom: whole numbers from 0 to input_dim - 1, without gradient; top:
    the bottom's axes, then num_output. Raises DataError for an index out of range; on an accelerator, which must not be
    waited for, its top is NaN. Source: ``embed_layer.cpp``.
    """

    compiles = False
    blob_order = ("weight", "bias")
    no_gradient = (0,)
    weight: Tensor
    bias: Tensor | None

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.embed_param
        for name in ("num_output", "input_dim"):
            if getattr(param, name) < 1:
                raise self.spec_error(f"{name} is missing; expected at least 1")
        self.add_blob("weight", (param.input_dim, param.num_output), param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (param.num_output,), param.bias_filler)
        else:
            self.bias = None

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return [torch.Size((*bottoms[0], self.param.embed_param.num_output))]

    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.shape[0]
        index, bad = to_rows(x, rows)
        try:
            y = F.embedding(index, self.weight)
        except (IndexError, RuntimeError) as error:
            raise row_error(self, x, rows, "input_dim allows") or error from None
        if bad is not None:
            y = y.masked_fill(bad[..., None], math.nan)
        return y if self.bias is None else y + self.bias


@register("Parameter")
class Parameter(Layer):
    """y = a blob of the layer, learned like any other; no bottom.

    Blob and top have ``parameter_param``'s shape; it begins at 0.

    Raises SpecError for a shape that is missing or has a dimension under 0. Source: ``parameter_layer.hpp``.
    """

    blob_order = ("value",)
    bottom_count = (0, 0)
    value: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.parameter_param
        if not param.HasField("shape"):
            raise self.spec_error("shape is missing; expected parameter_param { shape { dim: ... } }")
        shape = tuple(param.shape.dim)
        if any(dim < 0 for dim in shape):
            raise self.spec_error(f"expected dimensions of 0 or more, got shape {shape}")
        self.add_blob("value", shape)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        return [torch.Size(self.param.parameter_param.shape.dim)]

    def forward(self) -> Tensor:
        return self.value.view_as(self.value)
