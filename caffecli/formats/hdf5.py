"""Opening and writing HDF5 files, with h5py imported only when one is met."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from caffecli.errors import FormatError
from caffecli.formats.atomic import replacing
from caffecli.formats.blob import Array
from caffecli.formats.bounds import check_unpacked
from caffecli.formats.foreign import HDF5_MAGIC
from caffecli.host import check_file

#: the variable that lets HDF5 files read other files: by external links, external storage, virtual datasets
EXTERNAL = "CAFFECLI_EXTERNAL_FILES"


def is_hdf5_name(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name is to be written as HDF5, by Caffe's rule: it ends in ``.h5``."""
    return os.fspath(path).endswith(".h5")


def starts_hdf5(data: bytes) -> bool:
    """Whether the bytes begin an HDF5 file."""
    return data.startswith(HDF5_MAGIC)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[Any]:
    """The HDF5 file opened for reading, as an ``h5py.File``.

    Raises FormatError when it is damaged, reads other files (unless ``EXTERNAL`` is set), or unpacks to too much.
    """
    import h5py

    try:
        check_file(path)
        with h5py.File(os.fspath(path), "r") as file:
            _check(path, file)
            yield file
    except RecursionError as error:
        raise FormatError(
            f"cannot read HDF5 file {str(path)!r}: its groups contain themselves, or are nested too deeply"
        ) from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        text = str(error).replace("\n", " ")
        raise FormatError(
            f"cannot read HDF5 file {str(path)!r}: it is damaged or truncated ({text}); copy it again"
        ) from error


def numbers(dataset: Any) -> Array:
    """A dataset's numbers as float32. Raises FormatError where it holds something else."""
    if not hasattr(dataset, "shape") or dataset.shape is None or dataset.dtype.kind not in "iufb":
        raise FormatError(
            f"{dataset.file.filename!r}: {dataset.name!r} holds {getattr(dataset, 'dtype', 'no numbers')}, expected "
            "numbers"
        )
    return np.asarray(dataset[()], np.float32)


def _check(path: str | os.PathLike[str], file: Any) -> None:
    """Raise FormatError for links and datasets that read other files, and for more than memory may hold."""
    import h5py

    allowed = bool(os.environ.get(EXTERNAL))
    size = 0
    virtual: list[tuple[str, Any]] = []

    # each gives what reads another file; the first one ends the visit
    def link(name: bytes, info: Any) -> str | None:
        return f"the external link {os.fsdecode(name)!r}" if info.type == h5py.h5l.TYPE_EXTERNAL else None

    def item(name: str, dataset: Any) -> str | None:
        nonlocal size
        if not isinstance(dataset, h5py.Dataset):
            return None
        size += dataset.size * dataset.dtype.itemsize if dataset.size else 0
        sources = dataset.virtual_sources() if dataset.is_virtual else []
        virtual.extend((name, source) for source in sources)
        if allowed:
            return None
        if any(source.file_name != "." for source in sources):
            return f"the virtual dataset {name!r}"
        return f"the external storage of {name!r}" if dataset.external else None

    outside = None if allowed else file.id.links.visit(link, info=True)
    outside = outside or file.visititems(item)
    if outside is not None:
        raise FormatError(f"{str(path)!r} reads another file, by {outside}; set {EXTERNAL}=1 to allow that")
    for name, source in virtual:
        _check_source(path, name, source)
    check_unpacked(path, size)


def _check_source(path: str | os.PathLike[str], name: str, source: Any) -> None:
    """Raise FormatError where a part of a virtual dataset is not there: HDF5 reads zeros in its place."""
    import h5py

    where = Path(path).parent / source.file_name if source.file_name != "." else Path(path)
    if "%b" in source.file_name:  # a row of files; HDF5 ends it at the first that is missing
        where = Path(str(where).replace("%b", "0"))
    where = where if where.exists() else Path(source.file_name)
    try:
        check_file(where)
        with h5py.File(where, "r") as file:
            found = "%b" in source.dset_name or source.dset_name in file
    except OSError:
        found = False
    if not found:
        raise FormatError(
            f"{str(path)!r}: the virtual dataset {name!r} takes {source.dset_name!r} of {source.file_name!r}, which is "
            "not there; copy it beside"
        )


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
