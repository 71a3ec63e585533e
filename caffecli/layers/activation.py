"""Layers that map each value by itself: ReLU, Sigmoid, TanH, Power, Dropout."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer
from caffecli.layers.registry import register


@register("ReLU")
class ReLU(Layer):
    """y = x where x > 0, else negative_slope * x.

    One bottom and one top of the same shape. Source: Nair and Hinton, ICML 2010; leaky form: Maas et al., 2013.
    """

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        slope = self.param.relu_param.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)
