"""Runs that repeat bit for bit on CUDA too: ``--deterministic``."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator

import torch

from caffecli.errors import CaffeError, SolverError

#: read by cuBLAS at its first use in a process
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_REFUSAL = re.compile(r"([^:]+) does not have a deterministic implementation")


@contextlib.contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """While entered, PyTorch uses only algorithms that give the same bits each time;
    afterwards its settings are restored.

    To be entered before CUDA computes anything in this process. Raises SolverError for an operation that has no such
    algorithm.
    """
    if not wanted:
        yield
        return
    algorithms = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic
    workspace = os.environ.get(_WORKSPACE)
    os.environ.setdefault(_WORKSPACE, ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    try:
        yield
    except (RuntimeError, CaffeError) as error:
        refused = _REFUSAL.search(str(error))
        if refused is None:
            raise
        operation = refused[1].strip()
        raise SolverError(
            f"--deterministic: PyTorch has no deterministic {operation} on this device; "
            "take the layer out, or train without"
        ) from error
    finally:
        torch.use_deterministic_algorithms(algorithms[0], warn_only=algorithms[1])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = cudnn
        if workspace is None:
            os.environ.pop(_WORKSPACE, None)
