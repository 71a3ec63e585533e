"""Rules of the operations with weights: convolutions, their transposes, matrix products, embeddings; padding, which is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from converters.from_torch.builder import Builder, Unsayable, rule
from converters.from_torch.program import Array, Op, Shape


def sizes(stem: str, values: Sequence[int], default: int | None = None) -> dict[str, Any]:
    """A setting of windows as Caffe spells it: once for all axes, by ``_h`` and ``_w`` for two, else once per axis."""
    name = "kernel_size" if stem == "kernel" else stem
    if all(value == default for value in values):
        return {}
    if len(set(values)) == 1:
        return {name: [values[0]]}
    if len(values) == 2 and stem != "dilation":
        return {f"{stem}_h": values[0], f"{stem}_w": values[1]}
    return {name: list(values)}


def listed(value: Any, axes: int) -> list[int]:
    """ATen's one or several numbers as one per axis."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * axes if len(values) == 1 else values


@rule("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def convolution(b: Builder) -> str:
    bottom, weight, bias = b.bottom("input"), b.weights("weight"), b.weights("bias")
    if weight is None or len(b.shape(bottom)) != weight.ndim:
        raise Unsayable("its input has no batch axis")
    axes = weight.ndim - 2
    transposed = b.arg("transposed", "transpose" in b.op.short)
    stride, dilation = listed(b.arg("stride", 1), axes), listed(b.arg("dilation", 1), axes)
    kernel = list(weight.shape[2:])
    if isinstance(b.arg("padding", 0), str):
        pads = _named_padding(b.arg("padding"), kernel, dilation)
    else:
        pads = [(pad, pad) for pad in listed(b.arg("padding", 0), axes)]
    if transposed:
        more = listed(b.arg("output_padding", 0), axes)
        weight = _lengthened(weight, [(0, extra) for extra in more], dilation)
    else:
        bottom, pads = _with_padding_before(b, bottom, pads)
        weight = _lengthened(weight, [(max(after - before, 0), max(before - after, 0)) for before, after in pads], dilation)
    pad = [max(pair) for pair in pads]
    group = b.arg("groups", 1)
    blobs = [weight] if bias is None else [weight, bias]
    param: dict[str, Any] = {"num_output": weight.shape[1] * group if transposed else len(weight)}
    if bias is None:
        param["bias_term"] = False
    param |= (
        sizes("pad", pad, 0) | sizes("kernel", weight.shape[2:]) | sizes("stride", stride, 1) | sizes("dilation", dilation, 1)
    )
    if group != 1:
        param["group"] = group
    return b.layer("Deconvolution" if transposed else "Convolution", bottom, shape=b.top, blobs=blobs, convolution_param=param)


def _named_padding(name: str, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """``same`` pads the end more where the sum is odd."""
    both = [d * (k - 1) if name == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    return [(total // 2, total - total // 2) for total in both]


def _lengthened(weight: Array, zeros: Sequence[tuple[int, int]], dilation: Sequence[int]) -> Array:
    """The kernel with so many zeros before and behind, in steps of the input: what padding on one side alone comes to."""
    if any(count % step for pair, step in zip(zeros, dilation, strict=True) for count in pair):
        raise Unsayable("its padding differs between the sides, by what is no multiple of the dilation; Caffe pads both alike")
    steps = [(before // d, after // d) for (before, after), d in zip(zeros, dilation, strict=True)]
    return np.pad(weight, [(0, 0), (0, 0), *steps]) if any(map(any, steps)) else weight


def padding(b: Builder, op: Op) -> list[tuple[int, int]]:
    """What a padding operation puts before and behind each axis; raises Unsayable unless it is zeros."""
    other = b.of(op)
    if other.arg("mode", "constant") != "constant" or other.arg("value") not in (None, 0):
        raise Unsayable(
            f"it pads by {other.arg('mode', 'constant')} {other.arg('value') or ''}; Caffe pads with zeros".replace(" ;", ";")
        )
    flat = other.arg("pad")
    pairs = [(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)][::-1]
    return [(0, 0)] * (len(b.program.shapes[op.outputs[0]]) - len(pairs)) + pairs


def _with_padding_before(b: Builder, bottom: str, pads: list[tuple[int, int]]) -> tuple[str, list[tuple[int, int]]]:
    """The bottom and the padding with that of a padding operation before, where this one alone reads it."""
    op = b.maker(bottom, "pad", "constant_pad_nd")
    if op is None:
        return bottom, pads
    try:
        more = padding(b, op)
    except Unsayable:  # it says so itself
        return bottom, pads
    if any(map(any, more[:2])) or min(map(min, more)) < 0:
        return bottom, pads
    return b.of(op).bottom("self"), [(p + a, q + c) for (p, q), (a, c) in zip(pads, more[2:], strict=True)]


@rule("pad", "constant_pad_nd")
def pad(b: Builder) -> str:
    """A convolution of each channel with one 1, and the padding."""
    bottom, pairs = b.bottom("self"), padding(b, b.op)
    shape = b.shape(bottom)
    if len(shape) < 3 or any(map(any, pairs[:2])) or min(map(min, pairs)) < 0:
        raise Unsayable("Caffe pads spatial axes alone")
    one = np.ones((shape[1], 1, *[1] * (len(shape) - 2)), np.float32)
    steps = [(max(after - before, 0), max(before - after, 0)) for before, after in pairs[2:]]
    return fixed_convolution(b, bottom, _lengthened(one, steps, [1] * len(steps)), b.top, pad=[max(p) for p in pairs[2:]])


def fixed_convolution(
    b: Builder,
    bottom: str,
    weight: Array,
    shape: Shape,
    group: int | None = None,
    kind: str = "Convolution",
    stride: int = 1,
    pad: Sequence[int] = (0,),
    note: str = "",
) -> str:
    """A layer whose weights are not to be learnt; ``group`` is by default the channels, each for itself."""
    group = b.shape(bottom)[1] if group is None else group
    count = weight.shape[1] * group if kind == "Deconvolution" else len(weight)
    param: dict[str, Any] = {"num_output": count, "bias_term": False, **sizes("pad", pad, 0), **sizes("kernel", weight.shape[2:])}
    param |= sizes("stride", [stride], 1) | ({} if group == 1 else {"group": group})
    frozen = [{"lr_mult": 0.0, "decay_mult": 0.0}]
    return b.layer(kind, bottom, shape=shape, blobs=[weight], note=note, convolution_param=param, param=frozen)


@rule("linear", "addmm", "mm", "matmul")
def inner_product(b: Builder) -> str:
    bias: Array | None
    if b.op.short == "linear":
        bottom, weight, bias = b.bottom("input"), b.weights("weight"), b.weights("bias")
    else:
        by_name = {"addmm": ("mat1", "mat2"), "mm": ("self", "mat2"), "matmul": ("self", "other")}[b.op.short]
        bottom, turned = b.bottom(by_name[0]), b.weights(by_name[1])
        weight = None if turned is None or turned.ndim != 2 else np.ascontiguousarray(turned.T)
        bias = b.weights("self") if b.op.short == "addmm" else None
    if weight is None or weight.ndim != 2 or b.arg("beta", 1) != 1 or b.arg("alpha", 1) != 1:
        raise Unsayable("Caffe multiplies by a fixed matrix alone")
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (len(weight),))
    axes = len(b.shape(bottom))
    if axes == 2:
        bottom = unflattened(b, bottom)
    if axes == 1:
        raise Unsayable("its input has no batch axis")
    param: dict[str, Any] = {"num_output": len(weight)}
    if bias is None:
        param["bias_term"] = False
    if axes > 2:
        param["axis"] = axes - 1
    blobs = [weight] if bias is None else [weight, bias]
    return b.layer("InnerProduct", bottom, shape=b.top, blobs=blobs, inner_product_param=param)


def unflattened(b: Builder, bottom: str) -> str:
    """What a flattening before makes a matrix of: InnerProduct flattens by itself."""
    op = b.maker(bottom, "flatten", "view", "reshape", "_unsafe_view", "squeeze")
    if op is None:
        return bottom
    before = b.of(op).bottom("self")
    shape = b.shape(before)
    kept = len(shape) > 1 and shape[0] == b.shape(bottom)[0] and b.fixed(before, 0) == b.fixed(bottom, 0)
    return before if kept else bottom


@rule("embedding")
def embedding(b: Builder) -> str:
    weight = b.weights("weight")
    if weight is None:
        raise Unsayable("it has no weights")
    param = {"num_output": weight.shape[1], "input_dim": weight.shape[0], "bias_term": False}
    return b.layer("Embed", b.bottom("indices"), shape=b.top, blobs=[weight], embed_param=param)
