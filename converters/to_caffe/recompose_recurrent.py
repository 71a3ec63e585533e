"""Graph rewriting of recurrent layers: unrolled time steps, as our export writes them, become one operation again."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from converters.to_caffe.matching import VIEWS, Matcher, operand, require
from converters.to_caffe.program import Op, Ref


class _Step(NamedTuple):
    """The values of one time step: its weighted sums, its cont, and, of an LSTM, its cell before and after it."""

    sums: str
    cont: str
    cell_before: tuple[str, ...] = ()
    cell_after: tuple[str, ...] = ()


def recurrent(matcher: Matcher, op: Op) -> Op:
    """One layer over all steps; its inputs are the states before the first step, its outputs those after the last."""
    if op.short == "tanh":
        return _rnn(matcher, op)
    hs = _match_steps(matcher, op.outputs[0])
    steps = [_lstm_step(matcher, h) for h in hs]
    args, first_op = _shared_operands(matcher, hs, steps)
    require(all(before.cell_after == after.cell_before for before, after in pairwise(steps)))
    c = matcher.op(steps[0].cell_before[0], "select")
    require(not c.args.get("dim") and c.args["index"] == 0 and len(matcher.shapes[operand(c, "self")]) == 3)
    args["c"] = Ref(operand(c, "self"))
    last = [_last_output(matcher, hs[-1]), _last_output(matcher, steps[-1].cell_after[0])]
    return Op(op.name, "caffe.lstm", args, (op.outputs[0], *last), first_op.module)


def _rnn(matcher: Matcher, op: Op) -> Op:
    """Caffe's RNN: y = tanh(W h + b) of the steps' h."""
    output = matcher.op(operand(op, "self"), "linear")
    hs = _match_steps(matcher, operand(output, "input"))
    steps = []
    for h in hs:
        sums = operand(matcher.op(h, "tanh"), "self")
        steps.append(_Step(sums, matcher.operands(operand(matcher.op(sums, "addmm"), "mat1"), "mul", count=2)[1]))
    args, first_op = _shared_operands(matcher, hs, steps)
    args |= {"wo": output.args["weight"], "bias_o": output.args["bias"]}
    return Op(op.name, "caffe.rnn", args, (op.outputs[0], _last_output(matcher, hs[-1])), first_op.module)


def _match_steps(matcher: Matcher, value: str) -> list[str]:
    """The steps that ``value`` is the concatenation of."""
    op = matcher.op(value, *VIEWS)
    cat = matcher.op(operand(op, "self"), "cat")
    hs = [item.name for item in cat.args["tensors"]]
    require(not cat.args.get("dim") and matcher.shapes[value] == (len(hs), *matcher.shapes[hs[0]]))
    return hs


def _lstm_step(matcher: Matcher, h: str) -> _Step:
    out, tanh = matcher.operands(h, "mul", count=2)
    c = matcher.op(tanh, "tanh")
    kept, added = matcher.operands(operand(c, "self"), "add", count=2)
    forget_cont, before = matcher.operands(kept, "mul", count=2)
    forget, cont = matcher.operands(forget_cont, "mul", count=2)
    input_, new = matcher.operands(added, "mul", count=2)
    gates = [
        matcher.op(input_, "sigmoid"),
        matcher.op(forget, "sigmoid"),
        matcher.op(out, "sigmoid"),
        matcher.op(new, "tanh"),
    ]
    split = matcher.op(operand(gates[0], "self"), "split_with_sizes", "split", "chunk")
    require(tuple(operand(gate, "self") for gate in gates) == split.outputs)
    sums = operand(split, "self")
    require(split.args.get("dim") in (-1, 1) and len({matcher.shapes[part] for part in split.outputs}) == 1)
    return _Step(sums, cont, (before,), (operand(c, "self"),))


def _shared_operands(matcher: Matcher, hs: list[str], steps: list[_Step]) -> tuple[dict[str, Any], Op]:
    """The arguments that all steps share, and the operation of the first step; raises NoMatch where they differ."""
    inputs, conts, befores, weights = [], [], [], []
    for time, step in enumerate(steps):
        product = matcher.op(step.sums, "addmm")
        require(not {"alpha", "beta"} & set(product.args))
        inputs.append(_step_source(matcher, operand(product, "self"), time))
        before, cont = matcher.operands(operand(product, "mat1"), "mul", count=2)
        require(cont == step.cont)
        conts.append(_step_source(matcher, cont, time))
        befores.append(before)
        weights.append(matcher.transposed(operand(product, "mat2")))
    require(len({*inputs}) == len({*conts}) == len({*weights}) == 1 and befores[1:] == hs[:-1])
    first = matcher.op(befores[0], "select")
    require(not first.args.get("dim") and first.args["index"] == 0 and len(matcher.shapes[operand(first, "self")]) == 3)
    unsqueeze = matcher.op(conts[0], "unsqueeze")
    require(unsqueeze.args["dim"] in (2, -1))
    require(matcher.shapes[inputs[0]][0] == len(hs))
    return {
        **_match_input(matcher, inputs[0]),
        "cont": Ref(operand(unsqueeze, "self")),
        "wh": Ref(weights[0]),
        "h": Ref(operand(first, "self")),
    }, matcher.op(hs[0], "mul", "tanh")


def _step_source(matcher: Matcher, value: str, time: int) -> str:
    """The sequence of which ``value`` is the step ``time``."""
    op = matcher.op(value, "squeeze", "select")
    if op.short == "select":
        require(not op.args.get("dim") and op.args["index"] == time)
        return operand(op, "self")
    require(op.args["dim"] in (0, [0]))
    part = matcher.op(operand(op, "self"), "slice")
    require(not part.args.get("dim") and (part.args.get("start") or 0) == time and part.args["end"] == time + 1)
    return operand(part, "self")


def _match_input(matcher: Matcher, inputs: str) -> dict[str, Any]:
    """x and its weights, and the static input and its weights, from the sums computed for all steps at once."""
    op = matcher.op(inputs, "linear", "add")
    static: dict[str, Any] = {}
    if op.short == "add":
        of_x, of_static = matcher.operands(inputs, "add", count=2)
        product = matcher.op(of_static, "mm")
        static = {"static": Ref(operand(product, "self")), "ws": Ref(matcher.transposed(operand(product, "mat2")))}
        op = matcher.op(of_x, "linear")
    return {"x": op.args["input"], "wx": op.args["weight"], "bias": op.args["bias"], **static}


def _last_output(matcher: Matcher, state: str) -> str:
    """The output of the program that a last state becomes; a name of its own where nothing reads it."""
    for op in matcher.program.readers.get(state, ()):
        if op.short == "unsqueeze" and op.args["dim"] == 0:
            return op.outputs[0]
    return f"{state}:last"
