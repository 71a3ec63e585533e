"""mean.binaryproto <-> mean.npy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffecli.errors import FormatError
from converters.means import binaryproto_to_npy, npy_to_binaryproto


def test_round_trip(golden: Path, tmp_path: Path) -> None:
    source = golden / "cifar10_quick" / "mean.binaryproto"
    binaryproto_to_npy(source, tmp_path / "mean.npy")
    assert np.load(tmp_path / "mean.npy").shape == (3, 32, 32)
    npy_to_binaryproto(tmp_path / "mean.npy", tmp_path / "mean.binaryproto")
    assert (tmp_path / "mean.binaryproto").read_bytes() == source.read_bytes()


def test_wrong_files_are_named(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"README.md' is not a numpy array: it is text"):
        npy_to_binaryproto(golden / "README.md", tmp_path / "m")
    np.save(tmp_path / "a.npy", np.array([{}], object))
    with pytest.raises(FormatError, match=r"a.npy': the numpy array is damaged, or of objects"):
        npy_to_binaryproto(tmp_path / "a.npy", tmp_path / "m")
    np.save(tmp_path / "b.npy", np.zeros((2, 2)))
    with pytest.raises(FormatError, match=r"expected a mean of \(channels, height, width\), got shape \(2, 2\)"):
        npy_to_binaryproto(tmp_path / "b.npy", tmp_path / "m")
    np.save(tmp_path / "c.npy", np.array(["x"]))
    with pytest.raises(FormatError, match="expected an array of numbers"):
        npy_to_binaryproto(tmp_path / "c.npy", tmp_path / "m")
    assert not (tmp_path / "m").exists()
