"""What fillers cannot say of the zoo's nets."""

from __future__ import annotations

import numpy as np


def interpolation(shape: tuple[int, ...]) -> np.ndarray:
    """Weights of a Deconvolution that enlarges each channel by itself, bilinearly: (channels, channels, size, size).

    ``shape`` is that of its weights; the size is twice the stride. Caffe's bilinear filler fills all pairs of channels
    instead.
    """
    channels, size = shape[0], shape[-1]
    factor = (size + 1) // 2
    centre = factor - (1 if size % 2 else 0.5)
    side = 1 - abs(np.arange(size) - centre) / factor
    weights = np.zeros(shape, np.float32)
    weights[range(channels), range(channels)] = np.outer(side, side)
    return weights
