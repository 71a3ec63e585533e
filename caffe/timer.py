"""``caffe.Timer`` and ``caffe.NCCL``."""

from __future__ import annotations

import time
from typing import Any

import torch

from caffe import mode
from caffe.errors import ArgumentError


class Timer:
    """Milliseconds between ``start`` and ``stop``, the GPU's work included."""

    def __init__(self) -> None:
        self._began: float | None = None
        self._ms = 0.0

    def start(self) -> None:
        self._began = _now()

    def stop(self) -> None:
        """Keep the time since ``start``; 0 where there was none."""
        if self._began is not None:
            self._ms = (_now() - self._began) * 1000
        self._began = None

    @property
    def ms(self) -> float:
        """The time kept; a running timer is stopped first."""
        self.stop()
        return self._ms


class NCCL:
    """Caffe's way to several GPUs from Python, which is not here: raises ArgumentError."""

    def __init__(self, *_: Any) -> None:
        raise ArgumentError("NCCL: train on several GPUs by `caffecli train --gpu 0,1` (or all), a process each")

    @staticmethod
    def new_uid() -> bytes:
        raise ArgumentError("NCCL: train on several GPUs by `caffecli train --gpu 0,1` (or all), a process each")


def _now() -> float:
    if mode.device().type == "cuda":
        torch.cuda.synchronize(mode.device())
    return time.perf_counter()
