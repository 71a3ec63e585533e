"""Layers that normalise: LRN over a neighbourhood, BatchNorm over a batch, MVN over a picture or a channel of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Shape, exporting
from caffecli.layers.folding import Array, Foldable, Unfoldable, per_channel
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, LRNParameter


@register("LRN")
class LRN(Layer):
    """y = x / (k + alpha / n * sum x^2) ^ beta, the sum over n neighbouring channels at one place (ACROSS_CHANNELS), or
    y = x / (1 + alpha / n^2 * sum x^2) ^ beta, over an n by n square of one channel (WITHIN_CHANNEL);
    zeros lie beyond the edges.

    ``lrn_param``: local_size n (5, odd), alpha (1), beta (0.75), k (1; across channels only), norm_region
    (ACROSS_CHANNELS). ``engine`` has no effect. Bottom and top: (num, channels, height, width).
    Source: Krizhevsky, Sutskever and Hinton, NIPS 2012; ``lrn_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.lrn_param
        self.size, self.beta = param.local_size, param.beta
        if self.size % 2 == 0:
            raise self.spec_error(f"expected an odd local_size, got {self.size}")
        if param.norm_region == LRNParameter.ACROSS_CHANNELS:
            self.axes: tuple[int, ...] = (1,)
            self.scale, self.shift = param.alpha / self.size, param.k
        else:
            self.axes = (2, 3)
            self.scale, self.shift = param.alpha / self.size**2, 1.0

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        if len(bottoms[0]) != 4:
            raise self.shape_error(
                f"expected a bottom of 4 axes (num, channels, height, width), got {tuple(bottoms[0])}"
            )
        return super().reshape(bottoms)

    def deconvolved(self, diff: Tensor) -> Tensor:
        """Passes on all of ``diff``."""
        return diff

    def forward(self, x: Tensor) -> Tensor:
        return _Normalise.apply(x, self.axes, self.size // 2, self.scale, self.beta, self.shift)  # type: ignore[no-untyped-call]


class _Normalise(torch.autograd.Function):
    """y = x s^-beta, s = k + a sum(x^2).

    Written out because its backward, by hand, is several times as fast as by autograd.

    dx = g s^-beta - 2 a beta x sum(g y / s), with the sums over each value's neighbourhood.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...], reach: int, a: float, beta: float, k: float) -> Tensor:
        scale = _neighbours(x.square(), axes, reach).mul_(a).add_(k)
        factor = _inverse_power(scale, beta)
        ctx.save_for_backward(x, scale, factor)
        ctx.axes, ctx.reach, ctx.slope = axes, reach, -2 * a * beta
        return x * factor

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, factor = ctx.saved_tensors
        direct = grad * factor
        ratio = _neighbours((direct * x).div_(scale), ctx.axes, ctx.reach)
        return ratio.mul_(x).mul_(ctx.slope).add_(direct), None, None, None, None, None


def _inverse_power(values: Tensor, beta: float) -> Tensor:
    """values ^ -beta; for Caffe's default, 0.75, by roots, which are several times as fast as ``pow``."""
    if beta != 0.75:
        return values.pow(-beta)
    root = values.rsqrt()
    return root * root.sqrt()


def _neighbours(values: Tensor, axes: tuple[int, ...], reach: int) -> Tensor:
    """Each value's sum with those at most ``reach`` away along each of the axes."""
    if exporting():  # a single operation, which ONNX has too
        return _boxes(values, axes, reach)
    for axis in axes:
        size = values.shape[axis]
        total = values.clone()
        for step in range(1, min(reach, size - 1) + 1):
            total.narrow(axis, step, size - step).add_(values.narrow(axis, 0, size - step))
            total.narrow(axis, 0, size - step).add_(values.narrow(axis, step, size - step))
        values = total
    return values


def _boxes(values: Tensor, axes: tuple[int, ...], reach: int) -> Tensor:
    """``_neighbours`` by average pooling over boxes, times their size."""
    side = 2 * reach + 1
    if axes == (2, 3):
        return F.avg_pool2d(values, side, 1, reach) * side**2
    n, c, h, w = values.shape
    return F.avg_pool2d(values.reshape(n, 1, c, h * w), (side, 1), 1, (reach, 0)).reshape(n, c, h, w) * side


@register("BatchNorm")
class BatchNorm(Foldable, Layer):
    """y = (x - mean) / sqrt(variance + eps), a channel (axis 1) at a time; scale and shift are a Scale layer's work.

    In TRAIN the mean and variance are the batch's, and running sums are kept: sum = fraction * sum + batch's, the
    variance with the factor m / (m - 1) for m values a channel, and factor = fraction * factor + 1. In TEST they are
    the sums divided by factor, 0 where the factor is 0. ``use_global_stats`` overrides the phase.

    ``batch_norm_param``: use_global_stats, moving_average_fraction (0.999), eps (1e-5). Blobs, none of them learned by
    gradient: mean sum (channels), variance sum (channels), factor (1). A bottom of one axis is one channel.
    Raises SpecError for a ``param`` whose lr_mult is not 0. Source: Ioffe and Szegedy, ICML 2015;
    ``batch_norm_layer.cpp``.
    """

    read_by_opencv = True
    stateful = True
    coordinates = Coordinates.SAME
    usually_in_place = True
    blob_order = ("mean", "variance", "factor")
    keeps_shape = True
    mean: Tensor
    variance: Tensor
    factor: Tensor

    @classmethod
    def factor_and_shift(cls, param: LayerParameter, blobs: Sequence[Array]) -> tuple[Array, Array]:
        settings = param.batch_norm_param
        if settings.HasField("use_global_stats") and not settings.use_global_stats:
            raise Unfoldable("use_global_stats: false makes it take each batch's own statistics")
        if len(blobs) != 3:
            raise Unfoldable(f"the caffemodel has {len(blobs)} blob(s) for it, expected 3")
        mean, variance, count = per_channel(blobs)
        share = 1 / count[0] if count[0] else 0.0
        factor = 1 / np.sqrt(variance * share + settings.eps)
        return factor, -mean * share * factor

    def setup(self, bottoms: list[Shape]) -> None:
        for i, spec in enumerate(self.param.param):
            if spec.lr_mult != 0:
                raise self.spec_error(
                    f"param {i}: expected lr_mult: 0, got {spec.lr_mult:g}; these blobs are statistics, not learned"
                )
        param = self.param.batch_norm_param
        self.use_global_stats = param.use_global_stats if param.HasField("use_global_stats") else None
        self.fraction, self.eps = param.moving_average_fraction, param.eps
        channels = self._channels(bottoms)
        self.add_blob("mean", (channels,), learned=False)
        self.add_blob("variance", (channels,), learned=False)
        self.add_blob("factor", (1,), learned=False)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.check_fit("channels", len(self.mean), self._channels(bottoms), bottoms)
        return super().reshape(bottoms)

    def _channels(self, bottoms: list[Shape]) -> int:
        if not bottoms[0]:
            raise self.shape_error("expected a bottom of at least one axis, got a single value")
        return bottoms[0][1] if len(bottoms[0]) > 1 else 1

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return self.forward(x[:, None])[:, 0]
        use_global_stats = not self.training if self.use_global_stats is None else self.use_global_stats
        return self._by_sums(x) if use_global_stats else self._by_batch(x)

    def doubt(self) -> str:
        if self.phase == TRAIN and self.use_global_stats and not self.factor.any():
            return (
                "uses stored statistics in training, and has none: leave out use_global_stats, or begin with --weights"
            )
        if self.phase == TEST and self.use_global_stats is False:
            return "uses the statistics of each batch in scoring too: leave out use_global_stats: false"
        return ""

    def _by_sums(self, x: Tensor) -> Tensor:
        share = torch.where(self.factor == 0, 0, 1 / self.factor)
        return F.batch_norm(x, self.mean * share, self.variance * share, eps=self.eps)

    def _by_batch(self, x: Tensor) -> Tensor:
        if x.numel() == x.shape[1]:  # one value a channel, which torch refuses: the variance is 0
            mean, variance = x.detach().flatten(), torch.zeros_like(self.variance)
            y = x - x
        else:
            # With a momentum of 1 torch leaves the batch's own statistics here, the variance corrected as Caffe's.
            mean, variance = torch.zeros_like(self.mean), torch.zeros_like(self.variance)
            y = F.batch_norm(x, mean, variance, training=True, momentum=1.0, eps=self.eps)
        with torch.no_grad():
            self.mean.mul_(self.fraction).add_(mean)
            self.variance.mul_(self.fraction).add_(variance)
            self.factor.mul_(self.fraction).add_(1)
        return y


@register("MVN")
class MVN(Layer):
    """y = (x - mean) / (deviation + eps), for each channel of each item by itself;
    deviation^2 is the mean of (x - mean)^2.

    ``mvn_param``: normalize_variance (true), without which y = x - mean; across_channels (false): all channels of an
    item together; eps (1e-9). The gradient, as the reference's, takes deviation + eps for the deviation throughout.
    Bottom of up to 4 axes, top (num, channels, height, width), sizes that the bottom lacks being 1.
    Raises ShapeError for a bottom of more axes. Source: ``mvn_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.mvn_param
        self.across, self.by_variance, self.eps = param.across_channels, param.normalize_variance, param.eps

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        shape = tuple(bottoms[0])
        if len(shape) > 4:
            raise self.shape_error(f"expected a bottom of up to 4 axes (num, channels, height, width), got {shape}")
        return [torch.Size((*shape, *(1,) * (4 - len(shape))))]

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 4:
            x = x.reshape(*x.shape, *(1,) * (4 - x.dim()))
        if not self.by_variance:
            return x - x.mean((1, 2, 3) if self.across else (2, 3), keepdim=True)
        return _Standardise.apply(x, 1 if self.across else x.shape[1], self.eps)  # type: ignore[no-untyped-call]


class _Standardise(torch.autograd.Function):
    """y = (x - mean) / (deviation + eps) over each of ``groups`` groups of channels, by torch's kernels for GroupNorm.

    The kernels divide by sqrt(deviation^2 + e), here with a tiny e; eps is applied afterwards. The backward kernel,
    called with y, mean 0 and deviation 1, gives the bracket of the reference's dx = (g - mean(g) - y mean(g y)) /
    (deviation + eps). On the CPU, where adding eps changes no deviation, and no mean is so large that x - mean loses
    its digits, the kernels' own results are exact, and are used as they are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int, eps: float) -> Tensor:
        n, c, h, w = x.shape
        x = x.contiguous()
        y, mean, inverse = torch.native_group_norm(x, None, None, n, c, h * w, groups, torch.finfo(torch.float32).tiny)
        share = 1 / (1 + eps * inverse)
        ctx.plain = x.device.type == "cpu" and not torch.compiler.is_compiling()
        ctx.plain = ctx.plain and bool(((share == 1) & (mean.abs() * inverse < 1000)).all())
        if ctx.plain:
            ctx.save_for_backward(x, mean, inverse)
            return y
        y.mul_(share.view(n, groups, 1, 1))
        ctx.save_for_backward(y, torch.zeros_like(mean), torch.ones_like(mean), (inverse * share).view(n, groups, 1, 1))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        values, mean, inverse, *scale = ctx.saved_tensors
        n, c, h, w = values.shape
        backward = torch.ops.aten.native_group_norm_backward
        grads = backward(
            grad.contiguous(), values, mean, inverse, None, n, c, h * w, mean.shape[1], [True, False, False]
        )
        dx = grads[0]
        return (dx.mul_(scale[0]) if scale else dx), None, None
