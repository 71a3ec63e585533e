"""Rules of normalization: by stored statistics, by those of the input, and over neighbouring values (LRN)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.linear import fixed_convolution
from converters.to_caffe.program import Array, Op, Ref
from converters.to_caffe.scalars import affine, power, power_of
from converters.to_caffe.shapes import global_pool, reshape

#: an eps up to this changes the result only where the deviation is 0
_NEGLIGIBLE_EPS = 1e-8
_TRAINING = "it is in training mode; call model.eval() before torch.export.export"


@rule(
    "batch_norm",
    "native_batch_norm",
    "cudnn_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit",
)
def batch_norm(b: Builder) -> list[str]:
    bottom = b.bottom("input")
    mean, variance = b.weights("running_mean"), b.weights("running_var")
    training = b.arg("training", b.op.short == "_native_batch_norm_legit")
    if training and mean is not None:
        raise Unsupported(_TRAINING)
    if mean is None or variance is None:
        channels = b.shape(bottom)[1]
        param = {**_eps(b), "use_global_stats": False}
        blobs = [np.zeros(channels), np.ones(channels), np.ones(1)]
        top = b.layer("BatchNorm", bottom, shape=b.shape(bottom), blobs=blobs, batch_norm_param=param)
    else:
        blobs = _batch_norm_blobs(b, mean, variance)
        top = b.layer("BatchNorm", bottom, shape=b.shape(bottom), blobs=blobs, batch_norm_param=_eps(b))
    return [_scale_layer(b, top, b.weights("weight"), b.weights("bias"), (1,)), *b.op.outputs[1:]]


def _eps(b: Builder) -> dict[str, Any]:
    """The setting ``eps``, left out where it is Caffe's default."""
    eps = float(np.float32(b.arg("eps", 1e-5)))
    return {} if eps == float(np.float32(1e-5)) else {"eps": eps}


def _batch_norm_blobs(b: Builder, mean: Array, variance: Array) -> list[Array]:
    """The blobs of a BatchNorm: mean, variance and factor.

    A program of our export divides stored sums by their factor; the sums and the factor are then the blobs.
    """
    stored = []
    for name, folded in (("running_mean", mean), ("running_var", variance)):
        op = b.program.producers.get(b.arg(name).name)
        if op is None or op.short != "mul":
            break
        sums = b.constant(op.args["self"])
        factor = _only_source(b, op.args["other"])
        if sums is None or factor is None or factor.size != 1:
            break
        share = np.float32(0) if factor.flat[0] == 0 else np.float32(1) / factor.astype(np.float32).flat[0]
        if not np.array_equal(sums * share, folded):
            break
        stored.append((sums, factor))
    if len(stored) == 2:
        return [stored[0][0], stored[1][0], stored[0][1].reshape(1)]
    return [mean, variance, np.ones(1, np.float32)]


def _only_source(b: Builder, value: Any) -> Array | None:
    """The array that a value is computed from, if it is computed from one alone."""
    found: set[str] = set()
    names = [value.name] if isinstance(value, Ref) else []
    while names:
        name = names.pop()
        if name in b.program.arrays:
            found.add(name)
        elif name in b.program.producers:
            names += b.program.producers[name].refs()
    return b.program.constant(found.pop()) if len(found) == 1 else None


def _scale_layer(b: Builder, value: str, weight: Array | None, bias: Array | None, axes: Sequence[int]) -> str:
    """A Scale by a weight and a bias, which have these axes of the value; ``value`` itself where there are none."""
    if weight is None and bias is None:
        return value
    shape = b.shape(value)
    own = tuple(shape[axis] for axis in axes)
    weight = np.ones(own, np.float32) if weight is None else weight.reshape(own)
    param: dict[str, Any] = {} if axes[0] == 1 else {"axis": axes[0]}
    param |= ({} if len(axes) == 1 else {"num_axes": len(axes)}) | ({} if bias is None else {"bias_term": True})
    blobs = [weight] if bias is None else [weight, bias.reshape(own)]
    return b.layer("Scale", value, shape=shape, blobs=blobs, suffix="scale", scale_param=param)


@rule("instance_norm", "group_norm", "native_group_norm", "layer_norm", "native_layer_norm")
def by_input_statistics(b: Builder) -> list[str]:
    """(x - mean) * (variance + eps) ** -0.5 over each group within an item; Caffe's MVN adds eps after the root."""
    bottom = b.bottom("input")
    shape = b.shape(bottom)
    axes: Sequence[int] = (1,)
    if "layer" in b.op.short:
        count = len(b.arg("normalized_shape"))
        if count == len(shape):
            raise Unsupported("over the batch, too")
        groups, axes = math.prod(shape[1 : len(shape) - count]), range(len(shape) - count, len(shape))
    elif "group" in b.op.short:
        groups = b.arg("num_groups", b.arg("group"))
    else:
        if not b.arg("use_input_stats", True):
            raise Unsupported("by stored statistics; use batch_norm")
        groups = shape[1]
    value = _normalize_groups(
        b, bottom, groups, lambda variance: power(b, variance, -0.5, shift=b.arg("eps", 1e-5), suffix="factor")
    )
    return [_scale_layer(b, value, b.weights("weight"), b.weights("bias"), axes), *b.op.outputs[1:]]


def _normalize_groups(b: Builder, value: str, groups: int, factor: Callable[[str], str]) -> str:
    """(x - mean) * factor(variance) over each group of an item's values; ``factor`` adds the layers that compute it."""
    shape = b.shape(value)
    rows = (shape[0], groups, math.prod(shape[1:]) // groups, 1)
    value = reshape(b, value, rows, suffix="rows")
    value = b.layer("MVN", value, shape=rows, suffix="centred", mvn_param={"normalize_variance": False})
    variance = global_pool(b, power(b, value, 2, suffix="square"), "AVE", suffix="variance")
    factors = reshape(b, factor(variance), rows[:2], suffix="factors")
    return reshape(b, b.layer("Scale", value, factors, shape=rows, scale_param={"axis": 0}), shape, suffix="shape")


@rule("caffe.channel_norm")
def channel_norm(b: Builder) -> str:
    """``layer_norm`` over the channels of each place: 1 x 1 convolutions give deviations and variance."""
    bottom = b.bottom("self")
    shape = b.shape(bottom)
    count, ones = shape[1], [1] * (len(shape) - 2)
    mean = np.full((count, count), 1 / count)
    centring = (np.eye(count) - mean).astype(np.float32).reshape(count, count, *ones)
    centred = fixed_convolution(b, bottom, centring, shape, group=1, suffix="centred")
    square = power(b, centred, 2, suffix="square")
    means = mean.astype(np.float32).reshape(count, count, *ones)
    variance = fixed_convolution(b, square, means, shape, group=1, suffix="variance")
    factor = power(b, variance, -0.5, shift=b.arg("eps", 1e-5), suffix="factor")
    top = b.layer("Eltwise", centred, factor, shape=shape, eltwise_param={"operation": "PROD"})
    return _scale_layer(b, top, b.weights("weight"), b.weights("bias"), (1,))


@rule("caffe.mvn")
def mvn(b: Builder) -> str:
    """Caffe's MVN, found by ``recompose``; ``eps`` is None without normalize_variance.

    OpenCV adds eps before the root.
    """
    eps, bottom = b.arg("eps"), b.bottom("self")
    if eps is not None and eps > _NEGLIGIBLE_EPS and b.read_by_opencv:

        def factor(variance: str) -> str:
            return power(b, power(b, variance, 0.5, suffix="deviation"), -1, shift=eps, suffix="factor")

        return _normalize_groups(b, bottom, 1 if b.arg("across") else b.top_shape[1], factor)
    param: dict[str, Any] = {"normalize_variance": False} if eps is None else {}
    if eps is not None and np.float32(eps) != np.float32(1e-9):
        param["eps"] = eps
    if b.arg("across"):
        param["across_channels"] = True
    return b.layer("MVN", bottom, shape=b.top_shape, mvn_param=param)


def match_lrn(b: Builder) -> str | None:
    """An LRN layer where the operation is x * (k + alpha * (mean of x^2 nearby)) ** -beta; else None."""
    one, two = b.arg("self"), b.arg("other")
    if b.op.short not in ("mul", "div") or not isinstance(one, Ref) or not isinstance(two, Ref):
        return None
    for value, factor in (
        ((one.name, two.name), (two.name, one.name)) if b.op.short == "mul" else ((one.name, two.name),)
    ):
        base, exponent = power_of(b, factor)
        mean = affine(b, base, alone=False)
        beta = exponent if b.op.short == "div" else -exponent
        found = _match_mean_of_squares(b, mean.value, value) if beta > 0 and mean.value != value else None
        if found is None or len(b.shape(value)) != 4:
            continue
        within, size = found
        if within and mean.shift != 1:
            continue
        return _lrn(b, value, {"local_size": size, "alpha": mean.scale, "beta": beta, "k": mean.shift}, within)
    return None


@rule("caffe.lrn")
def lrn(b: Builder) -> str:
    """Caffe's LRN across the channels."""
    if len(b.top_shape) != 4:
        raise Unsupported("of what is no picture")
    return _lrn(b, b.bottom("self"), {name: b.arg(name) for name in ("local_size", "alpha", "beta", "k")}, False)


def _lrn(b: Builder, value: str, given: dict[str, Any], within: bool) -> str:
    """The LRN layer. OpenCV ignores k: for it, k becomes 1 and the factor k ** -beta a Power behind."""
    factor = 1.0
    if b.read_by_opencv and given["k"] > 0:
        factor = given["k"] ** -given["beta"]
        given |= {"alpha": given["alpha"] / given["k"], "k": 1.0}
    usual = {"local_size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    param = {name: number for name, number in given.items() if number != usual[name]}
    param |= {"norm_region": "WITHIN_CHANNEL"} if within else {}
    return power(
        b, b.layer("LRN", value, shape=b.top_shape, suffix="" if factor == 1 else "k", lrn_param=param), scale=factor
    )


def _match_mean_of_squares(b: Builder, mean: str, value: str) -> tuple[bool, int] | None:
    """Where ``mean`` is a local mean of ``value`` squared: whether it is within channels, and the window size."""
    pool = _producer_through_views(b, mean)
    if pool is None or pool.short not in ("avg_pool2d", "avg_pool3d"):
        return None
    args = b.for_op(pool)
    kernel, pad = args.arg("kernel_size"), args.arg("padding", 0)
    pads = pad if isinstance(pad, list) else [pad] * len(kernel)
    stride = args.arg("stride") or kernel
    before = args.arg("self").name
    padded = b.program.producers.get(before)
    both = [(p, p) for p in pads]
    if padded is not None and padded.short in ("pad", "constant_pad_nd"):
        flat = padded.args["pad"] + [0, 0] * len(kernel)
        both = [(p + flat[2 * i], p + flat[2 * i + 1]) for i, p in zip(reversed(range(len(kernel))), pads, strict=True)]
        before = b.for_op(padded).arg("self").name
    size = kernel[0]
    square = power_of(b, _through_views(b, before))
    if (
        not size % 2
        or set(stride) != {1}
        or (square != (value, 2) and not _is_square(b, _through_views(b, before), value))
    ):
        return None
    half = (size // 2, size // 2)
    shape = b.shape(value)
    if (
        pool.short == "avg_pool2d"
        and kernel == [size, size]
        and both == [half, half]
        and b.program.shapes[before] == shape
    ):
        return (True, size) if args.arg("count_include_pad", True) else None
    across = kernel == [size] + [1] * (len(kernel) - 1) and both == [half] + [(0, 0)] * (len(kernel) - 1)
    return (False, size) if across and b.program.shapes[before][1:3] == (1, shape[1]) else None


def _through_views(b: Builder, value: str) -> str:
    """The value that ``value`` is a view of, or itself."""
    op = b.program.producers.get(value)
    while op is not None and op.short in ("view", "reshape", "squeeze", "unsqueeze", "_unsafe_view"):
        value = b.for_op(op).arg("self").name
        op = b.program.producers.get(value)
    return value


def _producer_through_views(b: Builder, value: str) -> Op | None:
    return b.program.producers.get(_through_views(b, value))


def _is_square(b: Builder, square: str, value: str) -> bool:
    op = b.program.producers.get(square)
    times_itself = op is not None and op.short == "mul" and op.args["self"] == op.args["other"] == Ref(value)
    return times_itself or power_of(b, square) == (value, 2)
