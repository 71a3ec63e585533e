"""Files of regions that may hold an object, proposed before a net learns on them, or looks into them.

An HDF5 file with a dataset for each picture, (count, 4) or more: xmin, ymin, xmax, ymax in pixels of the picture, the
first of which is 0, both ends in the region; further columns, as a score, are not looked at. A dataset is named by its
record's key (``00000003_VOC2007/JPEGImages/000012.jpg``), by that without the number of ``convert_annoset``, or by the
picture's name alone (``000012``).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from caffecli.errors import DataError, FormatError
from caffecli.formats import hdf5
from caffecli.formats.annotated import picture_name
from caffecli.wording import does_not_exist

Regions = NDArray[np.float32]


class Proposals:
    """The regions of a file, all in memory. Raises FormatError for a file that is none."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._regions: dict[str, Regions] = {}
        if not Path(path).is_file():
            raise FormatError(
                does_not_exist("proposals", self.path, "make the file first, by caffecli detect or by h5py")
            )
        with hdf5.reading(path) as file:
            file.visititems(self._add)
        if not self._regions:
            raise FormatError(f"{self.path!r} has no datasets; expected one for each picture, (count, 4)")

    def _add(self, name: str, item: Any) -> None:
        import h5py

        if not isinstance(item, h5py.Dataset):
            return
        values = hdf5.numbers(item)
        if values.ndim != 2 or values.shape[1] < 4 or not np.isfinite(values[:, :4]).all():
            raise FormatError(
                f"{self.path!r}, {name!r}: expected regions (count, 4) of finite numbers, xmin, ymin, xmax, ymax, got "
                f"{values.shape}"
            )
        self._regions[name] = np.ascontiguousarray(values[:, :4])

    def of(self, key: str) -> Regions:
        """The regions of a record, or of a picture, (count, 4). Raises DataError where there are none."""
        for name in names(key):
            if name in self._regions:
                return self._regions[name]
        raise DataError(
            f"{self.path!r} has no regions of {key!r}; expected a dataset of one of the names {', '.join(names(key))}"
        )


def names(key: str) -> list[str]:
    """The names that a picture's dataset may have, the most exact first."""
    picture = picture_name(key)
    return list(dict.fromkeys([key, picture, PurePosixPath(picture).stem]))


def write(path: str | os.PathLike[str], regions: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Write regions by picture: a name, and (count, 4) or more. Raises DataError for a name that cannot be one."""
    with hdf5.writing(path) as file:
        for name, rows in regions:
            try:
                file[name] = np.asarray(rows, np.float32)
            except (ValueError, OSError, RuntimeError) as error:
                raise DataError(
                    f"{os.fspath(path)!r}: {name!r} cannot be the name of a dataset, or is one already ({error})"
                ) from error
