"""SegNet's layers: BN, the batch normalisation of forks that are older than Caffe's own, which PSPNet has too;
Upsample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Shape
from caffecli.layers.folding import Array, Foldable, Unfoldable, per_channel
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import FillerParameter, LayerParameter, UpsampleParameter

LEARN, INFERENCE = 0, 1
SEGNET = ("scale_filler", "shift_filler", "bn_mode")
PSPNET = ("slope_filler", "bias_filler", "momentum", "eps", "frozen", "engine")


@register("BN")
class BN(Foldable, Layer):
    """y = scale (x - mean) / sqrt(variance + eps) + shift, a channel at a time. Two forks have a layer of this name;
    which one is meant, the settings say. Bottom and top: (N, C, ...).

    PSPNet's, ``bn_param`` slope_filler, bias_filler (0 where not given), momentum (0.9), eps (1e-5), frozen (false);
    engine has no effect. Blobs, all (1, C, 1, 1): scale and shift, learned unless frozen; mean and variance, kept over
    the batches. In TRAIN, if not frozen, y is by the batch's own, and kept = momentum * kept + (1 - momentum) *
    batch's; else y is by those kept.

    SegNet's, ``bn_param`` scale_filler, shift_filler, bn_mode (LEARN). Blobs (1, C, 1, 1): scale and shift. LEARN: the
    batch's mean and variance in TRAIN and TEST, eps 1e-9, which are a second and a third top where asked for,
    (1, C, 1, 1), without gradient; INFERENCE: y = scale x + shift.

    Raises SpecError for a ``bn_param`` of neither or both. Source: Badrinarayanan, Kendall and Cipolla, PAMI 2017
    (SegNet); Zhao et al., CVPR 2017 (hszhao/PSPNet); ``bn_layer.cpp`` of both.

    Differences: in caffemodels ``bn_param`` has SegNet's number.
    """

    stateful = True
    top_count = (1, 3)
    coordinates = Coordinates.SAME
    blob_order = ("scale", "shift", "mean", "variance")
    scale: Tensor
    shift: Tensor
    mean: Tensor
    variance: Tensor

    @classmethod
    def factor_and_shift(cls, param: LayerParameter, blobs: Sequence[Array]) -> tuple[Array, Array]:
        settings = param.bn_param
        values = per_channel(blobs)
        if len(values) == 4:
            factor = values[0] / np.sqrt(values[3] + settings.eps)
            return factor, values[1] - values[2] * factor
        if len(values) != 2:
            raise Unfoldable(f"the caffemodel has {len(blobs)} blob(s) for it, expected 2 (SegNet's) or 4 (PSPNet's)")
        if not settings.bn_mode:
            raise Unfoldable("bn_mode: LEARN makes it take each batch's own statistics")
        return values[0], values[1]

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.bn_param
        given = [[name for name in names if param.HasField(name)] for names in (SEGNET, PSPNET)]
        if all(given) or not any(given):
            raise self.spec_error(
                f"expected a bn_param of SegNet ({', '.join(SEGNET)}) or of PSPNet ({', '.join(PSPNET)}), got "
                f"{', '.join(given[0] + given[1]) or 'none'}"
            )
        self.kept = bool(given[1])
        self.fixed = not self.kept and param.bn_mode == INFERENCE
        self.frozen = self.kept and param.frozen
        self.tops = max(1, len(self.param.top))
        if self.tops > 1 and (self.kept or self.fixed):
            raise self.spec_error("only SegNet's, with bn_mode: LEARN, has tops for the batch's mean and variance")
        self.momentum, self.eps = param.momentum, param.eps if self.kept else 1e-9
        fillers = ("slope_filler", "bias_filler") if self.kept else ("scale_filler", "shift_filler")
        blob = (1, self.channels_of(bottoms), 1, 1)
        for name, filler in zip(("scale", "shift"), fillers, strict=True):
            self.add_blob(name, blob, getattr(param, filler), learned=not self.frozen)
        if self.kept:
            self.add_blob("mean", blob, learned=False)
            self.add_blob("variance", blob, FillerParameter(value=1) if self.frozen else None, learned=False)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        self.check_fit("channels", self.scale.shape[1], self.channels_of(bottoms), bottoms)
        return [torch.Size(bottoms[0]), *[self.scale.shape] * 2][: self.tops]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.tops < 2:
            return self._scaled(x)
        variance, mean = torch.var_mean(x.detach(), self._others(x), correction=0)
        statistics = (each.reshape(self.scale.shape) for each in (mean, variance))
        return (self._scaled(x), *statistics)[: self.tops]

    def _scaled(self, x: Tensor) -> Tensor:
        scale, shift = self.scale.flatten(), self.shift.flatten()
        if self.fixed:
            wide = (1, -1, *(1,) * (x.dim() - 2))
            return torch.addcmul(shift.reshape(wide), scale.reshape(wide), x)
        if self.kept and (self.frozen or not self.training):
            return F.batch_norm(x, self.mean.flatten(), self.variance.flatten(), scale, shift, eps=self.eps)
        if x.numel() == x.shape[1]:  # one value a channel, which torch refuses: the variance is 0
            y = (x - x) * scale.reshape(1, -1, *(1,) * (x.dim() - 2)) + shift.reshape(1, -1, *(1,) * (x.dim() - 2))
        else:
            y = F.batch_norm(x, None, None, scale, shift, training=True, eps=self.eps)
        if self.kept:
            self._keep(x.detach())
        return y

    @staticmethod
    def _others(x: Tensor) -> list[int]:
        """The axes but the channels'."""
        return [axis for axis in range(x.dim()) if axis != 1]

    def _keep(self, x: Tensor) -> None:
        """Move the mean and the variance, that of the values themselves, towards the batch's."""
        variance, mean = torch.var_mean(x, self._others(x), correction=0)
        for kept, now in ((self.mean, mean), (self.variance, variance)):
            kept.mul_(self.momentum).add_(now.reshape(kept.shape), alpha=1 - self.momentum)


@register("Upsample")
class Upsample(Layer):
    """Two bottoms: each value put back where a max pooling took it from, zeros elsewhere: y[mask[i]] = x[i]. One
    bottom: each value repeated, ``scale`` times (1) each way.

    Bottoms: x (N, C, H, W) and, as x, the pooling's second top: places in the channel's plane, h * width + w; of values
    that share a place the last counts. Top: (N, C, H', W'). ``upsample_param``: upsample_h and upsample_w, the size
    before the pooling; or scale (2), or scale_h and scale_w, of the size after it, less 1 with pad_out_h or pad_out_w,
    for a scale of 2.
    Raises ShapeError where the mask does not fit. Source: Badrinarayanan, Kendall and Cipolla, PAMI 2017 (SegNet),
    ``upsample_layer.cpp``; with one bottom, eric612/MobileNet-YOLO and other ports of YOLO.

    Differences: a caffemodel of a port of YOLO has ``upsample_param`` under one of several numbers (149, 150); ours has
    SegNet's.
    """

    bottom_count = (1, 2)
    no_gradient = (1,)

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.upsample_param
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

    def _scale(self, param: UpsampleParameter, masked: bool) -> tuple[int, int]:
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
