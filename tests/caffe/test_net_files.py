"""caffe.Net: new shapes, weight files, net surgery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from caffecli.errors import ShapeError
from caffecli.proto import caffe_pb2
from tests.caffe.nets import DEPLOY, net_of, pictures


class TestShapes:
    def test_the_whole_net_follows(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        net.blobs["data"].reshape(1, 3, 20, 10)
        net.reshape()
        assert net.blobs["conv"].shape == (1, 4, 18, 8)
        assert net.blobs["conv"].data.shape == (1, 4, 18, 8)
        assert net.forward()["prob"].shape == (1, 5)

    def test_forward_alone_does_it(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        x = pictures(4, 3, 9, 9)
        net.blobs["data"].reshape(*x.shape)
        net.blobs["data"].data[...] = x
        many = net.forward()["prob"].copy()
        net.blobs["data"].reshape(1, *x.shape[1:])
        net.blobs["data"].data[...] = x[3]
        np.testing.assert_allclose(net.forward()["prob"][0], many[3], 1e-5)

    def test_weights_that_do_not_fit(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        net.blobs["data"].reshape(2, 2, 8, 6)
        said = (
            r"layer 'conv' \(Convolution\): its blobs are for channels 3, got 2 of 'data' \(2, 2, 8, 6\); "
            r"reshape to what"
        )
        with pytest.raises(ShapeError, match=said):
            net.reshape()
        net.blobs["data"].reshape(2, 3, 8, 6)
        assert net.forward()["prob"].shape == (2, 5)

    def test_reshape_takes_no_keywords(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match=r"Blob\.reshape takes no kwargs"):
            net_of(tmp_path).blobs["data"].reshape(dims=(1, 2))


class TestWeightFiles:
    @pytest.mark.parametrize("kind", ["save", "save_hdf5"])
    def test_round_trip(self, tmp_path: Path, kind: str) -> None:
        net, other = net_of(tmp_path), net_of(tmp_path)
        file = str(tmp_path / "weights")  # no ending: the content tells
        getattr(net, kind)(file)
        held = other.params["conv"][0].data
        other.load_hdf5(file) if kind == "save_hdf5" else other.copy_from(file)
        np.testing.assert_array_equal(held, net.params["conv"][0].data)

    def test_weights_of_1_1_n_m(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        old = caffe_pb2.NetParameter()
        layer = old.layers.add(name="ip", type=caffe_pb2.V1LayerParameter.INNER_PRODUCT)
        layer.blobs.add(num=1, channels=1, height=5, width=4, data=range(20))
        layer.blobs.add(num=1, channels=1, height=1, width=5, data=range(5))
        (tmp_path / "old.caffemodel").write_bytes(old.SerializeToString())
        net.copy_from(str(tmp_path / "old.caffemodel"))
        np.testing.assert_array_equal(net.params["ip"][0].data, np.arange(20).reshape(5, 4))
        np.testing.assert_array_equal(net.params["ip"][1].data, np.arange(5))

    def test_share_with(self, tmp_path: Path) -> None:
        net, other = net_of(tmp_path), net_of(tmp_path)
        other.share_with(net)
        net.params["ip"][0].data[0, 0] = 42
        assert other.params["ip"][0].data[0, 0] == 42

    def test_net_surgery_gives_windows_of_the_plain_net(self, tmp_path: Path) -> None:
        """An inner product made a convolution, as in bvlc_caffenet_full_conv,
        slides the plain net over a larger image.
        """
        plain_text = DEPLOY.replace('layer { name: "pool"', "#").replace('bottom: "pool"', 'bottom: "conv"')
        conv_text = (
            plain_text.replace('"InnerProduct"', '"Convolution"')
            .replace("inner_product_param { num_output: 5", "convolution_param { num_output: 5 kernel_h: 6 kernel_w: 4")
            .replace('name: "ip"', 'name: "ip-conv"')
        )
        plain, full = net_of(tmp_path, plain_text), net_of(tmp_path, conv_text)
        full.params["conv"][0].data[...] = plain.params["conv"][0].data
        full.params["conv"][1].data[...] = plain.params["conv"][1].data
        full.params["ip-conv"][0].data.flat = plain.params["ip"][0].data.flat  # type: ignore[misc]
        full.params["ip-conv"][1].data[...] = plain.params["ip"][1].data
        x = pictures(1, 3, 10, 9)
        full.blobs["data"].reshape(*x.shape)
        mapped = full.forward(data=x)["prob"]
        assert mapped.shape == (1, 5, 3, 4)
        plain.blobs["data"].reshape(1, 3, 8, 6)
        for row, column in np.ndindex(3, 4):
            window = plain.forward(data=x[:, :, row : row + 8, column : column + 6])["prob"]
            np.testing.assert_allclose(mapped[0, :, row, column], window[0], 1e-4)
