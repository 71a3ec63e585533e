"""Several processes that train one net, each on a device of its own, by torch.distributed.

As in Caffe, each takes a batch of its own, record i going to rank i mod n, and the diffs are averaged, so that n processes do
what one does with n times the batch. NCCL carries what lies on CUDA devices, gloo the rest and the agreements.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from caffecli import logs
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
    _hush(int(os.environ["RANK"]))
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


# -- processes of our own --------------------------------------------------------------------------------------------------


def launch(target: Callable[[World, list[torch.device], T], bool], devices: list[torch.device], job: T) -> bool:
    """Run ``target`` in a process for each device; returns what rank 0 returns. All end when one fails.

    SIGINT, SIGHUP and SIGTERM go to rank 0, which tells the others. Raises SolverError, naming the rank that failed.
    """
    context = multiprocessing.get_context("spawn")
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    heard = len(logging.getLogger("caffecli").handlers) > 1
    processes: list[SpawnProcess] = []
    pipes: list[Connection] = []
    try:
        for rank in range(len(devices)):
            ours, theirs = context.Pipe(duplex=False)
            place = (World(rank, len(devices)), store.port, devices, heard)
            processes.append(context.Process(target=_start, args=(place, theirs, target, job), name=f"rank {rank}"))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        with _forwarding(processes[0]):
            ended = _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return _outcome(processes, ended, [_received(pipe) for pipe in pipes])


def _wait(processes: list[SpawnProcess]) -> list[int]:
    """Until all have ended, those that do not by themselves after another's failure being ended; returns the others, in order."""
    ended: list[int] = []
    end: float | None = None
    while len(ended) < len(processes):
        left = None if end is None else max(0.0, end - time.monotonic())
        if left == 0.0:
            break
        wait([p.sentinel for i, p in enumerate(processes) if i not in ended], left)
        for i, process in enumerate(processes):
            if i not in ended and process.exitcode is not None:
                ended.append(i)
                if process.exitcode and end is None:
                    end = time.monotonic() + GRACE
    return ended


def _outcome(processes: list[SpawnProcess], ended: list[int], reports: list[tuple[str, Any]]) -> bool:
    """What rank 0 returned; or the error of the rank that failed first, not of those that missed it."""
    for rank, (kind, value) in enumerate(reports):
        if kind == "failed":
            raise SolverError(f"rank {rank}: {value}")
    for rank in ended:
        code = processes[rank].exitcode
        if reports[rank][0] == "silent" and code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise SolverError(f"rank {rank} {how}; resume from the last snapshot")
    for kind, value in reports:
        if kind == "lost":
            raise SolverError(value)
    return bool(reports[0][1])


def _received(pipe: Connection) -> tuple[str, Any]:
    try:
        report: tuple[str, Any] = pipe.recv()
    except (EOFError, OSError):
        return "silent", None
    return report


@contextlib.contextmanager
def _forwarding(first: SpawnProcess) -> Iterator[None]:
    """Hand the signals that a run listens to on to rank 0."""

    def hand_on(number: int, frame: object) -> None:
        if first.pid is not None and first.exitcode is None:
            os.kill(first.pid, number)

    names = [name for name in ("SIGINT", "SIGHUP", "SIGTERM") if hasattr(signal, name)]
    here = threading.current_thread() is threading.main_thread()
    before = {name: signal.signal(signal.Signals[name], hand_on) for name in names if here}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(signal.Signals[name], handler)


def _start(
    place: tuple[World, int, list[torch.device], bool], pipe: Connection, target: Callable[..., bool], job: object
) -> None:
    """The life of one process."""
    world, port, devices, heard = place
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which hands it on once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _hush(world.rank)
    if heard and world.rank == 0:
        logs.show()
    try:
        store = TCPStore("127.0.0.1", port, is_master=False, timeout=TIMEOUT)
        own = devices[world.rank]
        world.connect(store, own, name_the_dead=False)
        pipe.send(("done", target(world, [own, *(d for d in devices if d != own)], job)))
        world.close()
        code = 0
    except BaseException as error:
        words = " ".join(str(error).split())
        kind = "lost" if isinstance(error, PeerLost) else "failed"
        pipe.send((kind, words if isinstance(error, CaffeError) else f"{type(error).__name__}: {words}".rstrip(": ")))
        code = 1
    logging.shutdown()
    os._exit(code)  # NCCL would wait for peers that have gone


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _hush(rank: int) -> None:
    """Only rank 0 logs."""
    if rank:
        logging.getLogger("caffecli").disabled = True
