"""Operations in place, ``relu_`` say, become ones that are not."""

from __future__ import annotations

from dataclasses import replace

from caffecli.errors import SpecError
from converters.to_caffe.program import Op
from converters.to_caffe.simplify import renamed

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
        new = replace(op, args={key: renamed(value, current) for key, value in op.args.items()})
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
