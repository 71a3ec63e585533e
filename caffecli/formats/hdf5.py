"""Opening and writing HDF5 files, with h5py imported only when one is met."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from caffecli.errors import FormatError
from caffecli.formats.atomic import replacing
from caffecli.formats.foreign import HDF5_MAGIC


def is_hdf5_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name is to be written as HDF5, by Caffe's rule: it ends in ``.h5``."""
    return os.fspath(path).endswith(".h5")


def starts_hdf5(data: bytes) -> bool:
    """Whether the bytes begin an HDF5 file."""
    return data.startswith(HDF5_MAGIC)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The HDF5 file opened for reading, as an ``h5py.File``. Raises FormatError when it is damaged."""
    import h5py

    try:
        with h5py.File(os.fspath(path), "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        text = str(error).replace("\n", " ")
        raise FormatError(
            f"cannot read HDF5 file {str(path)!r}: it is damaged or truncated ({text}); copy it again"
        ) from error


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Any]:
    """An ``h5py.File`` to fill, which takes the place of ``path`` when complete. Raises FormatError."""
    import h5py

    # built in memory: the HDF5 library cannot close a file whose disk is full, and would complain again at exit
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        yield file
    with replacing(path) as out:
        out.write(image.getbuffer())


def write_string(group: Any, name: str, text: str) -> None:
    """A string dataset as Caffe's H5LTmake_dataset_string makes it:
    of fixed length, ended by a zero byte that it counts.
    """
    import h5py

    data = text.encode() + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(data))
    dataset = h5py.h5d.create(group.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(data, dtype=f"S{len(data)}"), mtype=kind)


def read_string(dataset: Any) -> str:
    """The text of a string dataset of any of HDF5's kinds."""
    value = dataset[()]
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "surrogateescape")
    return str(value)
