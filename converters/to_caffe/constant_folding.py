"""Constant folding: operations on weights alone are computed with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from converters.to_caffe.program import Array


def _slice(x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Array:
    where: list[slice] = [slice(None)] * x.ndim
    where[dim] = slice(start, end, step)
    return x[tuple(where)]


def _same(x: Array, **_: Any) -> Array:
    return x


def _flatten(x: Array, start_dim: int = 0, end_dim: int = -1) -> Array:
    first, last = start_dim % max(x.ndim, 1), end_dim % max(x.ndim, 1)
    return x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])


def _squeeze(x: Array, dim: int | list[int] | None = None) -> Array:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    return x.squeeze(tuple(d % x.ndim for d in dims if x.shape[d] == 1))


def _add(x: Array, other: Array, alpha: float = 1) -> Array:
    return x + (other if alpha == 1 else _like(alpha, x) * other)


def _sub(x: Array, other: Array, alpha: float = 1) -> Array:
    return x - (other if alpha == 1 else _like(alpha, x) * other)


def _like(number: Any, x: Array) -> Any:
    """A number in the type of ``x``, so that the result has that type too."""
    return x.dtype.type(number) if x.dtype.kind == "f" and not isinstance(number, np.ndarray) else number


def _scalar_tensor(s: float, **_: Any) -> Array:
    return np.asarray(s, np.float32)


def _full(size: list[int], fill_value: float = 0, **_: Any) -> Array:
    return np.full(size, fill_value, np.float32)


def _expand(x: Array, size: list[int], **_: Any) -> Array:
    lead = len(size) - x.ndim
    return np.broadcast_to(x, [x.shape[i - lead] if n == -1 else n for i, n in enumerate(size)])


#: the operations that are folded; arguments are positional
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "_to_copy": _same,
    "_unsafe_view": lambda x, size: x.reshape(size),
    "abs": np.abs,
    "add": _add,
    "alias": _same,
    "arange": lambda *bounds: np.arange(
        *bounds, dtype=np.float32 if any(isinstance(x, float) for x in bounds) else None
    ),
    "cat": lambda tensors, dim=0: np.concatenate(tensors, dim),
    "clone": _same,
    "contiguous": _same,
    "detach": _same,
    "detach_": _same,
    "div": lambda x, other: x / other,
    "eq": lambda x, other: x == other,
    "exp": np.exp,
    "expand": _expand,
    "expand_as": lambda x, other: np.broadcast_to(x, other.shape),
    "flatten": _flatten,
    "full": _full,
    "lift_fresh_copy": _same,
    "log": np.log,
    "mul": lambda x, other: x * other,
    "neg": np.negative,
    "ones": lambda size, **_: np.ones(size, np.float32),
    "permute": lambda x, dims: x.transpose(dims),
    "pow": lambda x, exponent: x**exponent,
    "reciprocal": lambda x: _like(1, x) / x,
    "reshape": lambda x, shape: x.reshape(shape),
    "rsqrt": lambda x: _like(1, x) / np.sqrt(x),
    "scalar_tensor": _scalar_tensor,
    "slice": _slice,
    "softplus": lambda x: np.logaddexp(_like(0, x), x),
    "sqrt": np.sqrt,
    "squeeze": _squeeze,
    "sub": _sub,
    "t": np.transpose,
    "to": _same,
    "transpose": lambda x, dim0, dim1: x.swapaxes(dim0, dim1),
    "unsqueeze": lambda x, dim: np.expand_dims(x, dim),
    "view": lambda x, size: x.reshape(size),
    "where": np.where,
    "zeros": lambda size, **_: np.zeros(size, np.float32),
}
#: arguments that say how a value is stored, not what it is
_STORAGE_ARGS = (
    "dtype",
    "device",
    "layout",
    "pin_memory",
    "memory_format",
    "copy",
    "non_blocking",
    "requires_grad",
    "implicit",
)


def fold(name: str, args: dict[str, Any]) -> Array | None:
    """The result of an operation on arrays; None for arguments that are not supported here."""
    kept = {key: value for key, value in args.items() if key not in _STORAGE_ARGS}
    by_name = {key: kept.pop(key) for key in ("alpha",) if key in kept}
    values = list(kept.values())
    if name in ("mul", "div", "add", "sub", "eq", "pow") and isinstance(values[0], np.ndarray):
        values[1:] = [_like(value, values[0]) for value in values[1:]]
    try:
        with np.errstate(all="ignore"):
            return np.asarray(FUNCTIONS[name](*(values if FUNCTIONS[name] is not _same else values[:1]), **by_name))
    except (TypeError, ValueError, IndexError, AttributeError):
        return None
