"""MVN."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError
from tests.layers.oracle import SHAPE, build, check, distinct, run_golden


def test_golden(golden: Path) -> None:
    run_golden(golden / "layers", "mvn")


def standard(x: np.ndarray, across: bool, eps: float | None) -> np.ndarray:
    """x less its mean and, with ``eps``, over its deviation plus eps; as a blob of 4 axes."""
    x = x.reshape(*x.shape, *(1,) * (4 - x.ndim))
    axes = (1, 2, 3) if across else (2, 3)
    y = x - x.mean(axes, keepdims=True)
    return y if eps is None else y / (x.std(axes, keepdims=True) + eps)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (2, 3, 5), (4, 6), (1, 2, 1, 9)])
def test_mvn(shape: tuple[int, ...], across: bool) -> None:
    setting = f"across_channels: {str(across).lower()}"
    alone = not across and len(shape) == 2  # one value has no deviation, and then no derivative
    check(
        f'type: "MVN" mvn_param {{ {setting} }}', shape, oracle=lambda x: standard(x, across, 1e-9), gradient=not alone
    )
    text = f'type: "MVN" mvn_param {{ {setting} normalize_variance: false eps: 9 }}'
    check(text, shape, oracle=lambda x: standard(x, across, None))


def test_one_axis_is_many_single_values() -> None:
    assert torch.equal(build('type: "MVN"', (5,))(torch.rand(5)), torch.zeros(5, 1, 1, 1))


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("eps", [1e-9, 0.001, 0.5, 2])
def test_eps_is_added_to_the_deviation_and_the_gradient_is_the_references(across: bool, eps: float) -> None:
    text = f'type: "MVN" mvn_param {{ eps: {eps} across_channels: {str(across).lower()} }}'
    check(text, oracle=lambda x: standard(x, across, eps), gradient=False)
    x = torch.from_numpy(distinct(*SHAPE)).requires_grad_()
    g = distinct(*SHAPE, seed=1)
    build(text, SHAPE)(x).backward(torch.from_numpy(g))
    values = x.detach().numpy().astype(np.float64)
    axes = (1, 2, 3) if across else (2, 3)
    y = standard(values, across, eps)
    want = (g - g.mean(axes, keepdims=True) - y * (g * y).mean(axes, keepdims=True)) / (
        values.std(axes, keepdims=True) + eps
    )
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), want, rtol=1e-4, atol=1e-5)


def test_planes_of_one_value() -> None:
    x = torch.zeros(2, 3, 4, 4)
    x[1, 2] = torch.from_numpy(distinct(4, 4))
    x.requires_grad_()
    y = build('type: "MVN" mvn_param { eps: 0.5 }', x.shape)(x)
    g = torch.from_numpy(distinct(*x.shape, seed=1))
    y.backward(g)
    assert not y[0].any() and y[1, 2].all() and x.grad is not None
    torch.testing.assert_close(x.grad[0], (g[0] - g[0].mean((1, 2), keepdim=True)) / 0.5)


def test_a_mean_far_above_the_deviation() -> None:
    noise = distinct(2, 3, 8, 8)
    x = torch.from_numpy(noise * 2**-5 + 256).requires_grad_()
    y = build('type: "MVN"', x.shape)(x)
    want = standard(x.detach().numpy().astype(np.float64), False, 1e-9)
    np.testing.assert_allclose(y.detach().numpy(), want, atol=2e-3)
    g = distinct(*x.shape, seed=1)
    y.backward(torch.from_numpy(g))
    deviation = x.detach().numpy().astype(np.float64).std((2, 3), keepdims=True)
    dx = (g - g.mean((2, 3), keepdims=True) - want * (g * want).mean((2, 3), keepdims=True)) / deviation
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), dx, atol=2e-3 * np.abs(dx).max())


def test_bottoms_of_more_axes() -> None:
    with pytest.raises(
        ShapeError, match=r"layer 'l' \(MVN\): expected a bottom of up to 4 axes .*, got \(2, 3, 4, 5, 6\)"
    ):
        build('type: "MVN"', (2, 3, 4, 5, 6))
