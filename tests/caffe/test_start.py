"""What importing caffe brings in, and nets in processes that are forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(program: str, folder: Path, threads: str = "2") -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads, "GLOG_minloglevel": "3"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_needs_no_torch(tmp_path: Path) -> None:
    program = """
import sys
from caffe.proto import caffe_pb2
import caffe
from caffe import layers as L, params as P
caffe.set_mode_cpu()
caffe.io.Transformer({"data": (1, 3, 4, 4)})
caffe.NetSpec(), caffe.TRAIN, caffe.io.caffe_pb2.Datum()
print("torch" in sys.modules)
caffe.Net, caffe.Layer, caffe.SGDSolver, caffe._caffe.Blob, caffe.pycaffe.Net, caffe.classifier.Classifier
print("torch" in sys.modules, set(caffe.__all__) <= set(dir(caffe)))
"""
    assert run(program, tmp_path).split() == ["False", "True", "True"]


def test_no_net_imports_torchs_compiler(tmp_path: Path) -> None:
    """A net of each layer type, as the contract tries them: torch._dynamo takes a second or two."""
    program = """
import os, sys
from pathlib import Path
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.spec import text
from tests.layers import cases, contract
cases.write_files(Path())
sys.path.insert(0, os.getcwd())
for name, case in cases.CASES.items():
    Net(text.parse(contract.net_text(name, case), NetParameter())).close()
    assert "torch._dynamo" not in sys.modules, name
print(len(cases.CASES))
"""
    assert int(run(program, tmp_path)) > 70


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_runs_nets(tmp_path: Path) -> None:
    """Those that its parent has built and run, and its own; on several threads it would wait for ever."""
    program = """
import multiprocessing, warnings
import numpy as np
import caffe
warnings.simplefilter("ignore")
text = '''
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 8 dim: 16 dim: 32 dim: 32 } } }
layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 32 kernel_size: 3
  weight_filler { type: "constant" value: 0.1 } } }
layer { name: "r" type: "ReLU" bottom: "c" top: "r" }
layer { name: "ip" type: "InnerProduct" bottom: "r" top: "ip" inner_product_param { num_output: 64
  weight_filler { type: "constant" value: 0.001 } } }'''
open("net.prototxt", "w").write(text)
def result(net):
    net.blobs["x"].data[...] = 1
    return round(float(net.forward()["ip"].mean()), 3)
net = caffe.Net("net.prototxt", caffe.TEST)
expected = result(net)
def own(_): return result(caffe.Net("net.prototxt", caffe.TEST))
def parents(_): return result(net)
for work in (own, parents):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map_async(work, range(3)).get(timeout=30) == [expected] * 3
print(expected)
"""
    assert float(run(program, tmp_path)) > 0
