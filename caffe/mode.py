"""What Caffe sets for the whole process: CPU or GPU, the random seed, the count of solvers, the log.

Unlike in Caffe, where each thread has settings of its own, a setting holds for all threads.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from caffe.errors import ArgumentError
from caffecli import logs
from caffecli.proto.caffe_pb2 import TEST, TRAIN

if TYPE_CHECKING:  # else where it is needed: a program may read files alone
    import torch


class _State:
    gpu = False
    phase: int = TEST
    device = 0
    seed: int | None = None
    solver_count = 1
    solver_rank = 0
    multiprocess = False
    log: logs.StderrHandler | None = None


_state = _State()


def set_mode_cpu() -> None:
    """Run on the CPU, from the next pass on."""
    _state.gpu = False


def set_mode_gpu() -> None:
    """Run on the GPU of ``set_device``, from the next pass on. Raises ArgumentError where there is none."""
    import torch

    if not torch.cuda.is_available():
        raise ArgumentError(
            "set_mode_gpu: no GPU that can be used; call set_mode_cpu, or install a driver and a torch with CUDA"
        )
    _state.gpu = True


def set_phase_train() -> None:
    """Nets made from now on without a phase get phase TRAIN, as in Caffe of 2014."""
    _state.phase = TRAIN


def set_phase_test() -> None:
    """Nets made from now on without a phase get phase TEST, as in Caffe of 2014; that is so at the start too."""
    _state.phase = TEST


def phase() -> int:
    """The phase of a net that is made without one."""
    return _state.phase


def set_device(gpu_id: int) -> None:
    """Use that GPU when in GPU mode. Raises ArgumentError where there is none of that number."""
    import torch

    count = torch.cuda.device_count()
    if not 0 <= gpu_id < max(count, 1) or (count == 0 and _state.gpu):
        raise ArgumentError(f"set_device({gpu_id}): there are {count} GPUs, counted from 0")
    _state.device = gpu_id


def device() -> torch.device:
    """Where nets run now."""
    import torch

    return torch.device("cuda", _state.device) if _state.gpu else torch.device("cpu")


def set_random_seed(seed: int) -> None:
    """Seed fillers, dropout and the data layers of nets made from now on."""
    import torch

    _state.seed = int(seed)
    torch.manual_seed(_state.seed)


def seed() -> int | None:
    """What ``set_random_seed`` was last given."""
    return _state.seed


def solver_count() -> int:
    """How many solvers train together, as ``set_solver_count`` has it; 1 unless set."""
    return _state.solver_count


def set_solver_count(count: int) -> None:
    _state.solver_count = int(count)


def solver_rank() -> int:
    """The number of this solver: data layers of its TRAIN nets start at this
    record and read every ``solver_count``-th.
    """
    return _state.solver_rank


def set_solver_rank(rank: int) -> None:
    _state.solver_rank = int(rank)


def set_multiprocess(multiprocess: bool) -> None:
    """Whether the solvers are processes of their own; kept for programs that say so."""
    _state.multiprocess = bool(multiprocess)


def shard() -> tuple[int, int]:
    """Which part of the records a training net's data layers serve: (rank, count)."""
    rank, count = _state.solver_rank, _state.solver_count
    return (rank, count) if 0 <= rank < count else (0, 1)


def has_nccl() -> bool:
    """False: several GPUs are trained by ``caffecli train --gpu``, a process each."""
    return False


def init_log(level: int | None = None, stderr: bool = True) -> None:
    """Show the log on stderr from ``level`` on: 0 info, 1 warning, 2 error, 3 nothing of ours.

    Without a call it is shown from the level of ``GLOG_minloglevel`` on, which is 0 unless set; so it is without a
    ``level``. Not ``stderr``: show nothing.
    """
    logs.show_by_default(False)
    if _state.log is not None:
        logs.hide(_state.log)
        _state.log = None
    if not stderr:
        return
    _state.log = logs.show()
    if level is not None:
        shown = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)[max(0, min(3, int(level)))]
        logging.getLogger("caffecli").setLevel(shown)


def log(text: str) -> None:
    """Log a line."""
    logs.info("_caffe.cpp:61", str(text))


def layer_type_list() -> list[str]:
    """All layer types that a net may have."""
    from caffecli.layers import registry

    return registry.types()
