"""Files of proposed regions."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from caffecli.errors import DataError, FormatError
from caffecli.formats.proposals import Proposals, write

REGIONS = np.array([[1, 2, 3, 4, 0.5], [5, 6, 7, 8, 0.25]], np.float32)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("00000003_VOC2007/JPEGImages/000012.jpg", "00000003_VOC2007/JPEGImages/000012.jpg"),
        ("VOC2007/JPEGImages/000012.jpg", "00000003_VOC2007/JPEGImages/000012.jpg"),
        ("000012", "00000003_VOC2007/JPEGImages/000012.jpg"),
        ("street", "street.jpg"),
    ],
)
def test_names(name: str, key: str, tmp_path: Path) -> None:
    write(tmp_path / "p.h5", [("another", REGIONS[:1]), (name, REGIONS)])
    np.testing.assert_array_equal(Proposals(tmp_path / "p.h5").of(key), REGIONS[:, :4])


def test_errors(tmp_path: Path) -> None:
    write(tmp_path / "p.h5", [("a", REGIONS), ("none", np.zeros((0, 4)))])
    proposals = Proposals(tmp_path / "p.h5")
    assert proposals.of("none").shape == (0, 4)
    with pytest.raises(DataError, match=r"has no regions of '00000001_b.jpg'; expected a dataset of one of the names"):
        proposals.of("00000001_b.jpg")
    for name, value, said in (
        ("flat", np.zeros(4), r"'flat': expected regions \(count, 4\) of finite numbers, .* got \(4,\)"),
        ("narrow", np.zeros((2, 3)), r"got \(2, 3\)"),
        ("nan", np.full((2, 4), np.nan), "finite"),
        ("text", np.bytes_(b"x"), "expected numbers"),
    ):
        with h5py.File(tmp_path / "bad.h5", "w") as file:
            file[name] = value
        with pytest.raises(FormatError, match=said):
            Proposals(tmp_path / "bad.h5")
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(FormatError, match="has no datasets"):
        Proposals(tmp_path / "empty.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(FormatError):
        Proposals(tmp_path / "text.h5")
