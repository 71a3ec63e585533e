"""HDF5 groups that contain themselves."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest

from caffecli.errors import FormatError
from caffecli.formats import caffemodel


def test_a_group_in_itself(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("data")
        group["data"] = group
        group["above"] = file["/"]
    with pytest.raises(FormatError, match=r"a\.h5': its groups contain themselves"):
        caffemodel.read(tmp_path / "a.h5")
