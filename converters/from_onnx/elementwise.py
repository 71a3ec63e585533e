"""Translations of activation functions, of arithmetic and of reductions."""

from __future__ import annotations

import math

import numpy as np

from converters.from_onnx.node import Reader, as_float, translates
from converters.to_caffe.builder import Unsupported
from converters.to_caffe.program import Ref

#: operators that are one operation of ATen, of one value and without settings
_SAME = {
    "Abs": "abs",
    "Erf": "erf",
    "Exp": "exp",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}


@translates(*_SAME)
def same(n: Reader) -> None:
    n.emit(_SAME[n.kind], self=n.input())


@translates("LeakyRelu")
def leaky_relu(n: Reader) -> None:
    n.emit("leaky_relu", self=n.input(), negative_slope=n.attr("alpha", 0.01))


@translates("PRelu")
def prelu(n: Reader) -> None:
    slopes, shape = n.fixed(1, "slope"), n.shape()
    full = (1,) * (len(shape) - slopes.ndim) + slopes.shape
    if len(full) != len(shape) or len(shape) < 2 or any(size != 1 for i, size in enumerate(full) if i != 1):
        raise Unsupported(f"its slopes have the shape {list(slopes.shape)}; Caffe's are one, or one for each channel")
    n.emit("prelu", self=n.input(), weight=n.constant(slopes.reshape(-1)))


@translates("Elu", "Celu", "Selu", "ThresholdedRelu")
def elu(n: Reader) -> None:
    value, shape = n.input(), n.out_shape
    alpha = n.attr("alpha", 1.67326319217681884765625 if n.kind == "Selu" else 1.0)
    if n.kind == "Elu":
        n.emit("elu", self=value, alpha=alpha)
    elif n.kind == "Selu":
        inner = n.step("elu", shape, self=value, alpha=alpha)
        n.emit("mul", self=inner, other=n.attr("gamma", 1.05070102214813232421875))
    elif n.kind == "Celu":  # alpha * elu(x / alpha)
        inner = n.step("elu", shape, self=n.step("mul", shape, self=value, other=1 / alpha), alpha=1.0)
        n.emit("mul", self=inner, other=alpha)
    else:
        n.emit("mul", self=value, other=n.step("gt", shape, self=value, other=alpha))


@translates("Gelu")
def gelu(n: Reader) -> None:
    n.emit("gelu", self=n.input(), approximate=n.attr("approximate", "none"))


@translates("Swish")
def swish(n: Reader) -> None:
    alpha = n.attr("alpha", 1.0)
    if alpha == 1:
        n.emit("silu", self=n.input())
        return
    gate = n.step("sigmoid", n.out_shape, self=n.step("mul", n.out_shape, self=n.input(), other=alpha))
    n.emit("mul", self=n.input(), other=gate)


@translates("HardSigmoid")
def hard_sigmoid(n: Reader) -> None:
    shape = n.out_shape
    line = n.step("mul", shape, self=n.input(), other=n.attr("alpha", 0.2))
    line = n.step("add", shape, self=line, other=n.attr("beta", 0.5))
    n.emit("clamp", self=line, min=0.0, max=1.0)


@translates("Clip")
def clip(n: Reader) -> None:
    bounds = [float(n.fixed(place, "bound").reshape(-1)[0]) if n.name(place) else None for place in (1, 2)]
    low, high = (None if bound is None or not math.isfinite(bound) else bound for bound in bounds)
    if low is None and high is None:
        n.emit("alias", self=n.input())
    else:
        n.emit("clamp", self=n.input(), min=low, max=high)


@translates("Softmax", "LogSoftmax")
def softmax(n: Reader) -> None:
    name = "softmax" if n.kind == "Softmax" else "log_softmax"
    n.emit(name, self=n.input(), dim=n.attr("axis", -1))


_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "maximum", "Min": "minimum", "Greater": "gt"}


@translates("Add", "Sub", "Mul", "Div", "Greater")
def binary(n: Reader) -> None:
    if n.kind == "Div" and n.inferred.types[n.name(0)] not in (1, 10, 11, 16):
        raise Unsupported("of integers, which it rounds")
    n.emit(_BINARY[n.kind], self=n.operand(0), other=n.operand(1))


@translates("Pow")
def pow_(n: Reader) -> None:
    n.emit("pow", self=n.operand(0), exponent=n.operand(1))


@translates("Max", "Min", "Sum", "Mean")
def variadic(n: Reader) -> None:
    target = {"Max": "maximum", "Min": "minimum"}.get(n.kind, "add")
    count = len(n.node.inputs)
    if count == 1:
        n.emit("alias", self=n.input())
        return
    total, shape = n.operand(0), n.shape()
    for place in range(1, count):
        shape = tuple(np.broadcast_shapes(shape, n.shape(place)))
        if place < count - 1 or n.kind == "Mean":
            total = n.step(target, shape, self=total, other=n.operand(place))
    if n.kind == "Mean":
        n.emit("mul", self=total, other=1 / count)
    else:
        n.emit(target, self=total, other=n.operand(count - 1))


@translates("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceSumSquare", "ReduceL1")
def reduce(n: Reader) -> None:
    if not n.name(1) and n.attr("noop_with_empty_axes", 0):
        n.emit("alias", self=n.input())
        return
    axes, keep = n.axes(), bool(n.attr("keepdims", 1))
    value, shape = n.input(), n.shape()
    names = {"ReduceMean": "mean", "ReduceMax": "amax", "ReduceMin": "amin"}
    if n.kind == "ReduceL2":
        n.emit("linalg_vector_norm", self=value, ord=2, dim=axes, keepdim=keep)
        return
    if n.kind == "ReduceSumSquare":
        value = n.step("pow", shape, self=value, exponent=2.0)
    elif n.kind == "ReduceL1":
        value = n.step("abs", shape, self=value)
    n.emit(names.get(n.kind, "sum"), self=value, dim=axes, keepdim=keep)


@translates("Where")
def where(n: Reader) -> None:
    condition = n.array(0)
    if condition is None:
        n.emit("where", condition=n.input(0), self=n.input(1), other=n.input(2))
        return
    # a mask that is fixed: the one times it, and the other times the rest
    mask = as_float(condition)
    one, other = n.array(1), n.array(2)
    if np.all(mask == mask.flat[0]) and n.shape(1 if mask.flat[0] else 2) == n.out_shape:
        n.emit("alias", self=n.input(1 if mask.flat[0] else 2))
        return
    if (one is not None and not np.isfinite(one).all()) or (other is not None and not np.isfinite(other).all()):
        raise Unsupported("it puts infinities in")
    mask = np.broadcast_to(mask, n.out_shape[-mask.ndim :] if mask.ndim else ())
    terms: list[Ref] = []
    for place, share, array in ((1, mask, one), (2, 1 - mask, other)):
        if array is not None:
            terms.append(
                n.constant(np.broadcast_to(array, n.out_shape) * share if array.ndim > mask.ndim else array * share)
            )
        else:
            terms.append(n.step("mul", n.out_shape, self=n.input(place), other=n.constant(share)))
    n.emit("add", self=terms[0], other=terms[1])
