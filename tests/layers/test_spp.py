"""SPP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.errors import CaffeError
from caffecli.proto.caffe_pb2 import TEST
from tests.layers.oracle import build, check, distinct, run_golden


def test_golden(golden: Path) -> None:
    run_golden(golden / "layers", "spp")


def pyramid(x: np.ndarray, height: int, pool: Callable[[np.ndarray, int], np.ndarray]) -> np.ndarray:
    """Each level's windows one by one; ``pool`` takes a window, cut to the image, and its size before that."""
    image, rows = x.shape[2:], []
    for bins in (2**level for level in range(height)):
        kernel = [-(-n // bins) for n in image]
        pad = [(k * bins - n + 1) // 2 for n, k in zip(image, kernel, strict=True)]
        top = np.empty((*x.shape[:2], bins, bins))
        for place in np.ndindex(bins, bins):
            begin = [i * k - p for i, k, p in zip(place, kernel, pad, strict=True)]
            size = [min(b + k, n + p) - b for b, k, n, p in zip(begin, kernel, image, pad, strict=True)]
            cut = tuple(slice(max(b, 0), min(b + k, n)) for b, k, n in zip(begin, kernel, image, strict=True))
            whole = (Ellipsis,)
            top[whole + place] = pool(x[whole + cut].reshape(*x.shape[:2], -1), size[0] * size[1])
        rows.append(top.reshape(len(x), -1))
    return np.concatenate(rows, 1) if height > 1 else top


POOLS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "MAX": lambda window, size: window.max(-1),
    "AVE": lambda window, size: window.sum(-1) / size,
}


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("height", "image"), [(1, (5, 3)), (2, (5, 4)), (3, (9, 8)), (3, (7, 11)), (3, (4, 4)), (4, (15, 22)), (2, (2, 3))]
)
def test_spp(pool: str, height: int, image: tuple[int, int]) -> None:
    text = f'type: "SPP" spp_param {{ pyramid_height: {height} pool: {pool} engine: CUDNN }}'
    check(text, (2, 3, *image), oracle=lambda x: pyramid(x, height, POOLS[pool]))


def test_spp_takes_the_maximum() -> None:
    check('type: "SPP" spp_param { pyramid_height: 2 }', (2, 3, 6, 5), oracle=lambda x: pyramid(x, 2, POOLS["MAX"]))


def test_stochastic_takes_the_weighted_mean_in_test_phase() -> None:
    text = 'type: "SPP" spp_param { pyramid_height: 3 pool: STOCHASTIC }'
    x = np.abs(distinct(2, 3, 8, 4))
    weighted = pyramid(x, 3, lambda window, size: (window**2).sum(-1) / window.sum(-1))
    check(text, x.shape, inputs=[x], oracle=lambda _: weighted, phase=TEST, gradient=False)


def test_stochastic_draws_values_of_its_windows() -> None:
    layer = build('type: "SPP" spp_param { pyramid_height: 1 pool: STOCHASTIC }', (4000, 1, 1, 2))
    torch.manual_seed(0)
    y = layer(torch.tensor([1.0, 3]).expand(4000, 1, 1, 2))
    assert set(y.unique().tolist()) == {1, 3} and abs((y == 3).float().mean() - 0.75) < 0.03


def test_pictures_of_any_size_give_as_many_values() -> None:
    layer = build('type: "SPP" spp_param { pyramid_height: 3 }', (2, 3, 9, 8))
    x = distinct(1, 3, 13, 6)
    np.testing.assert_allclose(layer(torch.from_numpy(x)).numpy(), pyramid(x, 3, POOLS["MAX"]), rtol=1e-6)
    with pytest.raises(CaffeError, match=r"a bottom of \[13, 1\] is too small for a grid of 2 by 2"):
        layer(torch.rand(1, 3, 13, 1))


@pytest.mark.parametrize(
    ("settings", "shape", "words"),
    [
        ("", (2, 3, 9, 8), "pyramid_height is missing; expected at least 1"),
        ("pyramid_height: 0", (2, 3, 9, 8), "pyramid_height is missing"),
        ("pyramid_height: 1", (2, 3, 9), r"expected a bottom of 4 axes .* that is not empty, got \(2, 3, 9\)"),
        ("pyramid_height: 1", (2, 3, 0, 9), r"expected a bottom of 4 axes .* that is not empty, got \(2, 3, 0, 9\)"),
        (
            "pyramid_height: 4",
            (2, 3, 5, 9),
            r"a bottom of \[5, 9\] is too small for a grid of 4 by 4; expected .* at most 2, got 4",
        ),
        ("pyramid_height: 4000000000", (2, 3, 5, 9), "too small"),
        (
            "pyramid_height: 2 pool: STOCHASTIC",
            (2, 3, 4, 5),
            r"a grid of 2 by 2 does not divide a bottom of \[4, 5\], and padding",
        ),
    ],
)
def test_refuses(settings: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(
        CaffeError, match=rf"layer 'l' \(SPP\): .*{words}" if words == "too small" else rf"layer 'l' \(SPP\): {words}"
    ):
        build(f'type: "SPP" spp_param {{ {settings} }}', shape)
