"""Pattern matching on programs: from a value back to the operations that compute it."""

from __future__ import annotations

from converters.to_caffe.program import Op, Program, Ref

#: operations that change a value's shape alone
VIEWS = ("view", "reshape", "_unsafe_view")


class NoMatch(Exception):
    """The program does not match the pattern here."""


def require(condition: bool) -> None:
    """Raise NoMatch unless the condition holds."""
    if not condition:
        raise NoMatch


def operand(op: Op, arg: str) -> str:
    """The value that an argument refers to; raises NoMatch where it is none."""
    value = op.args.get(arg)
    if not isinstance(value, Ref):
        raise NoMatch
    return value.name


class Matcher:
    """Steps from the values of a program to what they are computed from."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.shapes = program.shapes

    def op(self, value: str, *kinds: str) -> Op:
        """The operation that computes ``value``; raises NoMatch unless it is of one of these kinds."""
        op = self.program.producers.get(value)
        if op is None or op.short not in kinds:
            raise NoMatch
        return op

    def operands(self, value: str, *kinds: str, count: int) -> list[str]:
        """The values that such an operation reads; raises NoMatch unless they are ``count`` and its only arguments."""
        op = self.op(value, *kinds)
        names = [item.name for item in op.args.values() if isinstance(item, Ref)]
        require(len(names) == len(op.args) == count)
        return names

    def before_views(self, value: str) -> str:
        """The value that ``value`` is a view of, or itself."""
        while (op := self.program.producers.get(value)) is not None and op.short in VIEWS:
            value = operand(op, "self")
        return value

    def transposed(self, value: str) -> str:
        """The matrix that ``value`` is the transpose of; raises NoMatch where it is none."""
        op = self.op(value, "permute", "t", "transpose")
        require(len(self.shapes[value]) == 2 and op.args.get("dims", [1, 0]) == [1, 0])
        return operand(op, "self")
