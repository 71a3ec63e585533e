"""--deterministic and --seed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from caffecli.errors import ShapeError, SolverError
from caffecli.formats import caffemodel
from caffecli.solver.deterministic import deterministic
from caffecli.tools.train import TrainOptions, train

Edit = Callable[[str, str, str], None]
SOLVER = Path("solver.prototxt")


def settings() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    where = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    return torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic, where


def weights() -> list[np.ndarray]:
    return [blob for blobs in caffemodel.read(Path("s_iter_20.caffemodel")).values() for blob in blobs]


def same(ours: list[np.ndarray], theirs: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_settings_come_and_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = settings()
    with deterministic():
        assert settings() == (True, False, True, ":4096:8")
        with deterministic():
            pass
        assert settings() == (True, False, True, ":4096:8")
    assert settings() == before
    with deterministic(False):
        assert settings() == before
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic():
        assert settings()[3] == ":16:8"
    assert settings()[3] == ":16:8"


def test_restored_after_an_error() -> None:
    before = settings()
    with pytest.raises(KeyError), deterministic():
        raise KeyError
    assert settings() == before


@pytest.mark.parametrize("kind", [RuntimeError, ShapeError])
def test_what_has_no_deterministic_algorithm_is_named(kind: type[Exception]) -> None:
    text = (
        "kthvalue CUDA does not have a deterministic implementation, but you set "
        "'torch.use_deterministic_algorithms(True)'. You"
    )
    with (
        pytest.raises(
            SolverError, match=r"^--deterministic: PyTorch has no deterministic kthvalue CUDA on this"
        ) as told,
        deterministic(),
    ):
        raise kind(text)
    assert "\n" not in str(told.value)
    with pytest.raises(kind, match="other"), deterministic():
        raise kind("other")


def test_a_deterministic_run(run_folder: Path) -> None:
    seen = []
    forward = torch.nn.functional.conv2d

    def watched(*args: Any, **more: Any) -> torch.Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return forward(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.functional, "conv2d", watched)
        assert train(TrainOptions(SOLVER, deterministic=True))
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
    first = weights()
    assert train(TrainOptions(SOLVER, deterministic=True))
    assert same(weights(), first)


def test_seed_goes_before_random_seed(run_folder: Path, edit: Edit) -> None:
    assert train(TrainOptions(SOLVER))
    seven = weights()
    assert train(TrainOptions(SOLVER, seed=8))
    eight = weights()
    assert not same(seven, eight)
    edit("solver.prototxt", "random_seed: 7", "random_seed: 8")
    assert train(TrainOptions(SOLVER, seed=7))
    assert same(weights(), seven)
    edit("solver.prototxt", "random_seed: 8", "")
    assert train(TrainOptions(SOLVER, seed=8))
    assert same(weights(), eight)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_bit_for_bit_on_cuda(run_folder: Path) -> None:
    assert train(TrainOptions(SOLVER, gpu="0", deterministic=True))
    first = weights()
    assert train(TrainOptions(SOLVER, gpu="0", deterministic=True))
    assert same(weights(), first)
