"""CPU or CUDA, as flags and solver files ask for it."""

from __future__ import annotations

import torch

from caffecli import logs
from caffecli.errors import SolverError


def choose(gpu: str | None, cpu: bool, wanted_by: str = "") -> torch.device:
    """The device for ``--gpu`` (an id, or ``all``) and ``--cpu``; without ``gpu``, the CPU.

    ``wanted_by`` says who asked for the GPU when no flag did (``solver_mode: GPU``). Raises SolverError when it is not there.
    """
    if cpu or not gpu:
        return torch.device("cpu")
    asked = wanted_by or f"--gpu {gpu}"
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if count == 0:
        raise SolverError(f"{asked} asks for a GPU and there is none that PyTorch can use; run with --cpu")
    ids = list(range(count)) if gpu == "all" else _ids(gpu)
    for index in ids:
        if not 0 <= index < count:
            raise SolverError(f"{asked}: there is no GPU {index}; there are {count}, counted from 0; or run with --cpu")
    if len(ids) > 1:
        raise SolverError(f"{asked} means {len(ids)} GPUs; this version trains on one: name it, as in --gpu {ids[0]}")
    return torch.device("cuda", ids[0])


def _ids(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise SolverError(f"--gpu {text}: expected 'all' or device numbers such as 0 or 0,1") from None


def log_train(device: torch.device) -> None:
    """What Caffe's train says of the device."""
    if device.type == "cpu":
        logs.info("caffe.cpp:197", "Use CPU.")
    else:
        logs.info("caffe.cpp:204", f"Using GPUs {device.index}")
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
