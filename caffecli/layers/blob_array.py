"""The NumPy arrays in which Python code sees blobs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class BlobArray(np.ndarray[Any, np.dtype[Any]]):
    """An array that is also a number where it has one value, whatever its shape.

    NumPy's arrays were so until 2.4, and Caffe's programs rely on it: ``float(net.blobs["loss"].data)``,
    ``scores[i] = net.forward()["score"][0]``, ``"%f" % loss``. Views, copies and what is computed of it are such arrays
    too; for ``np.asarray``, for files and in what it looks like it is a plain array.
    """

    def __float__(self) -> float:
        return float(self.item()) if self.size == 1 else super().__float__()

    def __int__(self) -> int:
        return int(self.item()) if self.size == 1 else super().__int__()

    def __complex__(self) -> complex:
        return complex(self.item()) if self.size == 1 else super().__complex__()

    def __format__(self, form: str) -> str:
        return format(self.item() if form and self.size == 1 else np.asarray(self), form)

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def __reduce__(self) -> Any:
        return np.asarray(self).__reduce__()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return np.asarray(self).__reduce_ex__(protocol)

    def __array_wrap__(self, array: NDArray[Any], context: Any = None, return_scalar: bool | None = None) -> Any:
        if array is self:
            return array
        if (
            array.shape == () and return_scalar is not False
        ):  # NumPy 1 does not say; scalars are what its own arrays give
            return array[()]
        return array.view(type(self))
