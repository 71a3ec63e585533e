"""How layers fold into one another, for nets that run and are not trained; ``caffecli merge_bn`` does it.

Behind y = w x + c, a layer a y + b for each channel is the same layer with the weights a w and the bias a c + b. Before
it, a x + b makes the weights w a and the bias c + w b. A class that derives from ``Foldable`` is such a layer a x + b,
one that derives from ``FoldTarget`` is w x + c. All numbers here are float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from caffecli.proto.caffe_pb2 import LayerParameter

Array = NDArray[Any]


class Unfoldable(Exception):
    """Why a layer cannot be folded, in words that follow its name."""


class Foldable:
    """A layer that computes factor * x + shift for each channel (axis 1), of its settings and blobs alone."""

    @classmethod
    def factor_and_shift(cls, param: LayerParameter, blobs: Sequence[Array]) -> tuple[Array, Array]:
        """The factor and the shift of each channel. Raises Unfoldable."""
        raise NotImplementedError


class FoldTarget:
    """A layer that computes weight x + bias, of the blobs weight and, with bias_term, bias.

    ``settings`` in the methods is the message in the field ``fold_settings``.
    """

    #: the field of LayerParameter that has num_output, bias_term and axis
    fold_settings: ClassVar[str]

    @classmethod
    def fold_weight(cls, settings: Any, blob: Array) -> Array:
        """The blob of the weight in the shape that the methods below take."""
        return blob

    @classmethod
    def fold_outputs(cls, settings: Any, weight: Array) -> int:
        """How many output channels the weight has."""
        raise NotImplementedError

    @classmethod
    def fold_behind(cls, settings: Any, weight: Array, factor: Array) -> Array:
        """The weight of factor * (weight x), one factor for each output channel."""
        raise NotImplementedError

    @classmethod
    def fold_before(cls, settings: Any, weight: Array, factor: Array, shift: Array) -> tuple[Array, Array]:
        """The weight and the bias of weight (factor * x + shift), of numbers for each input channel.

        Raises Unfoldable.
        """
        raise NotImplementedError


def fold_rows(rows: Array, groups: int, channels: int, factor: Array, shift: Array) -> tuple[Array, Array]:
    """``fold_before`` for rows (outputs, channels of a group * places), the outputs of a group after those of another.

    Raises Unfoldable where the channels are not as many as the factors.
    """
    if not channels or groups * channels != len(factor) or math.prod(rows.shape[1:]) % channels:
        raise Unfoldable(f"its {len(factor)} channel(s) are not those of the weights, {rows.shape}")
    parts = rows.reshape(groups, len(rows) // groups, channels, -1)
    by_channel = (groups, 1, channels, 1)
    bias = (parts * shift.reshape(by_channel)).sum((2, 3)).ravel()
    return (parts * factor.reshape(by_channel)).reshape(rows.shape), bias


def per_channel(blobs: Sequence[Array]) -> list[Array]:
    """Blobs of one number for each channel, in whatever shape, as vectors."""
    return [np.asarray(blob, np.float64).ravel() for blob in blobs]
