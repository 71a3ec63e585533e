"""Weights: the reference's files, ours, old ones, foreign ones."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from caffecli.errors import FormatError
from caffecli.formats import blob, caffemodel, solverstate
from caffecli.formats.caffemodel import is_absent
from caffecli.proto.caffe_pb2 import BlobProto, LayerParameter, NetParameter, V0LayerParameter, V1LayerParameter

LENET = "lenet/lenet_iter_10000.caffemodel"
CIFAR = "cifar10_quick/cifar10_quick_iter_5000.caffemodel.h5"


def small(*names: str) -> tuple[NetParameter, caffemodel.Weights]:
    rng = np.random.default_rng(0)
    net = NetParameter(name="small", layer=[LayerParameter(name=name, type="InnerProduct") for name in names])
    weights = {name: [rng.normal(size=(3, 2)).astype("f"), rng.normal(size=3).astype("f")] for name in names[:-1]}
    return net, weights


def same(a: caffemodel.Weights, b: caffemodel.Weights) -> bool:
    return a.keys() == b.keys() and all(
        len(a[name]) == len(b[name]) and all(np.array_equal(x, y) for x, y in zip(a[name], b[name], strict=True))
        for name in a
    )


def test_reads_the_reference_and_writes_the_same_bytes(golden: Path, tmp_path: Path) -> None:
    weights = caffemodel.read(golden / LENET)
    assert list(weights) == ["mnist", "conv1", "pool1", "conv2", "pool2", "ip1", "relu1", "ip2", "loss"]
    assert [array.shape for array in weights["conv2"]] == [(50, 20, 5, 5), (50,)]
    assert weights["pool1"] == []
    net = caffemodel.read_net(golden / LENET)
    assert net.name == "LeNet"
    assert not any(layer.blobs for layer in net.layer)
    caffemodel.write(tmp_path / "out.caffemodel", net, weights)
    assert (tmp_path / "out.caffemodel").read_bytes() == (golden / LENET).read_bytes()


def test_agrees_with_the_plain_schema(golden: Path) -> None:
    net = NetParameter.FromString((golden / LENET).read_bytes())
    weights = caffemodel.read(golden / LENET)
    for layer in net.layer:
        for proto, array in zip(layer.blobs, weights[layer.name], strict=True):
            np.testing.assert_array_equal(np.array(proto.data, np.float32).reshape(tuple(proto.shape.dim)), array)


def test_reads_the_references_hdf5(golden: Path) -> None:
    weights = caffemodel.read(golden / CIFAR)
    assert [array.shape for array in weights["ip1"]] == [(64, 1024), (64,)]
    assert weights["relu1"] == []
    with h5py.File(golden / CIFAR) as file:
        np.testing.assert_array_equal(weights["conv1"][0], file["data/conv1/0"][()])


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_round_trip(tmp_path: Path, name: str) -> None:
    net, weights = small("ip1", "ip2", "relu")
    caffemodel.write(tmp_path / name, net, weights)
    assert same(caffemodel.read(tmp_path / name), {**weights, "relu": []})


def test_the_kind_is_told_by_content(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "a.caffemodel").write_bytes((golden / CIFAR).read_bytes())
    (tmp_path / "b.h5").write_bytes((golden / LENET).read_bytes())
    assert "conv3" in caffemodel.read(tmp_path / "a.caffemodel")
    assert "mnist" in caffemodel.read(tmp_path / "b.h5")


def test_hdf5_has_the_references_layout(golden: Path, tmp_path: Path) -> None:
    weights = caffemodel.read(golden / CIFAR)
    net = NetParameter(layer=[LayerParameter(name=name) for name in weights])
    caffemodel.write(tmp_path / "out.h5", net, weights, diffs={"conv1": weights["conv1"]})
    with h5py.File(golden / CIFAR) as wanted, h5py.File(tmp_path / "out.h5") as made:
        paths: list[str] = []
        wanted.visit(paths.append)
        for path in paths:
            assert type(made[path]) is type(wanted[path])
            if isinstance(wanted[path], h5py.Dataset):
                assert made[path].dtype == wanted[path].dtype
                np.testing.assert_array_equal(made[path][()], wanted[path][()])
        assert sorted(made) == ["data", "diff"]
        np.testing.assert_array_equal(made["diff/conv1/1"][()], weights["conv1"][1])


def test_hdf5_names_with_slashes(tmp_path: Path) -> None:
    net, weights = small("conv1", "conv1/7x7_s2", "inception/1x1/reduce", "conv1/relu")
    caffemodel.write(tmp_path / "w.h5", net, weights)
    assert same(caffemodel.read(tmp_path / "w.h5"), dict(sorted({**weights, "conv1/relu": []}.items())))


def test_hdf5_leaves_out_shared_blobs(tmp_path: Path) -> None:
    net, weights = small("a", "b")
    weights["a"][0] = caffemodel.ABSENT
    caffemodel.write(tmp_path / "w.h5", net, weights)
    with h5py.File(tmp_path / "w.h5") as file:
        assert list(file["data/a"]) == ["1"]
    read = caffemodel.read(tmp_path / "w.h5")
    assert is_absent(read["a"][0])
    assert read["a"][1].shape == (3,)


def test_diffs_are_written_when_asked_for(tmp_path: Path) -> None:
    net, weights = small("ip", "relu")
    caffemodel.write(tmp_path / "w.caffemodel", net, weights, diffs={"ip": [weights["ip"][0] * 2]})
    first, second = NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes()).layer[0].blobs
    np.testing.assert_array_equal(np.array(first.diff, np.float32), (weights["ip"][0] * 2).ravel())
    assert len(second.diff) == 0


def test_reads_old_generations(tmp_path: Path) -> None:
    old = BlobProto(num=1, channels=1, height=2, width=3, data=range(6))
    nets = {
        "v1": NetParameter(layers=[V1LayerParameter(name="ip", blobs=[old]), V1LayerParameter(name="relu")]),
        "v0": NetParameter(
            layers=[
                V1LayerParameter(layer=V0LayerParameter(name=name, blobs=blobs))
                for name, blobs in (("ip", [old]), ("relu", []))
            ]
        ),
    }
    for name, net in nets.items():
        (tmp_path / name).write_bytes(net.SerializeToString())
        weights = caffemodel.read(tmp_path / name)
        assert list(weights) == ["ip", "relu"]
        np.testing.assert_array_equal(weights["ip"][0], np.arange(6).reshape(1, 1, 2, 3))
        assert not any(layer.blobs for layer in caffemodel.read_net(tmp_path / name).layers)


def test_unknown_fields_do_no_harm(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(name="ip", blobs=[blob.from_array(np.ones(2))])])
    (tmp_path / "w").write_bytes(net.SerializeToString() + b"\xfa\x7f\x03abc")
    assert caffemodel.read(tmp_path / "w")["ip"][0].tolist() == [1, 1]


def test_of_layers_of_one_name_the_one_with_blobs_counts(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(name="x", blobs=[blob.from_array(np.ones(2))]), LayerParameter(name="x")])
    (tmp_path / "w").write_bytes(net.SerializeToString())
    assert len(caffemodel.read(tmp_path / "w")["x"]) == 1


def test_large_files_load_fast(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(name="fc")])
    weights = {"fc": [np.ones((16, 1000, 1000), np.float32)]}
    caffemodel.write(tmp_path / "w", net, weights)
    start = time.perf_counter()
    assert caffemodel.read(tmp_path / "w")["fc"][0].sum() == 16e6
    assert time.perf_counter() - start < 2  # number by number it takes longer than this


FOREIGN = {
    "empty": (b"", "it is empty; copy or download it again"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "a Git LFS pointer.*git lfs pull"),
    "html": (b"\n<!DOCTYPE html>\n<html><body>404 Not Found", "it is a web page.*download it again"),
    "prototxt": (b'name: "LeNet"\nlayer {\n  name: "d\xc3\xa9"\n}\n', "it is text, perhaps a prototxt"),
    "gzip": (gzip.compress(b"x"), "seems to be a gzip file; unpack it with gunzip"),
    "zip": (b"PK\x03\x04rest", r"PyTorch's \.pt"),
    "garbage": (bytes(range(255, 100, -1)), "it is damaged or truncated, or of another kind"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_files_are_named(tmp_path: Path, kind: str) -> None:
    content, words = FOREIGN[kind]
    (tmp_path / "x.caffemodel").write_bytes(content)
    with pytest.raises(FormatError, match=rf"/x.caffemodel' is not a caffemodel: .*{words}"):
        caffemodel.read(tmp_path / "x.caffemodel")
    with pytest.raises(FormatError, match=words):
        solverstate.read(tmp_path / "x.caffemodel")


def test_other_files_of_caffe_are_named(golden: Path) -> None:
    cases = {
        "lenet/lenet_iter_10000.solverstate": "it is a solverstate; caffecli train takes it by --snapshot",
        "cifar10_quick/cifar10_quick_iter_5000.solverstate.h5": "lacks the group 'data' and seems to be a solverstate",
        "cifar10_quick/mean.binaryproto": "it is a single blob, perhaps a mean",
    }
    for name, words in cases.items():
        with pytest.raises(FormatError, match=words):
            caffemodel.read(golden / name)
    with pytest.raises(FormatError, match=r"nowhere.caffemodel': No such file or directory"):
        caffemodel.read(golden / "nowhere.caffemodel")
    with pytest.raises(FormatError, match="Is a directory"):
        caffemodel.read(golden)
    with pytest.raises(FormatError, match="which holds the net's definition"):
        caffemodel.read_net(golden / CIFAR)


@pytest.mark.parametrize("name", [LENET, CIFAR])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_truncated_files_are_named(golden: Path, tmp_path: Path, name: str, share: float) -> None:
    data = (golden / name).read_bytes()
    path = tmp_path / Path(name).name
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(FormatError, match="damaged or truncated"):
        caffemodel.read(path)


def test_damage_inside_names_the_layer(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(name="ip", blobs=[BlobProto(shape={"dim": [4]}, data=[1, 2])])])
    (tmp_path / "w").write_bytes(net.SerializeToString())
    with pytest.raises(FormatError, match=r"/w', layer 'ip', blob 0: a blob of shape \(4,\) holds 2 numbers"):
        caffemodel.read(tmp_path / "w")


def test_weights_need_their_layer(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no layer 'ip'"):
        caffemodel.write(tmp_path / "w", NetParameter(), {"ip": []})


def test_more_than_two_gigabytes_want_hdf5(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(name="ip")])
    huge = np.broadcast_to(np.float32(0), (2**15, 2**15))
    with pytest.raises(FormatError, match=r"4.0 GB do not fit into a binary file .*snapshot_format: HDF5"):
        caffemodel.write(tmp_path / "w", net, {"ip": [huge]})
    assert list(tmp_path.iterdir()) == []


def test_hdf5_of_other_content_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "text.h5", "w") as file:
        file["data/ip/0"] = ["no", "numbers"]
        file["iter"], file["current_step"], file["history"] = "q", 1, 3
    for read in (caffemodel.read, solverstate.read):
        with pytest.raises(FormatError, match=r"/text.h5'.*(expected numbers|it is damaged)"):
            read(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["label"] = [1.0]
    with pytest.raises(FormatError, match=r"lacks the group 'data' and seems to be of other content \(label\)"):
        caffemodel.read(tmp_path / "other.h5")
    with pytest.raises(FormatError, match=r"lacks 'iter' and seems to be of other content \(label\)"):
        solverstate.read(tmp_path / "other.h5")


def test_over_2_gb_are_refused_in_binary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = NetParameter(name="large", layer=[LayerParameter(name="ip", type="InnerProduct")])
    large = np.broadcast_to(np.float32(0), (2**15, 2**14))  # 2 GB of one number
    with pytest.raises(
        FormatError, match=r"cannot write '.*a.caffemodel': 2.0 GB do not fit into a binary file.*HDF5.*\.h5"
    ):
        caffemodel.write(tmp_path / "a.caffemodel", net, {"ip": [large]})
    half = {"ip": [large[: 2**14]]}
    with pytest.raises(FormatError, match="HDF5"):
        caffemodel.write(tmp_path / "a.caffemodel", net, half, half)
    with pytest.raises(FormatError, match=r"cannot write '.*a.solverstate'.*HDF5"):
        solverstate.write(tmp_path / "a.solverstate", solverstate.SolverState(1, history=[large]))
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(blob, "MAX_MESSAGE", 5)
    (tmp_path / "a.caffemodel").write_bytes(net.SerializeToString())
    with pytest.raises(FormatError, match="a binary caffemodel ends at 2 GB, use HDF5 for larger ones"):
        caffemodel.read(tmp_path / "a.caffemodel")


def test_hdf5_leaves_out_a_layer_without_name_and_blobs(tmp_path: Path) -> None:
    net = NetParameter(layer=[LayerParameter(type="Data"), LayerParameter(name="a", type="InnerProduct")])
    caffemodel.write(tmp_path / "a.caffemodel.h5", net, {"": [], "a": [np.ones((2, 3), np.float32)]})
    assert list(caffemodel.read(tmp_path / "a.caffemodel.h5")) == ["a"]


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "modèle"), ("gbk", "网络")])
def test_names_in_another_encoding(encoding: str, name: str, tmp_path: Path) -> None:
    """Protobuf gives them as bytes; the text of a prototxt in that encoding has the same name."""
    net = NetParameter(name="n")
    net.layer.add(name="x", type="InnerProduct", bottom=["x"]).blobs.add(data=[1, 2]).shape.dim.append(2)
    raw = name.encode(encoding)
    stand_in = "N" * len(raw)
    path = tmp_path / "w.caffemodel"
    net.layer[0].name = net.layer[0].bottom[0] = stand_in
    data = net.SerializeToString().replace(stand_in.encode(), raw)
    path.write_bytes(data)
    definition, weights = caffemodel.read_with_net(path)
    assert definition is not None
    assert (definition.layer[0].name, list(definition.layer[0].bottom)) == (name, [name])
    assert list(weights) == [name]
    assert weights[name][0].tolist() == [1, 2]
