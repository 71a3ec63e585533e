"""Rules of activation functions, of softmax and norms, and of ``where`` as decomposed activations use it."""

from __future__ import annotations

import math

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.linear import fixed_convolution
from converters.to_caffe.program import Array, Ref, Shape
from converters.to_caffe.scalars import affine, power
from converters.to_caffe.shapes import global_pool, reshape

#: the largest finite number of a blob
FLOAT_MAX = float(np.finfo(np.float32).max)

#: log(1 + exp(x)) is x in float32 from about here on
_SOFTPLUS_IS_LINEAR = 15
#: operations for which there is a layer without settings
_ELEMENTWISE = {
    "abs": "AbsVal",
    "relu": "ReLU",
    "sigmoid": "Sigmoid",
    "tanh": "TanH",
    "exp": "Exp",
    "log": "Log",
    "silu": "Swish",
}


@rule(*_ELEMENTWISE)
def elementwise(b: Builder) -> str:
    bottom = b.bottom("self")
    return b.layer(_ELEMENTWISE[b.op.short], bottom, shape=b.shape(bottom))


@rule("leaky_relu")
def leaky_relu(b: Builder) -> str:
    bottom = b.bottom("self")
    return b.layer("ReLU", bottom, shape=b.shape(bottom), relu_param={"negative_slope": b.arg("negative_slope", 0.01)})


@rule("prelu", "_prelu_kernel")
def prelu(b: Builder) -> str:
    slopes = b.weights("weight")
    if slopes is None:
        raise Unsupported("it has no slopes")
    return prelu_layer(b, b.bottom("self"), slopes)


def prelu_layer(b: Builder, bottom: str, slopes: Array) -> str:
    """A PReLU of one slope, or of one for each channel."""
    slopes = slopes.reshape(-1)
    if slopes.size == 1 and b.read_by_opencv:  # OpenCV does not read blobs without axes
        slopes = np.broadcast_to(slopes, b.shape(bottom)[1:2])
    elif slopes.size == 1:
        return b.layer(
            "PReLU", bottom, shape=b.shape(bottom), blobs=[slopes.reshape(())], prelu_param={"channel_shared": True}
        )
    return b.layer("PReLU", bottom, shape=b.shape(bottom), blobs=[slopes])


@rule("elu", "selu", "celu")
def elu(b: Builder) -> str:
    bottom, alpha, scale = b.bottom("self"), b.arg("alpha", 1), b.arg("scale", 1)
    if b.op.short == "selu":
        alpha, scale = 1.6732632423543772, 1.0507009873554805
    if b.arg("input_scale", 1) != 1 or (b.op.short == "celu" and alpha != 1):
        raise Unsupported("Caffe's ELU scales neither its input nor its exponent")
    top = b.layer("ELU", bottom, shape=b.shape(bottom), elu_param={} if alpha == 1 else {"alpha": alpha})
    return power(b, top, scale=scale, suffix="scale")


def clip(b: Builder, value: str, low: float, high: float, suffix: str = "") -> str:
    """``value`` limited to low..high: Clip; for OpenCV, which has no Clip, a ReLU for each bound between Powers."""
    shape = b.shape(value)
    if not b.read_by_opencv:
        return b.layer("Clip", value, shape=shape, suffix=suffix, clip_param={"min": low, "max": high})
    shift = 0 if low in (0, -FLOAT_MAX) else low
    top = power(b, value, shift=-shift, suffix=f"{suffix}from")
    if low != -FLOAT_MAX:
        top = b.layer("ReLU", top, shape=shape, suffix=f"{suffix}low")
    if high != FLOAT_MAX:
        top = power(b, top, scale=-1, shift=high - shift, suffix=f"{suffix}over")
        top = b.layer("ReLU", top, shape=shape, suffix=f"{suffix}high")
        return power(b, top, scale=-1, shift=high, suffix=suffix)
    return power(b, top, shift=shift, suffix=f"{suffix}to")


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
        raise Unsupported("its bounds are no numbers")
    lower, upper = (
        default if array is None else float(array)
        for array, default in zip(bounds, (-FLOAT_MAX, FLOAT_MAX), strict=True)
    )
    bottom = b.bottom("self")
    if lower == 0 and upper == FLOAT_MAX:
        return b.layer("ReLU", bottom, shape=b.shape(bottom))
    return clip(b, bottom, lower, upper)


@rule("hardsigmoid", "hardswish")
def hard_sigmoid(b: Builder) -> str:
    bottom = b.bottom("self")
    gate = clip(
        b,
        power(b, bottom, scale=1 / 6, shift=0.5, suffix="line"),
        0,
        1,
        suffix="gate" if b.op.short == "hardswish" else "",
    )
    if b.op.short == "hardsigmoid":
        return gate
    return b.layer("Eltwise", bottom, gate, shape=b.shape(bottom), eltwise_param={"operation": "PROD"})


def bnll(b: Builder, value: str, suffix: str = "") -> str:
    """log(1 + exp(value))."""
    return b.layer("BNLL", value, shape=b.shape(value), suffix=suffix)


@rule("softplus", "log_sigmoid", "mish", "softsign", "gelu")
def composite(b: Builder) -> str:
    """Activations that take several layers."""
    bottom = b.bottom("self")
    shape, kind = b.shape(bottom), b.op.short
    if kind == "softplus":
        beta = b.arg("beta", 1)
        return power(b, bnll(b, power(b, bottom, scale=beta, suffix="beta")), scale=1 / beta, suffix="scale")
    if kind == "log_sigmoid":
        return power(b, bnll(b, power(b, bottom, scale=-1, suffix="minus"), suffix="bnll"), scale=-1)
    if kind == "mish":
        gate = b.layer("TanH", bnll(b, bottom, suffix="bnll"), shape=shape, suffix="gate")
    elif kind == "softsign":
        gate = power(b, b.layer("AbsVal", bottom, shape=shape, suffix="abs"), -1, shift=1, suffix="gate")
    elif b.arg("approximate", "none") != "tanh":
        return _gelu(b, bottom)
    else:
        cubed = power(b, bottom, 3, suffix="cube")
        param = {"coeff": [0.7978845608028654, 0.7978845608028654 * 0.044715]}
        inner = b.layer("Eltwise", bottom, cubed, shape=shape, suffix="inner", eltwise_param=param)
        gate = power(b, b.layer("TanH", inner, shape=shape, suffix="tanh"), scale=0.5, shift=0.5, suffix="gate")
    return b.layer("Eltwise", bottom, gate, shape=shape, eltwise_param={"operation": "PROD"})


#: Abramowitz and Stegun, 7.1.26: erf(x) is 1 - (a_1 t + ... + a_5 t^5) exp(-x^2), t = 1 / (1 + p x), to 1.5e-7, x >= 0
_ERF_P = 0.3275911
_ERF_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def _erfc(b: Builder, value: str, scale: float, suffix: str) -> str:
    """1 - erf(scale * value), of a value that is not negative."""
    shape = b.shape(value)
    t = power(b, value, -1, _ERF_P * scale, 1, suffix=f"{suffix}_t")
    terms = [t, *(power(b, t, n, suffix=f"{suffix}_t{n}") for n in range(2, 6))]
    polynomial = b.layer("Eltwise", *terms, shape=shape, suffix=f"{suffix}_sum", eltwise_param={"coeff": list(_ERF_A)})
    square = power(b, value, 2, scale, suffix=f"{suffix}_square")
    bell = b.layer("Exp", square, shape=shape, suffix=f"{suffix}_exp", exp_param={"scale": -1.0})
    return b.layer("Eltwise", polynomial, bell, shape=shape, suffix=suffix, eltwise_param={"operation": "PROD"})


def _gelu(b: Builder, value: str) -> str:
    """x * Phi(x) is relu(x) - |x| / 2 * erfc(|x| / sqrt(2))."""
    shape = b.shape(value)
    size = b.layer("AbsVal", value, shape=shape, suffix="abs")
    rest = _erfc(b, size, 0.5**0.5, "erfc")
    tail = b.layer("Eltwise", size, rest, shape=shape, suffix="tail", eltwise_param={"operation": "PROD"})
    positive = b.layer("ReLU", value, shape=shape, suffix="relu")
    return b.layer("Eltwise", positive, tail, shape=shape, eltwise_param={"coeff": [1.0, -0.5]})


@rule("erf")
def erf(b: Builder) -> str:
    """erfc(max(-x, 0)) - erfc(max(x, 0)), of which one is 1."""
    value = b.bottom("self")
    shape = b.shape(value)
    above = _erfc(b, b.layer("ReLU", value, shape=shape, suffix="positive"), 1, "above")
    negated = power(b, value, scale=-1, suffix="minus")
    below = _erfc(b, b.layer("ReLU", negated, shape=shape, suffix="negative"), 1, "below")
    return b.layer("Eltwise", below, above, shape=shape, eltwise_param={"coeff": [1.0, -1.0]})


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "special_softmax")
def softmax(b: Builder) -> str:
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    axis = b.arg("dim") % len(shape)
    param = {} if axis == 1 else {"axis": axis}
    if "log" in b.op.short:
        return b.layer(
            "Log", b.layer("Softmax", bottom, shape=shape, suffix="softmax", softmax_param=param), shape=shape
        )
    return b.layer("Softmax", bottom, shape=shape, softmax_param=param)


@rule("dropout", "alpha_dropout", "feature_dropout")
def dropout(b: Builder) -> str:
    raise Unsupported("it is in training mode; call model.eval() before torch.export.export")


@rule("linalg_vector_norm", "norm")
def vector_norm(b: Builder) -> str:
    """The Euclidean norm over the channels: Power, a convolution that sums, Power."""
    bottom = b.bottom("self")
    shape, dims = b.shape(bottom), b.arg("dim")
    axes = [d % len(shape) for d in ([dims] if isinstance(dims, int) else dims or [])]
    if b.arg("ord", b.arg("p", 2)) != 2 or axes not in ([1], [2, 3]):
        raise Unsupported("other than the Euclidean one, over axis 1, or over pictures")
    if axes == [2, 3]:
        mean = global_pool(b, power(b, bottom, 2, suffix="square"), "AVE", suffix="mean")
        norm = power(b, mean, 0.5, scale=float(math.prod(shape[2:])))
        return reshape(b, norm, b.top_shape, suffix="shape")
    shape = shape if len(shape) > 2 else (*shape, 1, 1)
    square = power(b, reshape(b, bottom, shape, suffix="as_image"), 2, suffix="square")
    ones = np.ones((1, shape[1], *[1] * (len(shape) - 2)), np.float32)
    total = fixed_convolution(b, square, ones, (shape[0], 1, *shape[2:]), group=1, suffix="sum")
    return reshape(b, power(b, total, 0.5), b.top_shape, suffix="shape")


@rule("gt")
def threshold(b: Builder) -> str:
    limit, bottom = b.constant(b.arg("other")), b.bottom("self")
    if limit is None or limit.size != 1:
        raise Unsupported("of two values; Caffe's Threshold is a number")
    return b.layer("Threshold", bottom, shape=b.shape(bottom), threshold_param={"threshold": float(limit.flat[0])})


@rule("log1p")
def log1p(b: Builder) -> str:
    """log1p(exp(x)) is BNLL."""
    bottom = b.bottom("self")
    exp = b.producer(bottom, "exp")
    if exp is None:
        raise Unsupported("of what is no exp; use log(1 + x)")
    return bnll(b, b.for_op(exp).bottom("self"))


@rule("where")
def where(b: Builder) -> str:
    """``where`` as prelu and softplus are decomposed: x > 0 ? x : slope * x, and x > 20 ? x : log1p(exp(x))."""
    condition, value, other = b.arg("condition"), b.arg("self"), b.arg("other")
    gt = b.program.producers.get(condition.name) if isinstance(condition, Ref) else None
    if gt is not None and gt.short == "gt" and isinstance(value, Ref) and isinstance(other, Ref):
        test = b.for_op(gt)
        limit, tested = test.constant(test.arg("other")), test.arg("self")
        mul = b.program.producers.get(other.name)
        if limit is not None and limit.size == 1 and mul is not None:
            if limit.flat[0] == 0 and tested == value and mul.short == "mul":
                factors = [b.constant(mul.args[key]) for key in ("self", "other") if mul.args[key] != value]
                if len(factors) == 1 and factors[0] is not None and is_per_channel(factors[0], b.top_shape):
                    return prelu_layer(b, value.name, factors[0])
            inner = b.program.producers.get(affine(b, other.name, alone=False).value)
            if limit.flat[0] >= _SOFTPLUS_IS_LINEAR and inner is not None and inner.short == "log1p":
                return other.name
    raise Unsupported("it chooses between values; of such, Caffe has prelu and softplus alone")


def is_per_channel(slopes: Array, shape: Shape) -> bool:
    """Whether an array broadcasts to ``shape`` as one number, or as one for each channel."""
    full = (1,) * (len(shape) - slopes.ndim) + slopes.shape
    return len(full) == len(shape) > 1 and all(size == 1 for axis, size in enumerate(full) if axis != 1)
