"""Rules of the functions of single values, and of softmax."""

from __future__ import annotations

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.program import Array, Ref, Shape
from converters.from_torch.scalars import affine, power
from converters.from_torch.shaped import reshape
from converters.from_torch.weighted import fixed_convolution

#: the largest number of a blob
LARGEST = float(np.finfo(np.float32).max)

#: from where on log(1 + exp(x)) is x, in a blob
_STRAIGHT = 15
#: operations that are a layer without settings
_PLAIN = {"abs": "AbsVal", "relu": "ReLU", "sigmoid": "Sigmoid", "tanh": "TanH", "exp": "Exp", "log": "Log", "silu": "Swish"}


@rule(*_PLAIN)
def plain(b: Builder) -> str:
    bottom = b.bottom("self")
    return b.layer(_PLAIN[b.op.short], bottom, shape=b.shape(bottom))


@rule("leaky_relu")
def leaky_relu(b: Builder) -> str:
    bottom = b.bottom("self")
    return b.layer("ReLU", bottom, shape=b.shape(bottom), relu_param={"negative_slope": b.arg("negative_slope", 0.01)})


@rule("prelu", "_prelu_kernel")
def prelu(b: Builder) -> str:
    slopes = b.weights("weight")
    if slopes is None:
        raise Unsayable("it has no slopes")
    return sloped(b, b.bottom("self"), slopes)


def sloped(b: Builder, bottom: str, slopes: Array) -> str:
    slopes = slopes.reshape(-1)
    if slopes.size == 1 and b.audience == "both":  # OpenCV reads no blob without axes
        slopes = np.broadcast_to(slopes, b.shape(bottom)[1:2])
    elif slopes.size == 1:
        return b.layer("PReLU", bottom, shape=b.shape(bottom), blobs=[slopes.reshape(())], prelu_param={"channel_shared": True})
    return b.layer("PReLU", bottom, shape=b.shape(bottom), blobs=[slopes])


@rule("elu", "selu", "celu")
def elu(b: Builder) -> str:
    bottom, alpha, scale = b.bottom("self"), b.arg("alpha", 1), b.arg("scale", 1)
    if b.op.short == "selu":
        alpha, scale = 1.6732632423543772, 1.0507009873554805
    if b.arg("input_scale", 1) != 1 or (b.op.short == "celu" and alpha != 1):
        raise Unsayable("Caffe's ELU scales neither its input nor its exponent")
    top = b.layer("ELU", bottom, shape=b.shape(bottom), elu_param={} if alpha == 1 else {"alpha": alpha})
    return power(b, top, scale=scale, note="scale")


def clip(b: Builder, value: str, low: float, high: float, note: str = "") -> str:
    """``value`` held between two numbers. OpenCV does not read Clip: ReLU from below and, turned over, from above then."""
    shape = b.shape(value)
    if b.audience != "both":
        return b.layer("Clip", value, shape=shape, note=note, clip_param={"min": low, "max": high})
    shift = 0 if low in (0, -LARGEST) else low
    top = power(b, value, shift=-shift, note=f"{note}from")
    if low != -LARGEST:
        top = b.layer("ReLU", top, shape=shape, note=f"{note}low")
    if high != LARGEST:
        top = power(b, top, scale=-1, shift=high - shift, note=f"{note}over")
        top = b.layer("ReLU", top, shape=shape, note=f"{note}high")
        return power(b, top, scale=-1, shift=high, note=note)
    return power(b, top, shift=shift, note=f"{note}to")


@rule("clamp", "clamp_min", "clamp_max", "clip", "hardtanh", "relu6")
def clamp(b: Builder) -> str:
    if b.op.short == "relu6":
        low, high = 0, 6
    elif b.op.short == "hardtanh":
        low, high = b.arg("min_val", -1), b.arg("max_val", 1)
    else:
        low, high = b.arg("min"), b.arg("max")
    bounds = [b.constant(bound) for bound in (low, high)]
    if any(bound is not None and array is None for bound, array in zip((low, high), bounds, strict=True)):
        raise Unsayable("its bounds are no numbers")
    least, most = (default if array is None else float(array) for array, default in zip(bounds, (-LARGEST, LARGEST), strict=True))
    bottom = b.bottom("self")
    if least == 0 and most == LARGEST:
        return b.layer("ReLU", bottom, shape=b.shape(bottom))
    return clip(b, bottom, least, most)


@rule("hardsigmoid", "hardswish")
def hard(b: Builder) -> str:
    bottom = b.bottom("self")
    gate = clip(b, power(b, bottom, scale=1 / 6, shift=0.5, note="line"), 0, 1, note="gate" if b.op.short == "hardswish" else "")
    if b.op.short == "hardsigmoid":
        return gate
    return b.layer("Eltwise", bottom, gate, shape=b.shape(bottom), eltwise_param={"operation": "PROD"})


def bnll(b: Builder, value: str, note: str = "") -> str:
    return b.layer("BNLL", value, shape=b.shape(value), note=note)


@rule("softplus", "log_sigmoid", "mish", "softsign", "gelu")
def composed(b: Builder) -> str:
    """Those that take several layers."""
    bottom = b.bottom("self")
    shape, kind = b.shape(bottom), b.op.short
    if kind == "softplus":
        beta = b.arg("beta", 1)
        return power(b, bnll(b, power(b, bottom, scale=beta, note="beta")), scale=1 / beta, note="scale")
    if kind == "log_sigmoid":
        return power(b, bnll(b, power(b, bottom, scale=-1, note="minus"), note="bnll"), scale=-1)
    if kind == "mish":
        gate = b.layer("TanH", bnll(b, bottom, note="bnll"), shape=shape, note="gate")
    elif kind == "softsign":
        gate = power(b, b.layer("AbsVal", bottom, shape=shape, note="abs"), -1, shift=1, note="gate")
    else:
        if b.arg("approximate", "none") != "tanh":
            raise Unsayable("Caffe has no error function; use approximate='tanh'")
        cubed = power(b, bottom, 3, note="cube")
        param = {"coeff": [0.7978845608028654, 0.7978845608028654 * 0.044715]}
        inner = b.layer("Eltwise", bottom, cubed, shape=shape, note="inner", eltwise_param=param)
        gate = power(b, b.layer("TanH", inner, shape=shape, note="tanh"), scale=0.5, shift=0.5, note="gate")
    return b.layer("Eltwise", bottom, gate, shape=shape, eltwise_param={"operation": "PROD"})


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "special_softmax")
def softmax(b: Builder) -> str:
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    axis = b.arg("dim") % len(shape)
    param = {} if axis == 1 else {"axis": axis}
    if "log" in b.op.short:
        return b.layer("Log", b.layer("Softmax", bottom, shape=shape, note="softmax", softmax_param=param), shape=shape)
    return b.layer("Softmax", bottom, shape=shape, softmax_param=param)


@rule("dropout", "alpha_dropout", "feature_dropout")
def dropout(b: Builder) -> str:
    raise Unsayable("it is in training mode; call model.eval() before torch.export.export")


@rule("linalg_vector_norm", "norm")
def vector_norm(b: Builder) -> str:
    """The root of the sum of squares, over the channels."""
    bottom = b.bottom("self")
    shape, dims = b.shape(bottom), b.arg("dim")
    axes = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or [])]
    if b.arg("ord", b.arg("p", 2)) != 2 or axes != [1]:
        raise Unsayable("other than the Euclidean one, over axis 1")
    shape = shape if len(shape) > 2 else (*shape, 1, 1)
    square = power(b, reshape(b, bottom, shape, note="as_image"), 2, note="square")
    ones = np.ones((1, shape[1], *[1] * (len(shape) - 2)), np.float32)
    total = fixed_convolution(b, square, ones, (shape[0], 1, *shape[2:]), group=1, note="sum")
    return reshape(b, power(b, total, 0.5), b.top, note="shape")


@rule("gt")
def threshold(b: Builder) -> str:
    limit, bottom = b.constant(b.arg("other")), b.bottom("self")
    if limit is None or limit.size != 1:
        raise Unsayable("of two values; Caffe's Threshold is a number")
    return b.layer("Threshold", bottom, shape=b.shape(bottom), threshold_param={"threshold": float(limit.flat[0])})


@rule("log1p")
def log_of_one_more(b: Builder) -> str:
    """BNLL, of the logarithm of 1 + exp(x)."""
    bottom = b.bottom("self")
    exp = b.maker(bottom, "exp")
    if exp is None:
        raise Unsayable("of what is no exp; use log(1 + x)")
    return bnll(b, b.of(exp).bottom("self"))


@rule("where")
def where(b: Builder) -> str:
    """What programs in core operations have for prelu, and for softplus, which is its input where that is large."""
    condition, value, other = b.arg("condition"), b.arg("self"), b.arg("other")
    gt = b.program.makers.get(condition.name) if isinstance(condition, Ref) else None
    if gt is not None and gt.short == "gt" and isinstance(value, Ref) and isinstance(other, Ref):
        test = b.of(gt)
        limit, tested = test.constant(test.arg("other")), test.arg("self")
        mul = b.program.makers.get(other.name)
        if limit is not None and limit.size == 1 and mul is not None:
            if limit.flat[0] == 0 and tested == value and mul.short == "mul":
                factors = [b.constant(mul.args[key]) for key in ("self", "other") if mul.args[key] != value]
                if len(factors) == 1 and factors[0] is not None and placed_on_channels(factors[0], b.top):
                    return sloped(b, value.name, factors[0])
            inner = b.program.makers.get(affine(b, other.name, alone=False).value)
            if limit.flat[0] >= _STRAIGHT and inner is not None and inner.short == "log1p":
                return other.name
    raise Unsayable("it chooses between values; of such, Caffe has prelu and softplus alone")


def placed_on_channels(slopes: Array, shape: Shape) -> bool:
    """Whether an array that is multiplied has one number, or one for each channel."""
    full = (1,) * (len(shape) - slopes.ndim) + slopes.shape
    return len(full) == len(shape) > 1 and all(size == 1 for axis, size in enumerate(full) if axis != 1)
