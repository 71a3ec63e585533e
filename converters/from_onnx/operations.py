"""Translations of layers with weights, of pooling, norms and resizing."""

from __future__ import annotations

import math

import numpy as np

from converters.from_onnx.node import Reader, as_float, padding, spatial, translates
from converters.to_caffe.builder import Unsupported
from converters.to_caffe.program import Ref


@translates("Conv")
def conv(n: Reader) -> None:
    kernel = spatial(n.shape(1))
    stride, dilation = n.attr("strides", [1] * len(kernel)), n.attr("dilations", [1] * len(kernel))
    pads = padding(n, spatial(n.shape()), kernel, stride, dilation)
    value = n.input()
    both = [min(pair) for pair in pads]
    if any(before != after for before, after in pads):
        both = [0] * len(pads)
        value = _zeros_around(n, value, pads)
    n.emit(
        "convolution",
        input=value,
        weight=n.input(1),
        bias=n.input(2),
        stride=stride,
        padding=both,
        dilation=dilation,
        transposed=False,
        groups=n.attr("group", 1),
    )


def _zeros_around(n: Reader, value: Ref | None, pads: list[tuple[int, int]]) -> Ref:
    if value is None:
        raise Unsupported("it has no input")
    shape = n.shape_of(value)
    flat = [count for pair in reversed(pads) for count in pair]
    sizes = [size + sum(pair) for size, pair in zip(spatial(shape), pads, strict=True)]
    return n.step("constant_pad_nd", (*shape[:2], *sizes), self=value, pad=flat)


@translates("ConvTranspose")
def conv_transpose(n: Reader) -> None:
    kernel, group = spatial(n.shape(1)), n.attr("group", 1)
    stride, dilation = n.attr("strides", [1] * len(kernel)), n.attr("dilations", [1] * len(kernel))
    sizes, top = spatial(n.shape()), spatial(n.out_shape)
    spans = [(size - 1) * s + (k - 1) * d + 1 for size, s, k, d in zip(sizes, stride, kernel, dilation, strict=True)]
    auto = n.attr("auto_pad", "NOTSET")
    if auto in ("NOTSET", "") and not n.attr("output_shape"):
        starts = list(n.attr("pads", [0] * len(kernel)))[: len(kernel)]
    elif auto == "VALID":
        starts = [0] * len(kernel)
    else:  # the sizes of the output are given, or are multiples of the input's: half of the rest is cut off
        rests = [max(span + extra - size, 0) for span, extra, size in zip(spans, _extra(n), top, strict=True)]
        starts = [rest // 2 if auto == "SAME_UPPER" else rest - rest // 2 for rest in rests]
    # an end cut off more than the beginning is cut off behind
    extra = [max(size + 2 * start - span, 0) for span, size, start in zip(spans, top, starts, strict=True)]
    made = [span + more - 2 * start for span, more, start in zip(spans, extra, starts, strict=True)]
    excess = [has - size for has, size in zip(made, top, strict=True)]
    args = {
        "input": n.input(),
        "weight": n.input(1),
        "bias": n.input(2),
        "stride": stride,
        "padding": starts,
        "dilation": dilation,
        "transposed": True,
        "output_padding": extra,
        "groups": group,
    }
    if not any(excess):
        n.emit("convolution", **args)
        return
    value = n.step("convolution", (*n.out_shape[:2], *made), **args)
    _cut_to(n, value, top)


def _extra(n: Reader) -> list[int]:
    return list(n.attr("output_padding", [0] * len(spatial(n.shape()))))


def _cut_to(n: Reader, value: Ref, sizes: tuple[int, ...]) -> None:
    """Emit ``value`` cut to the first places of each picture's axis."""
    axes = [i for i, size in enumerate(sizes, 2) if n.shape_of(value)[i] != size]
    for axis in axes:
        end = sizes[axis - 2]
        if axis == axes[-1]:
            n.emit("slice", self=value, dim=axis, start=0, end=end)
        else:
            shape = n.shape_of(value)
            value = n.step("slice", (*shape[:axis], end, *shape[axis + 1 :]), self=value, dim=axis, start=0, end=end)


@translates("Gemm")
def gemm(n: Reader) -> None:
    if n.attr("transA", 0):
        raise Unsupported("it transposes its first matrix; Caffe's InnerProduct has items in rows (transA=0)")
    alpha, beta = n.attr("alpha", 1.0), n.attr("beta", 1.0)
    weight = n.array(1)
    if weight is None:
        raise Unsupported("Caffe multiplies by a fixed matrix alone, not by another blob")
    weight = weight if n.attr("transB", 0) else weight.T
    weight = weight if alpha == 1 else as_float(weight * np.float32(alpha))
    bias = None
    if n.name(2):
        bias = n.fixed(2, "C")
        if bias.size not in (1, len(weight)) or (bias.ndim > 1 and bias.shape[-1] != bias.size):
            raise Unsupported("it adds another number to each item; Caffe's bias is the same for all")
        bias = np.broadcast_to(bias.reshape(-1) * np.float32(beta), (len(weight),))
    n.emit("linear", input=n.input(), weight=n.constant(weight), bias=None if bias is None else n.constant(bias))


@translates("MatMul")
def matmul(n: Reader) -> None:
    left, right = n.array(0), n.array(1)
    if right is not None and right.ndim == 2:
        n.emit("linear", input=n.input(), weight=n.constant(np.ascontiguousarray(right.T)))
    elif left is not None and left.ndim == 2 and len(n.shape(1)) == 3:  # over the middle axis
        n.emit("convolution", input=n.input(1), weight=n.constant(left[:, :, None]), stride=[1], padding=[0])
    else:
        raise Unsupported("Caffe multiplies by a fixed matrix alone, not by another blob")


@translates("BatchNormalization")
def batch_normalization(n: Reader) -> None:
    if n.attr("training_mode", 0) or n.attr("spatial", 1) == 0:
        raise Unsupported("it is in training mode; call model.eval() before the export")
    n.emit(
        "batch_norm",
        input=n.input(),
        weight=n.input(1),
        bias=n.input(2),
        running_mean=n.input(3),
        running_var=n.input(4),
        training=False,
        eps=n.attr("epsilon", 1e-5),
    )


@translates("InstanceNormalization")
def instance_normalization(n: Reader) -> None:
    n.emit(
        "instance_norm",
        input=n.input(),
        weight=n.input(1),
        bias=n.input(2),
        use_input_stats=True,
        eps=n.attr("epsilon", 1e-5),
    )


@translates("GroupNormalization")
def group_normalization(n: Reader) -> None:
    groups, channels = n.attr("num_groups", 1), n.shape()[1]
    weight, bias = n.fixed(1, "scale"), n.fixed(2, "bias")
    if n.attr("per_group"):
        weight, bias = (np.repeat(array, channels // groups) for array in (weight, bias))
    n.emit(
        "group_norm",
        input=n.input(),
        num_groups=groups,
        weight=n.constant(weight),
        bias=n.constant(bias),
        eps=n.attr("epsilon", 1e-5),
    )


@translates("LayerNormalization")
def layer_normalization(n: Reader) -> None:
    shape = n.shape()
    axis = n.attr("axis", -1) % len(shape)
    n.emit(
        "layer_norm",
        input=n.input(),
        normalized_shape=list(shape[axis:]),
        weight=n.input(1),
        bias=n.input(2),
        eps=n.attr("epsilon", 1e-5),
    )


@translates("MeanVarianceNormalization")
def mean_variance_normalization(n: Reader) -> None:
    axes = sorted(axis % len(n.shape()) for axis in n.attr("axes", [0, 2, 3]))
    if len(n.shape()) != 4 or axes not in ([2, 3], [1, 2, 3]):
        raise Unsupported(f"over axes {axes}; Caffe's MVN is over pictures, axes 2 and 3, or items, 1 to 3")
    n.emit("caffe.mvn", self=n.input(), across=len(axes) == 3, eps=1e-9)


@translates("LRN")
def lrn(n: Reader) -> None:
    if n.attr("size") % 2 == 0:
        raise Unsupported("its size is even; Caffe's local_size is odd")
    n.emit(
        "caffe.lrn",
        self=n.input(),
        local_size=n.attr("size"),
        alpha=n.attr("alpha", 1e-4),
        beta=n.attr("beta", 0.75),
        k=n.attr("bias", 1.0),
    )


@translates("MaxPool", "AveragePool")
def pool(n: Reader) -> None:
    kernel = n.attr("kernel_shape")
    ones = [1] * len(kernel)
    stride, dilation = n.attr("strides", ones), n.attr("dilations", ones)
    pads = padding(n, spatial(n.shape()), kernel, stride, dilation)
    if any(step != 1 for step in dilation):
        raise Unsupported("Caffe's windows have no dilation")
    if len(kernel) > 2:
        raise Unsupported(f"its windows have {len(kernel)} axes; Caffe's have 2")
    symmetric = all(before == after for before, after in pads)
    if n.kind == "MaxPool" and len(n.node.outputs) > 1 and n.node.outputs[1]:
        if not symmetric or len(kernel) != 2:
            raise Unsupported("its indices are read, and its padding differs between the sides")
        # ONNX counts places over the whole tensor, Caffe within a picture
        raise Unsupported("its indices are read, which ONNX counts over the batch, and Caffe within a picture")
    del n.node.outputs[1:]
    n.emit(
        "caffe.pool_windows",
        self=n.input(),
        pool="MAX" if n.kind == "MaxPool" else "AVE",
        kernel=list(kernel),
        stride=list(stride),
        before=[before for before, _ in pads],
        after=[after for _, after in pads],
        count_include_pad=bool(n.attr("count_include_pad", 0)),
    )


@translates("GlobalAveragePool", "GlobalMaxPool")
def global_pool(n: Reader) -> None:
    axes = len(n.shape()) - 2
    if axes not in (1, 2):
        raise Unsupported(f"over {axes} axes; Caffe pools pictures")
    n.emit(f"adaptive_{'avg' if 'Average' in n.kind else 'max'}_pool{axes}d", self=n.input(), output_size=[1] * axes)


@translates("Gather")
def gather(n: Reader) -> None:
    indices, table = n.array(1), n.array(0)
    if table is not None:
        if table.ndim != 2 or n.attr("axis", 0) % 2:
            raise Unsupported("of a fixed array by computed places; Caffe's Embed takes rows of a matrix")
        n.emit("embedding", weight=n.input(0), indices=n.input(1))
        return
    if indices is None:
        raise Unsupported("at places that are computed; Caffe's Slice takes fixed ones")
    shape = n.shape()
    axis = n.attr("axis", 0) % len(shape)
    places = [int(i) % shape[axis] for i in indices.reshape(-1)]
    if indices.ndim == 0:
        n.emit("select", self=n.input(), dim=axis, index=places[0])
        return
    n.emit_reshaped(
        n.step("caffe.take", (*shape[:axis], len(places), *shape[axis + 1 :]), self=n.input(), dim=axis, places=places)
    )


@translates("DepthToSpace", "SpaceToDepth")
def depth_to_space(n: Reader) -> None:
    block, up = n.attr("blocksize"), n.kind == "DepthToSpace"
    name = "pixel_shuffle" if up else "pixel_unshuffle"
    given = {"upscale_factor" if up else "downscale_factor": block}
    value = n.input()
    if n.attr("mode", "DCR") == "CRD" and up:
        n.emit(name, self=value, **given)
        return
    # ONNX has the places within a block before the channels, ATen behind them
    blocks = block * block
    if up:
        channels = n.out_shape[1]
        order = np.arange(channels * blocks).reshape(blocks, channels).T.ravel()
        value = n.step("caffe.take", n.shape(), self=value, dim=1, places=order.tolist())
        n.emit(name, self=value, **given)
    else:
        channels = n.shape()[1]
        order = np.arange(channels * blocks).reshape(channels, blocks).T.ravel()
        value = n.step(name, n.out_shape, self=value, **given)
        n.emit("caffe.take", self=value, dim=1, places=order.tolist())


@translates("Resize")
def resize(n: Reader) -> None:
    shape, top = n.shape(), n.out_shape
    if shape[:2] != top[:2]:
        raise Unsupported("of batch or channels; Caffe enlarges pictures")
    mode = n.attr("mode", "nearest")
    transform = n.attr("coordinate_transformation_mode", "half_pixel")
    if transform == "tf_crop_and_resize":
        raise Unsupported("it crops, too; slice the picture before it")
    scales = n.array(2) if n.name(2) else None
    axes = [axis % len(shape) for axis in n.attr("axes") or range(len(shape))]
    by_axis = {} if scales is None else dict(zip(axes, map(float, scales), strict=True))
    n.emit(
        "caffe.resize",
        self=n.input(),
        scales=[by_axis.get(axis, top[axis] / shape[axis]) for axis in range(2, len(shape))],
        mode=mode,
        transform=transform,
        rounding=n.attr("nearest_mode", "round_prefer_floor"),
        cubic=n.attr("cubic_coeff_a", -0.75),
        exclude_outside=bool(n.attr("exclude_outside", 0)),
        antialias=bool(n.attr("antialias", 0)),
    )


@translates("LpNormalization")
def lp_normalization(n: Reader) -> None:
    axis = n.attr("axis", -1) % len(n.shape())
    shape = n.shape()
    norm = n.step(
        "linalg_vector_norm",
        (*shape[:axis], 1, *shape[axis + 1 :]),
        self=n.input(),
        ord=n.attr("p", 2),
        dim=[axis],
        keepdim=True,
    )
    n.emit("div", self=n.input(), other=norm)


@translates("Flatten", "Reshape", "Squeeze", "Unsqueeze")
def reshaped(n: Reader) -> None:
    n.emit("reshape", self=n.input(), shape=list(n.out_shape))


@translates("Identity", "Dropout")
def identity(n: Reader) -> None:
    if n.kind == "Dropout" and n.name(2) and bool(n.number(2, 0)):
        raise Unsupported("it is in training mode; call model.eval() before the export")
    if len(n.node.outputs) > 1 and n.node.outputs[1]:
        raise Unsupported("its mask is read; Caffe's Dropout has none")
    del n.node.outputs[1:]
    n.emit("alias", self=n.input())


@translates("Cast", "CastLike")
def cast(n: Reader) -> None:
    n.emit("to", self=n.input())


@translates("Transpose")
def transpose(n: Reader) -> None:
    n.emit("permute", self=n.input(), dims=n.attr("perm", list(range(len(n.shape())))[::-1]))


@translates("Concat")
def concat(n: Reader) -> None:
    names = [name for name in n.node.inputs if math.prod(n.inferred.shapes[name])]
    n.emit("cat", tensors=[Ref(name) for name in names], dim=n.attr("axis"))


@translates("Split")
def split(n: Reader) -> None:
    axis = n.attr("axis", 0) % len(n.shape())
    sizes = [n.inferred.shapes[name][axis] for name in n.node.outputs]
    n.emit("split_with_sizes", self=n.input(), split_sizes=sizes, dim=axis)


@translates("Slice")
def slice_(n: Reader) -> None:
    shape = n.shape()
    starts, ends = n.ints(1, "starts"), n.ints(2, "ends")
    axes = n.ints(3, "axes") if n.name(3) else list(range(len(starts)))
    steps = n.ints(4, "steps") if n.name(4) else [1] * len(starts)
    value = n.input()
    if value is None:
        raise Unsupported("it has no input")
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= len(shape)
        places = range(*slice(start, end if step > 0 or end >= -shape[axis] else None, step).indices(shape[axis]))
        before = n.shape_of(value)
        if len(places) == before[axis] and step > 0:
            continue
        after = (*before[:axis], len(places), *before[axis + 1 :])
        if step == 1:
            value = n.step("slice", after, self=value, dim=axis, start=places.start, end=places.stop)
        else:
            value = n.step("caffe.take", after, self=value, dim=axis, places=list(places))
    n.emit("alias", self=value)


@translates("Pad")
def pad(n: Reader) -> None:
    shape, mode = n.shape(), n.attr("mode", "constant")
    counts = n.ints(1, "pads")
    axes = [axis % len(shape) for axis in n.ints(3, "axes")] if n.name(3) else list(range(len(shape)))
    pairs = [(0, 0)] * len(shape)
    for i, axis in enumerate(axes):
        pairs[axis] = (counts[i], counts[i + len(axes)])
    value = n.input()
    for axis, (before, after) in enumerate(pairs):  # negative counts cut off
        if value is not None and min(before, after) < 0:
            now = n.shape_of(value)
            start, end = max(-before, 0), now[axis] - max(-after, 0)
            value = n.step(
                "slice", (*now[:axis], end - start, *now[axis + 1 :]), self=value, dim=axis, start=start, end=end
            )
    flat = [max(count, 0) for pair in reversed(pairs) for count in pair]
    if not any(flat):
        n.emit("alias", self=value)
    elif mode == "constant":
        n.emit("constant_pad_nd", self=value, pad=flat, value=n.number(2, 0.0))
    else:
        n.emit("pad", self=value, pad=flat, mode={"edge": "replicate", "wrap": "circular"}.get(mode, mode))


@translates("Expand")
def expand(n: Reader) -> None:
    n.emit("expand", self=n.input(), size=list(n.out_shape))


@translates("Tile")
def tile(n: Reader) -> None:
    n.emit("caffe.tile", self=n.input(), repeats=n.ints(1, "repeats"))


@translates("ArgMax", "ArgMin")
def arg_max(n: Reader) -> None:
    axis = n.attr("axis", 0) % len(n.shape())
    n.emit(n.kind.lower(), self=n.input(), dim=axis, keepdim=bool(n.attr("keepdims", 1)))


@translates("TopK")
def top_k(n: Reader) -> None:
    axis = n.attr("axis", -1) % len(n.shape())
    n.emit("topk", self=n.input(), k=n.ints(1, "k")[0], dim=axis, largest=bool(n.attr("largest", 1)))
