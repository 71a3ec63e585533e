"""Pictures that a formula draws, those that pycaffe's answers in ``tests/golden/pycaffe`` are about."""

from __future__ import annotations

from typing import Any

import numpy as np


def picture(height: int, width: int, channels: int, seed: int = 0, low: float = 0.0, high: float = 1.0) -> Any:
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    wave = np.sin(0.37 * y + 0.61 * x * (1 + seed) + 1.3 * c) * np.cos(0.11 * x * y + seed)
    return (low + (high - low) * (wave + 1) / 2).astype(np.float32)
