"""The values of a blob: a tensor, until the user asks for an array; then host memory that NumPy arrays share."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from caffecli.layers.blob_array import BlobArray

Floats = NDArray[Any]
Shape = Sequence[int]

#: a blob of at most so many values stays in host memory, once there: copying costs less than new memory
_FEW = 4096


class Memory:
    """One blob's data, or its diff; several blobs may share it, each with a shape of its own.

    Until ``array`` is first called this is the tensor that a layer has made, which costs nothing. From then on it is
    host memory at a fixed address: what layers make is copied into it, and layers read what the user writes there. When
    a layer makes new values and the user has kept no array, it is again the layer's tensor.
    """

    def __init__(self) -> None:
        self._dtype = torch.float32
        self._made: Tensor | None = None
        self._host: Tensor | None = None
        #: ``_host`` as an array, to which all arrays given to the user refer
        self._base: Floats | None = None
        #: ``_host`` in the last shape asked for, as a tensor and as an array
        self._view: Tensor | None = None
        self._array: Floats | None = None
        #: rises whenever layers put values here
        self.version = 0

    @property
    def exposed(self) -> bool:
        """Whether the user may hold an array of it."""
        return self._host is not None

    def array(self, shape: Shape) -> Floats:
        """The values in C order, writable; arrays taken before show the same memory, unless the count has grown."""
        if self._array is None or self._array.shape != shape:
            self._exposed(shape)
            self._array = self._base[: math.prod(shape)].reshape(tuple(shape))  # type: ignore[index]
        return self._array.view()

    def tensor(self, shape: Shape, device: torch.device) -> Tensor:
        """The values as a layer reads them; not to be written into."""
        if self._host is not None:
            made = self._exposed(shape)
        elif self._made is None:
            return torch.zeros(tuple(shape), device=device)
        else:
            made = self._fitting(shape)
        return made if made.device == device else made.to(device)

    def take_type(self, dtype: torch.dtype) -> None:
        """Hold numbers of this type, float32 at first; arrays taken before no longer show the values."""
        if dtype != self._dtype:
            self._dtype = dtype
            self._host = self._base = self._view = self._array = None

    def write(self, value: Tensor) -> None:
        """Write the values into host memory, where arrays that are taken, or were, show them."""
        self.version += 1
        self._made = None
        self._exposed(value.shape).copy_(value.detach())

    def adopt(self, other: Memory) -> None:
        """Let the arrays that were taken of ``other`` show the values from now on, where none were taken of this."""
        if self._host is None and other._host is not None:
            if self._made is not None:
                other._exposed(self._made.shape).copy_(self._made)
            self._host, self._base, self._made = other._host, other._base, None

    def touched(self) -> None:
        """A layer has written new values into an array of it."""
        self.version += 1

    def release(self) -> None:
        """Free the memory of values that a layer is about to make anew, so that it can be used for them."""
        self._made = None

    def put(self, value: Tensor) -> None:
        """Let ``value`` be the values."""
        self.version += 1
        if self._host is not None and self._host.numel() > _FEW and not self._held():
            self._host = self._base = self._view = self._array = None
        if self._host is None:
            self._made = value
        else:
            self._exposed(value.shape).copy_(value)

    def _held(self) -> bool:
        """Whether the user still holds an array."""
        return self._references() > _OWN + (self._array is not None)

    def _references(self) -> int:
        return sys.getrefcount(self._base)

    def add(self, value: Tensor) -> None:
        """Add ``value`` to the values."""
        if self._host is not None:
            self._exposed(value.shape).add_(value.to(self._host.device))
        else:
            self._made = value.clone() if self._made is None else self._made + value
        self.version += 1

    def clear(self) -> None:
        """Let all values be 0."""
        self.version += 1
        self._made = None
        if self._host is not None:
            self._host.zero_()

    def written(self, value: Tensor, version: int) -> bool:
        """Whether the user has changed the values since ``value`` was put, as ``version``."""
        if self._host is None or self.version != version:
            return False
        now = self._exposed(value.shape)
        if now.data_ptr() == value.data_ptr():
            return False
        return not torch.equal(now, value.to(now.device, now.dtype))

    def _exposed(self, shape: Shape) -> Tensor:
        count = math.prod(shape)
        if self._host is None or self._host.numel() < count:
            self._grow(shape, count)
        if self._view is None or self._view.shape != shape:
            self._view = self._host[:count].view(tuple(shape))  # type: ignore[index]
        return self._view

    def _grow(self, shape: Shape, count: int) -> None:
        """Move the values to host memory for ``count`` of them,
        which can be written into outside inference mode too.
        """
        with torch.inference_mode(False):
            if self._host is not None:
                self._host = torch.cat([self._host, self._host.new_zeros(count - self._host.numel())])
            else:
                self._host = torch.zeros(count, dtype=self._dtype)
                if self._made is not None:
                    self._host.copy_(self._fitting(shape).reshape(-1))
        self._base = self._host.numpy().view(BlobArray)
        self._made = self._view = self._array = None

    def _fitting(self, shape: Shape) -> Tensor:
        """The layer's tensor in ``shape``; where the counts differ, cut off or filled up with zeros."""
        made: Tensor = self._made  # type: ignore[assignment]
        count = math.prod(shape)
        if made.numel() != count:
            flat = made.reshape(-1)
            short = count - flat.numel()
            made = torch.cat([flat, flat.new_zeros(short)]) if short > 0 else flat[:count]
        return made.reshape(tuple(shape))


def _unseen() -> Memory:
    memory = Memory()
    memory._grow((1,), 1)
    return memory


#: the reference count of an array that only its Memory refers to; measured, as it depends on the version of Python
_OWN = _unseen()._references()
