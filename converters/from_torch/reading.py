"""Programs read from their results back to what these are made of."""

from __future__ import annotations

from converters.from_torch.program import Op, Program, Ref

#: operations that give a value another shape
VIEWS = ("view", "reshape", "_unsafe_view")


class Different(Exception):
    """An operation is not what was looked for."""


class Reading:
    """A program read from its results back to what they are made of."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.shapes = program.shapes

    def op(self, value: str, *kinds: str) -> Op:
        """The operation of one of these kinds that makes ``value``; raises Different."""
        op = self.program.makers.get(value)
        if op is None or op.short not in kinds:
            raise Different
        return op

    def values(self, value: str, *kinds: str, count: int) -> list[str]:
        """The values that such an operation reads, which has no other setting than these."""
        op = self.op(value, *kinds)
        found = [item.name for item in op.args.values() if isinstance(item, Ref)]
        need(len(found) == len(op.args) == count)
        return found

    def flat(self, value: str) -> str:
        """What ``value`` is another shape of."""
        while (op := self.program.makers.get(value)) is not None and op.short in VIEWS:
            value = named(op, "self")
        return value

    def weight(self, value: str) -> str:
        """The matrix that ``value`` is the transpose of."""
        op = self.op(value, "permute", "t", "transpose")
        need(len(self.shapes[value]) == 2 and op.args.get("dims", [1, 0]) == [1, 0])
        return named(op, "self")


def need(said: bool) -> None:
    if not said:
        raise Different


def named(op: Op, arg: str) -> str:
    """The value that an argument is."""
    value = op.args.get(arg)
    if not isinstance(value, Ref):
        raise Different
    return value.name
