"""Mean images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import blob, mean


def test_reads_the_reference_and_writes_the_same_bytes(golden: Path, tmp_path: Path) -> None:
    for path in (golden / "cifar10_quick" / "mean.binaryproto", golden / "tools" / "resized_mean.binaryproto"):
        array = mean.read(path)
        assert array.ndim == 3
        mean.write(tmp_path / "out", array)
        assert (tmp_path / "out").read_bytes() == path.read_bytes()


def test_reads_new_shapes(tmp_path: Path) -> None:
    for shape in ((2, 3, 4), (1, 2, 3, 4)):
        (tmp_path / "m").write_bytes(blob.from_array(np.arange(24.0).reshape(shape)).SerializeToString())
        assert mean.read(tmp_path / "m").shape == (2, 3, 4)


def test_wrong_files_are_named(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a mean image: it is a caffemodel"):
        mean.read(golden / "lenet" / "lenet_iter_10000.caffemodel")
    with pytest.raises(FormatError, match="is not a mean image: it is text"):
        mean.read(golden / "README.md")
    (tmp_path / "m").write_bytes(blob.from_array(np.zeros((2, 2, 3, 4))).SerializeToString())
    with pytest.raises(FormatError, match=r"/m': expected one mean image, .* it has shape \(2, 2, 3, 4\)"):
        mean.read(tmp_path / "m")
    data = (golden / "cifar10_quick" / "mean.binaryproto").read_bytes()
    (tmp_path / "m").write_bytes(data[:5000])
    with pytest.raises(FormatError, match="is not a mean image: it is damaged or truncated"):
        mean.read(tmp_path / "m")
    with pytest.raises(FormatError, match=r"expected a mean of \(channels, height, width\), got shape \(3,\)"):
        mean.write(tmp_path / "m", np.zeros(3))
