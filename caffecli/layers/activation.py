"""Layers that map each value by itself: ReLU, Sigmoid, TanH, Power, Dropout.

One bottom and one top of the same shape, any number of axes. ``engine`` chose between Caffe's own kernels and cuDNN's; both
computed the same, so it is read and has no effect.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register


@register("ReLU")
class ReLU(Layer):
    """y = x where x > 0, else negative_slope * x (0); at 0 the gradient is negative_slope.

    Source: Nair and Hinton, ICML 2010; leaky form: Maas et al., 2013; ``relu_layer.cpp``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        self.slope = self.param.relu_param.negative_slope

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


@register("Sigmoid")
class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)). Source: ``sigmoid_layer.cpp``."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.sigmoid(x)


@register("TanH")
class TanH(Layer):
    """y = tanh(x). Source: ``tanh_layer.cpp``."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return torch.tanh(x)


@register("Power")
class Power(Layer):
    """y = (shift + scale * x) ^ power, by default x itself (power 1, scale 1, shift 0).

    A power or scale of 0 gives the constant 1 or shift ^ power, whatever x holds; the top then depends on no bottom and has no
    gradient. Elsewhere the gradient is the true derivative; the reference divides y by the base, which at a base of 0 is 0 / 0.
    Source: ``power_layer.cpp``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.power_param
        self.power, self.scale, self.shift = param.power, param.scale, param.shift
        self.constant: float | None = None
        if self.power == 0:
            self.constant = 1.0
        elif self.scale == 0:  # torch's pow, because Python's gives complex numbers for negative bases
            self.constant = torch.tensor(self.shift).pow(self.power).item()

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        if self.constant is not None:
            return torch.full_like(x, self.constant)
        if self.scale != 1:
            x = x * self.scale
        if self.shift != 0:
            x = x + self.shift
        return x if self.power == 1 else x.pow(self.power)


@register("Dropout")
class Dropout(Layer):
    """TRAIN: y = x / (1 - r) with probability 1 - r, else 0, drawn anew each time; TEST: y = x. r is dropout_ratio (0.5).

    Raises SpecError for a ratio outside [0, 1). Source: Srivastava et al., JMLR 2014; ``dropout_layer.cpp``.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        self.ratio = self.param.dropout_param.dropout_ratio
        if not 0 <= self.ratio < 1:
            raise self.spec_error(f"expected 0 <= dropout_ratio < 1, got {self.ratio:g}; it is the share of values set to zero")

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return F.dropout(x, self.ratio, self.training)
