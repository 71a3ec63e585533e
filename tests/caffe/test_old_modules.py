"""The modules of Caffe's own package that programs import from."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import caffe


@pytest.mark.parametrize("module", ["caffe.pycaffe", "caffe._caffe"])
def test_they_have_the_very_names(module: str) -> None:
    old = importlib.import_module(module)
    assert old.__all__
    own = {"Blob", "BlobVec", "LayerParameter", "Solver", "SolverParameter"}
    for name in set(old.__all__) - own:
        assert getattr(old, name) is getattr(caffe, name, None) or name.endswith("Vec")
    assert getattr(caffe, module.removeprefix("caffe.")) is old


def test_the_types_of_the_compiled_module() -> None:
    types = caffe._caffe
    for kind in ("RawBlob", "Layer", "Net", "Int", "Dtype", "String", "Bool", "Blob"):
        assert issubclass(getattr(types, f"{kind}Vec"), list)
    assert issubclass(caffe.SGDSolver, types.Solver)
    assert types.SolverParameter is caffe.proto.caffe_pb2.SolverParameter
    assert types.LayerParameter is caffe.proto.caffe_pb2.LayerParameter


def test_what_an_import_brings_unasked() -> None:
    program = "import caffe; caffe._caffe.BlobVec, caffe.pycaffe.Net; import PIL; print(PIL.Image.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "PIL.Image\n" or "No module named 'PIL'" in done.stderr


def test_caffe_pb2_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(caffe.__file__).parent / "proto")
    monkeypatch.delitem(sys.modules, "caffe_pb2", raising=False)
    assert importlib.import_module("caffe_pb2") is caffe.proto.caffe_pb2
    monkeypatch.delitem(sys.modules, "caffe_pb2")
