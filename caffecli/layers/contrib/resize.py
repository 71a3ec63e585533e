"""Layers of forks that make images larger or smaller: Interp, Upsample."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register
from caffecli.proto import forks


@register("Interp")
class Interp(Layer):
    """The image at another size, by bilinear interpolation that keeps the corners' pixels in the corners.

    Bottom and top: (N, C, H, W). ``interp_param``: pad_beg and pad_end (0, or less: so many rows and columns are cut off in
    front and behind), then one of shrink_factor: (H - 1) / shrink_factor + 1, and zoom_factor: H + (H - 1) (zoom_factor - 1);
    or height and width; or both factors, in this order.
    Source: Chen et al. (DeepLab), ``interp_layer.cpp`` in hszhao/PSPNet; ``layers { type: INTERP }`` of DeepLab's first version,
    in TheLegendAli/DeepLab-Context, is upgraded.
    """

    read_by_opencv = False

    def setup(self, bottoms: list[Shape]) -> None:
        param = forks.named(self.param).interp_param
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
            raise self.shape_error(f"expected a bottom of 4 axes (num, channels, height, width), got {tuple(bottoms[0])}")
        if min(bottoms[0][2:]) <= sum(self.cut):
            raise self.shape_error(f"expected an image larger than the {sum(self.cut)} cut off, got {list(bottoms[0][2:])}")
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


@register("Upsample")
class Upsample(Layer):
    """Two bottoms: each value put back where a max pooling took it from, zeros elsewhere: y[mask[i]] = x[i]. One bottom: each
    value repeated, ``scale`` times (1) each way.

    Bottoms: x (N, C, H, W) and, as x, the pooling's second top: places in the channel's plane, h * width + w; of values that
    share a place the last counts. Top: (N, C, H', W'). ``upsample_param``: upsample_h and upsample_w, the size before the
    pooling; or scale (2), or scale_h and scale_w, of the size after it, less 1 with pad_out_h or pad_out_w, for a scale of 2.
    Raises ShapeError where the mask does not fit. Source: Badrinarayanan, Kendall and Cipolla, PAMI 2017 (SegNet),
    ``upsample_layer.cpp``; with one bottom, eric612/MobileNet-YOLO and other ports of YOLO.

    Differences: a caffemodel of a port of YOLO has ``upsample_param`` under one of several numbers (149, 150); ours has SegNet's.
    """

    bottom_count = (1, 2)
    no_gradient = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        param = forks.named(self.param).upsample_param
        given = [param.HasField("upsample_h"), param.HasField("upsample_w")]
        if any(given) and not (param.upsample_h and param.upsample_w):
            raise self.spec_error("expected both upsample_h and upsample_w, 1 or more")
        self.size = (param.upsample_h, param.upsample_w) if all(given) else None
        self.scale = (1, 1) if self.size else self._scale(param, len(bottoms) > 1)
        self.less = int(param.pad_out_h), int(param.pad_out_w)
        if not self.size and any(less and scale != 2 for less, scale in zip(self.less, self.scale, strict=True)):
            raise self.spec_error(f"expected a scale of 2 for pad_out_h and pad_out_w, got {list(self.scale)}")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shape = tuple(bottoms[0])
        if len(shape) != 4 or len({tuple(each) for each in bottoms}) > 1:
            raise self.shape_error(
                f"expected bottoms of one shape, of 4 axes (num, channels, height, width), got {self.listing(bottoms)}"
            )
        return [torch.Size((*shape[:2], *self._top_size(shape[2:])))]

    def _top_size(self, image: Shape) -> tuple[int, int]:
        if self.size:
            return self.size
        high, wide = (size * scale - less for size, scale, less in zip(image, self.scale, self.less, strict=True))
        return high, wide

    def _scale(self, param: Any, masked: bool) -> tuple[int, int]:
        sides = [param.HasField("scale_h"), param.HasField("scale_w")]
        if any(sides) and (param.HasField("scale") or not all(sides)):
            raise self.spec_error("expected either scale or both scale_h and scale_w")
        one = param.scale if param.HasField("scale") or masked else 1
        scale = (param.scale_h, param.scale_w) if all(sides) else (one, one)
        if min(scale) < 1:
            raise self.spec_error(f"expected a scale of at least 1, got {list(scale)}")
        return scale

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        high, wide = self._top_size(x.shape[2:])
        if mask is None:
            return F.interpolate(x, (high, wide), mode="nearest")
        places = mask.detach().long().flatten(2)
        if places.device.type == "cpu" and places.numel() and not torch.compiler.is_compiling():
            low, top = int(places.min()), int(places.max())
            if low < 0 or top >= high * wide:
                raise self.shape_error(
                    f"the mask has the place {low if low < 0 else top}, the top {high} x {wide} = {high * wide}; "
                    "give the size before the pooling as upsample_h and upsample_w"
                )
        return x.new_zeros(*x.shape[:2], high * wide).scatter(2, places, x.flatten(2)).reshape(*x.shape[:2], high, wide)
