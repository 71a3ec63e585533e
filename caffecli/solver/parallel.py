"""Several processes that train one net, each on a device of its own, by torch.distributed.

As in Caffe, each process takes its own batch (record i goes to rank i mod n) and the diffs are averaged, so that n
processes compute what one does with a batch n times as large. CUDA tensors go through NCCL, all others through gloo.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from caffecli.errors import CaffeError, SolverError
from caffecli.solver.signals import Action

T = TypeVar("T")

#: how long to wait for a peer that does not answer; one that has ended is noticed at once
TIMEOUT = timedelta(minutes=5)
#: seconds that processes get to end by themselves once one has failed
GRACE = 5.0

_URGENCY = (Action.NONE, Action.SNAPSHOT, Action.STOP)


class PeerLost(SolverError):
    """Another process has ended, or does not answer."""


class World:
    """This process among ``size`` that train together: its ``rank`` from 0, and what they tell each other.

    Rank 0 writes the snapshots and the log. All ranks start from rank 0's weights, frozen ones and buffers included. In
    training each rank keeps BatchNorm statistics of its own batches; rank 0's go into snapshots, and to all ranks
    before
    a test. All ranks must call the methods in the same order; in a world of one they do nothing. The methods raise
    PeerLost when another rank has ended.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._store: Store | None = None

    def connect(self, store: Store, device: torch.device, report_missing: bool) -> None:
        """Join the other ranks.

        ``report_missing``: errors name the ranks that have ended, where no parent process does so.
        """
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with self._peers():
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        self._store = store if report_missing else None

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    def begin_sum(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace ``tensor`` by its sum over the ranks; returns a function that waits for the end of it."""
        with self._peers():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with self._peers():
                work.wait()

        return wait

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks; all go in one message."""
        if self.size == 1:
            return
        flat = torch.cat([t.reshape(-1) for t in tensors])
        with self._peers():
            dist.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [t.numel() for t in tensors])
        torch._foreach_copy_(list(tensors), [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)])

    @torch.no_grad()
    def share(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of rank 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            flat = tensor.detach().contiguous()
            with self._peers():
                dist.broadcast(flat, 0)
            if self.rank:
                tensor.copy_(flat)

    def gather(self, value: T) -> list[T]:
        """What each rank gives, in the order of the ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._peers():
            dist.all_gather_object(values, value)
        return values

    def agreed(self, requested: Callable[[], Action]) -> Callable[[], Action]:
        """``requested`` with the same answer on all ranks: STOP if one of them says so, else SNAPSHOT if one does."""
        if self.size == 1:
            return requested

        def ask() -> Action:
            wish = torch.tensor(_URGENCY.index(requested()))
            with self._peers():
                dist.all_reduce(wish, dist.ReduceOp.MAX)
            return _URGENCY[int(wish)]

        return ask

    def portion(self, count: int) -> tuple[int, int]:
        """This rank's part of the ``count`` batches of a test: its first, and one past its last."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    @contextlib.contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            gone = f"rank {', '.join(map(str, self._missing()))}" if self._store is not None else "another rank"
            raise PeerLost(f"rank {self.rank}: {gone} has ended or does not answer; see its own messages") from error

    def _missing(self) -> list[int]:
        """The ranks that have ended: each one that is left sets a key in the store; those without a key are missing."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        store = self._store
        with contextlib.suppress(RuntimeError):
            store.set(f"left/{self.rank}", "1")  # type: ignore[union-attr]
            end = time.monotonic() + GRACE / 2
            while len(others) > 1 and time.monotonic() < end:
                others = [rank for rank in others if not store.check([f"left/{rank}"])] or others  # type: ignore[union-attr]
                time.sleep(0.1)
            return others
        return [0]  # rank 0 keeps the store


# -- processes that torchrun has started --------------------------------------------------------------------


def given_rank() -> int | None:
    """This process's number on its machine if ``torchrun`` has started it, else None.

    Silences the log of all but rank 0.
    """
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    silence_log(int(os.environ["RANK"]))
    return int(os.environ["LOCAL_RANK"])


def join(target: Callable[[World, list[torch.device], T], bool], device: torch.device, job: T) -> bool:
    """Run ``target`` as one process of the world that torchrun's environment variables describe.

    Errors name the rank.
    """
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if world.size == 1:
        return target(world, [device], job)
    try:
        store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        world.connect(store, device, report_missing=True)
        done = target(world, [device], job)
    except PeerLost:
        raise
    except CaffeError as error:
        raise type(error)(f"rank {world.rank}: {error}") from error.__cause__
    world.close()
    return done


def silence_log(rank: int) -> None:
    """Turn the log off, except on rank 0."""
    if rank:
        logging.getLogger("caffecli").disabled = True
