"""Python layers: what a user's class sees, and how its errors come out."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.cli import main
from caffecli.errors import PythonLayerError, SpecError
from caffecli.layers.base import Context
from caffecli.layers.blobs import Blob
from caffecli.layers.python import PythonLayerBase
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import NetParameter
from tests.layers.oracle import SHAPE, build, check, distinct

LAYERS = '''
import caffe
import numpy as np


class Affine(caffe.Layer):
    """y = scale * x + own, own a blob of the bottom's channels."""

    def setup(self, bottom, top):
        self.scale = float(self.param_str or 1)
        self.phases = [self.phase]
        self.blobs.add_blob(bottom[0].channels)
        self.blobs[0].data[...] = 0.5

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = self.scale * bottom[0].data + self.blobs[0].data[:, None, None]

    def backward(self, top, propagate_down, bottom):
        if propagate_down[0]:
            bottom[0].diff[...] = self.scale * top[0].diff
        self.blobs[0].diff[...] += top[0].diff.sum((0, 2, 3))


class Euclidean(caffe.Layer):
    def setup(self, bottom, top):
        if len(bottom) != 2:
            raise Exception("Need two inputs to compute distance.")

    def reshape(self, bottom, top):
        if bottom[0].count != bottom[1].count:
            raise Exception("Inputs must have the same dimension.")
        self.diff = np.zeros_like(bottom[0].data)
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.diff[...] = bottom[0].data - bottom[1].data
        top[0].data[...] = np.sum(self.diff**2) / bottom[0].num / 2.0

    def backward(self, top, propagate_down, bottom):
        for i, sign in enumerate([1, -1]):
            if propagate_down[i]:
                bottom[i].diff[...] = sign * top[0].diff * self.diff / bottom[i].num


class InPlace(caffe.Layer):
    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        bottom[0].data[...] *= 3

    def backward(self, top, propagate_down, bottom):
        top[0].diff[...] *= 3


class Counter(caffe.Layer):
    """A data layer."""

    def setup(self, bottom, top):
        self.n = 0

    def reshape(self, bottom, top):
        top[0].reshape(2, 3)
        top[1].reshape(2)

    def forward(self, bottom, top):
        self.n += 1
        top[0].data[...] = self.n
        top[1].data[...] = -self.n

    def backward(self, top, propagate_down, bottom):
        pass


class Fails(Euclidean):
    def forward(self, bottom, top):
        raise ValueError("no good\\nat all")


class FailsLater(Euclidean):
    def backward(self, top, propagate_down, bottom):
        return {}["key"]


class Silent(caffe.Layer):
    def forward(self, bottom, top):
        pass


class Alien:
    pass
'''


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # type: ignore[misc]
    """A folder with users' modules on the path, and the package ``caffe`` that they import."""
    caffe = types.ModuleType("caffe")
    caffe.Layer = PythonLayerBase  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "caffe", caffe)
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "user_layers.py").write_text(LAYERS)
    (folder / "broken_layers.py").write_text("import caffe\nimport no_such_module_at_all\n")
    (folder / "wrong_layers.py").write_text("import caffe\nclass :\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield folder
    for name in ("user_layers", "broken_layers", "neighbour_layers"):
        sys.modules.pop(name, None)


def python(layer: str, more: str = "", module: str = "user_layers") -> str:
    return f'type: "Python" python_param {{ module: "{module}" layer: "{layer}" {more} }}'


def test_a_layer_with_its_own_blob() -> None:
    layer = check(
        python("Affine", 'param_str: "2.5" share_in_parallel: true'), SHAPE,
        oracle=lambda x, own: 2.5 * x + own[:, None, None],
    )  # fmt: skip
    assert [tuple(blob.shape) for blob in layer.blobs] == [(7,)]
    assert (build(python("Affine"), SHAPE).blobs[0] == 0.5).all()
    assert [build(python("Affine"), SHAPE, phase=phase).user.phases for phase in (0, 1)] == [[0], [1]]  # type: ignore[union-attr]


def test_a_loss_layer_agrees_with_ours() -> None:
    check(python("Euclidean") + ' bottom: "a" bottom: "b"', SHAPE, SHAPE,
          oracle=lambda a, b: ((a - b) ** 2).sum(keepdims=True).reshape(1) / 4)  # fmt: skip


def test_in_place_is_one_blob() -> None:
    layer = build(python("InPlace") + ' bottom: "x" top: "x"', (2, 3))
    assert layer.bottoms[0] is layer.tops[0]  # type: ignore[index]
    x = torch.ones(2, 3, requires_grad=True)
    y = layer(x)
    y.sum().backward()
    assert (y == 3).all() and (x.grad == 3).all() and (x == 1).all()


def test_a_layer_without_bottoms_and_one_without_tops() -> None:
    net = Net(text_format.Parse(
        f'layer {{ name: "d" top: "a" top: "b" {python("Counter")} }} layer '
        f'{{ name: "s" bottom: "a" {python("Silent")} }}',
        NetParameter(),
    ))  # fmt: skip
    assert net.outputs == ["b"]
    assert [net()["b"].tolist() for _ in range(2)] == [[-1, -1], [-2, -2]]
    assert net.layer("s").bottoms[0].data.tolist() == [[2] * 3] * 2  # type: ignore[index]


def test_blobs_change_shape_and_show_their_sides() -> None:
    layer = build(python("Affine"), SHAPE)
    assert layer(torch.zeros(5, 7, 1, 2)).shape == (5, 7, 1, 2)
    assert layer.reshape([(3, 7, 2, 2)]) == [(3, 7, 2, 2)]
    blob = Blob((2, 3))
    blob.data[...] = np.arange(6).reshape(2, 3)
    blob.reshape(3, 2)
    assert blob.data.tolist() == [[0, 1], [2, 3], [4, 5]] and blob.diff.shape == (3, 2)
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (3, 2, 1, 1, 6)
    blob.reshape(4)
    assert blob.shape == (4,) and blob.data.dtype == np.float32


NET = """
layer {{ name: "in" type: "Input" top: "x" top: "t" input_param {{ shape {{ dim: 2 dim: 3 dim: 4 dim: 5 }} }} }}
layer {{ name: "affine" bottom: "x" top: "y" {} param {{ lr_mult: {} }} }}
layer {{ name: "loss" bottom: "y" bottom: "t" top: "loss" loss_weight: 2 {} }}
"""


@pytest.mark.parametrize("lr_mult", [1, 0])
def test_in_a_net(lr_mult: int) -> None:
    net = Net(
        text_format.Parse(NET.format(python("Affine", 'param_str: "2"'), lr_mult, python("Euclidean")), NetParameter())
    )
    inputs = {"x": torch.from_numpy(distinct(2, 3, 4, 5)), "t": torch.from_numpy(distinct(2, 3, 4, 5, seed=1))}
    result = Whole(net).forward(inputs)
    y = 2 * inputs["x"] + 0.5
    assert result.loss.item() == pytest.approx(float(((y - inputs["t"]) ** 2).sum() / 2), rel=1e-5)
    blob = net.layer("affine").blobs[0]
    assert blob.requires_grad == bool(lr_mult)
    if lr_mult:
        result.loss.backward()
        expected = (y - inputs["t"]).sum((0, 2, 3))
        torch.testing.assert_close(blob.grad, expected)
        blob.grad = None
        steps = Stepwise(net)
        steps.backward(steps.forward(inputs))
        torch.testing.assert_close(blob.grad, expected)


def test_modules_beside_the_net_and_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from caffecli.layers import registry
    from tests.layers.oracle import layer_param

    text = python("Mine", module="neighbour_layers")
    with pytest.raises(SpecError) as caught:
        build(text, SHAPE)
    assert str(caught.value).startswith("layer 'l' (Python): no module 'neighbour_layers' in ")
    assert str(tmp_path / "path") in str(caught.value) and "set PYTHONPATH" in str(caught.value)
    beside = tmp_path / "beside"
    beside.mkdir()
    (beside / "neighbour_layers.py").write_text(
        "import caffe\nclass Mine(caffe.Layer):\n    def setup(self, bottom, top):\n        import late_neighbour\n"
    )
    (beside / "late_neighbour.py").write_text("")
    searched = list(sys.path)
    layer = registry.create(layer_param(text), context=Context(folders=(beside,)))
    layer.setup([SHAPE])
    assert sys.path == searched, "the path is as before, though modules beside the net were found, late ones too"
    for module in ("neighbour_layers", "late_neighbour"):
        sys.modules.pop(module)
    monkeypatch.chdir(beside)
    assert type(build(text, SHAPE).user).__name__ == "Mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            python("Nothing"),
            "has no 'Nothing'; its layers: Affine, Euclidean, InPlace, Counter, Fails, FailsLater, Silent",
        ),
        (python("Alien"), "is not a layer; write class Alien(caffe.Layer)"),
        (python(""), "expected python_param { module: ... layer: ... }"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(text, SHAPE)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_errors_in_the_users_code_keep_their_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    layer = build(python("Fails") + ' bottom: "a" bottom: "b"', (2, 3), (2, 3))
    with pytest.raises(PythonLayerError) as caught:
        layer(torch.zeros(2, 3), torch.zeros(2, 3))
    assert str(caught.value) == "layer 'l' (Python, user_layers.Fails): forward: ValueError: no good at all"
    assert isinstance(caught.value.__cause__, ValueError)
    assert main._report(caught.value) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "user_layers.py" in lines[1] and 'raise ValueError("no good' in lines[2]
    assert lines[-1] == f"Error: {caught.value}"


def test_errors_elsewhere_in_the_users_code() -> None:
    a = torch.zeros(2, 3, requires_grad=True)
    layer = build(python("FailsLater") + ' bottom: "a" bottom: "b"', (2, 3), (2, 3))
    with pytest.raises(PythonLayerError, match=r"backward: KeyError: 'key'"):
        layer(a, torch.zeros(2, 3)).backward()
    with pytest.raises(PythonLayerError, match=r"setup: Exception: Need two inputs"):
        build(python("Euclidean"), (2, 3))
    with pytest.raises(PythonLayerError, match=r"reshape: Exception: Inputs must have the same dimension"):
        build(python("Euclidean") + ' bottom: "a" bottom: "b"', (2, 3), (2, 4))
    with pytest.raises(
        PythonLayerError, match=r"import: ModuleNotFoundError: No module named 'no_such_module_at_all'"
    ) as caught:
        build(python("X", module="broken_layers"), SHAPE)
    assert caught.value.__cause__.__traceback__.tb_frame.f_code.co_filename.endswith("broken_layers.py")
    with pytest.raises(PythonLayerError, match=r"import: SyntaxError: .*wrong_layers.py, line 2"):
        build(python("X", module="wrong_layers"), SHAPE)


MEMORY = """
import caffe

class Kept(caffe.Layer):
    def setup(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
        self.x, self.y = bottom[0].data, top[0].data
    def forward(self, bottom, top):
        self.y[...] = 3 * self.x
        bottom[0].diff[...] = 5 * bottom[0].data
        bottom[0].data[...] = 1
    def backward(self, top, propagate_down, bottom):
        pass
"""


def test_in_training_too_it_works_on_memory_that_stays(module: Path) -> None:
    """Arrays kept from setup, diffs written in forward, and a bottom that is changed for the layers after it."""
    (module / "user_layers.py").write_text(MEMORY)
    net = Net(text_format.Parse(f"""
layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "scale" type: "Scale" bottom: "x" top: "s" scale_param {{ filler {{ value: 2 }} }} }}
layer {{ name: "p" bottom: "s" top: "y" loss_weight: 1 {python("Kept")} }}
layer {{ name: "later" type: "Power" bottom: "s" top: "later" power_param {{ scale: 10 }} }}
""", NetParameter()))  # fmt: skip
    x = torch.from_numpy(distinct(2, 3))
    for turn in (1, 2):
        result = Whole(net).forward({"x": turn * x})
        torch.testing.assert_close(result.outputs["y"], 6 * turn * x)
        assert (result.outputs["later"] == 10).all()
        result.loss.backward()
        scale = net.layer("scale").blobs[0]
        torch.testing.assert_close(scale.grad, (turn * x * 10 * turn * x).sum(0))
        scale.grad = None
