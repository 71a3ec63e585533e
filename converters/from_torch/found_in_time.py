"""LSTM and RNN found again where our export has gone through time a step after the other."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from converters.from_torch.program import Op, Ref
from converters.from_torch.reading import VIEWS, Reading, named, need


class _Step(NamedTuple):
    """A step's weighted sums, whether it goes on, and its cells before and after it, where it has some."""

    sums: str
    go_on: str
    cells: tuple[str, ...] = ()
    after: tuple[str, ...] = ()


def recurrent(reading: Reading, op: Op) -> Op:
    """The layer over all steps, with the states before the first as inputs and those after the last as outputs."""
    if op.short == "tanh":
        return _rnn(reading, op)
    hs = _hs(reading, op.outputs[0])
    steps = [_lstm_step(reading, h) for h in hs]
    args, places = _through(reading, hs, steps)
    need(all(before.after == after.cells for before, after in pairwise(steps)))
    c = reading.op(steps[0].cells[0], "select")
    need(not c.args.get("dim") and c.args["index"] == 0 and len(reading.shapes[named(c, "self")]) == 3)
    args["c"] = Ref(named(c, "self"))
    last = [_handed_out(reading, hs[-1]), _handed_out(reading, steps[-1].after[0])]
    return Op(op.name, "caffe.lstm", args, (op.outputs[0], *last), places.module)


def _rnn(reading: Reading, op: Op) -> Op:
    """y = tanh(W h + b) of the steps' h."""
    output = reading.op(named(op, "self"), "linear")
    hs = _hs(reading, named(output, "input"))
    steps = []
    for h in hs:
        sums = named(reading.op(h, "tanh"), "self")
        steps.append(_Step(sums, reading.values(named(reading.op(sums, "addmm"), "mat1"), "mul", count=2)[1]))
    args, places = _through(reading, hs, steps)
    args |= {"wo": output.args["weight"], "bias_o": output.args["bias"]}
    return Op(op.name, "caffe.rnn", args, (op.outputs[0], _handed_out(reading, hs[-1])), places.module)


def _hs(reading: Reading, value: str) -> list[str]:
    """The steps that ``value`` puts one behind the other."""
    op = reading.op(value, *VIEWS)
    cat = reading.op(named(op, "self"), "cat")
    hs = [item.name for item in cat.args["tensors"]]
    need(not cat.args.get("dim") and reading.shapes[value] == (len(hs), *reading.shapes[hs[0]]))
    return hs


def _lstm_step(reading: Reading, h: str) -> _Step:
    out, tanh = reading.values(h, "mul", count=2)
    c = reading.op(tanh, "tanh")
    kept, added = reading.values(named(c, "self"), "add", count=2)
    forget, before = reading.values(kept, "mul", count=2)
    forget, go_on = reading.values(forget, "mul", count=2)
    let_in, new = reading.values(added, "mul", count=2)
    gates = [reading.op(let_in, "sigmoid"), reading.op(forget, "sigmoid"), reading.op(out, "sigmoid"), reading.op(new, "tanh")]
    split = reading.op(named(gates[0], "self"), "split_with_sizes", "split", "chunk")
    need(tuple(named(gate, "self") for gate in gates) == split.outputs)
    sums = named(split, "self")
    need(split.args.get("dim") in (-1, 1) and len({reading.shapes[part] for part in split.outputs}) == 1)
    return _Step(sums, go_on, (before,), (named(c, "self"),))


def _through(reading: Reading, hs: list[str], steps: list[_Step]) -> tuple[dict[str, Any], Op]:
    """The inputs and weights that all steps share, and the operation at the first."""
    inputs, conts, befores, weights = [], [], [], []
    for time, step in enumerate(steps):
        product = reading.op(step.sums, "addmm")
        need(not {"alpha", "beta"} & set(product.args))
        inputs.append(_at(reading, named(product, "self"), time))
        before, go_on = reading.values(named(product, "mat1"), "mul", count=2)
        need(go_on == step.go_on)
        conts.append(_at(reading, go_on, time))
        befores.append(before)
        weights.append(reading.weight(named(product, "mat2")))
    need(len({*inputs}) == len({*conts}) == len({*weights}) == 1 and befores[1:] == hs[:-1])
    first = reading.op(befores[0], "select")
    need(not first.args.get("dim") and first.args["index"] == 0 and len(reading.shapes[named(first, "self")]) == 3)
    cont = reading.op(conts[0], "unsqueeze")
    need(cont.args["dim"] in (2, -1))
    need(reading.shapes[inputs[0]][0] == len(hs))
    return {
        **_weighted(reading, inputs[0]),
        "cont": Ref(named(cont, "self")),
        "wh": Ref(weights[0]),
        "h": Ref(named(first, "self")),
    }, reading.op(hs[0], "mul", "tanh")


def _at(reading: Reading, value: str, time: int) -> str:
    """Whose step ``time`` a value is."""
    op = reading.op(value, "squeeze", "select")
    if op.short == "select":
        need(not op.args.get("dim") and op.args["index"] == time)
        return named(op, "self")
    need(op.args["dim"] in (0, [0]))
    part = reading.op(named(op, "self"), "slice")
    need(not part.args.get("dim") and (part.args.get("start") or 0) == time and part.args["end"] == time + 1)
    return named(part, "self")


def _weighted(reading: Reading, inputs: str) -> dict[str, Any]:
    """x and its weights, and the static input and its own where there is one, of what is added up for all steps at once."""
    op = reading.op(inputs, "linear", "add")
    more: dict[str, Any] = {}
    if op.short == "add":
        of_x, of_static = reading.values(inputs, "add", count=2)
        product = reading.op(of_static, "mm")
        more = {"static": Ref(named(product, "self")), "ws": Ref(reading.weight(named(product, "mat2")))}
        op = reading.op(of_x, "linear")
    return {"x": op.args["input"], "wx": op.args["weight"], "bias": op.args["bias"], **more}


def _handed_out(reading: Reading, state: str) -> str:
    """The output that the last state is; a name of its own where nothing reads it."""
    for op in reading.program.readers.get(state, ()):
        if op.short == "unsqueeze" and op.args["dim"] == 0:
            return op.outputs[0]
    return f"{state}:last"
