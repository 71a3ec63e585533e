"""What a pass runs once, a backward pass never runs again: layers that keep something, and layers that read."""

from __future__ import annotations

import threading
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

import caffe
from caffecli.layers import registry
from caffecli.layers.base import Layer
from tests.caffe.nets import net_of

INPUT = 'force_backward: true layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 } } } '
COPY = 'layer { name: "r" type: "ReLU" bottom: "x" top: "r" } '


def changed_before_backward(net: caffe.Net) -> None:
    net.blobs["x"].data[...] = np.random.default_rng(0).random((4, 3))
    net.forward()
    net.blobs["r"].data[0, 0] += 1e-3
    net.blobs["y"].diff[...] = 1
    net.backward()


def test_statistics_move_once_a_pass(tmp_path: Path) -> None:
    net = net_of(tmp_path, INPUT + COPY + 'layer { name: "bn" type: "BatchNorm" bottom: "r" top: "y" }', caffe.TRAIN)
    changed_before_backward(net)
    assert net.params["bn"][2].data[0] == 1


def test_dropout_of_a_net_that_was_set_to_train_keeps_its_mask(tmp_path: Path) -> None:
    net = net_of(tmp_path, INPUT + COPY + 'layer { name: "d" type: "Dropout" bottom: "r" top: "y" }', caffe.TEST)
    net.set_phase_train()
    for _ in range(5):
        changed_before_backward(net)
        np.testing.assert_array_equal(net.blobs["r"].diff != 0, net.blobs["y"].data != 0)


def test_records_are_read_once_a_pass(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["rows"] = np.arange(6, dtype=np.float32).reshape(6, 1)
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'a.h5'}\n")
    net = net_of(
        tmp_path,
        "force_backward: true layer "
        f'{{ name: "d" type: "HDF5Data" top: "rows" hdf5_data_param {{ source: "{tmp_path}/list.txt" '
        'batch_size: 1 } } layer { name: "y" type: "Power" bottom: "rows" top: "y" }',
        caffe.TRAIN,
    )
    rows = []
    for _ in range(3):
        rows.append(float(net.forward()["y"][0, 0]))
        net.backward()
    assert rows == [0, 1, 2]


def test_a_layer_that_differentiates_by_itself_can_say_so(tmp_path: Path) -> None:
    class Slope(Layer):
        keeps_shape = True
        needs_autograd = True

        def forward(self, x: Tensor) -> Tensor:
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                return torch.autograd.grad((x**2).sum(), x)[0]

    known = dict(registry._LAYERS)
    try:
        registry.register("Slope")(Slope)
        net = net_of(tmp_path, 'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } } '
                               'layer { name: "s" type: "Slope" bottom: "x" top: "y" }')  # fmt: skip
        net.blobs["x"].data[...] = [1, 2]
        np.testing.assert_array_equal(net.forward()["y"], [2, 4])
    finally:
        registry._LAYERS.clear()
        registry._LAYERS.update(known)


def test_inner_products_count_their_axis_anew(tmp_path: Path) -> None:
    net = net_of(
        tmp_path,
        'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 5 } } } '
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 3 axis: -1 } }',
    )
    net.blobs["x"].reshape(2, 4, 5)
    net.reshape()
    assert net.blobs["y"].data.shape == (2, 4, 3)


def test_python_layers_find_their_neighbours_in_several_threads(tmp_path: Path) -> None:
    (tmp_path / "threaded_layers.py").write_text(
        "import caffe, importlib, time\n"
        "class Late(caffe.Layer):\n"
        "    def setup(self, bottom, top): pass\n"
        "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top):\n"
        "        time.sleep(float(self.param_str))\n"
        "        importlib.import_module(f'threaded_neighbour{self.param_str[-1]}')\n"
    )
    nets = []
    for wait in ("0.01", "0.12"):
        (tmp_path / f"threaded_neighbour{wait[-1]}.py").write_text("")
        nets.append(net_of(
            tmp_path,
            'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } } '
            'layer { name: "p" type: "Python" bottom: "x" top: "y" '
            f'python_param {{ module: "threaded_layers" layer: "Late" param_str: "{wait}" }} }}',
        ))  # fmt: skip
    failed: list[Exception] = []

    def run(net: caffe.Net) -> None:
        try:
            net.forward()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(net,)) for net in nets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
