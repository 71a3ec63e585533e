"""Arrays of one value are numbers, as NumPy's were until 2.4; in all else they are plain arrays."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from caffecli.layers.blob_array import BlobArray

SHAPES: list[tuple[int, ...]] = [(), (1,), (1, 1), (1, 1, 1, 1)]


def made(*values: float) -> BlobArray:
    return np.array(values, np.float32).view(BlobArray)


@pytest.mark.parametrize("shape", SHAPES)
def test_one_value_is_a_number(shape: tuple[int, ...]) -> None:
    one = made(2.5).reshape(shape)
    scores = np.zeros(3)
    scores[1] = one
    total = 0.0 + one
    assert scores.tolist() == [0, 2.5, 0] and total == 2.5
    assert (float(one), int(one), complex(one), bool(one), math.sqrt(4 * one + 6)) == (2.5, 2, 2.5, True, 4)
    assert "%f %d %.1f" % (one, one, one / 2) == "2.500000 2 1.2"  # noqa: UP031 - as programs write it
    assert f"{one:.3f}" == f"{one * 1:6.3f}".strip() == "2.500"
    assert float(one.copy()) == float(one[...]) == float(np.abs(one)) == 2.5
    one *= 2
    assert float(one) == 5
    assert float(0.5 * one + np.ones(shape)) == 3.5, "what is computed of it too"


def test_several_values_are_none() -> None:
    for several in (made(1, 2), made()):
        for convert in (float, int, complex):
            with pytest.raises(TypeError):
                convert(several)
        with pytest.raises(TypeError):
            format(several, ".3f")
    assert f"{made(1, 2)}" == "[1. 2.]"


def test_it_is_a_plain_array_elsewhere(tmp_path: Path) -> None:
    array = made(1, 2, 3, 4)
    plain = np.asarray(array)
    assert type(plain) is np.ndarray and np.shares_memory(plain, array) and type(np.array(array)) is np.ndarray
    assert repr(array) == repr(plain) == "array([1., 2., 3., 4.], dtype=float32)" and str(array) == str(plain)
    for result in (array.sum(), array.mean(), array.max(), array.argmax(), array[0], array.std(), array.dot(array)):
        assert isinstance(result, np.generic)
    zero = array[:1].reshape(())
    assert isinstance(zero * 2, np.float32) and isinstance(np.exp(zero), np.float32)
    zero += 1
    assert array[0] == 2 and isinstance(zero, BlobArray), "in place"
    assert type(pickle.loads(pickle.dumps(array))) is np.ndarray
    np.save(tmp_path / "x", array)
    assert np.array_equal(np.load(tmp_path / "x.npy"), array) and np.array_equal(copy.deepcopy(array), array)
    assert torch.from_numpy(array).data_ptr() == plain.ctypes.data
    assert cv2.resize(array.reshape(2, 2), (4, 4)).shape == (4, 4)
