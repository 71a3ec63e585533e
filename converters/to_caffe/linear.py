"""Rules of linear operations: convolutions, transposed ones, padding as a convolution, matrix products, embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.to_caffe.builder import Builder, Unsupported, rule
from converters.to_caffe.program import Array, Op, Shape


def spatial_setting(stem: str, values: Sequence[int], default: int | None = None) -> dict[str, Any]:
    """A setting of convolution_param: one number for all axes, ``_h`` and ``_w`` for two, else one for each axis."""
    name = "kernel_size" if stem == "kernel" else stem
    if all(value == default for value in values):
        return {}
    if len(set(values)) == 1:
        return {name: [values[0]]}
    if len(values) == 2 and stem != "dilation":
        return {f"{stem}_h": values[0], f"{stem}_w": values[1]}
    return {name: list(values)}


def per_axis(value: Any, axes: int) -> list[int]:
    """An argument of ATen that is one number, or one for each axis, as one for each axis."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * axes if len(values) == 1 else values


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(b: Builder) -> str:
    bottom, weight, bias = b.bottom("input"), b.weights("weight"), b.weights("bias")
    if weight is None or len(b.shape(bottom)) != weight.ndim:
        raise Unsupported("its input has no batch axis")
    axes = weight.ndim - 2
    transposed = b.arg("transposed", "transpose" in b.op.short)
    stride, dilation = per_axis(b.arg("stride", 1), axes), per_axis(b.arg("dilation", 1), axes)
    kernel = list(weight.shape[2:])
    if isinstance(b.arg("padding", 0), str):
        pads = _named_padding(b.arg("padding"), kernel, dilation)
    else:
        pads = [(pad, pad) for pad in per_axis(b.arg("padding", 0), axes)]
    if transposed:
        output_padding = per_axis(b.arg("output_padding", 0), axes)
        weight = pad_kernel(weight, [(0, extra) for extra in output_padding], dilation)
    else:
        bottom, pads = _absorb_padding(b, bottom, pads)
        weight = pad_kernel(
            weight, [(max(after - before, 0), max(before - after, 0)) for before, after in pads], dilation
        )
    pad = [max(pair) for pair in pads]
    group = b.arg("groups", 1)
    channels = len(weight) if transposed else weight.shape[1] * group
    if channels != b.shape(bottom)[1]:
        raise Unsupported(f"its weights are for {channels} channels, and it reads {b.shape(bottom)[1]}")
    blobs = [weight] if bias is None else [weight, bias]
    param: dict[str, Any] = {"num_output": weight.shape[1] * group if transposed else len(weight)}
    if bias is None:
        param["bias_term"] = False
    param |= (
        spatial_setting("pad", pad, 0)
        | spatial_setting("kernel", weight.shape[2:])
        | spatial_setting("stride", stride, 1)
        | spatial_setting("dilation", dilation, 1)
    )
    if group != 1:
        param["group"] = group
    return b.layer(
        "Deconvolution" if transposed else "Convolution",
        bottom,
        shape=b.top_shape,
        blobs=blobs,
        convolution_param=param,
    )


def _named_padding(name: str, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """The padding before and after each axis for ``same`` or ``valid``; an odd sum pads the end by one more."""
    both = [d * (k - 1) if name == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return [(total // 2, total - total // 2) for total in both]


def pad_kernel(weight: Array, zeros: Sequence[tuple[int, int]], dilation: Sequence[int]) -> Array:
    """The kernel with zeros before and after, counted in input places: stands in for padding on one side alone."""
    if any(count % step for pair, step in zip(zeros, dilation, strict=True) for count in pair):
        raise Unsupported(
            "its padding differs between the sides, by what is no multiple of the dilation; Caffe pads both alike"
        )
    steps = [(before // d, after // d) for (before, after), d in zip(zeros, dilation, strict=True)]
    return np.pad(weight, [(0, 0), (0, 0), *steps]) if any(map(any, steps)) else weight


def zero_padding(b: Builder, op: Op) -> list[tuple[int, int]]:
    """How many zeros a padding operation adds before and after each axis; raises Unsupported where it adds others."""
    other = b.for_op(op)
    if other.arg("mode", "constant") != "constant" or other.arg("value") not in (None, 0):
        raise Unsupported(
            f"it pads by {other.arg('mode', 'constant')} {other.arg('value') or ''}; Caffe pads with zeros".replace(
                " ;", ";"
            )
        )
    flat = other.arg("pad")
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    return [(0, 0)] * (len(b.program.shapes[op.outputs[0]]) - len(pairs)) + pairs


def _absorb_padding(b: Builder, bottom: str, pads: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """Bottom and padding of a convolution, with a padding operation before it merged where only it reads that one."""
    op = b.producer(bottom, "pad", "constant_pad_nd")
    if op is None:
        return bottom, pads
    try:
        more = zero_padding(b, op)
    except Unsupported:  # the padding operation's own rule will report it
        return bottom, pads
    if any(map(any, more[:2])) or min(map(min, more)) < 0:
        return bottom, pads
    return b.for_op(op).bottom("self"), [(p + a, q + c) for (p, q), (a, c) in zip(pads, more[2:], strict=True)]


def fixed_convolution(
    b: Builder,
    bottom: str,
    weight: Array,
    shape: Shape,
    group: int | None = None,
    kind: str = "Convolution",
    stride: int | Sequence[int] = 1,
    pad: Sequence[int] = (0,),
    suffix: str = "",
) -> str:
    """A convolution of constant weights, which are not learned. ``group`` is the number of channels by default."""
    group = b.shape(bottom)[1] if group is None else group
    count = weight.shape[1] * group if kind == "Deconvolution" else len(weight)
    param: dict[str, Any] = {
        "num_output": count,
        "bias_term": False,
        **spatial_setting("pad", pad, 0),
        **spatial_setting("kernel", weight.shape[2:]),
    }
    param |= spatial_setting("stride", [stride] if isinstance(stride, int) else stride, 1) | (
        {} if group == 1 else {"group": group}
    )
    frozen = [{"lr_mult": 0.0, "decay_mult": 0.0}]
    return b.layer(kind, bottom, shape=shape, blobs=[weight], suffix=suffix, convolution_param=param, param=frozen)


@rule("linear", "addmm", "mm", "matmul")
def inner_product(b: Builder) -> str:
    bias: Array | None
    if b.op.short == "linear":
        bottom, weight, bias = b.bottom("input"), b.weights("weight"), b.weights("bias")
    else:
        by_name = {"addmm": ("mat1", "mat2"), "mm": ("self", "mat2"), "matmul": ("self", "other")}[b.op.short]
        bottom, matrix = b.bottom(by_name[0]), b.weights(by_name[1])
        weight = None if matrix is None or matrix.ndim != 2 else np.ascontiguousarray(matrix.T)
        bias = b.weights("self") if b.op.short == "addmm" else None
    if weight is None or weight.ndim != 2 or b.arg("beta", 1) != 1 or b.arg("alpha", 1) != 1:
        raise Unsupported("Caffe multiplies by a fixed matrix alone")
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),))
    axes = len(b.shape(bottom))
    if axes == 2:
        bottom = _before_flatten(b, bottom)
    if axes == 1:
        raise Unsupported("its input has no batch axis")
    param: dict[str, Any] = {"num_output": len(weight)}
    if bias is None:
        param["bias_term"] = False
    if axes > 2:
        param["axis"] = axes - 1
    blobs = [weight] if bias is None else [weight, bias]
    return b.layer("InnerProduct", bottom, shape=b.top_shape, blobs=blobs, inner_product_param=param)


def _before_flatten(b: Builder, bottom: str) -> str:
    """The value before a flattening of all axes but the first: InnerProduct flattens by itself."""
    op = b.producer(bottom, "flatten", "view", "reshape", "_unsafe_view", "squeeze")
    if op is None:
        return bottom
    before = b.for_op(op).bottom("self")
    shape = b.shape(before)
    kept = len(shape) > 1 and shape[0] == b.shape(bottom)[0] and b.fixed(before, 0) == b.fixed(bottom, 0)
    return before if kept else bottom


@rule("embedding")
def embedding(b: Builder) -> str:
    weight = b.weights("weight")
    if weight is None:
        raise Unsupported("it has no weights")
    param = {"num_output": weight.shape[1], "input_dim": weight.shape[0], "bias_term": False}
    return b.layer("Embed", b.bottom("indices"), shape=b.top_shape, blobs=[weight], embed_param=param)
