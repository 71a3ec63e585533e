"""Nets out: safetensors, torch.export programs and ONNX give the net's own outputs."""

from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from caffecli.errors import CaffeError, FormatError, SpecError
from caffecli.formats import caffemodel, mean, safetensors
from caffecli.layers.activation import ReLU
from caffecli.net import exported
from caffecli.proto.caffe_pb2 import TEST
from converters import export
from scripts.zoo import made_up
from tests.converters.nets import EXPORTED, ROOT

SMALL = ["lenet", "cifar10_quick", "cifar10_full"]
LARGE = sorted(EXPORTED - {*SMALL})
#: nets for pictures of any size, which are to be small here
ANY_SIZE = ("fcn8s", "fcn16s", "fcn32s", "parsenet", "hed")
#: runs a program in a process that cannot import caffecli
ALONE = """
import sys; sys.modules["caffecli"] = None
import numpy, torch
made = torch.export.load(sys.argv[1])
(y,) = made.module()(torch.from_numpy(numpy.load(sys.argv[2])))
numpy.save(sys.argv[3], y.detach().numpy())
"""


def outputs(net, inputs):
    with torch.no_grad():
        return [top.numpy() for top in net(dict(zip(net.inputs, inputs, strict=True))).values()]


def write_net(tmp_path, body, shape="dim: 1 dim: 3 dim: 8 dim: 8"):
    path = tmp_path / "net.prototxt"
    path.write_text(
        f'name: "n" layer {{ name: "in" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}\n{body}'
    )
    return path


def test_state_dict_has_caffes_names_shapes_and_definition(tmp_path, golden):
    weights = golden / "lenet" / "lenet_iter_10000.caffemodel"
    out = tmp_path / "lenet.safetensors"
    assert export.export(ROOT / "models/lenet/deploy.prototxt", weights, "torch", out) == [out]
    arrays, texts = safetensors.read(out)
    stored = caffemodel.read(weights)
    assert list(arrays) == [
        f"{layer}.{blob}" for layer in ("conv1", "conv2", "ip1", "ip2") for blob in ("weight", "bias")
    ]
    for layer in ("conv1", "conv2", "ip1", "ip2"):
        for blob, array in zip(("weight", "bias"), stored[layer], strict=True):
            np.testing.assert_array_equal(arrays[f"{layer}.{blob}"], array)
    assert json.loads(texts["caffe.blobs"])["conv1"] == ["weight", "bias"]
    assert 'type: "Convolution"' in texts["caffe.net"]


def test_program_runs_without_caffecli_on_any_batch(tmp_path, golden):
    weights = golden / "lenet" / "lenet_iter_10000.caffemodel"
    files = export.export(ROOT / "models/lenet/deploy.prototxt", weights, "torch", tmp_path / "lenet")
    assert files == [tmp_path / "lenet.safetensors", tmp_path / "lenet.pt2"]
    net = export.build(ROOT / "models/lenet/deploy.prototxt", weights)
    (x,) = made_up.inputs(net, 5).values()
    np.save(tmp_path / "x.npy", x.numpy())
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        ALONE,
        str(files[1]),
        str(tmp_path / "x.npy"),
        str(tmp_path / "y.npy"),
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), outputs(net, [x])[0], atol=1e-6)
    with exported.quiet():
        made = torch.export.load(files[1])
    assert list(made.state_dict) == list(exported.state(net))


def session_of(net):
    """The net as onnxruntime reads it, from a program with a free batch."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    made = exported.program(net)
    assert all(exported.free_batch(made))
    with exported.quiet():
        model = export._onnx(made, net.inputs, net.outputs)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [x.name for x in session.get_inputs()] == net.inputs
    assert [x.name for x in session.get_outputs()] == net.outputs
    return session


def onnx_equals_net(net, share=1.0):
    """To 1e-5 of the largest value, or of 1; so that ``share`` of the values is."""
    session = session_of(net)
    for size in (1, 3):
        inputs = made_up.inputs(net, size)
        came = session.run(None, {name: x.numpy() for name, x in inputs.items()})
        for expected, array in zip(outputs(net, inputs.values()), came, strict=True):
            assert array.shape == expected.shape
            assert np.quantile(np.abs(array - expected), share) <= 1e-5 * max(1, np.abs(expected).max())


def deploy_of(name, tmp_path):
    """The deploy net with made-up weights; for small pictures where it takes any."""
    path = ROOT / "models" / name / "deploy.prototxt"
    if name in ANY_SIZE:
        (tmp_path / "net.prototxt").write_text(path.read_text().replace("dim: 500", "dim: 96"))
        path = tmp_path / "net.prototxt"
    return made_up.weights(export.build(path, None))


@pytest.mark.parametrize("name", SMALL)
def test_onnx_of_the_small_nets(name, tmp_path):
    onnx_equals_net(deploy_of(name, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in LARGE if name != "s2vt"])
def test_onnx_of_the_large_nets(name, tmp_path):
    # SegNet puts values back where the largest was: of two that are nearly equal, rounding decides, and with it of a
    # patch
    onnx_equals_net(deploy_of(name, tmp_path), share=0.75 if name == "segnet" else 1)


@pytest.mark.slow
def test_onnx_of_s2vt(tmp_path):
    recurrent_equals_net(deploy_of("s2vt", tmp_path))


def recurrent_equals_net(net):
    """Three batches, each from the states that the last one ended with; other numbers of streams than the net's."""
    whole = exported.exposed(net)
    session = session_of(whole)
    carried = [name for name in whole.inputs if name not in net.inputs]
    for streams in (1, 3):
        states = {name: np.zeros((1, streams, whole.shape(name)[2]), np.float32) for name in carried}
        for batch in range(3):
            inputs = {name: torch.randn(net.shape(name)[0], streams, *net.shape(name)[2:]) for name in net.inputs}
            inputs |= {name: (torch.rand(x.shape) < 0.7).float() for name, x in inputs.items() if x.dim() == 2}
            came = session.run(None, {name: x.numpy() for name, x in inputs.items()} | states)
            came = dict(zip(whole.outputs, came, strict=True))
            for name, expected in zip(net.outputs, outputs(net, inputs.values()), strict=True):
                np.testing.assert_allclose(
                    came[name], expected, rtol=1e-5, atol=1e-5, err_msg=f"{name} of batch {batch}"
                )
            states = {name: came[name[:-1] + "T"] for name in carried}


#: what Caffe does in its own way
BODIES = {
    "flatten": 'type: "Flatten"',
    "reshape": 'type: "Reshape" reshape_param { shape { dim: 0 dim: -1 dim: 4 } }',
    "average with padding": 'type: "Pooling" pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 }',
    "max with a window dropped": 'type: "Pooling" pooling_param { kernel_size: 2 stride: 3 pad: 1 }',
    "deep padding": 'type: "Pooling" pooling_param { pool: AVE kernel_size: 4 stride: 3 pad: 3 }',
    "LRN": 'type: "LRN" lrn_param { local_size: 3 alpha: 0.5 }',
    "LRN within": 'type: "LRN" lrn_param { norm_region: WITHIN_CHANNEL local_size: 3 }',
    "PReLU": 'type: "PReLU"',
    "the last of equals": 'type: "Threshold" } '
    'layer { name: "m" bottom: "y" top: "m" type: "ArgMax" argmax_param { top_k: 3 }',
    "places and values": 'type: "ArgMax" argmax_param { top_k: 5 out_max_val: true }',
    "deconvolution": 'type: "Deconvolution" '
    "convolution_param { num_output: 3 group: 3 kernel_size: 4 stride: 2 pad: 1 }",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_onnx_of_caffes_own_ways(body, tmp_path):
    body = f'layer {{ name: "y" bottom: "data" top: "y" {body} }}'
    onnx_equals_net(made_up.weights(export.build(write_net(tmp_path, body), None)))


CONT = 'layer { name: "cont" type: "Input" top: "cont" input_param { shape { dim: 4 dim: 2 } } }'


@pytest.mark.parametrize("type", ["LSTM", "RNN"])
def test_onnx_takes_and_gives_what_recurrent_layers_carry(type, tmp_path):
    body = f"""{CONT}
    layer {{ name: "a" type: "{type}" bottom: "data" bottom: "cont" top: "a" recurrent_param {{ num_output: 5 }} }}
    layer {{ name: "b" type: "{type}" bottom: "a" bottom: "cont" top: "b" recurrent_param {{ num_output: 3 }} }}"""
    net = made_up.weights(export.build(write_net(tmp_path, body, "dim: 4 dim: 2 dim: 6"), None))
    whole = exported.exposed(net)
    states = [f"{layer}_{state}_0" for layer in "ab" for state in ("hc" if type == "LSTM" else "h")]
    assert whole.inputs == [*net.inputs, *states]
    assert sorted(whole.outputs) == sorted([*net.outputs, *(name[:-1] + "T" for name in states)])
    assert exported.state(whole).keys() == exported.state(net).keys()
    recurrent_equals_net(net)


def test_what_recurrent_layers_carry_is_told(tmp_path, caplog):
    recurrent = "recurrent_param { num_output: 5 }"
    body = f"""{CONT} layer {{ name: "r" type: "RNN" bottom: "data" bottom: "cont" top: "y" {recurrent} }}"""
    definition = write_net(tmp_path, body, "dim: 4 dim: 2 dim: 6")
    caplog.set_level(logging.INFO, "caffecli")
    export.export(definition, None, "torch", tmp_path / "x")
    assert "What recurrent layers carry over: r_h_0 (zeros at first) is what r_h_T was" in caplog.text
    _, texts = safetensors.read(tmp_path / "x.safetensors")
    assert "expose_hidden" not in texts["caffe.net"], "a caffemodel of it is the net's"
    made = torch.export.load(tmp_path / "x.pt2")
    (last, y) = made.module()(torch.randn(4, 3, 6), torch.ones(4, 3), torch.zeros(1, 3, 5))
    assert (last.shape, y.shape) == ((1, 3, 5), (4, 3, 5))


@pytest.mark.parametrize("static", [False, True])
def test_onnx_of_exposed_states(static, tmp_path):
    more = 'layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 2 dim: 7 } } }' if static else ""
    body = f"""{CONT} {more}
    layer {{ name: "h" type: "Input" top: "h" input_param {{ shape {{ dim: 1 dim: 2 dim: 5 }} }} }}
    layer {{ name: "c" type: "Input" top: "c" input_param {{ shape {{ dim: 1 dim: 2 dim: 5 }} }} }}
    layer {{ name: "r" type: "LSTM" bottom: "data" bottom: "cont" {'bottom: "s"' if static else ""} bottom: "h"
      bottom: "c"
             top: "y" top: "h_T" top: "c_T" recurrent_param {{ num_output: 5 expose_hidden: true }} }}"""
    net = made_up.weights(export.build(write_net(tmp_path, body, "dim: 4 dim: 2 dim: 6"), None))
    assert exported.exposed(net) is net
    session = session_of(net)
    for streams in (1, 3):
        inputs = [torch.randn([streams if size == 2 else size for size in net.shape(name)]) for name in net.inputs]
        came = session.run(None, {name: x.numpy() for name, x in zip(net.inputs, inputs, strict=True)})
        for expected, array in zip(outputs(net, inputs), came, strict=True):
            np.testing.assert_allclose(array, expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_go_is_named_all_at_once(tmp_path):
    with pytest.raises(SpecError, match=r"layer 'mnist' \(Data\) reads records; export the deploy net"):
        export.export(ROOT / "models/lenet/train_val.prototxt", None, "torch", tmp_path / "x")
    body = """
    layer { name: "a" type: "Filter" bottom: "data" bottom: "data" top: "a" top: "b" }
    layer { name: "write" type: "HDF5Output" bottom: "a" bottom: "b" hdf5_output_param { file_name: "f.h5" } }
    layer { name: "mine" type: "Python" bottom: "data" top: "c" python_param { module: "m" layer: "L" } }"""
    with pytest.raises(
        SpecError, match=r"'write' \(HDF5Output\) writes a file; layer 'mine' \(Python\) runs Python code"
    ):
        export.export(write_net(tmp_path, body), None, "torch", tmp_path / "x")
    assert list(tmp_path.iterdir()) == [tmp_path / "net.prototxt"]


class ByValue(nn.Module):
    """What a program cannot do: branch by a value."""

    def forward(self, x):
        return x if x.sum() > 0 else -x


def test_what_torch_cannot_trace_is_named_all_at_once(tmp_path, monkeypatch):
    body = "".join(f'layer {{ name: "{n}" type: "ReLU" bottom: "data" top: "{n}" }}' for n in "fgr")
    monkeypatch.setattr(ReLU, "forward", lambda self, x: ByValue()(x) if self.name in "fg" else x.relu())
    with pytest.raises(SpecError, match=r"layer 'f' \(ReLU\): .*; layer 'g' \(ReLU\): ") as caught:
        export.export(write_net(tmp_path, body), None, "torch", tmp_path / "x")
    assert "'r'" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "net.prototxt"]


def test_onnx_without_its_packages(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CaffeError, match=r"--to onnx needs the package onnx; pip install 'caffecli\[onnx\]'"):
        export.export(ROOT / "models/lenet/deploy.prototxt", None, "onnx", tmp_path / "x.onnx")


def test_onnx_of_more_than_2_gb(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    monkeypatch.setattr(export, "_SIZE_LIMIT", 1_700_000)
    with pytest.raises(
        FormatError, match=r"cannot write '.*x\.onnx': 0\.0 GB do not fit .* \(2 GB\); --to torch takes nets of any"
    ):
        export.export(ROOT / "models/lenet/deploy.prototxt", None, "onnx", tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_both_files_or_none(tmp_path):
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(FormatError, match=r"cannot write .*x\.safetensors"):
        export.export(ROOT / "models/lenet/deploy.prototxt", None, "torch", tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_mean(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    mean.write(tmp_path / "mean.binaryproto", array)
    export.export(tmp_path / "mean.binaryproto", None, "npy", tmp_path / "mean.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "mean.npy"), array)
    with pytest.raises(FormatError, match=r"a mean has no weights: leave out 'w'"):
        export.export(tmp_path / "mean.binaryproto", "w", "npy", tmp_path / "other.npy")


def test_phase_is_test(tmp_path):
    body = 'layer { name: "drop" type: "Dropout" bottom: "data" top: "y" }'
    net = export.build(write_net(tmp_path, body), None)
    assert net.phase == TEST
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(exported.program(net).module()(x)[0], x)
