"""caffe.Net as its users drive it: constructors, names, arrays that stay valid, stretches of layers, shapes, errors."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffecli.errors import CaffeError
from caffecli.proto import caffe_pb2
from tests.caffe.nets import DEPLOY, LOSS, net_of, pictures


class TestMaking:
    def test_all_constructors_load_the_same_weights(self, tmp_path: Path) -> None:
        first = net_of(tmp_path)
        model, file = str(tmp_path / "net.caffemodel"), str(tmp_path / "net.prototxt")
        first.save(model)
        made = [
            caffe.Net(file, caffe.TEST, weights=model),
            caffe.Net(file, caffe.TEST, 0, None, model),
            caffe.Net(network_file=file, phase=caffe.TEST, level=0, stages=["x"], weights=model),
            caffe.Net(file, model, caffe.TEST),
            caffe.Net(file, model),
        ]
        for net in made:
            for name, blobs in net.params.items():
                for mine, theirs in zip(blobs, first.params[name], strict=True):
                    np.testing.assert_array_equal(mine.data, theirs.data)

    def test_stages(self, tmp_path: Path) -> None:
        assert net_of(tmp_path, LOSS, stages=["scored"]).outputs == ["loss"]
        assert net_of(tmp_path, LOSS).outputs == ["ip", "label"]

    def test_a_missing_file_is_a_runtime_error(self, tmp_path: Path) -> None:
        with pytest.raises(RuntimeError, match=r"Could not open file nowhere\.prototxt") as caught:
            caffe.Net("nowhere.prototxt", caffe.TEST)
        assert isinstance(caught.value, CaffeError)
        with pytest.raises(RuntimeError, match=r"Could not open file no\.caffemodel"):
            net_of(tmp_path, weights="no.caffemodel")

    def test_a_wrong_phase(self, tmp_path: Path) -> None:
        with pytest.raises(CaffeError, match=r"phase: expected caffe.TRAIN \(0\) or caffe.TEST \(1\), got 7"):
            net_of(tmp_path, phase=7)

    def test_a_wrong_definition_raises(self, tmp_path: Path) -> None:
        with pytest.raises(CaffeError, match="layer 'relu': unknown bottom blob 'conf'"):
            net_of(tmp_path, DEPLOY.replace('"ReLU" bottom: "conv"', '"ReLU" bottom: "conf"'))

    def test_names(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        assert list(net.blobs) == net._blob_names == ["data", "conv", "pool", "ip", "drop", "prob"]
        assert net.inputs == ["data"] and net.outputs == ["prob"]
        assert list(net.layer_dict) == net._layer_names
        assert [layer.type for layer in net.layers][:2] == ["Input", "Convolution"]
        assert [blob.shape for blob in net.layers[1].blobs] == [(4, 3, 3, 3), (4,)]
        assert isinstance(net.layers[1], caffe.Layer)
        assert net.top_names["relu"] == net.bottom_names["relu"] == ["conv"]
        blob = net.blobs["conv"]
        assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (2, 4, 6, 4, 192)
        assert (net.blobs["ip"].height, net.blobs["ip"].width) == (1, 1)

    def test_what_pycaffes_properties_are_made_of(self, tmp_path: Path) -> None:
        """Which converters (MMdnn and others) use; each is made once."""
        net = net_of(tmp_path, LOSS, stages=["scored"])
        assert net._output_list is net.outputs and net.outputs == ["loss"] and net._input_list is net.inputs
        assert net._blob_loss_weights_dict is net.blob_loss_weights and net._blob_loss_weights == [0, 0, 0, 2]
        assert net._layer_dict is net.layer_dict and net.top_names is net.top_names
        assert net._blobs == list(net.blobs.values()) and net.bottom_names is net.bottom_names
        assert (net._inputs, net._outputs) == ([], [3])
        assert (net._top_ids(0), net._bottom_ids(2)) == ([0, 1], [2, 1])

    def test_its_types_are_those_of_the_compiled_module(self, tmp_path: Path) -> None:
        net, types = net_of(tmp_path), caffe._caffe
        found = [net, net.params["ip"], net.params["ip"][0], net.blobs["ip"], net._blobs, net.layers, net.layers[0]]
        found += [net._layer_names, net._blob_names, net._inputs, net._top_ids(0), net._blob_loss_weights]
        wanted = [types.Net, types.BlobVec, types.Blob, types.Blob, types.BlobVec, types.LayerVec, types.Layer]
        wanted += [types.StringVec, types.StringVec, types.IntVec, types.IntVec, types.DtypeVec]
        for one, kind in zip(found, wanted, strict=True):
            assert isinstance(one, kind)
        assert type(net.params["ip"]) is types.BlobVec

    def test_its_name_can_be_set(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        assert net.name == "small"
        net.name = "vgg16_faster_rcnn_iter_70000"
        assert net.name == "vgg16_faster_rcnn_iter_70000"
        net.save(tmp_path / "w.caffemodel")
        assert caffe_pb2.NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes()).name == "small"

    def test_loss_weights(self, tmp_path: Path) -> None:
        net = net_of(tmp_path, LOSS, stages=["scored"])
        assert net.blob_loss_weights["loss"] == 2
        assert net.blob_loss_weights["ip"] == 0
        assert net.blobs["loss"].diff == 2

    def test_losses_without_tops_count_each_by_its_weight(self, tmp_path: Path) -> None:
        loss = 'layer { name: "%s" type: "EuclideanLoss" bottom: "ip" bottom: "x" loss_weight: %d }'
        text = (
            LOSS.split('layer { name: "loss"')[0]
            + 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } }'
        )
        net = net_of(tmp_path, text + loss % ("one", 2) + loss % ("two", 5))
        net.forward()
        net.backward()
        np.testing.assert_allclose(net.blobs["ip"].diff, 7 * net.blobs["ip"].data / 4, 1e-5)
        assert list(net.blobs).count("(automatic)") == 1

    def test_an_unknown_blob_is_a_key_error(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError, match="no 'fc8' here; there are: data, conv"):
            net_of(tmp_path).blobs["fc8"]

    def test_the_proto_is_the_one_module(self) -> None:
        from caffe.proto import caffe_pb2 as theirs

        assert theirs is caffe_pb2
        assert caffe.proto.caffe_pb2.NetParameter is caffe_pb2.NetParameter


class TestArrays:
    def test_they_stay_valid(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        arrays = {name: blob.data for name, blob in net.blobs.items()}
        for turn in range(2):
            arrays["data"][...] = pictures(2, 3, 8, 6) * (turn + 1)
            out = net.forward()["prob"]
            np.testing.assert_array_equal(arrays["prob"], out)
            for name, blob in net.blobs.items():
                assert np.shares_memory(arrays[name], blob.data), name
                assert (
                    arrays[name].flags.c_contiguous
                    and arrays[name].flags.writeable
                    and arrays[name].dtype == np.float32
                )
        assert (arrays["conv"] >= 0).all() and arrays["conv"].any()

    def test_those_of_one_value_are_numbers(self, tmp_path: Path) -> None:
        """Losses, scores, the bias of one output: whatever NumPy says of arrays of one value."""
        text = DEPLOY.replace("num_output: 5", "num_output: 1").replace("dim: 2 dim: 3", "dim: 1 dim: 3")
        net = net_of(tmp_path, "force_backward: true" + text.replace('"Softmax"', '"Sigmoid"'))
        net.params["ip"][1].data[...] = 3
        scores = np.zeros(2)
        scores[0] = net.forward(["ip"])["ip"]
        scores[1] = net.forward(end="ip")["ip"][0]
        net.backward(prob=np.ones((1, 1)))
        assert scores.tolist() == [3, 3] == [float(net.params["ip"][1].data)] * 2
        assert "%.2f" % net.blobs["prob"].data == f"{net.blobs['prob'].data[0]:.2f}" == "0.95"  # noqa: UP031
        assert float(net.params["ip"][1].diff) == pytest.approx(0.0452, abs=1e-4)
        assert net.forward_all(data=np.zeros((1, 3, 8, 6)))["prob"].shape == (1, 1)

    def test_a_blob_first_looked_at_after_the_pass(self, tmp_path: Path) -> None:
        seen, unseen = net_of(tmp_path), net_of(tmp_path)
        unseen.share_with(seen)
        held = seen.blobs["conv"].data
        for net in (seen, unseen):
            net.forward(data=pictures(2, 3, 8, 6))
        np.testing.assert_array_equal(held, unseen.blobs["conv"].data)

    def test_a_blob_is_copied_as_long_as_somebody_holds_an_array(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("caffecli.layers.memory._FEW", 0)
        net, copied = net_of(tmp_path), net_of(tmp_path).blobs["conv"]
        for turn, look in enumerate(
            (lambda a: a[1, 2:], memoryview, torch.from_numpy, lambda a: a.reshape(-1)[7:], None)
        ):
            held = look(net.blobs["conv"].data) if look else net.blobs["conv"].data.shape
            copied.data[...] = net.forward(["conv"], data=pictures(2, 3, 8, 6) + turn)["conv"]
            assert net.blobs["conv"].data_memory.exposed
            if look:
                np.testing.assert_array_equal(np.asarray(held), np.asarray(look(copied.data)))
            del held
            net.forward()
            assert not net.blobs["conv"].data_memory.exposed
            np.testing.assert_array_equal(net.blobs["conv"].data, copied.data)

    def test_what_was_written_stays_when_its_array_is_gone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("caffecli.layers.memory._FEW", 0)
        net = net_of(tmp_path)
        net.blobs["pool"].data[...] = 3
        net.blobs["ip"].diff[...] = 4
        gc.collect()
        net.forward(start="ip")
        assert (net.blobs["pool"].data == 3).all() and (net.blobs["ip"].diff == 4).all()
        net.blobs["data"].data[...] = pictures(2, 3, 8, 6)
        first = net.forward()["prob"].copy()
        np.testing.assert_array_equal(net.forward()["prob"], first)

    def test_a_blob_that_passes_its_bottom_on_has_memory_of_its_own(self, tmp_path: Path) -> None:
        net = net_of(
            tmp_path,
            'input: "x" input_shape { dim: 1 dim: 2 } layer { name: "d" type: "Dropout" bottom: "x" top: "y" }',
        )
        net.forward(x=np.ones((1, 2)))
        net.blobs["x"].data[...] = 5
        assert (net.blobs["y"].data == 1).all()

    def test_weights_are_what_the_layers_use(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        weight, bias = (blob.data for blob in net.params["ip"])
        weight[...], bias[...] = 0, np.arange(5)
        net.forward(data=pictures(2, 3, 8, 6))
        np.testing.assert_array_equal(net.blobs["ip"].data, np.tile(np.arange(5, dtype=np.float32), (2, 1)))

    def test_weights_are_in_c_order_however_the_net_lays_them_out(self, tmp_path: Path) -> None:
        net, sharer = net_of(tmp_path), net_of(tmp_path)
        sharer.share_with(net)
        first = net.forward(["conv"], data=pictures(2, 3, 8, 6))
        assert not net._engine.weights[0].param.tensor.is_contiguous()  # or this test shows nothing
        weight = sharer.params["conv"][0].data
        assert (
            weight.flags.c_contiguous
            and weight.shape == (4, 3, 3, 3)
            and np.shares_memory(weight, net.params["conv"][0].data)
        )
        windows = np.lib.stride_tricks.sliding_window_view(pictures(2, 3, 8, 6), (3, 3), (2, 3))
        expected = np.einsum("nchwij,ocij->nohw", windows, weight).clip(0)
        np.testing.assert_allclose(first["conv"], expected, 1e-4, 1e-5)
        np.testing.assert_allclose(net.forward(["conv"])["conv"], expected, 1e-4, 1e-5)
        weight[1:] *= 2
        for one in (net, sharer):
            doubled = one.forward(["conv"], data=pictures(2, 3, 8, 6))["conv"]
            np.testing.assert_allclose(doubled[:, 1:], 2 * expected[:, 1:], 1e-4, 1e-5)
            np.testing.assert_allclose(doubled[:, 0], expected[:, 0], 1e-4, 1e-5)
        net.save(str(tmp_path / "saved.caffemodel"))
        weight[...] = 0
        net.copy_from(str(tmp_path / "saved.caffemodel"))
        np.testing.assert_array_equal(sharer.forward(["conv"])["conv"], doubled)

    def test_a_net_that_learns_takes_the_weights_of_one_that_does_not(self, tmp_path: Path) -> None:
        deploy, trained = net_of(tmp_path), net_of(tmp_path, DEPLOY + "force_backward: true")
        trained.share_with(deploy)
        assert all(weight.param.tensor.is_contiguous() for weight in deploy._engine.weights)
        trained.forward(data=pictures(2, 3, 8, 6))
        trained.backward(prob=pictures(2, 5))
        assert trained.params["conv"][0].diff.any()
        assert np.shares_memory(trained.params["conv"][0].data, deploy.params["conv"][0].data)

    def test_they_outlive_the_net(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        net.forward(data=pictures(2, 3, 8, 6))
        blobs, weight = list(net.blobs.values()), net.params["conv"][0]
        del net
        gc.collect()
        assert np.isfinite(sum(float(blob.data.sum() + blob.diff.sum()) for blob in (*blobs, weight)))

    def test_constant_dummy_data_keeps_what_is_written(self, tmp_path: Path) -> None:
        net = net_of(tmp_path, LOSS)
        assert (net.blobs["label"].data == 1).all()
        net.blobs["label"].data[...] = 2
        net.forward()
        assert (net.blobs["label"].data == 2).all()
        assert net.blobs["data"].data.any()


class TestRunning:
    def test_a_stretch_of_layers(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        net.blobs["pool"].data[...] = 3
        out = net.forward(["pool"], start="ip", end="ip")
        assert set(out) == {"ip", "pool"}
        np.testing.assert_allclose(
            out["ip"], (3 * net.params["ip"][0].data.sum(1) + net.params["ip"][1].data)[None].repeat(2, 0), 1e-5
        )

    @pytest.mark.parametrize("end", ["start", "end"])
    def test_an_unknown_layer_is_a_value_error(self, tmp_path: Path, end: str) -> None:
        with pytest.raises(ValueError, match="net 'small' has no layer 'fc8'; its layers: data, conv"):
            net_of(tmp_path).forward(**{end: "fc8"})

    def test_wrong_inputs(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        with pytest.raises(Exception, match=r"Input blob arguments do not match net inputs.*expected data, got image"):
            net.forward(image=pictures(2, 3, 8, 6))
        with pytest.raises(Exception, match=r"Input is not batch sized: 'data' is \(2, 3, 8, 6\), got \(1, 3, 8, 6\)"):
            net.forward(data=pictures(1, 3, 8, 6))
        with pytest.raises(Exception, match="Top diff arguments do not match net outputs"):
            net.backward(ip=np.zeros((2, 5)))

    def test_a_deploy_net_has_no_backward(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        net.forward(data=pictures(2, 3, 8, 6))
        assert not net.backward(prob=np.ones((2, 5)))["data"].any()

    def test_force_backward(self, tmp_path: Path) -> None:
        torch.manual_seed(1)  # with other weights the step may cross a kink of the ReLU
        net = net_of(tmp_path, "force_backward: true" + DEPLOY)
        x = pictures(2, 3, 8, 6)
        net.forward(data=x)
        seed = np.zeros((2, 5), np.float32)
        seed[:, 1] = 1
        got = net.backward(["conv"], prob=seed)
        assert set(got) == {"data", "conv"}
        x[0, 1, 2, 3] += (step := 0.002)
        before = net.blobs["prob"].data[0, 1].copy()
        after = net.forward(data=x)["prob"][0, 1]
        np.testing.assert_allclose(got["data"][0, 1, 2, 3], (after - before) / step, rtol=0.05, atol=5e-5)

    def test_diffs_of_parameters_add_up_until_cleared(self, tmp_path: Path) -> None:
        net = net_of(tmp_path, LOSS, caffe.TRAIN, stages=["scored"])
        net.forward()
        net.backward()
        diff = net.params["ip"][0].diff
        once = diff.copy()
        net.backward()
        np.testing.assert_allclose(diff, 2 * once, 1e-5)
        net.clear_param_diffs()
        assert once.any() and not diff.any()

    def test_backward_sees_what_was_written_since(self, tmp_path: Path) -> None:
        net = net_of(tmp_path, "force_backward: true " + LOSS, caffe.TRAIN)
        net.forward()
        net.blobs["data"].data[...] = 7
        net.blobs["ip"].diff[...] = 1
        net.backward()
        np.testing.assert_allclose(net.params["ip"][0].diff, np.full((3, 3), 28), 1e-5)

    def test_forward_all_pads_the_last_batch(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        x = pictures(5, 3, 8, 6)
        out = net.forward_all(["pool"], data=x)
        assert out["prob"].shape == (5, 5) and out["pool"].shape == (5, 4, 1, 1)
        np.testing.assert_allclose(out["prob"][4], net.forward(data=x[[4, 4]])["prob"][0], 1e-5)

    def test_forward_all_ends_where_it_is_told(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        x = pictures(3, 3, 8, 6)
        out = net.forward_all(["conv"], end="ip", data=x)
        assert {name: array.shape for name, array in out.items()} == {"ip": (3, 5), "conv": (3, 4, 6, 4)}
        np.testing.assert_allclose(out["ip"], net.forward_all(["ip"], data=x)["ip"], 1e-5)
        assert net.forward_all(start="prob", end="prob", data=x)["prob"].sum() > 0
        with pytest.raises(ValueError, match="has no layer 'fc7'"):
            net.forward_all(end="fc7", data=x)

    def test_forward_backward_all(self, tmp_path: Path) -> None:
        net = net_of(tmp_path, "force_backward: true" + DEPLOY)
        x = pictures(3, 3, 8, 6)
        outs, diffs = net.forward_backward_all(["ip"], ["conv"], data=x, prob=np.ones((3, 5), np.float32))
        assert {name: len(array) for name, array in (outs | diffs).items()} == dict.fromkeys(
            ("ip", "prob", "data", "conv"), 3
        )

    def test_callbacks(self, tmp_path: Path) -> None:
        net = net_of(tmp_path, "force_backward: true" + DEPLOY)
        said: list[tuple[str, int]] = []
        for when in ("before_forward", "after_forward", "before_backward", "after_backward"):
            getattr(net, when)(lambda layer, when=when: said.append((when, layer)))
        net.forward(end="relu")
        net.backward(start="conv")
        assert said[:3] == [("before_forward", 0), ("after_forward", 0), ("before_forward", 1)]
        assert said[-4:] == [
            ("before_backward", 1),
            ("after_backward", 1),
            ("before_backward", 0),
            ("after_backward", 0),
        ]

    def test_what_a_callback_writes_is_read(self, tmp_path: Path) -> None:
        net = net_of(tmp_path)
        net.after_forward(lambda layer: net.blobs["pool"].data.fill(0) if layer == 3 else None)
        net.forward(data=pictures(2, 3, 8, 6))
        np.testing.assert_array_equal(net.blobs["ip"].data, net.params["ip"][1].data[None].repeat(2, 0))

    def test_threads(self, tmp_path: Path) -> None:
        nets = [net_of(tmp_path, "force_backward: true" + DEPLOY) for _ in range(3)]
        for net in nets[1:]:
            for name, blobs in net.params.items():
                for mine, theirs in zip(blobs, nets[0].params[name], strict=True):
                    mine.data[...] = theirs.data
        x = pictures(2, 3, 8, 6)
        wanted = nets[0].forward(data=x)["prob"].copy()
        seen: list[np.ndarray] = []

        def work(net: caffe.Net) -> None:
            for _ in range(20):
                seen.append(net.forward(data=x)["prob"].copy())
                net.backward(prob=np.ones((2, 5)))

        threads = [threading.Thread(target=work, args=(net,)) for net in nets]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == 60
        for got in seen:
            np.testing.assert_array_equal(got, wanted)


DRAWN = {
    "Dropout": 'type: "Dropout"',
    "Pooling": 'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }',
    "SPP": 'type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }',
}


@pytest.mark.parametrize("kind", DRAWN)
def test_a_gradient_goes_where_forward_drew_even_when_a_bottom_was_changed_since(tmp_path: Path, kind: str) -> None:
    net = net_of(
        tmp_path,
        'force_backward: true layer { name: "data" type: "Input" top: "data" '
        "input_param { shape { dim: 1 dim: 1 dim: 8 dim: 8 } } } "
        'layer { name: "r" type: "ReLU" bottom: "data" top: "r" }'
        f'layer {{ name: "drawn" bottom: "r" top: "y" {DRAWN[kind]} }}',
        caffe.TRAIN,
    )
    net.blobs["data"].data[...] = np.arange(1, 65).reshape(1, 1, 8, 8)
    top = np.unique(np.round(net.forward()["y"].ravel()))
    net.blobs["r"].data[0, 0, 0, 0] += 1e-3
    net.blobs["y"].diff[...] = 1
    net.backward()
    reached = np.flatnonzero(net.blobs["r"].diff) + 1
    np.testing.assert_array_equal(reached * (2 if kind == "Dropout" else 1), top[top > 0])
