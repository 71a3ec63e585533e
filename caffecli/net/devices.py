"""CPU or CUDA, as flags and solver files ask for it."""

from __future__ import annotations

import torch

from caffecli import logs
from caffecli.errors import SolverError


def choose(gpu: str | None, cpu: bool, wanted_by: str = "") -> torch.device:
    """The first device that ``choose_all`` finds:
    as in Caffe, ``test`` and ``time`` run on the first of those named.
    """
    return choose_all(gpu, cpu, wanted_by)[0]


def choose_all(gpu: str | None, cpu: bool, wanted_by: str = "") -> list[torch.device]:
    """The devices for ``--gpu`` (ids, or ``all``) and ``--cpu``, which goes before it; without ``gpu``, the CPU.

    ``wanted_by`` says who asked for the GPU when no flag did (``solver_mode: GPU``). Raises SolverError when it is not
    there.
    """
    if cpu and gpu:
        logs.warning("caffe.cpp:197", f"--cpu goes before --gpu {gpu}: leave out the one that is not meant")
    if cpu or not gpu:
        return [torch.device("cpu")]
    asked = wanted_by or f"--gpu {gpu}"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        remedy = "write solver_mode: CPU in the solver, or run with --cpu" if wanted_by else "run with --cpu"
        raise SolverError(f"{asked} asks for a GPU and there is none that PyTorch can use; {remedy}")
    ids = list(range(count)) if gpu == "all" else _ids(gpu)
    for index in ids:
        if not 0 <= index < count:
            raise SolverError(f"{asked}: there is no GPU {index}; there are {count}, counted from 0; or run with --cpu")
    if len(set(ids)) < len(ids):
        raise SolverError(f"{asked} names a GPU twice; name each once")
    return [torch.device("cuda", index) for index in ids]


def of_rank(found: list[torch.device], rank: int) -> torch.device:
    """The device of process ``rank`` of this machine under torchrun:
    the one of that number among several, or GPU ``rank``.
    """
    if found[0].type == "cpu":
        return found[0]
    if len(found) == 1 and rank:
        found = [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    if rank >= len(found):
        raise SolverError(
            f"process {rank} of this machine has no GPU: there are {len(found)}; lower --nproc-per-node, or --cpu"
        )
    return found[rank]


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SolverError(f"--gpu {text}: expected 'all' or device numbers such as 0 or 0,1") from None


def log_train(devices: list[torch.device]) -> None:
    """What Caffe's train says of the devices."""
    if devices[0].type == "cpu":
        logs.info("caffe.cpp:197", "Use CPU.")
        return
    logs.info("caffe.cpp:204", f"Using GPUs {', '.join(str(device.index) for device in devices)}")
    for device in devices:
        logs.info("caffe.cpp:209", f"GPU {device.index}: {torch.cuda.get_device_name(device)}")


def log_use(device: torch.device, line: int) -> None:
    """What Caffe's test and time say of the device."""
    if device.type == "cpu":
        logs.info(f"caffe.cpp:{line}", "Use CPU.")
    else:
        logs.info(f"caffe.cpp:{line - 8}", f"Use GPU with device ID {device.index}")
        logs.info(f"caffe.cpp:{line - 5}", f"GPU device name: {torch.cuda.get_device_name(device)}")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
