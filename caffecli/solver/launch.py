"""Starting a process for each device, watching over them, and ending all when one fails."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, TypeVar

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from caffecli.errors import CaffeError, SolverError, words_of
from caffecli.formats import log_file
from caffecli.solver.parallel import GRACE, TIMEOUT, PeerLost, World, silence_log

T = TypeVar("T")

#: how processes begin, by multiprocessing's word: each imports torch anew, as one forked after CUDA began could not run
START: Literal["spawn", "forkserver"] = "spawn"
#: the key in the store that rank 0 sets once it handles signals
_LISTENS = "listens"


def launch(target: Callable[[World, list[torch.device], T], bool], devices: list[torch.device], job: T) -> bool:
    """Run ``target`` in a process for each device; returns what rank 0 returns. All end when one fails.

    SIGINT, SIGHUP and SIGTERM go to rank 0, which tells the others. Raises SolverError, naming the rank that failed.
    """
    context: Any = multiprocessing.get_context(START)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    outlets = log_file.outlets()
    processes: list[BaseProcess] = []
    pipes: list[Connection] = []
    try:
        with _ignoring_ctrl_c():
            for rank in range(len(devices)):
                ours, theirs = context.Pipe(duplex=False)
                place = (World(rank, len(devices)), store.port, devices, outlets)
                processes.append(context.Process(target=_start, args=(place, theirs, target, job), name=f"rank {rank}"))
                processes[-1].start()
                theirs.close()
                pipes.append(ours)
        with _forwarding(processes[0], store):
            ended = _wait(processes)
    finally:
        for process in processes:
            process.kill()
            process.join()
    return _outcome(processes, ended, [_received(pipe) for pipe in pipes])


def _wait(processes: list[BaseProcess]) -> list[int]:
    """Wait until all have ended, or GRACE seconds after one has failed; returns those that ended, in order."""
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


def _outcome(processes: list[BaseProcess], ended: list[int], messages: list[tuple[str, Any]]) -> bool:
    """What rank 0 returned; or the error of the rank that failed first, not of those that then lost it as a peer."""
    for rank, (kind, value) in enumerate(messages):
        if kind == "failed":
            raise SolverError(f"rank {rank}: {value}")
    for rank in ended:
        code = processes[rank].exitcode
        if messages[rank][0] == "silent" and code:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise SolverError(f"rank {rank} {how}; resume from the last snapshot")
    for kind, value in messages:
        if kind == "lost":
            raise SolverError(value)
    return bool(messages[0][1])


def _received(pipe: Connection) -> tuple[str, Any]:
    try:
        message: tuple[str, Any] = pipe.recv()
    except (EOFError, OSError):
        return "silent", None
    return message


@contextlib.contextmanager
def _forwarding(first: BaseProcess, store: TCPStore) -> Iterator[None]:
    """Hand the signals that a run listens to on to rank 0, once it is there to listen."""

    def hand_on(number: int, frame: object) -> None:
        if number == signal.SIGINT and not store.check([_LISTENS]):
            raise KeyboardInterrupt
        if first.pid is not None and first.exitcode is None:
            os.kill(first.pid, number)

    with _handled(hand_on, "SIGINT", "SIGHUP", "SIGTERM"):
        yield


def _ignoring_ctrl_c() -> contextlib.AbstractContextManager[None]:
    """Processes started while this is entered ignore SIGINT, until they handle it."""
    return _handled(signal.SIG_IGN, "SIGINT")


@contextlib.contextmanager
def _handled(handler: Any, *names: str) -> Iterator[None]:
    here = threading.current_thread() is threading.main_thread()
    before = {name: signal.signal(signal.Signals[name], handler) for name in names if here and hasattr(signal, name)}
    try:
        yield
    finally:
        for name, old in before.items():
            signal.signal(signal.Signals[name], old)


def _start(
    place: tuple[World, int, list[torch.device], log_file.Outlets],
    pipe: Connection,
    target: Callable[..., bool],
    job: object,
) -> None:
    """The main function of one process."""
    world, port, devices, outlets = place
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which hands it on once
    threading.Thread(target=_end_with_parent, daemon=True).start()
    silence_log(world.rank)
    try:
        if world.rank == 0:
            log_file.open_outlets(outlets)
        store = TCPStore("127.0.0.1", port, is_master=False, timeout=TIMEOUT)
        own = devices[world.rank]
        world.connect(store, own, report_missing=False)
        if world.rank == 0:
            store.set(_LISTENS, "")
        pipe.send(("done", target(world, [own, *(d for d in devices if d != own)], job)))
        world.close()
        code = 0
    except BaseException as error:
        words = " ".join(words_of(error).split())
        kind = "lost" if isinstance(error, PeerLost) else "failed"
        pipe.send((kind, words if isinstance(error, CaffeError) else f"{type(error).__name__}: {words}".rstrip(": ")))
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # NCCL would wait for peers that have gone


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
