"""Passes over a program before it is converted: no operation in place, none without effect, none that nothing reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from caffecli.errors import SpecError
from converters.from_torch.program import Op, Program, Ref

#: operations whose result may share the memory of their first argument
_VIEWS = (
    "alias alpha_dropout chunk contiguous detach dropout expand expand_as feature_dropout flatten narrow permute "
    "reshape select slice split split_with_sizes squeeze t to transpose unbind unflatten unsqueeze view"
)


def functionalize(ops: list[Op], outputs: list[str]) -> tuple[list[Op], list[str]]:
    """The operations and outputs with each operation in place, ``relu_`` say, as ``relu``.

    Whatever reads the overwritten value afterwards, by its old name or the new one, then reads the result of ``relu``.
    Raises SpecError where such an operation writes into memory that is also that of another value, which is read later.
    """
    variable: dict[str, str] = {}  # value -> the first name of the variable that is overwritten
    latest: dict[str, str] = {}  # variable -> the value that it holds now
    memory: dict[str, str] = {}  # value -> the value whose memory it shares
    functional: list[Op] = []

    def current(name: str) -> str:
        return latest.get(variable.get(name, name), name)

    for index, op in enumerate(ops):
        new = replace(op, args={key: _renamed(value, current) for key, value in op.args.items()})
        first = next(op.refs(), "")
        if op.short.endswith("_") and first and op.outputs:
            new = replace(new, target=op.target.removesuffix("_"))
            own = variable[op.outputs[0]] = variable.get(first, first)
            store = memory[op.outputs[0]] = memory.get(first, first)
            others = {name for name, where in memory.items() if where == store and variable.get(name, name) != own}
            others |= {store} - {own}
            read = {name for later in ops[index + 1 :] for name in later.refs()} | set(outputs)
            if others & read:
                what = f"{op.target} at {op.module or op.name!r} writes in place into a part of {min(others & read)!r}"
                raise SpecError(
                    f"cannot be imported: {what}, which is read later; take {op.target.removesuffix('_')} instead"
                )
            latest[own] = op.outputs[0]
        elif op.short in _VIEWS.split() and first:
            memory |= dict.fromkeys(op.outputs, memory.get(first, first))
        functional.append(new)
    return functional, [current(name) for name in outputs]


def simplify(program: Program) -> Program:
    """The program without operations that change nothing (clone, dropout in evaluation) or that nothing reads."""
    same: dict[str, str] = {}
    ops: list[Op] = []
    for op in program.ops:
        new = replace(
            op, args={key: _renamed(value, lambda name: same.get(name, name)) for key, value in op.args.items()}
        )
        first = next(new.refs(), "")
        if first and len(op.outputs) == 1 and _is_identity(program, new, first):
            same[op.outputs[0]] = first
        else:
            ops.append(new)
    outputs = [same.get(name, name) for name in program.outputs]
    return replace(program, ops=live_ops(ops, outputs), outputs=outputs)


def _is_identity(program: Program, op: Op, first: str) -> bool:
    """Whether the operation returns its first argument unchanged."""
    output = op.outputs[0]
    if op.short in ("alias", "clone", "contiguous", "detach", "lift_fresh_copy"):
        return True
    if op.short in ("dropout", "alpha_dropout", "feature_dropout"):
        return op.args.get("train") is False or op.args.get("p") == 0
    if op.short in ("_to_copy", "to", "type_as"):  # blobs are float32; only Embed reads integers, and rounds down
        return (
            first in program.integral
            or output not in program.integral
            or all(r.short == "embedding" for r in program.readers[output])
        )
    if op.short in (
        "expand",
        "expand_as",
        "reshape",
        "view",
        "flatten",
        "squeeze",
        "adaptive_avg_pool2d",
        "adaptive_max_pool2d",
    ):
        return program.shapes[first] == program.shapes[output] and program.free_axes[first] == program.free_axes[output]
    return False


def live_ops(ops: list[Op], outputs: list[str]) -> list[Op]:
    """The operations that the outputs depend on."""
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
