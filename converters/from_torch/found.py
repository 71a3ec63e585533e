"""Layers found again in what they were taken apart into: by our export, by PyTorch's decompositions, or by hand.

Each becomes one operation, whose rule makes the layer: ``aten.linear``, ``aten.max_unpool2d``, and, of the namespace ``caffe``,
``argmax``, ``lstm``, ``mvn`` and ``rnn``. What only resembles them stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from converters.from_torch.found_in_time import recurrent
from converters.from_torch.program import Op, Program, Ref, Shape
from converters.from_torch.reading import VIEWS, Different, Reading, named, need
from converters.from_torch.simplify import needed

Finder = Callable[[Reading, Op], Op]

#: an eps that changes no float's root
_TINY = 1e-30


def find(program: Program) -> Program:
    """The program with what is found in it."""
    for finders in ({VIEWS: linear}, {VIEWS: recurrent}, {("tanh",): recurrent}, _FINDERS):
        program = _replaced(program, {kind: finder for kinds, finder in finders.items() for kind in kinds})
    return program


def _replaced(program: Program, finders: dict[str, Finder]) -> Program:
    """Each operation that something is found in replaced by it, and those that only it read left out."""
    reading, new = Reading(program), {}
    for op in program.ops:
        if op.short in finders:
            try:
                new[op.name] = finders[op.short](reading, op)
            except (Different, AttributeError, IndexError, KeyError, TypeError):  # or arguments that are none of ours
                continue
    if not new:
        return program
    first = {output: op for op in new.values() for output in op.outputs}
    ops: list[Op] = []
    placed: set[str] = set()
    for op in program.ops:
        instead = next((first[output] for output in op.outputs if output in first), None)
        if instead is None:
            ops.append(op)
        elif instead.name not in placed:  # of several outputs the first: all are made of the same values
            placed.add(instead.name)
            ops.append(instead)
    return replace(program, ops=needed(ops, program.outputs))


def linear(reading: Reading, op: Op) -> Op:
    """A product by a matrix between two views: linear over the last axis."""
    product = reading.op(named(op, "self"), "addmm", "linear", "mm")
    need(not {"alpha", "beta"} & set(product.args))
    by, bias = {"addmm": ("mat1", "self"), "linear": ("input", "bias"), "mm": ("self", "")}[product.short]
    flat = named(product, by)
    x = named(reading.op(flat, *VIEWS), "self")
    shape, inner = reading.shapes[flat], reading.shapes[x]
    need(len(shape) == 2 < len(inner) and inner[-1] == shape[1] and reading.shapes[op.outputs[0]][:-1] == inner[:-1])
    weight = named(product, "weight") if product.short == "linear" else reading.weight(named(product, "mat2"))
    args = {"input": Ref(x), "weight": Ref(weight)}
    if isinstance(product.args.get(bias), Ref):
        args["bias"] = product.args[bias]
    return replace(product, target="aten.linear", args=args, outputs=op.outputs)


def argmax(reading: Reading, op: Op) -> Op:
    """Our ArgMax: places, of equals the later one first; the values there; for the whole item, both."""
    program, shape = reading.program, reading.shapes[op.outputs[0]]
    if op.short == "sub":
        x, axis, count = _places(reading, op.outputs[0])
        return _argmax(op, x, axis, count, False)
    if op.short == "gather":
        x, axis, count = _places(reading, named(op, "index"))
        need(x == named(op, "self"))
        return _argmax(op, x, axis, count, True)
    inner = program.makers.get(reading.flat(op.outputs[0]))
    need(inner is not None)
    if inner is not None and inner.short in ("cat", "stack"):
        both = [item.name for item in inner.args["tensors"]]
        need(len(both) == 2 and inner.args.get("dim") == 1)
        rows, axis, count = _places(reading, both[0])
        values = reading.op(both[1], "gather")
        need(named(values, "index") == both[0] and named(values, "self") == rows)
    else:
        both, (rows, axis, count) = [], _places(reading, reading.flat(op.outputs[0]))
    x = reading.flat(rows)
    of = reading.shapes[x]
    need(axis == 1 and len(reading.shapes[rows]) == 2 and of[0] == reading.shapes[rows][0])
    need(shape == (of[0], 1 + bool(both), count, *[1] * (len(of) - 3)))
    return _argmax(op, x, None, count, bool(both))


def _argmax(op: Op, x: str, axis: int | None, count: int, values: bool) -> Op:
    return replace(op, target="caffe.argmax", args={"self": Ref(x), "axis": axis, "top_k": count, "out_max_val": values})


def _places(reading: Reading, value: str) -> tuple[str, int, int]:
    """Whose largest values' places ``value`` is, along which axis, and how many."""
    sub = reading.op(value, "sub")
    last, place = reading.program.number(sub.args["self"]), named(sub, "other")
    maker = reading.op(place, "argmax", "slice")
    if maker.short == "argmax":
        need(maker.args.get("keepdim") is True)
        axis, count = maker.args["dim"], 1
    else:
        sort = reading.op(named(maker, "self"), "sort")
        axis, count = sort.args["dim"], reading.shapes[place][sort.args["dim"]]
        ordered = sort.args.get("stable") is True and sort.args.get("descending") is True
        need(ordered and named(maker, "self") == sort.outputs[1] and maker.args.get("dim", 0) == axis)
        need(not maker.args.get("start") and maker.args.get("step", 1) == 1)
        maker = sort
    flip = reading.op(named(maker, "self"), "flip")
    x = named(flip, "self")
    need(flip.args["dims"] == [axis] and last == reading.shapes[x][axis] - 1)
    return x, axis, count


def mvn(reading: Reading, op: Op) -> Op:
    """Values less their mean, over pictures or whole items, and, where so, divided by their deviation plus eps."""
    if op.short == "sub":
        need(op.args.get("alpha", 1) == 1)
        x, across = _centred(reading, op.outputs[0])
        return _mvn(op, x, across, None)
    if op.short == "div":
        x, across = _centred(reading, named(op, "self"))
        deviation, eps = _plus(reading, named(op, "other"))
        need(_deviation(reading, deviation) == (x, across))
        return _mvn(op, x, across, eps)
    norm = reading.op(named(op, "self"), "native_group_norm")
    x, groups = named(norm, "input"), norm.args["group"]
    shape = reading.shapes[x]
    need(norm.args.get("weight") is None and norm.args.get("bias") is None and norm.args["eps"] < _TINY)
    need(len(shape) == 4 and groups in (1, shape[1]) and named(op, "self") == norm.outputs[0])
    share = reading.flat(named(op, "other"))
    if reading.program.makers[share].short == "mul":  # 1 / x is x.reciprocal() * 1
        need(reading.program.makers[share].args["other"] == 1)
        share = named(reading.program.makers[share], "self")
    scaled, one = _plus(reading, named(reading.op(share, "reciprocal"), "self"))
    times = reading.op(scaled, "mul")
    eps = times.args["other"]
    need(one == 1 and named(times, "self") == norm.outputs[2] and isinstance(eps, int | float))
    return _mvn(op, x, groups == 1 != shape[1], float(eps))


def _mvn(op: Op, x: str, across: bool, eps: float | None) -> Op:
    return replace(op, target="caffe.mvn", args={"self": Ref(x), "across": across, "eps": eps})


def _plus(reading: Reading, value: str) -> tuple[str, float]:
    """A value and the number that is added to it."""
    op = reading.program.makers.get(value)
    if op is None or op.short != "add":
        return value, 0.0
    need(isinstance(op.args["other"], int | float) and "alpha" not in op.args)
    return named(op, "self"), float(op.args["other"])


def _centred(reading: Reading, value: str) -> tuple[str, bool]:
    """Whose mean is taken off, and whether that is across the channels."""
    op = reading.op(value, "sub")
    x = named(op, "self")
    mean = reading.op(named(op, "other"), "mean")
    need(named(mean, "self") == x)
    return x, _across(reading.shapes[x], mean.args)


def _deviation(reading: Reading, value: str) -> tuple[str, bool]:
    op = reading.op(value, "std", "sqrt")
    if op.short == "sqrt":
        op = reading.op(named(op, "self"), "var")
    need(op.args.get("correction") == 0 or op.args.get("unbiased") is False)
    return named(op, "self"), _across(reading.shapes[named(op, "self")], op.args)


def _across(shape: Shape, args: dict[str, Any]) -> bool:
    axes = sorted(axis % len(shape) for axis in args.get("dim") or [])
    need(len(shape) == 4 and args.get("keepdim") is True and axes in ([2, 3], [1, 2, 3]))
    return len(axes) == 3


def unpool(reading: Reading, op: Op) -> Op:
    """Values scattered into zeros, each picture by itself."""
    scatter = reading.op(named(op, "self"), "scatter")
    zeros = reading.program.constant(named(scatter, "self"))
    top, plane = reading.shapes[op.outputs[0]], reading.shapes[named(op, "self")]
    need(zeros is not None and not zeros.any() and scatter.args["dim"] == 2 and set(scatter.args) == _SCATTERED)
    values, places = reading.flat(named(scatter, "src")), reading.flat(named(scatter, "index"))
    shape = reading.shapes[values]
    need(len(shape) == len(top) == 4 and reading.shapes[places] == shape and shape[:2] == top[:2] == plane[:2])
    need(len(plane) == 3 and reading.shapes[named(scatter, "src")] == (*shape[:2], math.prod(shape[2:])))
    args = {"self": Ref(values), "indices": Ref(places), "output_size": list(top[2:])}
    return replace(op, target="aten.max_unpool2d", args=args)


_SCATTERED = {"self", "dim", "index", "src"}


def _viewed(reading: Reading, op: Op) -> Op:
    try:
        return unpool(reading, op)
    except Different:
        return argmax(reading, op)


def _difference(reading: Reading, op: Op) -> Op:
    try:
        return mvn(reading, op)
    except Different:
        return argmax(reading, op)


_FINDERS: dict[tuple[str, ...], Finder] = {
    VIEWS: _viewed,
    ("sub",): _difference,
    ("gather",): argmax,
    ("mul", "div"): mvn,
}
