"""DeepLab's layers: Interp."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register


@register("Interp")
class Interp(Layer):
    """The image at another size, by bilinear interpolation that keeps the corners' pixels in the corners.

    Bottom and top: (N, C, H, W). ``interp_param``: pad_beg and pad_end (0, or less: so many rows and columns are cut
    off in front and behind), then one of shrink_factor: (H - 1) / shrink_factor + 1, and zoom_factor: H + (H - 1)
    (zoom_factor - 1); or height and width; or both factors, in this order.
    Source: Chen et al. (DeepLab), ``interp_layer.cpp`` in hszhao/PSPNet; ``layers { type: INTERP }`` of DeepLab's first
    version, in TheLegendAli/DeepLab-Context, is upgraded.
    """

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.interp_param
        self.cut = -param.pad_beg, -param.pad_end
        if min(self.cut) < 0:
            raise self.spec_error(f"expected pad_beg and pad_end 0 or less, got {param.pad_beg} and {param.pad_end}")
        factors = [name for name in ("shrink_factor", "zoom_factor") if param.HasField(name)]
        sized = len(factors) != 1 and param.HasField("height") and param.HasField("width")
        used = ["height", "width"] if sized else factors
        if not used or any(getattr(param, name) < 1 for name in used):
            raise self.spec_error("expected shrink_factor, zoom_factor, or height and width, 1 or more")
        self.factors = param.shrink_factor, param.zoom_factor  # 1 where not given
        self.size = (param.height, param.width) if sized else None

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len(bottoms[0]) != 4:
            raise self.shape_error(
                f"expected a bottom of 4 axes (num, channels, height, width), got {tuple(bottoms[0])}"
            )
        if min(bottoms[0][2:]) <= sum(self.cut):
            raise self.shape_error(
                f"expected an image larger than the {sum(self.cut)} cut off, got {list(bottoms[0][2:])}"
            )
        size = self.size or tuple(self._scaled(side - sum(self.cut)) for side in bottoms[0][2:])
        return [torch.Size((*bottoms[0][:2], *size))]

    def _scaled(self, size: int) -> int:
        shrink, zoom = self.factors
        size = (size - 1) // shrink + 1
        return size + (size - 1) * (zoom - 1)

    def forward(self, x: Tensor) -> Tensor:
        begin, end = self.cut
        x = x[:, :, begin : x.shape[2] - end, begin : x.shape[3] - end]
        size = self.size or (self._scaled(x.shape[2]), self._scaled(x.shape[3]))
        return F.interpolate(x, size, mode="bilinear", align_corners=True)
