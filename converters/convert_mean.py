"""convert_mean: mean images, Caffe's mean.binaryproto <-> NumPy's mean.npy; and matrices, for InfogainLoss."""

from __future__ import annotations

import os

import numpy as np

from caffecli.errors import FormatError
from caffecli.formats import mean, npy
from caffecli.formats.atomic import read_bytes, replacing
from caffecli.formats.foreign import describe

_NUMPY = b"\x93NUMPY"


def convert_mean(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the mean in ``source``, of either kind, to ``target``: as .npy where its name says so, else as a
    binaryproto.

    Raises FormatError.
    """
    to_npy = os.fspath(target).endswith(".npy")
    if to_npy and read_bytes(source, 6).startswith(_NUMPY):
        raise FormatError(
            f"{str(source)!r} is a numpy array already; choose for {str(target)!r} a name that ends in .binaryproto"
        )
    (binaryproto_to_npy if to_npy else npy_to_binaryproto)(source, target)


def binaryproto_to_npy(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the mean in ``source`` as a (channels, height, width) float32 array. Raises FormatError."""
    array = mean.read(source)
    with replacing(target) as file:
        np.save(file, array)


def npy_to_binaryproto(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Write the array in ``source``, (channels, height, width) or 1 × that, or a matrix (rows, columns), as a
    binaryproto. Raises FormatError.
    """
    if not read_bytes(source, 6).startswith(_NUMPY):
        raise describe(source, read_bytes(source), "a numpy array")
    array = npy.read(source)
    if array.ndim == 4 and len(array) == 1:
        array = array[0]
    mean.write(target, array[None] if array.ndim == 2 else array)
