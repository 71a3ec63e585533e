"""Diffs averaged while the backward pass runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from caffecli.solver import averaging
from caffecli.solver.averaging import Averaging
from caffecli.solver.parallel import World


class Pair(World):
    """Two ranks whose other one has the same diffs, but for a loss that is larger by 2; remembers what is sent."""

    def __init__(self) -> None:
        super().__init__(0, 2)
        self.sent: list[list[float]] = []

    def begin_sum(self, tensor: Tensor) -> Callable[[], None]:
        self.sent.append(tensor.tolist())
        tensor.mul_(2)
        if len(self.sent) == 1:
            tensor += 2
        return lambda: None


@pytest.fixture
def blobs(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Two buckets: blobs 1 to 3, and blob 0. Blob 1 is frozen."""
    monkeypatch.setattr(averaging, "BUCKET", 16)
    return [torch.ones(n, requires_grad=n != 2) for n in (1, 2, 3, 1)]


def test_sums_begin_in_the_backward_pass(blobs: list[Tensor]) -> None:
    pair = Pair()
    averages, loss = Averaging(pair, blobs), torch.tensor(5.0)
    first, _, third, last = blobs
    (third.sum() * 3).backward()  # an earlier pass of iter_size: nothing is sent
    assert not pair.sent
    averages.begin(loss)
    ((third * first * 2).sum() + last.sum()).backward()
    assert len(pair.sent) == 3
    averages.finish()
    assert pair.sent == [[5.0], [1.0, 5.0, 5.0, 5.0], [6.0]]
    assert float(loss) == 6
    assert [None if b.grad is None else b.grad.tolist() for b in blobs] == [[6.0], None, [5.0, 5.0, 5.0], [1.0]]


def test_a_blob_without_a_diff_holds_nothing_up(blobs: list[Tensor]) -> None:
    pair = Pair()
    averages = Averaging(pair, blobs)
    for _ in range(2):
        pair.sent.clear()
        for blob in blobs:
            blob.grad = None
        averages.begin(torch.tensor(1.0))
        (blobs[0] * 4).sum().backward()
        averages.finish()
        assert pair.sent == [[1.0], [0.0, 0.0, 0.0, 0.0], [4.0]]


def test_a_net_that_learns_nothing() -> None:
    pair, loss = Pair(), torch.tensor(3.0)
    averages = Averaging(pair, [])
    averages.begin(loss)
    averages.finish()
    assert float(loss) == 4
