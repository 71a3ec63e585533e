"""Blobs of 0 to 5 axes, through every file that holds them and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from caffecli.cli.upgrade import upgrade_net_proto_binary
from caffecli.formats import caffemodel, solverstate
from caffecli.formats.solverstate import SolverState
from caffecli.net import weights
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import BlobProto, LayerParameter, NetParameter, SolverParameter
from caffecli.solver.solver import Solver
from caffecli.spec import text
from converters.convert_weights import convert_weights

SHAPES = [(), (1,), (3,), (2, 3), (1, 2, 3), (2, 1, 3, 1), (1, 2, 1, 2, 3)]
FORMS = ["caffemodel", "caffemodel.h5", "npz", "safetensors"]

shapes = pytest.mark.parametrize("shape", SHAPES, ids=str)


def values(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).normal(size=shape), np.float32)


def net_text(shape: tuple[int, ...]) -> str:
    """A net that learns one blob, whose sum is the loss."""
    dims = " ".join(f"dim: {dim}" for dim in shape)
    return (
        'name: "axes" layer '
        f'{{ name: "p" type: "Parameter" top: "p" loss_weight: 1 parameter_param {{ shape {{ {dims} }} }} }}'
    )


def same(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)


@shapes
@pytest.mark.parametrize("form", FORMS)
def test_weights(shape: tuple[int, ...], form: str, tmp_path: Path) -> None:
    array = values(shape)
    source, target, back = tmp_path / "a.caffemodel", tmp_path / f"b.{form}", tmp_path / "c.caffemodel.h5"
    caffemodel.write(source, NetParameter(layer=[LayerParameter(name="p", type="Parameter")]), {"p": [array]})
    convert_weights(source, target)
    convert_weights(target, back)
    same(caffemodel.read(back)["p"][0], array)


@shapes
@pytest.mark.parametrize("raw_type", ["FLOAT", "DOUBLE", "FLOAT16"])
def test_nvidias_weights(shape: tuple[int, ...], raw_type: str, tmp_path: Path) -> None:
    array = np.asarray(np.round(values(shape)), np.float32)
    net = NetParameter(layer=[LayerParameter(name="p", type="Parameter")])
    caffemodel.write(tmp_path / "a.caffemodel", net, {"p": [array]}, raw_type=raw_type)
    same(caffemodel.read(tmp_path / "a.caffemodel")["p"][0], array)


@shapes
@pytest.mark.parametrize("ending", ["", ".h5"])
def test_history(shape: tuple[int, ...], ending: str, tmp_path: Path) -> None:
    array = values(shape)
    solverstate.write(tmp_path / f"a.solverstate{ending}", SolverState(7, history=[array]))
    same(solverstate.read(tmp_path / f"a.solverstate{ending}").history[0], array)


def test_a_blob_of_no_axes_has_no_shape_in_a_file_as_in_caffe(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(name="p", type="Parameter")])
    caffemodel.write(tmp_path / "a.caffemodel", net, {"p": [values(())]}, {"p": [values(())]})
    (blob,) = NetParameter.FromString((tmp_path / "a.caffemodel").read_bytes()).layer[0].blobs
    assert not blob.HasField("shape")
    assert len(blob.data) == len(blob.diff) == 1


@shapes
def test_upgraded_weights(shape: tuple[int, ...], tmp_path: Path) -> None:
    array = values(shape)
    net = text.parse(net_text(shape), NetParameter())
    caffemodel.write(tmp_path / "a.caffemodel", net, {"p": [array]})
    files = [str(tmp_path / "a.caffemodel"), str(tmp_path / "b.caffemodel")]
    upgrade_net_proto_binary.main(files, standalone_mode=False)
    same(caffemodel.read(tmp_path / "b.caffemodel")["p"][0], array)


@shapes
def test_io(shape: tuple[int, ...]) -> None:
    array = values(shape)
    blob = BlobProto.FromString(caffe.io.array_to_blobproto(array, array).SerializeToString())
    same(caffe.io.blobproto_to_array(blob), array)
    same(caffe.io.blobproto_to_array(blob, return_diff=True), array)


@shapes
@pytest.mark.parametrize("ending", ["", ".h5"])
def test_nets_of_python(shape: tuple[int, ...], ending: str, tmp_path: Path) -> None:
    array = values(shape)
    (tmp_path / "net.prototxt").write_text(net_text(shape))
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.params["p"][0].data[...] = array
    assert net.forward()["p"].shape == shape
    path = str(tmp_path / f"a.caffemodel{ending}")
    (net.save_hdf5 if ending else net.save)(path)
    other = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST, weights=path)
    same(other.params["p"][0].data, array)
    same(other.forward()["p"], array)


@shapes
@pytest.mark.parametrize("snapshot_format", ["BINARYPROTO", "HDF5"])
@pytest.mark.parametrize("rule", ["SGD", "Adam"])
def test_resumed(shape: tuple[int, ...], snapshot_format: str, rule: str, tmp_path: Path) -> None:
    def solver() -> Solver:
        param = SolverParameter(base_lr=0.1, lr_policy="fixed", momentum=0.9, max_iter=9, type=rule, snapshot_diff=True)
        param.train_net_param.CopyFrom(text.parse(net_text(shape), NetParameter()))
        param.snapshot_format = SolverParameter.SnapshotFormat.Value(snapshot_format)
        param.snapshot_prefix = str(tmp_path / "s")
        return Solver(param)

    first = solver()
    first.step(3)
    _, state = first.snapshot()
    first.step(2)
    second = solver()
    second.restore(state)
    second.step(2)
    (before,), (after,) = (weights.export(one.net)["p"] for one in (first, second))
    assert before.any()
    same(after, before)


def test_what_an_earlier_version_wrote_with_one_axis_still_fits(tmp_path: Path) -> None:
    net = text.parse(net_text(()), NetParameter())
    caffemodel.write(tmp_path / "old.caffemodel", net, {"p": [values((1,))]})
    made = Net(net)
    weights.load(made, tmp_path / "old.caffemodel")
    same(weights.export(made)["p"][0], values((1,)).reshape(()))
