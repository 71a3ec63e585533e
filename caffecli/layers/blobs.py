"""Blobs as Caffe's Python users know them: ``data`` and ``diff`` as NumPy arrays, and the shape."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from typing import Any

from caffecli.errors import CaffeError, ShapeError
from caffecli.layers.memory import Floats, Memory


class KeywordError(CaffeError, RuntimeError):
    """Arguments by name, which Caffe's functions do not take."""


class Blob:
    """A blob between layers.

    ``data`` and ``diff`` are writable float32 arrays in C order. They stay valid: after a pass they show the new
    values, and what is written into them is what the next pass reads. ``num``, ``channels``, ``height`` and ``width``
    are the shape of a blob of up to four axes, an axis that it lacks 1 long; they raise ShapeError for a blob of more.
    """

    def __init__(self, shape: Iterable[int]) -> None:
        self._shape = tuple(shape)
        self.data_memory = Memory()
        self.diff_memory = Memory()

    @property
    def data(self) -> Floats:
        return self.data_memory.array(self._shape)

    @property
    def diff(self) -> Floats:
        return self.diff_memory.array(self._shape)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        shape = self.shape
        if len(shape) > 4:
            raise ShapeError(
                f"num, channels, height and width are of blobs of at most 4 axes, this one is {shape}; use shape"
            )
        return shape[axis] if axis < len(shape) else 1

    def reshape(self, *dims: int, **settings: Any) -> None:
        """Give the blob another shape; its first values stay.

        Layers follow in the next forward, or in ``Net.reshape``.
        """
        if settings:
            raise KeywordError("Blob.reshape takes no kwargs")
        shape = tuple(int(dim) for dim in dims)
        if any(dim < 0 for dim in shape):
            raise ShapeError(f"expected dims of at least 0, got {shape}")
        self.take_shape(shape)

    def take_shape(self, shape: tuple[int, ...]) -> None:
        """``reshape``, for the engine."""
        self._shape = shape

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.shape}>"


#: a blob's shape, at less cost than the property
shape_of = operator.attrgetter("_shape")


class BlobVec(list[Blob]):
    """The blobs of a layer."""

    def add_blob(self, *dims: int, **settings: Any) -> None:
        """Append a blob of zeros; for the ``setup`` of Python layers."""
        if settings:
            raise KeywordError("BlobVec.add_blob takes no kwargs")
        self.append(Blob(map(int, dims)))
