"""Several processes that train one net, each on a device of its own, by torch.distributed.

As in Caffe, each takes a batch of its own, record i going to rank i mod n, and the diffs are averaged, so that n processes do
what one does with n times the batch. NCCL carries what lies on CUDA devices, gloo the rest and the agreements.
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

#: for a peer that is there and does not answer; one that has died is noticed at once
TIMEOUT = timedelta(minutes=5)
#: seconds that processes get to end by themselves once one has failed
GRACE = 5.0

_URGENCY = (Action.NONE, Action.SNAPSHOT, Action.STOP)


class PeerLost(SolverError):
    """Another process has ended, or does not answer."""


class World:
    """This process among ``size`` that train together: its ``rank`` from 0, and what they tell each other.

    Rank 0 writes the snapshots and the log. Weights, frozen ones and buffers too, start as rank 0 has them. In training each rank
    keeps BatchNorm statistics of its own batches; those of rank 0 go into snapshots, and to all before a test. Every method is to
    be called by all ranks in the same order; in a world of one, none does anything. Raise PeerLost when another rank has ended.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank = rank
        self.size = size
        self._store: Store | None = None

    def connect(self, store: Store, device: torch.device, name_the_dead: bool) -> None:
        """Meet the other ranks. ``name_the_dead``: find out who has gone when one has, as nobody else will tell."""
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(device)
        with self._peers():
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=TIMEOUT)
        self._store = store if name_the_dead else None

    def close(self) -> None:
        if self.size > 1:
            dist.destroy_process_group()

    def begin_sum(self, tensor: Tensor) -> Callable[[], None]:
        """Begin to replace ``tensor`` by its sum over the ranks; what is returned waits until that has happened."""
        with self._peers():
            work = dist.all_reduce(tensor, async_op=True)

        def wait() -> None:
            with self._peers():
                work.wait()

        return wait

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks: all are sent at once."""
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
        """``requested`` for all ranks alike: a stop that one of them wants, else a snapshot."""
        if self.size == 1:
            return requested

        def ask() -> Action:
            wish = torch.tensor(_URGENCY.index(requested()))
            with self._peers():
                dist.all_reduce(wish, dist.ReduceOp.MAX)
            return _URGENCY[int(wish)]

        return ask

    def portion(self, count: int) -> tuple[int, int]:
        """The first and last + 1 of the ``count`` batches of a test that are this rank's."""
        return self.rank * count // self.size, (self.rank + 1) * count // self.size

    @contextlib.contextmanager
    def _peers(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            gone = f"rank {', '.join(map(str, self._missing()))}" if self._store is not None else "another rank"
            raise PeerLost(f"rank {self.rank}: {gone} has ended or does not answer; see its own messages") from error

    def _missing(self) -> list[int]:
        """The ranks that do not notice, within moments, that one is missing."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        store = self._store
        with contextlib.suppress(RuntimeError):
            store.set(f"left/{self.rank}", "1")  # type: ignore[union-attr]
            end = time.monotonic() + GRACE / 2
            while len(others) > 1 and time.monotonic() < end:
                others = [rank for rank in others if not store.check([f"left/{rank}"])] or others  # type: ignore[union-attr]
                time.sleep(0.1)
            return others
        return [0]  # it is rank 0 that keeps the store


# -- processes that someone else has started: torchrun --------------------------------------------------------------------


def given_rank() -> int | None:
    """This process's number on its machine where ``torchrun`` has started it, else None; all but rank 0 fall silent."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return None
    hush(int(os.environ["RANK"]))
    return int(os.environ["LOCAL_RANK"])


def join(target: Callable[[World, list[torch.device], T], bool], device: torch.device, job: T) -> bool:
    """Run ``target`` as one process of the world that the environment tells of. Errors name the rank."""
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    if world.size == 1:
        return target(world, [device], job)
    try:
        store, _, _ = next(rendezvous("env://", timeout=TIMEOUT))
        world.connect(store, device, name_the_dead=True)
        done = target(world, [device], job)
    except PeerLost:
        raise
    except CaffeError as error:
        raise type(error)(f"rank {world.rank}: {error}") from error.__cause__
    world.close()
    return done


def hush(rank: int) -> None:
    """Only rank 0 logs."""
    if rank:
        logging.getLogger("caffecli").disabled = True
