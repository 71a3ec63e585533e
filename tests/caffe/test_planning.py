"""Passes of a deploy net that go by a plan: the same values as layer by layer, whatever happens between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.engine import Engine
from caffecli.errors import ShapeError
from tests.caffe.nets import DEPLOY, net_of, pictures

VIEWS = """
input: "x" input_shape { dim: 4 dim: 6 dim: 2 dim: 2 }
layer { name: "split" type: "Split" bottom: "x" top: "a" top: "b" }
layer { name: "slice" type: "Slice" bottom: "a" top: "c" top: "d" slice_param { slice_point: 2 } }
layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }
layer { name: "flat" type: "Flatten" bottom: "d" top: "e" }
layer { name: "tanh" type: "TanH" bottom: "e" top: "e" }
layer { name: "crop" type: "Crop" bottom: "b" bottom: "c" top: "f"
  crop_param { axis: 1 offset: 1 offset: 0 offset: 0 } }
layer { name: "reshape" type: "Reshape" bottom: "f" top: "g" reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "argmax" type: "ArgMax" bottom: "g" top: "h" }
"""
FILTER = """
input: "x" input_shape { dim: 6 dim: 3 } input: "keep" input_shape { dim: 6 }
layer { name: "tanh" type: "TanH" bottom: "x" top: "y" }
layer { name: "filter" type: "Filter" bottom: "y" bottom: "keep" top: "z" }
layer { name: "exp" type: "Exp" bottom: "z" top: "z" }
layer { name: "sum" type: "Reduction" bottom: "z" top: "sum" reduction_param { axis: 1 } }
"""
PASSED = """
layer { name: "one" type: "Power" bottom: "x" top: "y" power_param { shift: 1 } }
layer { name: "two" type: "Power" bottom: "%s" top: "z" power_param { shift: 1 } }
"""


@pytest.fixture
def unplanned(monkeypatch: pytest.MonkeyPatch) -> Callable[[], object]:
    """Lets all nets go layer by layer from now on."""
    return lambda: monkeypatch.setattr(Engine, "_planned", lambda _: None)


def history(net: caffe.Net) -> list[dict[str, np.ndarray]]:
    """All blobs after each of some passes, of new values, now and then of other shapes, with arrays taken or not."""
    rng, found = np.random.default_rng(1), []
    held = []
    for turn in range(9):
        for name in net.inputs:
            blob = net.blobs[name]
            if turn in (4, 7):
                blob.reshape(turn - 2, *blob.shape[1:])
            blob.data[...] = rng.random(blob.shape) < 0.5 if name == "keep" else rng.standard_normal(blob.shape)
        out = net.forward()
        if turn == 2:
            held = [blob.data for blob in net.blobs.values()]
        elif turn == 6:
            net.blobs[net.inputs[0]].data[...] = 7  # changes no other blob
        found.append({name: blob.data.copy() for name, blob in net.blobs.items() if turn > 1 or name in out})
    assert held
    return found


@pytest.mark.parametrize("text", [DEPLOY, VIEWS, FILTER], ids=["deploy", "views", "filter"])
def test_all_blobs_are_what_they_are_layer_by_layer(text: str, tmp_path: Path, unplanned: Callable[[], object]) -> None:
    one, other = net_of(tmp_path, text), net_of(tmp_path, text)
    other.share_with(one)
    planned = history(one)
    unplanned()
    for turn, (mine, theirs) in enumerate(zip(planned, history(other), strict=True)):
        assert mine.keys() == theirs.keys()
        for name, values in theirs.items():
            np.testing.assert_array_equal(mine[name], values, err_msg=f"pass {turn}, blob {name}")


def test_a_second_pass_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = net_of(tmp_path)
    first = net.forward(data=pictures(2, 3, 8, 6))["prob"].copy()
    monkeypatch.setattr(Engine, "_forward_layer", lambda *_: pytest.fail("layer by layer"))
    np.testing.assert_array_equal(net.forward()["prob"], first)
    net.params["ip"][1].data[...] = np.arange(5)
    assert net.forward()["prob"].argmax(1).tolist() == [4, 4]


def test_what_was_made_before_a_layer_failed_can_be_seen(tmp_path: Path) -> None:
    net = net_of(tmp_path)
    net.forward(data=pictures(2, 3, 8, 6))
    conv = net.blobs["conv"].data.copy()
    weight = net.params["ip"][0]
    weight.reshape(5, 3)
    with pytest.raises(ShapeError, match=r"layer 'ip' \(InnerProduct\): cannot run on 'pool'"):
        net.forward(data=2 * pictures(2, 3, 8, 6))
    assert (net.blobs["conv"].data != conv).any()


def test_callbacks_are_called_and_may_take_arrays(tmp_path: Path) -> None:
    net, seen = net_of(tmp_path), []
    net.forward(data=pictures(2, 3, 8, 6))
    net.after_forward(lambda layer: seen.append((layer, net.blobs["conv"].data.copy(), net.blobs["ip"].diff)))
    net.forward()
    assert [layer for layer, *_ in seen] == list(range(len(net.layers)))
    assert (seen[-1][1] >= 0).all() and (seen[1][1] < 0).any()
    net.blobs["conv"].data[...] = 1
    net.blobs["ip"].diff[...] = 1
    net.forward(start="pool")
    assert (net.blobs["pool"].data == 1).all()
    net.forward(data=pictures(2, 3, 8, 6))
    np.testing.assert_array_equal(net.blobs["conv"].data, seen[-1][1])


@pytest.mark.parametrize("second", ["x", "y"])
def test_a_blob_that_is_written_again_between_passes_is_read_anew(second: str, tmp_path: Path) -> None:
    net = net_of(tmp_path, 'input: "x" input_shape { dim: 2 } ' + PASSED % second)
    for value in (1, 2, 3):
        net.blobs["x"].data[...] = value
        net.blobs["y"].data[...] = 100  # made anew
        assert net.forward()["z"].tolist() == [value + (2 if second == "y" else 1)] * 2
