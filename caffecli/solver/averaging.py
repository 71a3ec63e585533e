"""Mean diffs over all ranks, on their way while the backward pass still runs.

As DistributedDataParallel does; but that must run each forward pass itself. Here layer-by-layer runs,
blobs that no loss reaches, and diffs added up over ``iter_size`` passes are no special cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from caffecli.solver.parallel import World

#: bytes of diffs that are sent together: large enough that the cost of a message does not matter
BUCKET = 1 << 20


class Averaging:
    """Averages the diffs of ``blobs``, given in the net's order, and the loss.

    Blobs get their diffs last layer first. As soon as all of a bucket have theirs, its sum over the ranks begins,
    bucket after bucket, in the same order on all ranks.
    """

    def __init__(self, world: World, blobs: Sequence[Tensor]) -> None:
        self._world = world
        self._buckets = list(_buckets([blob for blob in blobs if blob.requires_grad]))
        self._missing = [0] * len(self._buckets)
        self._begun: list[Sum] | None = None
        for index, bucket in enumerate(self._buckets):
            for blob in bucket:
                blob.register_post_accumulate_grad_hook(self._counter(index))  # type: ignore[no-untyped-call]

    def begin(self, loss: Tensor) -> None:
        """The next backward pass is the last of this iteration; ``loss`` is to be averaged too."""
        self._missing = [len(bucket) for bucket in self._buckets]
        self._begun = []
        self._loss = Sum(self._world, [loss])

    def finish(self) -> None:
        """The pass is over: replace the diffs, missing ones being 0, and the loss by their means."""
        self._missing = [0] * len(self._buckets)
        begun = self._send()
        self._begun = None
        for part in (self._loss, *begun):
            part.finish()

    def _counter(self, index: int) -> Callable[[Tensor], None]:
        def count(_blob: Tensor) -> None:
            if self._begun is not None:
                self._missing[index] -= 1
                self._send()

        return count

    def _send(self) -> list[Sum]:
        """Begin the sums of the next buckets, as far as their diffs are there; returns all sums begun so far."""
        begun = self._begun if self._begun is not None else []
        while len(begun) < len(self._buckets) and self._missing[len(begun)] == 0:
            begun.append(Sum(self._world, [_diff(blob) for blob in self._buckets[len(begun)]]))
        return begun


class Sum:
    """Tensors whose mean over the ranks is being computed."""

    @torch.no_grad()
    def __init__(self, world: World, tensors: list[Tensor]) -> None:
        self._tensors, self._size = tensors, world.size
        self._flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        self._wait = world.begin_sum(self._flat)

    @torch.no_grad()
    def finish(self) -> None:
        """Wait for the sum, and write the means into the diffs."""
        self._wait()
        self._flat /= self._size
        parts = torch.split(self._flat, [tensor.numel() for tensor in self._tensors])
        torch._foreach_copy_(self._tensors, [part.view(t.shape) for part, t in zip(parts, self._tensors, strict=True)])


def _diff(blob: Tensor) -> Tensor:
    if blob.grad is None:
        blob.grad = torch.zeros_like(blob)
    return blob.grad


def _buckets(blobs: list[Tensor]) -> Iterator[list[Tensor]]:
    """The blobs, last first, in groups of at least BUCKET bytes."""
    bucket: list[Tensor] = []
    for blob in reversed(blobs):
        bucket.append(blob)
        if sum(b.numel() * b.element_size() for b in bucket) >= BUCKET:
            yield bucket
            bucket = []
    if bucket:
        yield bucket
