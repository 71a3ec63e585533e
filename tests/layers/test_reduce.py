"""ArgMax and Reduction."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from tests.layers.oracle import SHAPE, build, check, run_golden


@pytest.mark.parametrize("case", ["argmax", "argmax_topk", "reduction_asum", "reduction_mean", "reduction_sum"])
def test_golden(golden: Path, case: str) -> None:
    run_golden(golden / "layers", case)


def places(x: np.ndarray, axis: int, k: int) -> np.ndarray:
    """The places of the k largest values, of equals the later first."""
    later_first = np.argsort(-np.flip(x, axis), axis, kind="stable")
    return x.shape[axis] - 1 - later_first.take(range(k), axis)


@pytest.mark.parametrize("k", [1, 2, 7])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (3, 9), (2, 8, 4), (2, 3, 2, 4, 3)])
def test_argmax_over_items(shape: tuple[int, ...], values: bool, k: int) -> None:
    def oracle(x: np.ndarray) -> np.ndarray:
        flat = x.reshape(len(x), -1)
        index = places(flat, 1, k)
        rows = [index, np.take_along_axis(flat, index, 1)] if values else [index]
        return np.stack(rows, 1).reshape(len(x), len(rows), k, *(1,) * (x.ndim - 3))

    check(
        f'type: "ArgMax" argmax_param {{ top_k: {k} out_max_val: {str(values).lower()} }}',
        shape,
        oracle=oracle,
        gradient=False,
    )


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_argmax_along_an_axis(axis: int, values: bool, k: int) -> None:
    def oracle(x: np.ndarray) -> np.ndarray:
        index = places(x, axis, k)
        return np.take_along_axis(x, index, axis) if values else index

    text = f'type: "ArgMax" argmax_param {{ axis: {axis} top_k: {k} out_max_val: {str(values).lower()} }}'
    check(text, oracle=oracle, gradient=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_equal_values_the_later_comes_first(dtype: torch.dtype) -> None:
    x = torch.tensor([[1, 3, -0.0, 3, 0, 3, 1], [-5, -5, -7, -np.inf, -5, -7, -np.inf]], dtype=dtype)
    all_places = build('type: "ArgMax" argmax_param { axis: 1 top_k: 7 }', x.shape)(x)
    assert all_places.tolist() == [[5, 3, 1, 6, 0, 4, 2], [4, 1, 0, 5, 2, 6, 3]]
    assert build('type: "ArgMax" argmax_param { axis: 1 }', x.shape)(x).tolist() == [[5], [4]]


def test_argmax_of_halves_counts_past_256() -> None:
    x = torch.zeros(1, 1000, dtype=torch.float16)
    y = build('type: "ArgMax"', x.shape)(x)
    assert y.item() == 999 and y.dtype == torch.float32


def test_argmax_of_one_axis_takes_each_value_for_an_item() -> None:
    assert torch.equal(build('type: "ArgMax"', (4,))(torch.rand(4)), torch.zeros(4, 1, 1))


def test_argmax_has_no_gradient() -> None:
    y = build('type: "ArgMax" argmax_param { out_max_val: true axis: 1 }', SHAPE)(torch.rand(SHAPE, requires_grad=True))
    assert not y.requires_grad


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("top_k: 0", r"expected top_k from 1 to 84, the values along each item of \(2, 7, 3, 4\), got 0"),
        ("top_k: 85", "got 85"),
        ("axis: 1 top_k: 8", r"expected top_k from 1 to 7, the values along axis 1 of \(2, 7, 3, 4\), got 8"),
        ("axis: 4", "axis 4 is out of range for a blob of 4 dimensions"),
        ("axis: -5", "axis -5 is out of range"),
    ],
)
def test_argmax_refuses(settings: str, words: str) -> None:
    with pytest.raises(CaffeError, match=rf"layer 'l' \(ArgMax\): {words}" if words.startswith("exp") else words):
        build(f'type: "ArgMax" argmax_param {{ {settings} }}', SHAPE)


OPERATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "SUM": lambda rows: rows.sum(1),
    "MEAN": lambda rows: rows.mean(1),
    "ASUM": lambda rows: np.abs(rows).sum(1),
    "SUMSQ": lambda rows: (rows**2).sum(1),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("setting", "axis"), [("", 0), ("axis: 0", 0), ("axis: 1", 1), ("axis: 3", 3), ("axis: -2", 2)]
)
@pytest.mark.parametrize("coeff", [1, -0.5, 0])
def test_reduction(operation: str, setting: str, axis: int, coeff: float) -> None:
    def oracle(x: np.ndarray) -> np.ndarray:
        lead = x.shape[:axis]
        return coeff * OPERATIONS[operation](x.reshape(int(np.prod(lead)), -1)).reshape(lead)

    check(f'type: "Reduction" reduction_param {{ operation: {operation} {setting} coeff: {coeff} }}', oracle=oracle)


def test_reduction_sums_all_by_default() -> None:
    check('type: "Reduction"', (5,), oracle=lambda x: x.sum())


def test_asum_has_no_gradient_at_0() -> None:
    x = torch.tensor([-2.0, 0, 3], requires_grad=True)
    build('type: "Reduction" reduction_param { operation: ASUM coeff: 2 }', (3,))(x).backward()
    assert x.grad is not None and x.grad.tolist() == [-2, 0, 2]


@pytest.mark.parametrize(("axis", "shape"), [(4, SHAPE), (-5, SHAPE), (0, ())])
def test_reduction_refuses_other_axes(axis: int, shape: tuple[int, ...]) -> None:
    with pytest.raises(
        CaffeError, match=rf"layer 'l' \(Reduction\): axis {axis} is out of range for a blob of {len(shape)} dim"
    ):
        build(f'type: "Reduction" reduction_param {{ axis: {axis} }}', shape)
