"""Graph rewriting: patterns of small operations, into which a layer was decomposed, become one operation again.

They come from our own export, from PyTorch's decompositions, or were written by hand. Each match is replaced by an
operation that has a rule: ``aten.linear``, ``aten.max_unpool2d``, or ``argmax``, ``lstm``, ``mvn`` and ``rnn`` of the
namespace ``caffe``. What does not match exactly stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from converters.to_caffe.matching import VIEWS, Matcher, NoMatch, operand, require
from converters.to_caffe.program import Op, Program, Ref, Shape
from converters.to_caffe.recompose_recurrent import recurrent
from converters.to_caffe.simplify import live_ops

#: takes the last operation of a possible match; returns the operation that replaces it, or raises NoMatch
Pattern = Callable[[Matcher, Op], Op]

#: an eps below this changes no float's square root
_TINY = 1e-30


def recompose(program: Program) -> Program:
    """The program with every match replaced. Later patterns see what earlier ones made."""
    for patterns in ({VIEWS: linear}, {VIEWS: recurrent}, {("tanh",): recurrent}, _PATTERNS):
        program = _replace_matches(program, {kind: pattern for kinds, pattern in patterns.items() for kind in kinds})
    return program


def _replace_matches(program: Program, patterns: dict[str, Pattern]) -> Program:
    """The program with each matched operation replaced, and without those that nothing reads any more."""
    matcher, new = Matcher(program), {}
    for op in program.ops:
        if op.short in patterns:
            try:
                new[op.name] = patterns[op.short](matcher, op)
            except (
                NoMatch,
                AttributeError,
                IndexError,
                KeyError,
                TypeError,
            ):  # an argument may be missing or of another type
                continue
    if not new:
        return program
    replacements = {output: op for op in new.values() for output in op.outputs}
    ops: list[Op] = []
    placed: set[str] = set()
    for op in program.ops:
        replacement = next((replacements[output] for output in op.outputs if output in replacements), None)
        if replacement is None:
            ops.append(op)
        elif replacement.name not in placed:  # one with several outputs stands where the first of them was
            placed.add(replacement.name)
            ops.append(replacement)
    return replace(program, ops=live_ops(ops, program.outputs))


def linear(matcher: Matcher, op: Op) -> Op:
    """A matrix product between two views is ``linear`` over the last axis."""
    product = matcher.op(operand(op, "self"), "addmm", "linear", "mm")
    require(not {"alpha", "beta"} & set(product.args))
    input_, bias = {"addmm": ("mat1", "self"), "linear": ("input", "bias"), "mm": ("self", "")}[product.short]
    flat = operand(product, input_)
    x = operand(matcher.op(flat, *VIEWS), "self")
    shape, inner = matcher.shapes[flat], matcher.shapes[x]
    require(len(shape) == 2 < len(inner) and inner[-1] == shape[1] and matcher.shapes[op.outputs[0]][:-1] == inner[:-1])
    weight = operand(product, "weight") if product.short == "linear" else matcher.transposed(operand(product, "mat2"))
    args = {"input": Ref(x), "weight": Ref(weight)}
    if isinstance(product.args.get(bias), Ref):
        args["bias"] = product.args[bias]
    return replace(product, target="aten.linear", args=args, outputs=op.outputs)


def argmax(matcher: Matcher, op: Op) -> Op:
    """Caffe's ArgMax: indices of the largest values (the last of equal ones first), or the values, or both."""
    program, shape = matcher.program, matcher.shapes[op.outputs[0]]
    if op.short == "sub":
        x, axis, count = _match_top_k(matcher, op.outputs[0])
        return _argmax(op, x, axis, count, False)
    if op.short == "gather":
        x, axis, count = _match_top_k(matcher, operand(op, "index"))
        require(x == operand(op, "self"))
        return _argmax(op, x, axis, count, True)
    inner = program.producers.get(matcher.before_views(op.outputs[0]))
    require(inner is not None)
    if inner is not None and inner.short in ("cat", "stack"):
        both = [item.name for item in inner.args["tensors"]]
        require(len(both) == 2 and inner.args.get("dim") == 1)
        rows, axis, count = _match_top_k(matcher, both[0])
        values = matcher.op(both[1], "gather")
        require(operand(values, "index") == both[0] and operand(values, "self") == rows)
    else:
        both, (rows, axis, count) = [], _match_top_k(matcher, matcher.before_views(op.outputs[0]))
    x = matcher.before_views(rows)
    bottom = matcher.shapes[x]
    require(axis == 1 and len(matcher.shapes[rows]) == 2 and bottom[0] == matcher.shapes[rows][0])
    require(shape == (bottom[0], 1 + bool(both), count, *[1] * (len(bottom) - 3)))
    return _argmax(op, x, None, count, bool(both))


def _argmax(op: Op, x: str, axis: int | None, count: int, values: bool) -> Op:
    return replace(
        op, target="caffe.argmax", args={"self": Ref(x), "axis": axis, "top_k": count, "out_max_val": values}
    )


def _match_top_k(matcher: Matcher, value: str) -> tuple[str, int, int]:
    """Where ``value`` holds the indices of the largest values of x along an axis: x, the axis, and how many."""
    sub = matcher.op(value, "sub")
    last, index = matcher.program.number(sub.args["self"]), operand(sub, "other")
    source = matcher.op(index, "argmax", "slice")
    if source.short == "argmax":
        require(source.args.get("keepdim") is True)
        axis, count = source.args["dim"], 1
    else:
        sort = matcher.op(operand(source, "self"), "sort")
        axis, count = sort.args["dim"], matcher.shapes[index][sort.args["dim"]]
        ordered = sort.args.get("stable") is True and sort.args.get("descending") is True
        require(ordered and operand(source, "self") == sort.outputs[1] and source.args.get("dim", 0) == axis)
        require(not source.args.get("start") and source.args.get("step", 1) == 1)
        source = sort
    flip = matcher.op(operand(source, "self"), "flip")
    x = operand(flip, "self")
    require(flip.args["dims"] == [axis] and last == matcher.shapes[x][axis] - 1)
    return x, axis, count


def mvn(matcher: Matcher, op: Op) -> Op:
    """Caffe's MVN: x - mean, or (x - mean) / (standard deviation + eps), for each channel or across the channels."""
    if op.short == "sub":
        require(op.args.get("alpha", 1) == 1)
        x, across = _match_centred(matcher, op.outputs[0])
        return _mvn(op, x, across, None)
    if op.short == "div":
        x, across = _match_centred(matcher, operand(op, "self"))
        deviation, eps = _match_sum(matcher, operand(op, "other"))
        require(_match_deviation(matcher, deviation) == (x, across))
        return _mvn(op, x, across, eps)
    norm = matcher.op(operand(op, "self"), "native_group_norm")
    x, groups = operand(norm, "input"), norm.args["group"]
    shape = matcher.shapes[x]
    require(norm.args.get("weight") is None and norm.args.get("bias") is None and norm.args["eps"] < _TINY)
    require(len(shape) == 4 and groups in (1, shape[1]) and operand(op, "self") == norm.outputs[0])
    inverse = matcher.before_views(operand(op, "other"))
    if matcher.program.producers[inverse].short == "mul":  # 1 / x is x.reciprocal() * 1
        require(matcher.program.producers[inverse].args["other"] == 1)
        inverse = operand(matcher.program.producers[inverse], "self")
    scaled, one = _match_sum(matcher, operand(matcher.op(inverse, "reciprocal"), "self"))
    times = matcher.op(scaled, "mul")
    eps = times.args["other"]
    require(one == 1 and operand(times, "self") == norm.outputs[2] and isinstance(eps, int | float))
    return _mvn(op, x, groups == 1 != shape[1], float(eps))


def _mvn(op: Op, x: str, across: bool, eps: float | None) -> Op:
    return replace(op, target="caffe.mvn", args={"self": Ref(x), "across": across, "eps": eps})


def _match_sum(matcher: Matcher, value: str) -> tuple[str, float]:
    """Where ``value`` is x plus a number: x and the number; else the value and 0."""
    op = matcher.program.producers.get(value)
    if op is None or op.short != "add":
        return value, 0.0
    require(isinstance(op.args["other"], int | float) and "alpha" not in op.args)
    return operand(op, "self"), float(op.args["other"])


def _match_centred(matcher: Matcher, value: str) -> tuple[str, bool]:
    """Where ``value`` is x - mean(x): x, and whether the mean is across the channels."""
    op = matcher.op(value, "sub")
    x = operand(op, "self")
    mean = matcher.op(operand(op, "other"), "mean")
    require(operand(mean, "self") == x)
    return x, _across_channels(matcher.shapes[x], mean.args)


def _match_deviation(matcher: Matcher, value: str) -> tuple[str, bool]:
    """Where ``value`` is the standard deviation of x: x, and whether it is across the channels."""
    op = matcher.op(value, "std", "sqrt")
    if op.short == "sqrt":
        op = matcher.op(operand(op, "self"), "var")
    require(op.args.get("correction") == 0 or op.args.get("unbiased") is False)
    return operand(op, "self"), _across_channels(matcher.shapes[operand(op, "self")], op.args)


def _across_channels(shape: Shape, args: dict[str, Any]) -> bool:
    """Whether a reduction with these arguments is across the channels, or over each channel's picture."""
    axes = sorted(axis % len(shape) for axis in args.get("dim") or [])
    require(len(shape) == 4 and args.get("keepdim") is True and axes in ([2, 3], [1, 2, 3]))
    return len(axes) == 3


def unpool(matcher: Matcher, op: Op) -> Op:
    """``max_unpool2d``: values scattered into zeros, for each picture by itself."""
    scatter = matcher.op(operand(op, "self"), "scatter")
    zeros = matcher.program.constant(operand(scatter, "self"))
    top, plane = matcher.shapes[op.outputs[0]], matcher.shapes[operand(op, "self")]
    require(
        zeros is not None
        and not zeros.any()
        and scatter.args["dim"] == 2
        and set(scatter.args) == {"self", "dim", "index", "src"}
    )
    values, places = matcher.before_views(operand(scatter, "src")), matcher.before_views(operand(scatter, "index"))
    shape = matcher.shapes[values]
    require(len(shape) == len(top) == 4 and matcher.shapes[places] == shape and shape[:2] == top[:2] == plane[:2])
    require(len(plane) == 3 and matcher.shapes[operand(scatter, "src")] == (*shape[:2], math.prod(shape[2:])))
    args = {"self": Ref(values), "indices": Ref(places), "output_size": list(top[2:])}
    return replace(op, target="aten.max_unpool2d", args=args)


def layer_norm(matcher: Matcher, op: Op) -> Op:
    """(x - mean) / sqrt(mean of its square + eps), over the last axes."""
    centred, root = operand(op, "self"), matcher.op(operand(op, "other"), "sqrt")
    sub, plus = matcher.op(centred, "sub"), matcher.op(operand(root, "self"), "add")
    x, eps = operand(sub, "self"), plus.args["other"]
    mean, variance = matcher.op(operand(sub, "other"), "mean"), matcher.op(operand(plus, "self"), "mean")
    square = matcher.op(operand(variance, "self"), "pow", "mul")
    require(operand(mean, "self") == x and operand(square, "self") == centred and isinstance(eps, int | float))
    require(square.args.get("exponent") == 2 if square.short == "pow" else square.args["other"] == Ref(centred))
    shape = matcher.shapes[x]
    for one in (mean, variance):
        axes = sorted(axis % len(shape) for axis in one.args["dim"])
        require(one.args.get("keepdim") is True and axes == list(range(axes[0], len(shape))) and axes[0] > 0)
    require(mean.args["dim"] == variance.args["dim"])
    args = {"input": Ref(x), "normalized_shape": list(shape[axes[0] :]), "eps": eps}
    return replace(op, target="aten.layer_norm", args=args)


def gelu(matcher: Matcher, op: Op) -> Op:
    """x * (1 + erf(x / sqrt(2))) / 2, in the orders in which exporters write it."""
    half = op.args.get("other")
    if isinstance(half, int | float):
        product = matcher.op(operand(op, "self"), "mul")
        names = [operand(product, "self"), operand(product, "other")]
    else:
        names, half = [operand(op, "self"), operand(op, "other")], 1.0
    for x, gate in (names, names[::-1]):
        factor, value = _times(matcher, x) if half == 1 else (half, x)
        try:
            plus = matcher.op(gate, "add")
            erf = matcher.op(operand(plus, "self"), "erf")
        except NoMatch:
            continue
        share, inner = _times(matcher, operand(erf, "self"))
        close = abs(share - math.sqrt(0.5)) < _NEARLY and abs(factor - 0.5) < _NEARLY
        if plus.args["other"] == 1 and inner == value and close:
            return replace(op, target="aten.gelu", args={"self": Ref(value)})
    raise NoMatch


#: how far a constant of a pattern may be from its value, written with some digits or in half precision
_NEARLY = 1e-3


def _times(matcher: Matcher, value: str) -> tuple[float, str]:
    """Where ``value`` is a number times x: both; else 1 and the value."""
    op = matcher.program.producers.get(value)
    number = None if op is None else op.args.get("other")
    if op is None or op.short not in ("mul", "div") or not isinstance(number, int | float):
        return 1.0, value
    return (number if op.short == "mul" else 1 / number), operand(op, "self")


def _first_of(*patterns: Pattern) -> Pattern:
    """The first of these patterns that matches."""

    def match(matcher: Matcher, op: Op) -> Op:
        for pattern in patterns:
            try:
                return pattern(matcher, op)
            except (NoMatch, AttributeError, IndexError, KeyError, TypeError):  # an argument may be missing
                continue
        raise NoMatch

    return match


_PATTERNS: dict[tuple[str, ...], Pattern] = {
    VIEWS: _first_of(unpool, argmax),
    ("sub",): _first_of(mvn, argmax),
    ("gather",): argmax,
    ("mul", "div"): _first_of(mvn, layer_norm, gelu),
}
