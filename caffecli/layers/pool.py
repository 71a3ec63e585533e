"""Pooling: the largest, the mean, or a drawn value of each window; SPP, the same over a pyramid of grids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.conv import drawn_window
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import LayerParameter, PoolingParameter, SPPParameter

Pair = tuple[int, int]


class Windows(NamedTuple):
    """How windows lie on an image; each pair is (height, width)."""

    kernel: Pair
    stride: Pair
    pad: Pair
    ceil: bool

    def tops(self, image: Pair) -> Pair:
        """How many windows an image has; under 1 when they do not fit."""
        counts = [self._count(image[i], self.kernel[i], self.stride[i], self.pad[i]) for i in (0, 1)]
        return counts[0], counts[1]

    def _count(self, size: int, kernel: int, stride: int, pad: int) -> int:
        room = size + 2 * pad - kernel
        count = (-(-room // stride) if self.ceil else room // stride) + 1
        # A last window that would start behind the image is dropped. The reference does so with padding only; without,
        # a stride beyond the kernel can put a window there too, and it then writes to memory that is not its own.
        return count - 1 if (count - 1) * stride >= size + pad else count

    @property
    def deep(self) -> bool:
        """Whether the padding is deeper than half a kernel, which torch's pooling does not take."""
        return any(2 * pad > kernel for pad, kernel in zip(self.pad, self.kernel, strict=True))


@register("Pooling")
class Pooling(Layer):
    """One value for each window of an image (num, channels, height, width).

    ``pooling_param``: pool MAX (the default), AVE or STOCHASTIC; kernel_size or kernel_h and kernel_w, or
    global_pooling for the whole image; stride (1), pad (0), also as ``*_h`` and ``*_w``; round_mode CEIL (the default)
    or FLOOR, which some forks write as ceil_mode true or false. ``engine``: no effect.

    Windows: ceil or floor of (n + 2 * pad - kernel) / stride, plus 1, less a last one that would start behind the
    image.

    MAX: the largest value; the gradient goes to the first of equals, row by row. A second top has its index in the
    image,
    h * width + w. AVE: the sum over the window's part in the image, divided by the size of its part in the padded
    image. STOCHASTIC, of values >= 0 and without padding: in TRAIN one value drawn with probability x / sum x, in TEST
    sum x^2 / sum x; Zeiler and Fergus, ICLR 2013. Source: ``pooling_layer.cpp``, ``pooling_layer.cu``.
    """

    read_by_opencv = True
    coordinates = Coordinates.STRIDED
    precision = Precision.ANY
    compiles = False
    color = "#FF9900"
    top_count = (1, 2)

    def check_wiring(self, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        super().check_wiring(bottoms, tops)
        if len(tops) == 2 and self.param.pooling_param.pool != PoolingParameter.MAX:
            raise self.spec_error("a second top, the mask, is for MAX pooling only")

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.pooling_param
        self.pool = param.pool
        self.mask = len(self.param.top) > 1
        self.whole = param.global_pooling
        ceil = param.round_mode == PoolingParameter.CEIL and param.ceil_mode
        self.windows = Windows(self._kernel(param), self._pair(param, "stride"), self._pair(param, "pad"), ceil)
        self._check_windows()

    def _kernel(self, param: PoolingParameter) -> Pair:
        """The kernel; of a pooling over the whole image, which has that size, a single pixel."""
        square, sides = param.HasField("kernel_size"), [param.HasField("kernel_h"), param.HasField("kernel_w")]
        if param.global_pooling:
            if square or any(sides):
                raise self.spec_error("global_pooling takes the whole image; remove the kernel size")
            return 1, 1
        if square == all(sides):
            came = "both" if square else "only one of kernel_h and kernel_w" if any(sides) else "neither"
            raise self.spec_error(f"expected either kernel_size or kernel_h and kernel_w, got {came}")
        return (param.kernel_size,) * 2 if square else (param.kernel_h, param.kernel_w)

    def _pair(self, param: PoolingParameter, name: str) -> Pair:
        sides = [param.HasField(f"{name}_h"), param.HasField(f"{name}_w")]
        if any(sides) and (param.HasField(name) or not all(sides)):
            raise self.spec_error(f"expected either {name} or both {name}_h and {name}_w")
        if any(sides):
            return getattr(param, f"{name}_h"), getattr(param, f"{name}_w")
        return getattr(param, name), getattr(param, name)

    def _check_windows(self) -> None:
        kernel, stride, pad, _ = self.windows
        if min(kernel) < 1:
            raise self.spec_error(f"expected a kernel of at least 1, got {list(kernel)}")
        if min(stride) < 1:
            raise self.spec_error(f"expected a stride of at least 1, got {list(stride)}")
        if self.whole and (stride != (1, 1) or pad != (0, 0)):
            raise self.spec_error(
                f"global_pooling needs stride 1 and pad 0, got stride {list(stride)} and pad {list(pad)}"
            )
        if any(pad) and self.pool == PoolingParameter.STOCHASTIC:
            raise self.spec_error("pad is for MAX and AVE pooling only")
        if any(p >= k for p, k in zip(pad, kernel, strict=True) if any(pad)):
            raise self.spec_error(f"expected pad less than the kernel, got pad {list(pad)} and kernel {list(kernel)}")

    @classmethod
    def drawn(cls, param: LayerParameter) -> list[str]:
        settings = param.pooling_param
        method = PoolingParameter.PoolMethod.Name(settings.pool)
        return [f"({param.type} {method})", *(["global"] if settings.global_pooling else drawn_window(settings))]

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len(bottoms[0]) != 4:
            raise self.shape_error(
                f"expected a bottom of 4 axes (num, channels, height, width), got {tuple(bottoms[0])}"
            )
        num, channels, *image = bottoms[0]
        if self.whole:
            self.windows = self.windows._replace(kernel=(image[0], image[1]))
        tops = self.windows.tops((image[0], image[1]))
        if min(tops) < 1:
            raise self.shape_error(
                f"kernel of {list(self.windows.kernel)} does not fit the bottom's {image} with pad "
                f"{list(self.windows.pad)}; use a smaller kernel or more pad"
            )
        return [torch.Size((num, channels, *tops))] * (1 + self.mask)

    def lattice(self) -> list[tuple[int, int, int]]:
        kernel, stride, pad, _ = self.windows
        return list(zip(stride, kernel, pad, strict=True))

    @property
    def random(self) -> bool:
        return self.training and self.pool == PoolingParameter.STOCHASTIC

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        windows = Windows((x.shape[2], x.shape[3]), (1, 1), (0, 0), False) if self.whole else self.windows
        if self.pool == PoolingParameter.MAX:
            return _max_mask(x, windows) if self.mask else _max(x, windows)
        if self.pool == PoolingParameter.AVE:
            return _average(x, windows)
        return _stochastic(x, windows, self.training)


@register("SPP")
class SPP(Layer):
    """Pooling on grids of 1, 2 by 2, 4 by 4, ... windows, each flattened and all joined:
    as many values for pictures of any size.

    ``spp_param``: pyramid_height p, how many grids; pool MAX (the default), AVE or STOCHASTIC, as for Pooling.
    ``engine``: no effect. On a grid of b by b, windows of ceil(n / b) lie side by side; what they cover beyond the n
    values is padded, half of it (rounded up) before. Bottom (N, C, H, W); top (N, C * (4^p - 1) / 3), or (N, C, 1, 1)
    where p is 1.

    STOCHASTIC draws in TRAIN only; in the reference it draws in TEST, too. Raises SpecError where pyramid_height is
    missing, or so large that the bottom is too small for the last grid; STOCHASTIC also needs a bottom that each grid
    divides.
    Source: He, Zhang, Ren and Sun, ECCV 2014; ``spp_layer.cpp``.
    """

    compiles = False

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.spp_param
        if param.pyramid_height < 1:
            raise self.spec_error("pyramid_height is missing; expected at least 1")
        self.height, self.pool = param.pyramid_height, param.pool

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shape = tuple(bottoms[0])
        if len(shape) != 4 or min(shape[2:]) < 1:
            raise self.shape_error(
                f"expected a bottom of 4 axes (num, channels, height, width) that is not empty, got {shape}"
            )
        self.image = shape[2], shape[3]
        self.grids = self._grids(self.image)
        if self.height == 1:
            return [torch.Size((*shape[:2], 1, 1))]
        return [torch.Size((shape[0], shape[1] * sum(math.prod(grid.tops(self.image)) for grid in self.grids)))]

    def _grids(self, image: Pair) -> list[Windows]:
        """The windows of each level on such an image."""
        grids = []
        for level in range(self.height):
            bins = 2**level
            kernel = -(-image[0] // bins), -(-image[1] // bins)
            pad = (kernel[0] * bins - image[0] + 1) // 2, (kernel[1] * bins - image[1] + 1) // 2
            if any(p >= k for p, k in zip(pad, kernel, strict=True)):
                what = f"a bottom of {list(image)} is too small for a grid of {bins} by {bins}"
                raise self.spec_error(f"{what}; expected a pyramid_height of at most {level}, got {self.height}")
            if any(pad) and self.pool == SPPParameter.STOCHASTIC:
                what = f"a grid of {bins} by {bins} does not divide a bottom of {list(image)}"
                raise self.spec_error(f"{what}, and padding is for MAX and AVE pooling only")
            grids.append(Windows(kernel, kernel, pad, True))
        return grids

    @property
    def random(self) -> bool:
        return self.training and self.pool == SPPParameter.STOCHASTIC

    def forward(self, x: Tensor) -> Tensor:
        image = x.shape[2], x.shape[3]
        tops = [self._level(x, grid) for grid in (self.grids if image == self.image else self._grids(image))]
        return tops[0] if len(tops) == 1 else torch.cat([top.flatten(1) for top in tops], 1)

    def _level(self, x: Tensor, grid: Windows) -> Tensor:
        if self.pool == SPPParameter.MAX:
            return _max(x, grid)
        return _average(x, grid) if self.pool == SPPParameter.AVE else _stochastic(x, grid, self.training)


def _fit(x: Tensor, windows: Windows, value: float) -> tuple[Tensor, Pair]:
    """``x`` and the padding for torch; where torch cannot pad so much, ``x`` padded with ``value``,
    and no more padding.
    """
    if not windows.deep:
        return x, windows.pad
    high, wide = windows.pad
    return F.pad(x, (wide, wide, high, high), value=value), (0, 0)


def _cut(y: Tensor, x: Tensor, windows: Windows) -> Tensor:
    """``y`` without the windows too many that torch makes where ``_fit`` has done the padding."""
    if not windows.deep:
        return y
    high, wide = windows.tops((x.shape[2], x.shape[3]))
    return y[:, :, :high, :wide]


def _max(x: Tensor, windows: Windows) -> Tensor:
    padded, pad = _fit(x, windows, -math.inf)
    return _cut(F.max_pool2d(padded, windows.kernel, windows.stride, pad, 1, windows.ceil), x, windows)


def _max_mask(x: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
    padded, pad = _fit(x, windows, -math.inf)
    y, index = F.max_pool2d_with_indices(padded, windows.kernel, windows.stride, pad, (1, 1), windows.ceil)
    y, index = _cut(y, x, windows), _cut(index, x, windows)
    if windows.deep:
        row, column = index // padded.shape[3] - windows.pad[0], index % padded.shape[3] - windows.pad[1]
        index = row * x.shape[3] + column
    return y, index.to(x.dtype)


def _average(x: Tensor, windows: Windows) -> Tensor:
    # With count_include_pad, torch's divisor is Caffe's: the window clipped to the padded image.
    padded, pad = _fit(x, windows, 0)
    return _cut(F.avg_pool2d(padded, windows.kernel, windows.stride, pad, windows.ceil, True), x, windows)


def _stochastic(x: Tensor, windows: Windows, training: bool) -> Tensor:
    short = _shortfall(windows, (x.shape[2], x.shape[3]))
    views = F.pad(x, (0, short[1], 0, short[0])).unfold(2, windows.kernel[0], windows.stride[0])
    values = views.unfold(3, windows.kernel[1], windows.stride[1]).flatten(4)  # zeros added at the edge are never drawn
    if not training:
        total = values.sum(-1)
        return torch.where(total > 0, values.square().sum(-1) / torch.where(total > 0, total, 1), 0)
    running = values.detach().cumsum(-1)
    threshold = (1 - torch.rand_like(running[..., :1])) * running[..., -1:]
    drawn = (running >= threshold).to(torch.uint8).argmax(-1, keepdim=True)
    return values.gather(-1, drawn).squeeze(-1)


def _shortfall(windows: Windows, image: Pair) -> Pair:
    """By how much the last windows reach past an image."""
    need = [(n - 1) * s + k for n, s, k in zip(windows.tops(image), windows.stride, windows.kernel, strict=True)]
    return max(0, need[0] - image[0]), max(0, need[1] - image[1])
