"""A pass over a program before it is converted: no operation without effect, none that nothing reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from converters.to_caffe.program import Op, Program, Ref


def simplify(program: Program) -> Program:
    """The program without operations that change nothing (clone, dropout in evaluation) or that nothing reads."""
    same: dict[str, str] = {}
    ops: list[Op] = []
    for op in program.ops:
        new = replace(
            op, args={key: renamed(value, lambda name: same.get(name, name)) for key, value in op.args.items()}
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


def renamed(value: Any, rename: Callable[[str], str]) -> Any:
    """An argument, with the values that it refers to renamed."""
    if isinstance(value, list):
        return [renamed(item, rename) for item in value]
    return Ref(rename(value.name)) if isinstance(value, Ref) else value
