"""mean.binaryproto <-> mean.npy."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from caffecli.errors import FormatError
from caffecli.layers.loss import InfogainLoss
from converters.convert_mean import binaryproto_to_npy, convert_mean, npy_to_binaryproto
from tests.layers.oracle import build


def test_round_trip(golden: Path, tmp_path: Path) -> None:
    source = golden / "cifar10_quick" / "mean.binaryproto"
    binaryproto_to_npy(source, tmp_path / "mean.npy")
    assert np.load(tmp_path / "mean.npy").shape == (3, 32, 32)
    npy_to_binaryproto(tmp_path / "mean.npy", tmp_path / "mean.binaryproto")
    assert (tmp_path / "mean.binaryproto").read_bytes() == source.read_bytes()


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.uint32, st.tuples(*[st.integers(1, 4)] * 3)).map(lambda a: a.view(np.float32)), st.booleans())
def test_any_mean_either_way(array: np.ndarray, batch: bool) -> None:
    """Bit for bit; with a first axis of 1, as binaryprotos have it, too."""
    with tempfile.TemporaryDirectory() as folder:
        npy, proto, back = (Path(folder) / name for name in ("m.npy", "m.binaryproto", "b.npy"))
        np.save(npy, array[None] if batch else array)
        convert_mean(npy, proto)
        convert_mean(proto, back)
        assert np.load(back).shape == array.shape
        assert np.load(back).tobytes() == array.tobytes()


def test_a_matrix_is_one_for_infogain_loss(tmp_path: Path) -> None:
    matrix = np.diag([0.5, 2, 3]).astype(np.float32)
    np.save(tmp_path / "h.npy", matrix)
    convert_mean(tmp_path / "h.npy", tmp_path / "h.binaryproto")
    layer = build(f'type: "InfogainLoss" infogain_loss_param {{ source: "{tmp_path}/h.binaryproto" }}', (2, 3), (2,))
    assert isinstance(layer, InfogainLoss) and layer.matrix is not None
    np.testing.assert_array_equal(layer.matrix, matrix[None, None])


def test_several_means_are_none(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 4, 5)))
    with pytest.raises(FormatError, match=r"expected a mean of \(channels, height, width\), got shape \(2, 3, 4, 5\)"):
        convert_mean(tmp_path / "a.npy", tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_wrong_files_are_named(golden: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"README.md' is not a numpy array: it is text"):
        npy_to_binaryproto(golden / "README.md", tmp_path / "m")
    np.save(tmp_path / "a.npy", np.array([{}], object))
    with pytest.raises(FormatError, match=r"a.npy' is no .npy file of numbers, or damaged .*objects"):
        npy_to_binaryproto(tmp_path / "a.npy", tmp_path / "m")
    np.save(tmp_path / "b.npy", np.zeros(2))
    with pytest.raises(FormatError, match=r"expected a mean of \(channels, height, width\), got shape \(2,\)"):
        npy_to_binaryproto(tmp_path / "b.npy", tmp_path / "m")
    np.save(tmp_path / "c.npy", np.array(["x"]))
    with pytest.raises(FormatError, match="expected an array of numbers"):
        npy_to_binaryproto(tmp_path / "c.npy", tmp_path / "m")
    assert not (tmp_path / "m").exists()
