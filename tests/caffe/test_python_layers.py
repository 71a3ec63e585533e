"""Users' own layers, through caffe.Net: they are in net.layers, their blobs are the net's,
their errors keep their type.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffecli.errors import CaffeError, PythonLayerError
from tests.caffe.nets import net_of

LAYERS = '''
import caffe

class Source(caffe.Layer):
    """Serves what it is told from outside, as the data layers of detectors do."""
    def setup(self, bottom, top):
        self.value = 1
    def reshape(self, bottom, top):
        top[0].reshape(2, 3)
    def forward(self, bottom, top):
        top[0].data[...] = self.value
    def backward(self, top, propagate_down, bottom):
        pass

class Scale(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 1:
            raise ValueError("one bottom, please")
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = float(self.param_str)
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        if bottom[0].data.max() > 100:
            raise KeyError("too large")
        top[0].data[...] = self.blobs[0].data[0] * bottom[0].data
    def backward(self, top, propagate_down, bottom):
        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()
        if propagate_down[0]:
            bottom[0].diff[...] = self.blobs[0].data[0] * top[0].diff
'''
NET = """
force_backward: true
layer { name: "source" type: "Python" top: "x" python_param { module: "users_layers" layer: "Source" } }
layer { name: "scale" type: "Python" bottom: "x" top: "y"
  python_param { module: "users_layers" layer: "Scale" param_str: "3" } }
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "users_layers.py").write_text(LAYERS)
    before = list(sys.path)
    yield
    sys.path[:] = before
    sys.modules.pop("users_layers", None)


def test_the_users_object_is_in_the_net(tmp_path: Path) -> None:
    net = net_of(tmp_path, NET)
    net.layers[0].value = 5
    assert (net.forward()["y"] == 15).all()
    assert type(net.layer_dict["scale"]).__name__ == "Scale" and net.layers[1].type == "Python"


def test_a_layer_of_2015(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the Faster R-CNN family uses: param_str_, a phase that reads as its name and counts as a number."""
    (tmp_path / "users_layers.py").write_text("""
import caffe

class Proposal(caffe.Layer):
    def __init__(self, param):
        assert self.param_str_ == ""
    def setup(self, bottom, top):
        assert self.param_str_ == self.param_str
        phase = self.phase
        print(self.param_str_, {"TRAIN": 12000, "TEST": 6000}[str(phase)], f"{phase}", "%s %d" % (phase, phase), end="")
        print(f" {phase:d} {phase:>6}", {0: "a", 1: "b"}[phase], phase == int(phase), phase is caffe.TEST)
        top[0].reshape(1)
    def reshape(self, bottom, top):
        pass
""")
    net = """layer { name: "p" type: "Python" top: "p"
  python_param { module: "users_layers" layer: "Proposal" param_str: "'feat_stride': 16" } }"""
    for phase in (caffe.TRAIN, caffe.TEST):
        net_of(tmp_path, net, phase)
    assert capsys.readouterr().out.splitlines() == [
        "'feat_stride': 16 12000 TRAIN TRAIN 0 0  TRAIN a True False",
        "'feat_stride': 16 6000 TEST TEST 1 1   TEST b True True",
    ]
    state = caffe.proto.caffe_pb2.NetState()
    state.phase = caffe.TEST  # type: ignore[assignment]
    assert state.phase == 1
    data = caffe.layers.DummyData(include={"phase": caffe.TRAIN})
    assert "phase: TRAIN" in str(data.to_proto())


def test_its_blobs_are_the_nets(tmp_path: Path) -> None:
    net = net_of(tmp_path, NET)
    assert net.params["scale"][0].data[0] == 3
    net.layers[1].blobs[0].data[0] = 4
    assert net.params["scale"][0].data[0] == 4
    assert (net.forward()["y"] == 4).all()
    for turn in (1, 2):
        assert (net.backward(["x"], y=np.ones((2, 3)))["x"] == 4).all()
        assert net.params["scale"][0].diff[0] == net.layers[1].blobs[0].diff[0] == 6 * turn
    other = net_of(tmp_path, NET)
    other.share_with(net)
    assert other.layers[1].blobs[0].data[0] == 4


def test_errors_keep_their_type_and_name_the_layer(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"layer 'scale' \(Python, users_layers\.Scale\): setup: ValueError: one bottom"
    ) as caught:
        net_of(tmp_path, NET.replace('bottom: "x" top: "y"', 'bottom: "x" bottom: "x" top: "y"'))
    assert isinstance(caught.value, CaffeError) and isinstance(caught.value, PythonLayerError)
    net = net_of(tmp_path, NET)
    net.layers[0].value = 1000
    with pytest.raises(KeyError, match=r"layer 'scale' .*forward: KeyError: 'too large'") as late:
        net.forward()
    assert type(late.value.__cause__) is KeyError
    net.layers[0].value = 1
    assert (net.forward()["y"] == 3).all()


def test_reshape_asks_the_users_layer(tmp_path: Path) -> None:
    text = 'input: "x" input_shape { dim: 2 } ' + NET[NET.index('layer { name: "scale"') :]
    net = net_of(tmp_path, text)
    net.blobs["x"].reshape(4, 5)
    net.reshape()
    assert net.blobs["y"].shape == (4, 5)


def test_trained_by_a_solver(tmp_path: Path) -> None:
    loss = 'layer { name: "sum" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 }'
    (tmp_path / "net.prototxt").write_text(NET + loss)
    solver = tmp_path / "solver.prototxt"
    solver.write_text(
        f'net: "{tmp_path}/net.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 2 snapshot_after_train: false'
    )
    made = caffe.SGDSolver(str(solver))
    made.step(1)
    np.testing.assert_allclose(made.net.params["scale"][0].data, [3 - 0.1 * 6], 1e-6)
    assert made.net.layers[1].blobs[0].data[0] == made.net.params["scale"][0].data[0]


MEMORY = """
import caffe
import numpy as np

class DiffInForward(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(1)
    def forward(self, bottom, top):
        top[0].data[...] = (bottom[0].data ** 2).sum() / 2
        bottom[0].diff[...] = bottom[0].data * 7
    def backward(self, top, propagate_down, bottom):
        pass

class ClipsBottom(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top):
        bottom[0].data[...] = np.clip(bottom[0].data, -1, 1)
        top[0].data[...] = bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff

class AddsToDiff(ClipsBottom):
    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] += top[0].diff

class KeepsArrays(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)
        self.x, self.y, self.dx, self.dy = bottom[0].data, top[0].data, bottom[0].diff, top[0].diff
    def reshape(self, bottom, top):
        pass
    def forward(self, bottom, top):
        self.y[...] = 3 * self.x
    def backward(self, top, propagate_down, bottom):
        self.dx[...] = 3 * self.dy

class KeepsBlobs(caffe.Layer):
    def setup(self, bottom, top):
        self.bottom, self.top = bottom[0], top[0]
        top[0].reshape(*bottom[0].data.shape)
    def reshape(self, bottom, top):
        pass
    def forward(self, bottom, top):
        self.top.data[...] = 3 * self.bottom.data
    def backward(self, top, propagate_down, bottom):
        self.bottom.diff[...] = 3 * self.top.diff

class HalfOfTheDiff(AddsToDiff):
    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[0] = top[0].diff[0]

class LeavesTheTop(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(2, 3)
    def forward(self, bottom, top):
        pass
"""
X = np.array([[0.5, 2, -3], [4, -0.25, 1]], np.float32)
CLIPPED = np.clip(X, -1, 1)


def memory_net(folder: Path, cls: str, weight: str = "") -> caffe.Net:
    (folder / "users_layers.py").write_text(MEMORY)
    return net_of(
        folder,
        f"""
force_backward: true
layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "c" type: "Power" bottom: "x" top: "c" power_param {{ scale: 2 }} }}
layer {{ name: "p" type: "Python" bottom: "c" top: "p" {weight}
  python_param {{ module: "users_layers" layer: "{cls}" }} }}
layer {{ name: "later" type: "Power" bottom: "c" top: "later" power_param {{ scale: 10 }} }}
""",
    )


@pytest.mark.parametrize(
    ("cls", "later", "made", "first", "second"),
    [
        ("ClipsBottom", 10 * np.clip(2 * X, -1, 1), np.clip(2 * X, -1, 1), 2 * np.ones_like(X), 2 * np.ones_like(X)),
        ("AddsToDiff", 20 * X, 2 * X, 2 * np.ones_like(X), 4 * np.ones_like(X)),
        ("KeepsArrays", 20 * X, 6 * X, 6 * np.ones_like(X), 6 * np.ones_like(X)),
        ("KeepsBlobs", 20 * X, 6 * X, 6 * np.ones_like(X), 6 * np.ones_like(X)),
        ("HalfOfTheDiff", 20 * X, 2 * X, [[2] * 3, [0] * 3], [[2] * 3, [0] * 3]),
    ],
)
def test_it_works_on_the_blobs_memory(
    cls: str, later: object, made: object, first: object, second: object, tmp_path: Path
) -> None:
    """What it writes is there for all: in data, in diffs that stay, in arrays and blobs kept from setup."""
    net = memory_net(tmp_path, cls)
    for diff in (first, second):
        net.blobs["x"].data[...] = X
        out = net.forward()
        np.testing.assert_array_equal(out["later"], later)
        np.testing.assert_array_equal(net.blobs["p"].data, made)
        net.blobs["p"].diff[...] = 1
        net.blobs["later"].diff[...] = 0
        net.backward()
        np.testing.assert_array_equal(net.blobs["x"].diff, diff)


def test_diffs_written_in_forward_are_what_backward_passes_on(tmp_path: Path) -> None:
    net = memory_net(tmp_path, "DiffInForward", "loss_weight: 1")
    for turn in (1, 2):
        net.blobs["x"].data[...] = turn * X
        loss = net.forward()["p"]
        net.blobs["later"].diff[...] = 0
        net.backward()
        assert float(loss) == pytest.approx(2 * turn**2 * (X**2).sum())
        np.testing.assert_array_equal(net.blobs["x"].diff, 2 * 7 * 2 * turn * X)


def test_a_top_that_the_user_fills_stays(tmp_path: Path) -> None:
    (tmp_path / "users_layers.py").write_text(MEMORY)
    net = net_of(
        tmp_path,
        'layer { name: "p" type: "Python" top: "p" python_param { module: "users_layers" layer: "LeavesTheTop" } }'
        'layer { name: "y" type: "Power" bottom: "p" top: "y" power_param { scale: 2 } }',
    )
    net.blobs["p"].data[...] = X
    assert (net.forward()["y"] == 2 * X).all()
    assert (net.forward()["y"] == 2 * X).all()
