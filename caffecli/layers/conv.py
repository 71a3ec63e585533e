"""Convolution and Deconvolution, over any number of spatial axes; Im2col, the windows that a convolution multiplies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers import conv_backward
from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.folding import Array, FoldTarget, Unfoldable, fold_rows
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import ConvolutionParameter, LayerParameter, PoolingParameter

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DECONV: dict[int, Callable[..., Tensor]] = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def spatial_setting(
    layer: Layer, param: ConvolutionParameter, name: str, axes: int, default: int | None, least: int
) -> list[int]:
    """A setting with one value per spatial axis: ``name`` once or ``axes`` times or, for two axes, ``*_h`` and ``*_w``.

    ``default`` None means that it must be given. Raises SpecError for other counts, mixed spellings and values under
    ``least``.
    """
    values = list(getattr(param, name))
    stem = name.removesuffix("_size")
    short = [f"{stem}_h", f"{stem}_w"] if stem != "dilation" else []
    given = [field for field in short if param.HasField(field)]
    if given:
        if values:
            raise layer.spec_error(f"expected either {name} or {stem}_h and {stem}_w, got {name} and {given[0]}")
        if axes != 2:
            raise layer.spec_error(
                f"{given[0]} is for 2 spatial axes, the bottom has {axes}; repeat {name} once per axis"
            )
        values = [getattr(param, field) for field in short]
        if least and len(given) == 1:
            raise layer.spec_error(f"{given[0]} needs {(set(short) - set(given)).pop()} beside it")
    elif not values and default is not None:
        values = [default]
    if not values and axes:
        raise layer.spec_error(f"{name} is missing; give it once, or once per spatial axis ({axes})")
    if len(values) not in (1, axes):
        raise layer.spec_error(
            f"expected {name} once or {axes} times, once per spatial axis, got it {len(values)} times"
        )
    if any(value < least for value in values):
        raise layer.spec_error(f"expected {name} of at least {least}, got {', '.join(map(str, values))}")
    return values * axes if len(values) == 1 else values


def windows_of(
    sizes: Shape, pads: Sequence[int], extents: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """How many windows there are along each axis, and by how much a lone one exceeds it; an empty list: by nothing.

    C++ divides towards zero, so that there is one window where the kernel exceeds the padded axis by less than the
    stride. Under 1 where there is none.
    """
    rooms = [size + 2 * pad - extent for size, pad, extent in zip(sizes, pads, extents, strict=True)]
    counts = [1 if -stride < room < 0 else room // stride + 1 for room, stride in zip(rooms, strides, strict=True)]
    short = [max(0, -room) for room in rooms]
    return counts, short if any(short) else []


def pad_end(x: Tensor, short: Sequence[int]) -> Tensor:
    """``x`` (N, C, spatial...) with so many zeros behind each spatial axis."""
    return F.pad(x, [side for more in reversed(short) for side in (0, more)])


def drawn_window(settings: ConvolutionParameter | PoolingParameter) -> list[str]:
    """Kernel size, stride and pad, as a drawing says them: 3, or 3x5."""
    return [
        f"kernel size: {_drawn_setting(settings, 'kernel_size', 'kernel', 1)}",
        f"stride: {_drawn_setting(settings, 'stride', 'stride', 1)}",
        f"pad: {_drawn_setting(settings, 'pad', 'pad', 0)}",
    ]


def _drawn_setting(settings: ConvolutionParameter | PoolingParameter, name: str, stem: str, default: int) -> str:
    """A setting that may be one number, one for each axis, or given as _h and _w."""
    if settings.HasField(f"{stem}_h") or settings.HasField(f"{stem}_w"):
        sizes = [getattr(settings, f"{stem}_h"), getattr(settings, f"{stem}_w")]
    else:
        value = getattr(settings, name)
        sizes = [value] if isinstance(value, int) else list(value) or [default]
    return str(sizes[0]) if len(set(sizes)) == 1 else "x".join(map(str, sizes))


class BaseConvolution(FoldTarget, Layer):
    """What Convolution and its transpose share: settings, blobs, and the folding of axes.

    ``convolution_param``: num_output; kernel_size, pad (0), stride (1), dilation (1), each once or once per spatial
    axis, the first three also as ``*_h`` and ``*_w``; group (1); bias_term (true); weight_filler, bias_filler; axis
    (1): the channels, with independent inputs before it and spatial axes behind it. ``engine`` and ``force_nd_im2col``
    chose among equal results; they are read and have no effect. Several bottoms of one shape give as many tops by the
    same weights.

    A subclass names the weights' two channel dimensions, the tops' spatial sizes, and the operation on
    (N, C, spatial...).
    """

    precision = Precision.BFLOAT16
    blob_order = ("weight", "bias")
    fold_settings = "convolution_param"
    color = "#FF5050"
    bottom_count = (1, None)
    top_count = (1, None)
    weight: Tensor
    bias: Tensor | None

    def check_wiring(self, bottoms: Sequence[str], tops: Sequence[str]) -> None:
        super().check_wiring(bottoms, tops)
        if len(bottoms) != len(tops):
            raise self.spec_error(
                f"expected as many tops as bottoms, got {len(bottoms)} bottom(s) and {len(tops)} top(s)"
            )

    def setup(self, bottoms: list[Shape]) -> None:
        param, shape = self.param.convolution_param, tuple(bottoms[0])
        self.channel_axis = self.axis(param.axis, len(shape))
        self.channels = shape[self.channel_axis]
        self.spatial = len(shape) - self.channel_axis - 1
        self.kernel = spatial_setting(self, param, "kernel_size", self.spatial, None, 1)
        self.stride = spatial_setting(self, param, "stride", self.spatial, 1, 1)
        self.pad = spatial_setting(self, param, "pad", self.spatial, 0, 0)
        self.dilation = spatial_setting(self, param, "dilation", self.spatial, 1, 1)
        self.extent = [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]
        self.group = param.group
        self.num_output = param.num_output
        self._check_channels(self.channels)
        self.add_blob("weight", (*self.weight_channels(self.channels), *self.kernel), param.weight_filler)
        if param.bias_term:
            self.add_blob("bias", (self.num_output,), param.bias_filler)
        else:
            self.bias = None
        #: by how much a lone window reaches past each axis of the bottom; empty where none does
        self.short: list[int] = []
        #: whether the bottoms are as torch wants them, with nothing to fold or to pad
        self.plain = False

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shape = tuple(bottoms[0])
        for other in bottoms[1:]:
            if tuple(other) != shape:
                raise self.shape_error(f"expected bottoms of one shape, got {shape} and {tuple(other)}")
        self.check_fit("spatial axes", self.spatial, len(shape) - self.channel_axis - 1, bottoms)
        self.check_fit("channels", self.channels, shape[self.channel_axis], bottoms)
        self.sizes = shape[self.channel_axis + 1 :]
        tops = self.top_sizes()
        if any(size < 1 for size in tops):
            raise self.shape_error(self.misfit())
        self.plain = self.channel_axis == 1 and 1 <= self.spatial <= 3 and not self.short
        return [torch.Size((*shape[: self.channel_axis], self.num_output, *tops))] * len(bottoms)

    def _check_channels(self, channels: int) -> None:
        if self.num_output < 1:
            raise self.spec_error("num_output is missing; expected at least 1")
        if self.group < 1:
            raise self.spec_error("expected group of at least 1, got 0")
        for what, count in (("the bottom's channels", channels), ("num_output", self.num_output)):
            if count % self.group:
                raise self.spec_error(f"group {self.group} must divide {what} ({count})")

    def weight_channels(self, channels: int) -> tuple[int, int]:
        """The first two dimensions of the weights for a bottom of ``channels``."""
        raise NotImplementedError

    def top_sizes(self) -> list[int]:
        """The tops' spatial sizes."""
        raise NotImplementedError

    def misfit(self) -> str:
        """The error text where a top would have no values."""
        raise NotImplementedError

    def apply_weights(self, x: Tensor) -> Tensor:
        """The operation on (N, C, spatial...)."""
        raise NotImplementedError

    def multiply_adds(self, bottoms: list[Shape], tops: list[Shape]) -> int:
        """Weights × batch × positions, of the tops or, for the transpose, of the bottoms."""
        return sum(
            self.weight.numel() * math.prod(shape) // shape[self.channel_axis]
            for shape in self.positions(bottoms, tops)
        )

    def lattice(self) -> list[tuple[int, int, int]]:
        return list(zip(self.stride, self.extent, self.pad, strict=True)) if self.channel_axis == 1 else []

    def positions(self, bottoms: list[Shape], tops: list[Shape]) -> list[Shape]:
        """The shapes at each of whose positions all weights are used once."""
        return tops

    @classmethod
    def drawn(cls, param: LayerParameter) -> list[str]:
        return [*super().drawn(param), *drawn_window(param.convolution_param)]

    @classmethod
    def drawn_at_tops(cls, param: LayerParameter) -> str:
        return str(param.convolution_param.num_output or "")  # a fork's layer takes as many channels as its bottom has

    def forward(self, *bottoms: Tensor) -> Tensor | tuple[Tensor, ...]:
        run = self.apply_weights if self.plain else self._fold
        if len(bottoms) == 1:
            return run(bottoms[0])
        return tuple(run(x) for x in bottoms)

    def _fold(self, x: Tensor) -> Tensor:
        """The operation with all axes before the channels folded into one."""
        lead = x.shape[: self.channel_axis]
        x = x.reshape(lead.numel(), *x.shape[self.channel_axis :])
        y = self.apply_weights(pad_end(x, self.short) if self.short else x)
        return y.reshape(*lead, *y.shape[1:])


@register("Convolution")
class Convolution(BaseConvolution):
    """y[o] = bias[o] + sum over c, k of weight[o, c, k] * x[c, stride * i - pad + dilation * k],
    a group's channels apart.

    Blobs: weight (num_output, channels / group, kernel...) and bias (num_output). A spatial axis of size n becomes
    (n + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1, by C++'s division, towards zero: where a kernel exceeds
    the padded axis by less than the stride, there is one output, and zeros beyond the end.
    Source: ``base_conv_layer.cpp``, ``conv_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.STRIDED

    @classmethod
    def fold_outputs(cls, settings: Any, weight: Array) -> int:
        return len(weight)

    @classmethod
    def fold_groups(cls, settings: Any, weight: Array) -> int:
        """How many groups of channels the weight is for."""
        return int(settings.group)

    @classmethod
    def fold_behind(cls, settings: Any, weight: Array, factor: Array) -> Array:
        return weight * factor.reshape(-1, *(1,) * (weight.ndim - 1))

    @classmethod
    def fold_before(cls, settings: Any, weight: Array, factor: Array, shift: Array) -> tuple[Array, Array]:
        if shift.any() and any((*settings.pad, settings.pad_h, settings.pad_w)):
            raise Unfoldable("that pads with zeros, to which no shift is added")
        return fold_rows(weight, cls.fold_groups(settings, weight), weight.shape[1], factor, shift)

    def setup(self, bottoms: list[Shape]) -> None:
        super().setup(bottoms)
        self.gains = conv_backward.gains(self.channels, self.kernel, self.group)

    def weight_channels(self, channels: int) -> tuple[int, int]:
        return self.num_output, channels // self.group

    def top_sizes(self) -> list[int]:
        tops, self.short = windows_of(self.sizes, self.pad, self.extent, self.stride)
        return tops

    def misfit(self) -> str:
        what = f"kernel of {self.extent} does not fit the bottom's {list(self.sizes)} with pad {self.pad}"
        return f"{what}; use a smaller kernel or more pad"

    def apply_weights(self, x: Tensor) -> Tensor:
        if self.gains and conv_backward.learns(x, self.weight):
            return conv_backward.convolve(x, self.weight, self.bias, self.stride, self.pad, self.dilation)
        conv = _CONV.get(self.spatial, _conv_nd)
        return conv(x, self.weight, self.bias, self.stride, self.pad, self.dilation, self.group)


@register("Deconvolution")
class Deconvolution(BaseConvolution):
    """y[o, stride * i - pad + dilation * k] = bias[o] + the sum over all c, i and k that meet there of weight[c, o,
    k] * x[c, i].

    The transpose of Convolution. Blobs: weight (channels, num_output / group, kernel...) and bias (num_output). A
    spatial axis of size n becomes stride * (n - 1) + dilation * (kernel - 1) + 1 - 2 * pad. With group: channels, a
    bilinear filler and lr_mult: 0 it enlarges pictures. Source: ``deconv_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.TRANSPOSED

    @classmethod
    def fold_outputs(cls, settings: Any, weight: Array) -> int:
        return int(weight.shape[1] * settings.group) if weight.ndim > 1 else len(weight)

    @classmethod
    def fold_behind(cls, settings: Any, weight: Array, factor: Array) -> Array:
        channels, outputs, *kernel = weight.shape
        parts = weight.reshape(settings.group, channels // settings.group, outputs, *kernel)
        return (parts * factor.reshape(settings.group, 1, outputs, *(1,) * len(kernel))).reshape(weight.shape)

    @classmethod
    def fold_before(cls, settings: Any, weight: Array, factor: Array, shift: Array) -> tuple[Array, Array]:
        raise Unfoldable("a Deconvolution's edges get less of the shift than its middle")

    def weight_channels(self, channels: int) -> tuple[int, int]:
        return channels, self.num_output // self.group

    def top_sizes(self) -> list[int]:
        settings = zip(self.sizes, self.pad, self.extent, self.stride, strict=True)
        return [stride * (size - 1) + extent - 2 * pad for size, pad, extent, stride in settings]

    def positions(self, bottoms: list[Shape], tops: list[Shape]) -> list[Shape]:
        return bottoms

    def filters(self, bottom: Shape) -> Tensor:
        """The channels of the top are the weights' second axis, group by group."""
        weight = self.weight.detach()
        return weight.reshape(self.group, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)

    def misfit(self) -> str:
        what = (
            f"pad {self.pad} leaves nothing of the top: it would be {self.top_sizes()} for a bottom of "
            f"{list(self.sizes)}"
        )
        return f"{what}; use less pad"

    def apply_weights(self, x: Tensor) -> Tensor:
        deconv = _DECONV.get(self.spatial, _deconv_nd)
        return deconv(x, self.weight, self.bias, self.stride, self.pad, 0, self.group, self.dilation)


@register("Im2col")
class Im2col(Layer):
    """y[c, k, i] = x[c, stride * i - pad + dilation * k]: each window's values as channels, zeros beyond the edges.

    ``convolution_param``: kernel_size, pad (0), stride (1) and dilation (1), each once or once per spatial axis, the
    first three also as ``*_h`` and ``*_w``; axis (1): the channels, with independent inputs before it and spatial axes
    behind it, one at least. Its other settings have no effect. Bottom (N, C, n...), top (N, C * kernel..., m...), where
    m = (n + 2 * pad - dilation * (kernel - 1) - 1) / stride + 1, rounded towards zero as for Convolution. Raises
    ShapeError where the kernel does not fit.
    Source: ``im2col_layer.cpp``.
    """

    coordinates = Coordinates.STRIDED

    def setup(self, bottoms: list[Shape]) -> None:
        param, shape = self.param.convolution_param, tuple(bottoms[0])
        self.channel_axis = self.axis(param.axis, len(shape))
        axes = len(shape) - self.channel_axis - 1
        if not axes:
            raise self.shape_error(
                f"expected a spatial axis behind the channels, axis {self.channel_axis}, got {shape}"
            )
        self.kernel = tuple(spatial_setting(self, param, "kernel_size", axes, None, 1))
        self.stride = tuple(spatial_setting(self, param, "stride", axes, 1, 1))
        self.pad = tuple(spatial_setting(self, param, "pad", axes, 0, 0))
        self.dilation = tuple(spatial_setting(self, param, "dilation", axes, 1, 1))

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        axes = self.channel_axis + 1 + len(self.kernel)
        if len(bottoms[0]) != axes:
            raise self.shape_error(f"expected a bottom of {axes} axes, as it was set up for, got {tuple(bottoms[0])}")
        lead, (channels, *sizes) = bottoms[0][: self.channel_axis], bottoms[0][self.channel_axis :]
        tops = self._tops(sizes)
        if any(size < 1 for size in tops):
            raise self.shape_error(
                f"kernel of {self._extent()} does not fit the bottom's {sizes} with pad {list(self.pad)}; "
                "use a smaller kernel or more pad"
            )
        return [torch.Size((*lead, channels * math.prod(self.kernel), *tops))]

    def lattice(self) -> list[tuple[int, int, int]]:
        return list(zip(self.stride, self._extent(), self.pad, strict=True)) if self.channel_axis == 1 else []

    def _extent(self) -> list[int]:
        """The kernel's reach per spatial axis, dilation counted."""
        return [d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilation, strict=True)]

    def _tops(self, sizes: Shape) -> list[int]:
        return windows_of(sizes, self.pad, self._extent(), self.stride)[0]

    def forward(self, x: Tensor) -> Tensor:
        lead, (channels, *sizes) = x.shape[: self.channel_axis], x.shape[self.channel_axis :]
        tops, short = windows_of(sizes, self.pad, self._extent(), self.stride)
        x = x.reshape(math.prod(lead), channels, *sizes)
        if short:
            x = pad_end(x, short)
        columns = F.unfold(x, self.kernel, self.dilation, self.pad, self.stride) if len(sizes) == 2 else self._unfold(x)
        return columns.reshape(*lead, channels * math.prod(self.kernel), *tops)

    def _unfold(self, x: Tensor) -> Tensor:
        """The windows over any number of spatial axes, as (N, C, kernel..., tops...)."""
        axes = len(self.kernel)
        x = F.pad(x, [side for pad in reversed(self.pad) for side in (pad, pad)])
        for i, extent in enumerate(self._extent()):
            x = x.unfold(2 + i, extent, self.stride[i])[..., :: self.dilation[i]]
        return x.permute(0, 1, *range(2 + axes, 2 + 2 * axes), *range(2, 2 + axes))


def _conv_nd(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], pad: list[int], dilation: list[int], group: int
) -> Tensor:
    """Convolution over no spatial axis or over more than three, which torch has not.

    Over n axes it is a sum over the first axis' kernel rows of convolutions over the other n - 1.
    """
    axes = len(stride)
    if not axes:
        return F.conv1d(x[..., None], weight[..., None], bias, groups=group)[..., 0]
    if axes <= 3:
        return _CONV[axes](x, weight, bias, stride, pad, dilation, group)
    x = F.pad(x, [0, 0] * (axes - 1) + [pad[0], pad[0]])
    rows = weight.shape[2]
    size = (x.shape[2] - dilation[0] * (rows - 1) - 1) // stride[0] + 1
    total: Tensor | None = None
    for row in range(rows):
        start = row * dilation[0]
        part = x[:, :, start : start + (size - 1) * stride[0] + 1 : stride[0]].transpose(1, 2).flatten(0, 1)
        y = _conv_nd(part, weight[:, :, row], bias if row == 0 else None, stride[1:], pad[1:], dilation[1:], group)
        total = y if total is None else total + y
    if total is None:
        raise ValueError("a kernel without rows")
    return total.reshape(-1, size, *total.shape[1:]).transpose(1, 2)


def _deconv_nd(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    pad: list[int],
    more: int,
    group: int,
    dilation: list[int],
) -> Tensor:
    """Deconvolution over no spatial axis or over more than three, with the arguments of torch's own
    (``more`` has no effect).

    Over n axes each of the first axis' kernel rows adds a deconvolution over the other n - 1.
    """
    axes = len(stride)
    if not axes:
        return F.conv_transpose1d(x[..., None], weight[..., None], bias, groups=group)[..., 0]
    if axes <= 3:
        return _DECONV[axes](x, weight, bias, stride, pad, 0, group, dilation)
    items, _, size, *_ = x.shape
    rows = weight.shape[2]
    slices = x.transpose(1, 2).flatten(0, 1)
    total: Tensor | None = None
    for row in range(rows):
        y = _deconv_nd(slices, weight[:, :, row], None, stride[1:], pad[1:], 0, group, dilation[1:])
        y = y.reshape(items, size, *y.shape[1:]).transpose(1, 2)
        if total is None:
            total = y.new_zeros((*y.shape[:2], stride[0] * (size - 1) + dilation[0] * (rows - 1) + 1, *y.shape[3:]))
        start = row * dilation[0]
        total[:, :, start : start + stride[0] * (size - 1) + 1 : stride[0]] += y
    if total is None:
        raise ValueError("a kernel without rows")
    total = total.narrow(2, pad[0], total.shape[2] - 2 * pad[0])
    return total if bias is None else total + bias.reshape(-1, *[1] * axes)
