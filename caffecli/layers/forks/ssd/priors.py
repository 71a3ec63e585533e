"""PriorBox: the boxes that a detector starts from."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register


@register("PriorBox")
class PriorBox(Layer):
    """Boxes of several sizes and shapes around each place of a feature map, as parts of the image:
    xmin, ymin, xmax, ymax.

    Bottoms: features (N, C, H, W), image (N, C', H', W'). Top: (1, 2, H W P 4): in the first row the boxes, place by
    place, at each its P priors; in the second their variances. No gradient.

    ``prior_box_param``: for each min_size (pixels, whole ones: the fraction is cut off, as SSD does) a square of it,
    with max_size one of sqrt(min_size max_size), and for each aspect_ratio a, unless 1 or given before, a box min_size
    sqrt(a) wide and min_size / sqrt(a) high, with flip (true) another of 1 / a. variance: one or four (0.1). clip
    (false) to the image. img_size, or img_h and img_w: the image's, instead of the second bottom's. step, or step_h and
    step_w: pixels between places (image / features). offset (0.5): of a place's centre, in steps.
    Source: Liu et al., ECCV 2016 (SSD), section 2.2; ``prior_box_layer.cpp``.
    """

    read_by_opencv = True
    bottom_count = (2, 2)
    no_gradient = (0, 1)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.prior_box_param
        self.clip, self.offset = param.clip, param.offset
        self.variance = list(param.variance) or [0.1]
        if len(self.variance) not in (1, 4) or min(self.variance) <= 0:
            raise self.spec_error(f"expected one or four variance, above 0, got {_numbers(self.variance)}")
        self.sizes = self._sizes(
            list(param.min_size), list(param.max_size), self._ratios(list(param.aspect_ratio), param.flip)
        )
        self.image = self._pair(param, "img", "_size")
        self.step = self._pair(param, "step", "")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        for name, shape in zip(self.bottom_names, bottoms, strict=False):
            if len(shape) != 4:
                raise self.shape_error(
                    f"expected bottoms of 4 axes (num, channels, height, width), got {name!r} {tuple(shape)}"
                )
        return [torch.Size((1, 2, math.prod(bottoms[0][2:]) * len(self.sizes) * 4))]

    def _ratios(self, given: list[float], flip: bool) -> list[float]:
        ratios = [1.0]
        for ratio in given:
            if ratio <= 0:
                raise self.spec_error(f"expected each aspect_ratio above 0, got {ratio:g}")
            if all(abs(ratio - other) >= 1e-6 for other in ratios):
                ratios += [ratio, float(np.float32(1 / ratio))] if flip else [ratio]
        return ratios[1:]

    def _sizes(self, least: list[float], most: list[float], ratios: list[float]) -> list[tuple[float, float]]:
        """Width and height of each prior, in pixels."""
        if not least or min(least) <= 0:
            raise self.spec_error(f"expected one min_size or more, above 0, got {_numbers(least)}")
        if most and (len(most) != len(least) or any(high <= low for low, high in zip(least, most, strict=False))):
            raise self.spec_error(
                f"expected a larger max_size for each min_size {_numbers(least)}, got {_numbers(most)}"
            )
        sizes = []
        for i, low in enumerate(map(int, least)):
            sides = [float(low)] + ([math.sqrt(low * int(most[i]))] if most else [])
            sizes += [(side, side) for side in sides]
            roots = [np.sqrt(np.float32(ratio)) for ratio in ratios]
            sizes += [(float(np.float32(low) * root), float(np.float32(low) / root)) for root in roots]
        return sizes

    def _pair(self, param: object, name: str, both: str) -> tuple[float, float] | None:
        """Height and width given by ``<name>_h`` and ``<name>_w``, or by one field for both;
        None where there is neither.
        """
        fields = f"{name}{both}", f"{name}_h", f"{name}_w"
        one, *sides = (param.HasField(field) for field in fields)  # type: ignore[attr-defined]
        if not one and not any(sides):
            return None
        values = [float(getattr(param, field)) for field in (fields[1:] if any(sides) else fields[:1] * 2)]
        if (one and any(sides)) or min(values) <= 0:
            raise self.spec_error(f"expected {fields[0]}, or {fields[1]} and {fields[2]}, above 0")
        return values[0], values[1]

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        high, wide = self.image or (image.shape[2], image.shape[3])
        rows, columns = features.shape[2], features.shape[3]
        down, across = self.step or (high / rows, wide / columns)
        y = _centres(rows, self.offset, down, features).reshape(-1, 1, 1, 1)
        x = _centres(columns, self.offset, across, features).reshape(-1, 1, 1)
        centre = torch.cat([part.expand(rows, columns, 1, 1) for part in (x, y, x, y)], -1)
        reach = torch.tensor([[-w / 2, -h / 2, w / 2, h / 2] for w, h in self.sizes], dtype=torch.float32)
        whole = torch.tensor([wide, high] * 2, dtype=torch.float64, device=features.device)
        boxes = ((centre + reach.to(whole)) / whole).to(features.dtype)
        if self.clip:
            boxes = boxes.clamp(0, 1)
        variances = boxes.new_tensor(self.variance).expand(4).expand_as(boxes)
        return torch.stack([boxes.flatten(), variances.flatten()])[None]


def _centres(count: int, offset: float, step: float, like: Tensor) -> Tensor:
    """Centres in pixels, in float32, for float64: so SSD computes them, and where two priors overlap a box alike, the
    last bit decides.
    """
    return ((torch.arange(count, dtype=torch.float32, device=like.device) + offset) * step).double()


def _numbers(values: list[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
