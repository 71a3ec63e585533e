"""Programs made plainer before their operations are looked up: nothing in place, nothing without effect, nothing unread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from caffecli.errors import SpecError
from converters.from_torch.program import Op, Program, Ref

#: what may give back memory of its first argument
_VIEWS = (
    "alias alpha_dropout chunk contiguous detach dropout expand expand_as feature_dropout flatten narrow permute reshape select"
    " slice split split_with_sizes squeeze t to transpose unbind unflatten unsqueeze view"
)


def settle(ops: list[Op], outputs: list[str]) -> tuple[list[Op], list[str]]:
    """The operations with ``relu_`` and the like as ``relu``, and the outputs: who reads the value afterwards, by its old name
    or by the new one, reads what ``relu`` made.

    Raises SpecError where such an operation writes into memory that another value, read later, has too.
    """
    variable: dict[str, str] = {}  # value -> the first name of what is written into
    latest: dict[str, str] = {}  # variable -> its value now
    memory: dict[str, str] = {}  # value -> the value whose memory it has
    settled: list[Op] = []

    def current(name: str) -> str:
        return latest.get(variable.get(name, name), name)

    for place, op in enumerate(ops):
        made = replace(op, args={key: _renamed(value, current) for key, value in op.args.items()})
        first = next(op.refs(), "")
        if op.short.endswith("_") and first and op.outputs:
            made = replace(made, target=op.target.removesuffix("_"))
            own = variable[op.outputs[0]] = variable.get(first, first)
            store = memory[op.outputs[0]] = memory.get(first, first)
            strangers = {name for name, where in memory.items() if where == store and variable.get(name, name) != own}
            strangers |= {store} - {own}
            read = {name for later in ops[place + 1 :] for name in later.refs()} | set(outputs)
            if strangers & read:
                what = f"{op.target} at {op.module or op.name!r} writes in place into a part of {min(strangers & read)!r}"
                raise SpecError(f"cannot be imported: {what}, which is read later; take {op.target.removesuffix('_')} instead")
            latest[own] = op.outputs[0]
        elif op.short in _VIEWS.split() and first:
            memory |= dict.fromkeys(op.outputs, memory.get(first, first))
        settled.append(made)
    return settled, [current(name) for name in outputs]


def plain(program: Program) -> Program:
    """The program without operations that change nothing (clone, dropout in evaluation), and those that nothing is made of."""
    same: dict[str, str] = {}
    ops: list[Op] = []
    for op in program.ops:
        made = replace(op, args={key: _renamed(value, lambda name: same.get(name, name)) for key, value in op.args.items()})
        first = next(made.refs(), "")
        if first and len(op.outputs) == 1 and _is_same(program, made, first):
            same[op.outputs[0]] = first
        else:
            ops.append(made)
    outputs = [same.get(name, name) for name in program.outputs]
    return replace(program, ops=needed(ops, outputs), outputs=outputs)


def _is_same(program: Program, op: Op, first: str) -> bool:
    """Whether the operation gives back its first argument."""
    output = op.outputs[0]
    if op.short in ("alias", "clone", "contiguous", "detach", "lift_fresh_copy"):
        return True
    if op.short in ("dropout", "alpha_dropout", "feature_dropout"):
        return op.args.get("train") is False or op.args.get("p") == 0
    if op.short in ("_to_copy", "to", "type_as"):  # Caffe's blobs are float32; Embed alone reads whole numbers, and rounds down
        return (
            first in program.whole or output not in program.whole or all(r.short == "embedding" for r in program.readers[output])
        )
    if op.short in ("expand", "expand_as", "reshape", "view", "flatten", "squeeze", "adaptive_avg_pool2d", "adaptive_max_pool2d"):
        return program.shapes[first] == program.shapes[output] and program.free[first] == program.free[output]
    return False


def needed(ops: list[Op], outputs: list[str]) -> list[Op]:
    """The operations that the outputs are made of."""
    wanted, kept = set(outputs), []
    for op in reversed(ops):
        if wanted.intersection(op.outputs):
            wanted.update(op.refs())
            kept.append(op)
    return kept[::-1]


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    if isinstance(value, list):
        return [_renamed(item, rename) for item in value]
    return Ref(rename(value.name)) if isinstance(value, Ref) else value
