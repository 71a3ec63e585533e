"""Layers of a third party: registered from outside, with the rights of our own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.errors import ShapeError
from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register
from caffecli.net.net import Net
from caffecli.proto.caffe_pb2 import FillerParameter, NetParameter
from caffecli.spec import text
from tests.caffe.nets import net_of

SCALED = (
    'layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 dim: 4 } } } '
    'layer { name: "s" type: "Scaled" bottom: "x" top: "y" }'
)


pytestmark = pytest.mark.usefixtures("own_types")


def scaled(**facts: object) -> None:
    """Register a layer that multiplies channels by learned numbers, and sums over the last axis;
    it writes no ``reshape``.
    """

    @register("Scaled")
    class Scaled(Layer):
        weight: Tensor

        def setup(self, bottoms: list[Shape]) -> None:
            self.add_blob("weight", (bottoms[0][1],), FillerParameter(value=2))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight[:, None]).sum(-1)

    for name, value in facts.items():
        setattr(Scaled, name, value)


def test_shapes_are_found_by_running_it_without_values() -> None:
    scaled()
    net = Net(text.parse(SCALED, NetParameter()))
    assert net.shape("y") == (2, 3)
    x = torch.rand(2, 3, 4)
    torch.testing.assert_close(net({"x": x})["y"], 2 * x.sum(-1))


def test_it_is_reshaped_and_keeps_its_blobs(tmp_path: Path) -> None:
    scaled()
    net = net_of(tmp_path, SCALED)
    net.params["s"][0].data[...] = [1, 2, 3]
    net.blobs["x"].reshape(1, 3, 5)
    net.reshape()
    assert net.blobs["y"].data.shape == (1, 3)
    net.blobs["x"].data[...] = 1
    np.testing.assert_array_equal(net.forward()["y"], [[5, 10, 15]])


def test_bottoms_that_its_blobs_do_not_fit(tmp_path: Path) -> None:
    scaled()
    net = net_of(tmp_path, SCALED)
    net.blobs["x"].reshape(1, 7, 5)
    with pytest.raises(ShapeError, match=r"layer 's' \(Scaled\): cannot run on 'x' \(1, 7, 5\)"):
        net.reshape()


def test_it_may_refuse_to_run_in_place() -> None:
    scaled(in_place=False)
    with pytest.raises(
        Exception, match=r"layer 's' \(Scaled\): cannot work in place on 'x'; give the top another name"
    ):
        Net(text.parse(SCALED.replace('top: "y"', 'top: "x"'), NetParameter()))
