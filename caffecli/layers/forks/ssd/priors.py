"""PriorBox: the boxes that a detector starts from."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from caffecli.layers.base import Layer, Shape
from caffecli.layers.forks.ssd.forms import FACES, find_form
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import NetParameter


class Prior(NamedTuple):
    """A box at each place: its width and height, and how far its centre is from the place's, in pixels; ``offset``: the
    place's centre is so many steps down from its begin, rather than as the layer says.
    """

    wide: float
    high: float
    right: float = 0
    down: float = 0
    offset: float | None = None


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

    Of TextBoxes++: denser_prior_boxes (false): each box again, one step down from the place's begin. TextBoxes itself
    has no such field and always does so: this is done where convolutions predict twice as many locations as there are
    boxes otherwise. Of FaceBoxes: for each fixed_size s, instead of min_size, density d times d boxes, their centres
    s / d pixels apart, square and then of each other aspect_ratio, or only of each fixed_ratio; they are cut off where
    the image begins and ends. FaceBoxes' authors have no fields for that: where 84 locations are predicted of min_size
    32, 64 and 128, those are 16, 4 and 1 boxes, 8 and 16 pixels apart, and all squares of the net are a pixel smaller.
    Source: Liu et al., ECCV 2016 (SSD), section 2.2; Liao et al., AAAI 2017, and IEEE TIP 2018 (TextBoxes, and ++);
    Zhang et al., IJCB 2017 (FaceBoxes); ``prior_box_layer.cpp`` of weiliu89/caffe, MhLiao/TextBoxes_plusplus,
    sfzhang15/FaceBoxes and lippman1125/faceboxes_lqy.
    """

    read_by_opencv = True
    bottom_count = (2, 2)
    no_gradient = (0, 1)
    #: the project of which its net shows it to be, where that is not SSD
    form = ""

    def placed_in(self, net: NetParameter) -> None:
        self.form = find_form(self.name, net)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.prior_box_param
        self.clip, self.offset = param.clip, param.offset
        self.variance = list(param.variance) or [0.1]
        if len(self.variance) not in (1, 4) or min(self.variance) <= 0:
            raise self.spec_error(f"expected one or four variance, above 0, got {_numbers(self.variance)}")
        self.priors, self.cuts = self._priors(), bool(param.fixed_size)
        self.image = self._pair(param, "img", "_size")
        self.step = self._pair(param, "step", "")

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        for name, shape in zip(self.bottom_names, bottoms, strict=False):
            if len(shape) != 4:
                raise self.shape_error(
                    f"expected bottoms of 4 axes (num, channels, height, width), got {name!r} {tuple(shape)}"
                )
        return [torch.Size((1, 2, math.prod(bottoms[0][2:]) * len(self.priors) * 4))]

    def _ratios(self, given: list[float], flip: bool) -> list[float]:
        ratios = [1.0]
        for ratio in given:
            if ratio <= 0:
                raise self.spec_error(f"expected each aspect_ratio above 0, got {ratio:g}")
            if all(abs(ratio - other) >= 1e-6 for other in ratios):
                ratios += [ratio, float(np.float32(1 / ratio))] if flip else [ratio]
        return ratios[1:]

    def _priors(self) -> list[Prior]:
        param = self.param.prior_box_param
        ratios = self._ratios(list(param.aspect_ratio), param.flip)
        if param.fixed_size:
            return self._dense(list(param.fixed_size), list(map(int, param.density)), ratios)
        if param.fixed_ratio or param.density:
            raise self.spec_error("fixed_ratio and density, FaceBoxes', need fixed_size")
        priors = self._of_sizes(list(param.min_size), list(param.max_size), ratios)
        if param.denser_prior_boxes or self.form == "TextBoxes":
            return [each for prior in priors for each in (prior, prior._replace(offset=1.0))]
        return priors

    def _of_sizes(self, least: list[float], most: list[float], ratios: list[float]) -> list[Prior]:
        if not least or min(least) <= 0:
            raise self.spec_error(f"expected one min_size or more, above 0, got {_numbers(least)}")
        if most and (len(most) != len(least) or any(high <= low for low, high in zip(least, most, strict=False))):
            raise self.spec_error(
                f"expected a larger max_size for each min_size {_numbers(least)}, got {_numbers(most)}"
            )
        priors = []
        for i, low in enumerate(map(int, least)):
            shifts = FACES[low] if self.form == "FaceBoxes" and least == list(FACES) else (0,)
            side = low - (self.form == "FaceBoxes")
            priors += [Prior(side, side, right, down) for down in shifts for right in shifts]
            if most:
                priors.append(Prior(*[math.sqrt(low * int(most[i]))] * 2))
            priors += [_of_ratio(low, ratio) for ratio in ratios]
        return priors

    def _dense(self, sizes: list[float], densities: list[int], ratios: list[float]) -> list[Prior]:
        """FaceBoxes' boxes."""
        param = self.param.prior_box_param
        others = [name for name in ("min_size", "max_size", "denser_prior_boxes") if getattr(param, name)]
        if others:
            whose = "TextBoxes++'s" if others == ["denser_prior_boxes"] else "SSD's"
            raise self.spec_error(f"has both fixed_size, FaceBoxes', and {others[0]}, {whose}; leave out one of them")
        if param.fixed_ratio and param.aspect_ratio:
            raise self.spec_error("has both fixed_ratio and aspect_ratio; leave out one of them")
        if min([*sizes, *param.fixed_ratio, *densities], default=0) <= 0 or len(densities) != len(sizes):
            raise self.spec_error(
                f"expected fixed_size and fixed_ratio above 0, and for each fixed_size a density of 1 or more, got "
                f"{_numbers(sizes)}, {_numbers(list(param.fixed_ratio))} and {_numbers(list(param.density))}"
            )
        priors = []
        for size, density in zip(sizes, densities, strict=True):
            step = int(size / density)
            shifts = [step / 2 + step * i - int(size) // 2 for i in range(density)]
            shapes = [Prior(int(size), int(size)), *(_of_ratio(size, ratio) for ratio in ratios)]
            if param.fixed_ratio:
                shapes = [_of_ratio(size, ratio) for ratio in param.fixed_ratio]
            priors += [
                shape._replace(right=right, down=down) for shape in shapes for down in shifts for right in shifts
            ]
        return priors

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
        offsets = [self.offset if prior.offset is None else prior.offset for prior in self.priors]
        y = _centres(rows, offsets, down, [prior.down for prior in self.priors], features)[:, None]
        x = _centres(columns, [self.offset] * len(offsets), across, [prior.right for prior in self.priors], features)
        centre = torch.stack([part.expand(rows, columns, -1) for part in (x, y, x, y)], -1)
        reach = torch.tensor(
            [[-prior.wide / 2, -prior.high / 2, prior.wide / 2, prior.high / 2] for prior in self.priors],
            dtype=torch.float32,
        )
        whole = torch.tensor([wide, high] * 2, dtype=torch.float64, device=features.device)
        boxes = ((centre + reach.to(whole)) / whole).to(features.dtype)
        if self.cuts:
            boxes = torch.cat([boxes[..., :2].clamp(min=0), boxes[..., 2:].clamp(max=1)], -1)
        if self.clip:
            boxes = boxes.clamp(0, 1)
        variances = boxes.new_tensor(self.variance).expand(4).expand_as(boxes)
        return torch.stack([boxes.flatten(), variances.flatten()])[None]


def _centres(count: int, offsets: list[float], step: float, shifts: list[float], like: Tensor) -> Tensor:
    """Centres (count, priors) in pixels, in float32, for float64: so SSD computes them, and where two priors overlap a
    box alike, the last bit decides.
    """
    place = torch.arange(count, dtype=torch.float32, device=like.device)[:, None]
    centres = (place + torch.tensor(offsets, device=like.device)) * step
    return (centres + torch.tensor(shifts, device=like.device, dtype=torch.float32)).double()


def _of_ratio(size: float, ratio: float) -> Prior:
    root = np.sqrt(np.float32(ratio))
    return Prior(float(np.float32(size) * root), float(np.float32(size) / root))


def _numbers(values: list[float]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"
