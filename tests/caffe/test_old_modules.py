"""The modules of Caffe's own package that programs import from."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

import caffe


@pytest.mark.parametrize("module", ["caffe.pycaffe", "caffe._caffe"])
def test_they_have_the_very_names(module: str) -> None:
    old = importlib.import_module(module)
    assert old.__all__
    for name in old.__all__:
        assert getattr(old, name) is getattr(caffe, name)


def test_caffe_pb2_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(caffe.__file__).parent / "proto")
    monkeypatch.delitem(sys.modules, "caffe_pb2", raising=False)
    assert importlib.import_module("caffe_pb2") is caffe.proto.caffe_pb2
    monkeypatch.delitem(sys.modules, "caffe_pb2")
