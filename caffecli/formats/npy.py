"""NumPy's files of arrays, .npy and .npz, without objects: reading those runs what they say."""

from __future__ import annotations

import os
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import FormatError
from caffecli.formats.atomic import cannot_read
from caffecli.formats.bounds import check_unpacked
from caffecli.host import check_file

#: what NumPy raises for a damaged file
_ERRORS = (
    ValueError, EOFError, KeyError, AttributeError, TypeError, IndexError, OverflowError, RecursionError, MemoryError,
    SyntaxError, NotImplementedError, FloatingPointError, tokenize.TokenError, struct.error, zlib.error,
    zipfile.BadZipFile, OSError,
)  # fmt: skip


def read(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The array of numbers in a .npy file, not yet read into memory. Raises FormatError."""
    _check(path)
    try:
        with np.errstate(over="raise"):  # of a shape that no file has
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except _ERRORS as error:
        raise FormatError(f"{str(path)!r} is no .npy file of numbers, or damaged ({_words(error)})") from error
    if array.dtype.kind not in "fiub":
        raise FormatError(f"{str(path)!r}: expected an array of numbers, it has {array.dtype}")
    return array


def read_npz(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """The arrays in a .npz file, by name. Raises FormatError."""
    _check(path)
    try:
        with Path(path).open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            check_unpacked(path, sum(info.file_size for info in file.zip.infolist()))
            return {name: np.asarray(file[name]) for name in file.files}  # other files of a zip come as bytes
    except _ERRORS as error:
        raise FormatError(
            f"{str(path)!r} is not an npz file of numbers, or damaged ({_words(error)}); save it again"
        ) from error


def _check(path: str | os.PathLike[str]) -> None:
    try:
        check_file(path)
    except OSError as error:
        raise cannot_read(path, error) from error


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
