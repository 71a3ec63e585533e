"""Rules of normalization: by stored statistics, by those of the input, and across neighbouring channels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.program import Array, Op, Ref
from converters.from_torch.scalars import affine, power, power_of
from converters.from_torch.shaped import reshape, whole_image

#: an eps that matters to no deviation but 0
_NOTHING = 1e-8
_TRAINING = "it is in training mode; call model.eval() before torch.export.export"


@rule("batch_norm", "native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit_no_training", "_native_batch_norm_legit")
def batch_norm(b: Builder) -> list[str]:
    bottom = b.bottom("input")
    mean, variance = b.weights("running_mean"), b.weights("running_var")
    training = b.arg("training", b.op.short == "_native_batch_norm_legit")
    if training and mean is not None:
        raise Unsayable(_TRAINING)
    if mean is None or variance is None:
        channels = b.shape(bottom)[1]
        param = {**_eps(b), "use_global_stats": False}
        blobs = [np.zeros(channels), np.ones(channels), np.ones(1)]
        top = b.layer("BatchNorm", bottom, shape=b.shape(bottom), blobs=blobs, batch_norm_param=param)
    else:
        blobs = _as_stored(b, mean, variance)
        top = b.layer("BatchNorm", bottom, shape=b.shape(bottom), blobs=blobs, batch_norm_param=_eps(b))
    return [_affine(b, top, b.weights("weight"), b.weights("bias"), (1,)), *b.op.outputs[1:]]


def _eps(b: Builder) -> dict[str, Any]:
    """Written where it is not Caffe's own, as a float32."""
    eps = float(np.float32(b.arg("eps", 1e-5)))
    return {} if eps == float(np.float32(1e-5)) else {"eps": eps}


def _as_stored(b: Builder, mean: Array, variance: Array) -> list[Array]:
    """The blobs of a BatchNorm; as a program of ours has them where it divides them by their factor first."""
    stored = []
    for name, folded in (("running_mean", mean), ("running_var", variance)):
        op = b.program.makers.get(b.arg(name).name)
        if op is None or op.short != "mul":
            break
        sums = b.constant(op.args["self"])
        factor = _factor(b, op.args["other"])
        if sums is None or factor is None or factor.size != 1:
            break
        share = np.float32(0) if factor.flat[0] == 0 else np.float32(1) / factor.astype(np.float32).flat[0]
        if not np.array_equal(sums * share, folded):
            break
        stored.append((sums, factor))
    if len(stored) == 2:
        return [stored[0][0], stored[1][0], stored[0][1].reshape(1)]
    return [mean, variance, np.ones(1, np.float32)]


def _factor(b: Builder, value: Any) -> Array | None:
    """The only array of the program that a number is computed from."""
    found: set[str] = set()
    names = [value.name] if isinstance(value, Ref) else []
    while names:
        name = names.pop()
        if name in b.program.arrays:
            found.add(name)
        elif name in b.program.makers:
            names += b.program.makers[name].refs()
    return b.program.constant(found.pop()) if len(found) == 1 else None


def _affine(b: Builder, value: str, weight: Array | None, bias: Array | None, axes: Sequence[int]) -> str:
    """Times a weight, plus a bias, which have these axes of the value."""
    if weight is None and bias is None:
        return value
    shape = b.shape(value)
    own = tuple(shape[axis] for axis in axes)
    weight = np.ones(own, np.float32) if weight is None else weight.reshape(own)
    param: dict[str, Any] = {} if axes[0] == 1 else {"axis": axes[0]}
    param |= ({} if len(axes) == 1 else {"num_axes": len(axes)}) | ({} if bias is None else {"bias_term": True})
    blobs = [weight] if bias is None else [weight, bias.reshape(own)]
    return b.layer("Scale", value, shape=shape, blobs=blobs, note="scale", scale_param=param)


@rule("instance_norm", "group_norm", "native_group_norm", "layer_norm", "native_layer_norm")
def by_input(b: Builder) -> list[str]:
    """Each group of an item's values less its mean, times (variance + eps) ** -0.5; Caffe's MVN adds eps to the root instead."""
    bottom = b.bottom("input")
    shape = b.shape(bottom)
    axes: Sequence[int] = (1,)
    if "layer" in b.op.short:
        count = len(b.arg("normalized_shape"))
        if count == len(shape):
            raise Unsayable("over the batch, too")
        groups, axes = math.prod(shape[1 : len(shape) - count]), range(len(shape) - count, len(shape))
    elif "group" in b.op.short:
        groups = b.arg("num_groups", b.arg("group"))
    else:
        if not b.arg("use_input_stats", True):
            raise Unsayable("by stored statistics; use batch_norm")
        groups = shape[1]
    value = _standard(b, bottom, groups, lambda variance: power(b, variance, -0.5, shift=b.arg("eps", 1e-5), note="factor"))
    return [_affine(b, value, b.weights("weight"), b.weights("bias"), axes), *b.op.outputs[1:]]


def _standard(b: Builder, value: str, groups: int, factor: Callable[[str], str]) -> str:
    """Each group of an item's values less its mean, times what ``factor`` makes of its variance."""
    shape = b.shape(value)
    rows = (shape[0], groups, math.prod(shape[1:]) // groups, 1)
    value = reshape(b, value, rows, note="rows")
    value = b.layer("MVN", value, shape=rows, note="centred", mvn_param={"normalize_variance": False})
    variance = whole_image(b, power(b, value, 2, note="square"), "AVE", note="variance")
    factors = reshape(b, factor(variance), rows[:2], note="factors")
    return reshape(b, b.layer("Scale", value, factors, shape=rows, scale_param={"axis": 0}), shape, note="shape")


@rule("caffe.mvn")
def mvn(b: Builder) -> str:
    """``eps`` is None where values are not divided. OpenCV adds it to the variance, not to the deviation."""
    eps, bottom = b.arg("eps"), b.bottom("self")
    if eps is not None and eps > _NOTHING and b.audience == "both":

        def factor(variance: str) -> str:
            return power(b, power(b, variance, 0.5, note="deviation"), -1, shift=eps, note="factor")

        return _standard(b, bottom, 1 if b.arg("across") else b.top[1], factor)
    param: dict[str, Any] = {"normalize_variance": False} if eps is None else {}
    if eps is not None and np.float32(eps) != np.float32(1e-9):
        param["eps"] = eps
    if b.arg("across"):
        param["across_channels"] = True
    return b.layer("MVN", bottom, shape=b.top, mvn_param=param)


def lrn(b: Builder) -> str | None:
    """LRN where x * (k + alpha * mean of x^2 nearby) ** -beta is what the operation comes to, else None."""
    one, two = b.arg("self"), b.arg("other")
    if b.op.short not in ("mul", "div") or not isinstance(one, Ref) or not isinstance(two, Ref):
        return None
    for value, factor in ((one.name, two.name), (two.name, one.name)) if b.op.short == "mul" else ((one.name, two.name),):
        base, exponent = power_of(b, factor)
        mean = affine(b, base, alone=False)
        beta = exponent if b.op.short == "div" else -exponent
        found = _neighbours(b, mean.value, value) if beta > 0 and mean.value != value else None
        if found is None or len(b.shape(value)) != 4:
            continue
        within, size = found
        if within and mean.shift != 1:
            continue
        return _lrn(b, value, {"local_size": size, "alpha": mean.scale, "beta": beta, "k": mean.shift}, within)
    return None


def _lrn(b: Builder, value: str, given: dict[str, Any], within: bool) -> str:
    """The layer. OpenCV takes k for 1: it is drawn out before the bracket, then."""
    factor = 1.0
    if b.audience == "both" and given["k"] > 0:
        factor = given["k"] ** -given["beta"]
        given |= {"alpha": given["alpha"] / given["k"], "k": 1.0}
    usual = {"local_size": 5, "alpha": 1.0, "beta": 0.75, "k": 1.0}
    param = {name: number for name, number in given.items() if number != usual[name]}
    param |= {"norm_region": "WITHIN_CHANNEL"} if within else {}
    return power(b, b.layer("LRN", value, shape=b.top, note="" if factor == 1 else "k", lrn_param=param), scale=factor)


def _neighbours(b: Builder, mean: str, value: str) -> tuple[bool, int] | None:
    """Whether ``mean`` is that of the squares of ``value`` within a channel, and over how many places; None if it is no mean."""
    pool = _behind(b, mean)
    if pool is None or pool.short not in ("avg_pool2d", "avg_pool3d"):
        return None
    args = b.of(pool)
    kernel, pad = args.arg("kernel_size"), args.arg("padding", 0)
    pads = pad if isinstance(pad, list) else [pad] * len(kernel)
    stride = args.arg("stride") or kernel
    before = args.arg("self").name
    padded = b.program.makers.get(before)
    both = [(p, p) for p in pads]
    if padded is not None and padded.short in ("pad", "constant_pad_nd"):
        flat = padded.args["pad"] + [0, 0] * len(kernel)
        both = [(p + flat[2 * i], p + flat[2 * i + 1]) for i, p in zip(reversed(range(len(kernel))), pads, strict=True)]
        before = b.of(padded).arg("self").name
    size = kernel[0]
    square = power_of(b, _origin(b, before))
    if not size % 2 or set(stride) != {1} or (square != (value, 2) and not _is_square(b, _origin(b, before), value)):
        return None
    half = (size // 2, size // 2)
    shape = b.shape(value)
    if pool.short == "avg_pool2d" and kernel == [size, size] and both == [half, half] and b.program.shapes[before] == shape:
        return (True, size) if args.arg("count_include_pad", True) else None
    across = kernel == [size] + [1] * (len(kernel) - 1) and both == [half] + [(0, 0)] * (len(kernel) - 1)
    return (False, size) if across and b.program.shapes[before][1:3] == (1, shape[1]) else None


def _origin(b: Builder, value: str) -> str:
    """What ``value`` is another shape of."""
    op = b.program.makers.get(value)
    while op is not None and op.short in ("view", "reshape", "squeeze", "unsqueeze", "_unsafe_view"):
        value = b.of(op).arg("self").name
        op = b.program.makers.get(value)
    return value


def _behind(b: Builder, value: str) -> Op | None:
    return b.program.makers.get(_origin(b, value))


def _is_square(b: Builder, square: str, value: str) -> bool:
    op = b.program.makers.get(square)
    times_itself = op is not None and op.short == "mul" and op.args["self"] == op.args["other"] == Ref(value)
    return times_itself or power_of(b, square) == (value, 2)
