"""The modules of Caffe's own package that programs import from."""

from __future__ import annotations

import importlib

import pytest

import caffe


@pytest.mark.parametrize("module", ["caffe.pycaffe", "caffe._caffe"])
def test_they_have_the_very_names(module: str) -> None:
    old = importlib.import_module(module)
    assert old.__all__
    for name in old.__all__:
        assert getattr(old, name) is getattr(caffe, name)
