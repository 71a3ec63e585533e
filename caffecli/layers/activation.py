"""Layers that map each value by itself: ReLU and its kin, Sigmoid, TanH, powers, exponentials and logarithms, Clip,
Dropout.

One bottom and one top of the same shape, any number of axes. ``engine`` chose between Caffe's own kernels and cuDNN's;
both computed the same, so it is read and has no effect.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from caffecli.layers.base import Coordinates, Layer, Precision, Shape
from caffecli.layers.registry import register
from caffecli.proto.caffe_pb2 import ExpParameter, FillerParameter, LogParameter


@register("ReLU")
class ReLU(Layer):
    """y = x where x > 0, else negative_slope * x (0); at 0 the gradient is negative_slope.

    Source: Nair and Hinton, ICML 2010; leaky form: Maas et al., 2013; ``relu_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    precision = Precision.ANY
    usually_in_place = True
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        self.slope = self.param.relu_param.negative_slope

    def deconvolved(self, diff: Tensor) -> Tensor:
        """Passes on the positive part of ``diff``, whatever the bottom was."""
        return diff.clamp(min=0)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope) if self.slope else F.relu(x)


@register("PReLU")
class PReLU(Layer):
    """y = x where x > 0, else slope[c] * x, with a slope for each channel c (axis 1); at 0 the gradient is the slope.

    ``prelu_param``: filler (constant 0.25), channel_shared (false): one slope for all. Blob: slope, (channels) or a
    single value.
    Raises ShapeError for a bottom of fewer than 2 axes. Source: He, Zhang, Ren and Sun, ICCV 2015; ``prelu_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    usually_in_place = True
    blob_order = ("slope",)
    keeps_shape = True
    slope: Tensor

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.prelu_param
        filler = param.filler if param.HasField("filler") else FillerParameter(value=0.25)
        self.add_blob("slope", () if param.channel_shared else (self.channels_of(bottoms),), filler)

    def reshape(self, bottoms: list[Shape]) -> list[torch.Size]:
        channels = self.channels_of(bottoms)
        if self.slope.dim():
            self.check_fit("channels", len(self.slope), channels, bottoms)
        return super().reshape(bottoms)

    def forward(self, x: Tensor) -> Tensor:
        return F.prelu(x, self.slope)


@register("ELU")
class ELU(Layer):
    """y = x where x > 0, else alpha * (exp(x) - 1), alpha 1 by default; at 0 the gradient is alpha.

    Source: Clevert, Unterthiner and Hochreiter, ICLR 2016; ``elu_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        self.alpha = self.param.elu_param.alpha

    def forward(self, x: Tensor) -> Tensor:
        return F.elu(x, self.alpha)


@register("BNLL")
class BNLL(Layer):
    """y = log(1 + exp(x)), the binomial normal log likelihood. Source: ``bnll_layer.cpp``."""

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x, threshold=50)  # beyond which y is x


@register("Swish")
class Swish(Layer):
    """y = x / (1 + exp(-beta * x)), beta 1 by default. Source: Ramachandran, Zoph and Le, 2017; ``swish_layer.cpp``."""

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        self.beta = self.param.swish_param.beta

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x) if self.beta == 1 else x * torch.sigmoid(x * self.beta)


@register("Sigmoid")
class Sigmoid(Layer):
    """y = 1 / (1 + exp(-x)), between 0 and 1; the top has the bottom's shape. Source: ``sigmoid_layer.cpp``."""

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


@register("TanH")
class TanH(Layer):
    """y = tanh(x), between -1 and 1; the top has the bottom's shape. Source: ``tanh_layer.cpp``."""

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x)


@register("AbsVal")
class AbsVal(Layer):
    """y = |x|; at 0 the gradient is 0. Not in place. Source: ``absval_layer.cpp``."""

    read_by_opencv = True
    coordinates = Coordinates.SAME
    in_place = False
    keeps_shape = True

    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


@register("Clip")
class Clip(Layer):
    """y = min(max(x, least), most), by ``clip_param``'s min and max, both required; at both the gradient is 1.

    Raises SpecError where one is missing or min is above max. Source: ``clip_layer.cpp``.
    """

    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.clip_param
        missing = [name for name in ("min", "max") if not param.HasField(name)]
        if missing:
            raise self.spec_error(f"{' and '.join(missing)} missing; expected clip_param {{ min: ... max: ... }}")
        self.least, self.most = param.min, param.max
        if not self.least <= self.most:
            raise self.spec_error(f"expected min <= max, got min: {self.least:g} and max: {self.most:g}")

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.least, self.most)


@register("Threshold")
class Threshold(Layer):
    """y = 1 where x > threshold (0 by default), else 0; no gradient. Source: ``threshold_layer.cpp``."""

    coordinates = Coordinates.SAME
    keeps_shape = True
    no_gradient = (0,)

    def setup(self, bottoms: list[Shape]) -> None:
        self.threshold = self.param.threshold_param.threshold

    def forward(self, x: Tensor) -> Tensor:
        return (x > self.threshold).to(x.dtype)


@register("Power")
class Power(Layer):
    """y = (shift + scale * x) ^ power, by default x itself (power 1, scale 1, shift 0).

    A power or scale of 0 gives the constant 1 or shift ^ power, whatever x holds; the top then depends on no bottom and
    has no gradient. Elsewhere the gradient is the true derivative; the reference divides y by the base, which at a base
    of 0 is 0 / 0. Source: ``power_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.power_param
        self.power, self.scale, self.shift = param.power, param.scale, param.shift
        self.constant: float | None = None
        if self.power == 0:
            self.constant = 1.0
        elif self.scale == 0:  # torch's pow, because Python's gives complex numbers for negative bases
            self.constant = torch.tensor(self.shift).pow(self.power).item()

    def forward(self, x: Tensor) -> Tensor:
        if self.constant is not None:
            return torch.full_like(x, self.constant)
        if self.scale != 1:
            x = x * self.scale
        if self.shift != 0:
            x = x + self.shift
        return x if self.power == 1 else x.pow(self.power)


def _log_base(layer: Layer, param: ExpParameter | LogParameter) -> float:
    """The logarithm of ``base``, of which -1, the default, means e. Raises SpecError for a base that has none."""
    base = param.base
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.spec_error(f"expected a base above 0, or -1 for e, got {base:g}")
    return math.log(base)


@register("Exp")
class Exp(Layer):
    """y = base ^ (shift + scale * x); by default e ^ x (base -1, which means e, scale 1, shift 0).

    Raises SpecError for a base of 0 or less. Source: ``exp_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.exp_param
        log_base = _log_base(self, param)
        self.inner = log_base * param.scale
        self.outer = math.exp(log_base * param.shift) if log_base * param.shift < 700 else math.inf

    def forward(self, x: Tensor) -> Tensor:
        y = torch.exp(x if self.inner == 1 else x * self.inner)
        return y if self.outer == 1 else y * self.outer


@register("Log")
class Log(Layer):
    """y = log(shift + scale * x) to the ``base``; by default the natural one of x (base -1, which means e, scale 1,
    shift 0).

    Raises SpecError for a base of 1, or of 0 or less. Source: ``log_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        param = self.param.log_param
        log_base = _log_base(self, param)
        if log_base == 0:
            raise self.spec_error("expected a base other than 1, to which no number has a logarithm")
        self.outer, self.scale, self.shift = 1 / log_base, param.scale, param.shift

    def forward(self, x: Tensor) -> Tensor:
        if self.scale != 1:
            x = x * self.scale
        if self.shift != 0:
            x = x + self.shift
        y = torch.log(x)
        return y if self.outer == 1 else y * self.outer


@register("Dropout")
class Dropout(Layer):
    """TRAIN: y = x / (1 - r) with probability 1 - r, else 0, drawn anew each time; TEST:
    y = x. r is dropout_ratio (0.5).

    Settings of forks: with scale_train (true) false, of rbgirshick/caffe-fast-rcnn, both times 1 - r; with
    sample_weights_test (false) true, of SegNet, TEST is as TRAIN.
    Raises SpecError for a ratio outside [0, 1). Source: Srivastava et al., JMLR 2014; ``dropout_layer.cpp``.
    """

    read_by_opencv = True
    coordinates = Coordinates.SAME
    precision = Precision.ANY
    keeps_shape = True

    def setup(self, bottoms: list[Shape]) -> None:
        self.ratio = self.param.dropout_param.dropout_ratio
        ours = self.param.dropout_param
        self.scale, self.always = 1.0 if ours.scale_train else 1 - self.ratio, ours.sample_weights_test
        if not 0 <= self.ratio < 1:
            raise self.spec_error(
                f"expected 0 <= dropout_ratio < 1, got {self.ratio:g}; it is the share of values set to zero"
            )

    @property
    def random(self) -> bool:
        return self.training or self.always

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(x, self.ratio, self.training or self.always)
        return y if self.scale == 1 else y * self.scale
