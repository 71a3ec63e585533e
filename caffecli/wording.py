"""Words that the error texts of several rooms share: what is near a name, that a path does not exist, a shape."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from pathlib import Path


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The name among ``known`` that is meant by ``name``, which is none of them; None where that is not clear.

    A wrong hint is worse than none. Meant is what differs in case alone, or in ``-`` for ``_``; else what fewest
    mistakes lead to, at most one for each four letters of ``name`` and at least one. A mistake is a letter too many,
    too few, or another one, or two letters in each other's place. To leave out all but the first three letters or more,
    a third at least, is one mistake too. Of two names as near, the one that begins more alike is meant, then the one
    that ends so; if neither does, it is not clear.

    The ending ``_param`` does not count. Two letters or more before a known name make another name of it, which is none
    of them (MCWINDOW_DATA is not WINDOW_DATA); so does, before ``_param``, one letter behind it (relux_param is not
    relu_param), unless it is the last one twice.
    """
    written = _folded(name)
    others = {one: _folded(one) for one in known}
    bare = written.removesuffix(_TAIL)
    made_of = f"{bare[:-1]}{_TAIL}"
    if bare != written and written not in others.values() and made_of in others.values() and bare[-1:] != bare[-2:-1]:
        return None
    ranks: dict[str, tuple[int, ...]] = {}
    for one, other in others.items():
        rank = None if _is_longer(bare, other.removesuffix(_TAIL)) else _rank(written, other)
        if rank is not None:
            ranks[one] = rank
    best = sorted(ranks, key=ranks.__getitem__)
    if not best or (len(best) > 1 and ranks[best[0]] == ranks[best[1]] != _SAME):
        return None
    return best[0]


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """``; did you mean 'x'?`` for the nearest of the known names; where none is close, ``; OTHERWISE`` or nothing."""
    near = nearest(name, known)
    if near is not None:
        return f"; did you mean {near!r}?"
    return f"; {otherwise}" if otherwise else ""


def does_not_exist(what: str, path: str, remedy: str) -> str:
    """What is said of a path in a net where there is nothing: such paths count from the working directory."""
    hint = unexpanded(path) or f" (paths are relative to the working directory, {str(Path.cwd())!r})"
    return f"{what} {path!r} does not exist; {remedy}{hint}"


def unexpanded(path: str | os.PathLike[str]) -> str:
    """What is said, behind the rest, of a path that a shell would have changed: in files nothing is expanded."""
    text = os.fspath(path)
    meant = os.path.expandvars(os.path.expanduser(text))  # noqa: PTH111 - a Path fails for a user who is not there
    return f"; no shell reads it: write {meant!r} for {text!r}" if meant != text else ""


def dimensions(shape: Iterable[int]) -> str:
    """``3 × 227 × 227``."""
    return " × ".join(map(str, shape))


#: the rank of a name that differs in case alone
_SAME = (0, 0)
_TAIL = "_param"


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_longer(name: str, known: str) -> bool:
    """Whether ``name`` is ``known`` with two letters or more before it."""
    return bool(known) and name.endswith(known) and len(name) > len(known) + 1


def _rank(written: str, other: str) -> tuple[int, ...] | None:
    """How far ``other`` is from the name written, 0 for the same; None where it is too far."""
    if written == other:
        return _SAME
    if other.endswith(_TAIL):
        bare = _distance(written.removesuffix(_TAIL), other.removesuffix(_TAIL))
        if written.endswith(_TAIL):
            return bare
        return min(filter(None, (bare, _distance(written, other))), default=None)
    return _distance(written, other)


def _distance(written: str, other: str) -> tuple[int, ...] | None:
    allowed = max(1, len(written) // 4)
    cut_short = other.startswith(written) and len(written) >= max(3, len(other) / 3)
    mistakes = len(other) - len(written) if cut_short else _mistakes(written, other, allowed)
    if not cut_short and mistakes > min(allowed, max(len(written), len(other)) - 1):
        return None
    few = min(mistakes, 1) if cut_short else mistakes
    return few, mistakes, -_alike(written, other), -_alike(written[::-1], other[::-1])


def _alike(a: str, b: str) -> int:
    """How many letters they have in common from their beginning on."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(a, b, strict=False)))


def _mistakes(a: str, b: str, most: int) -> int:
    """How many mistakes make ``b`` of ``a``, the optimal string alignment distance;
    ``most`` + 1 where there are more.
    """
    if abs(len(a) - len(b)) > most:
        return most + 1
    before: list[int] = []
    last = [*range(len(b) + 1)]
    for i, letter in enumerate(a, 1):
        row = [i] + [most + 1] * len(b)
        for j in range(max(1, i - most), min(len(b), i + most) + 1):  # beyond, there are more
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != b[j - 1]))
            if i > 1 and j > 1 and letter == b[j - 2] and b[j - 1] == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row[j] = cost
        if min(row) > most:
            return most + 1
        before, last = last, row
    return min(last[-1], most + 1)
