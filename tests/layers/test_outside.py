"""Layers of a third party: registered from outside, with the rights of our own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from caffecli.errors import CaffeError, PythonLayerError, SpecError
from caffecli.layers.base import Layer, Shape
from caffecli.layers.registry import register
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
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
    with pytest.raises(PythonLayerError, match=r"layer 's' \(Scaled\): its forward, .*; on 'x' \(1, 7, 5\)\)"):
        net.reshape()


def test_it_may_refuse_to_run_in_place() -> None:
    scaled(in_place=False)
    with pytest.raises(
        Exception, match=r"layer 's' \(Scaled\): cannot work in place on 'x'; give the top another name"
    ):
        Net(text.parse(SCALED.replace('top: "y"', 'top: "x"'), NetParameter()))


BAD = (
    'force_backward: true layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } } '
    'layer { name: "b" type: "Bad" bottom: "x" top: "y" loss_weight: 1 }'
)


def bad(**parts: Any) -> Net:
    """A net with a layer of the type Bad, whose class has these methods and attributes."""
    register("Bad")(type("Bad", (Layer,), {"keeps_shape": True, "forward": lambda self, x: x * 1, **parts}))
    return Net(text.parse(BAD, NetParameter()))


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def raising(error: BaseException) -> Callable[..., Any]:
    def method(*args: Any) -> Any:
        raise error

    return method


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("a\nb"), "RuntimeError: a b"),
        (KeyError("k"), "KeyError: 'k'"),
        (AssertionError(), "AssertionError"),
        (Mute(), "Mute"),
        (SystemExit(7), "SystemExit: 7"),
    ],
)
@pytest.mark.parametrize("method", ["__init__", "setup", "reshape", "forward"])
def test_a_method_that_raises(method: str, error: BaseException, words: str) -> None:
    with pytest.raises(PythonLayerError) as caught:
        bad(**{method: raising(error)})()
    line = raising.__code__.co_firstlineno + 2
    assert str(caught.value).startswith(f"layer 'b' (Bad): its {method} failed: {words} (test_outside.py, line {line}")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("runner", [Whole, Stepwise])
def test_a_backward_that_raises(runner: type[Whole] | type[Stepwise]) -> None:
    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise ValueError("boom")

    run = runner(bad(forward=lambda self, x: Broken.apply(x)))
    result = run.forward({"x": torch.rand(2, 3)})
    with pytest.raises(PythonLayerError, match=r"layer 'b' \(Bad\): its backward failed: ValueError: boom \(test_out"):
        run.backward(result)


def test_a_wrong_signature_and_what_is_missing() -> None:
    with pytest.raises(PythonLayerError, match=r"its forward failed: TypeError: .* \(test_outside.py\)"):
        bad(forward=lambda self: 1)()


def test_an_init_that_does_not_call_that_of_layer() -> None:
    with pytest.raises(SpecError, match=r"layer 'b' \(Bad\): its __init__ does not call super\(\).__init__\(param"):
        bad(__init__=lambda self, *args: None)


def test_no_forward() -> None:
    with pytest.raises(SpecError, match=r"layer 'b' \(Bad\): its class has no method forward"):
        bad(forward=torch.nn.Module.forward)


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        (lambda self, x: None, "gave None; expected a tensor, or a tuple of tensors"),
        (lambda self, x: 1.0, "gave a float;"),
        (lambda self, x: [x], "gave a list;"),
        (lambda self, x: (x, 1), "gave a tuple with a int in it;"),
        (lambda self, x: (x, x), r"gave 2 top\(s\), its reshape said 1"),
        (lambda self, x: (), r"gave 0 top\(s\), its reshape said 1"),
        (lambda self, x: x[:, :2], r"gave a top of shape \(2, 2\), keeps_shape says \(2, 3\); let them be the same"),
        (lambda self, x: x.double(), "gave a top of torch.float64; expected torch.float32"),
        (lambda self, x: x.long(), "gave a top of torch.int64;"),
    ],
)
def test_what_forward_gives(forward: Callable[..., Any], words: str) -> None:
    net = bad(forward=forward)
    with pytest.raises(CaffeError, match=r"layer 'b' \(Bad\): its forward " + words):
        net()


def test_the_check_is_made_once_after_a_reshape() -> None:
    net = bad()
    layer = net.layer("b")
    assert len(layer._forward_hooks) == 1
    net({"x": torch.rand(5, 3)})  # of another shape than the definition's
    assert not layer._forward_hooks
    net.double()({"x": torch.rand(2, 3, dtype=torch.double)})


def test_shapes_that_depend_on_values() -> None:
    net = bad(compiles=False, forward=lambda self, x: x[:1])
    assert net({"x": torch.rand(2, 3)})["y"].shape == (1, 3)


@pytest.mark.parametrize("given", [None, "ab", (8, 4), [(8, 4.0)], [(8, -4)], [8]])
def test_what_reshape_gives(given: object) -> None:
    with pytest.raises(SpecError, match=r"layer 'b' \(Bad\): its reshape gave .*; expected a list of the tops' shapes"):
        bad(reshape=lambda self, bottoms: given)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("bottom_count", 2, r"\(least, most\), such as"),
        ("top_count", (2, 1), r"\(least, most\), such as"),
        ("no_gradient", 0, "a tuple of the places of bottoms"),
        ("blob_order", "weight", "a tuple of names"),
        ("blob_order", ("w", "w"), "a tuple of names, each once"),
        ("precision", "half", "one of Precision.BFLOAT16"),
        ("coordinates", "same", "None or one of Coordinates.SAME"),
        ("keeps_shape", 1, "True or False"),
        ("color", 3, "a text"),
    ],
)
def test_attributes_of_the_wrong_kind(name: str, value: object, words: str) -> None:
    with pytest.raises(SpecError, match=rf"class tests.layers.test_outside.Bad: {name} is .*; expected {words}"):
        bad(**{name: value})


@pytest.mark.parametrize(
    ("blobs", "words"),
    [
        ([("w", (3,)), ("w", (3,))], "blob 'w' is declared twice"),
        ([("forward", (3,))], "a blob cannot be called 'forward'"),
        ([("a.b", (3,))], "'a.b' is no name for a blob"),
        ([("w", (-1,))], r"blob 'w': \(-1,\) is no shape"),
        ([("w", 3)], "blob 'w': 3 is no shape"),
        ([("w", (3,), "xavier")], "blob 'w': 'xavier' is no filler"),
    ],
)
def test_blobs_that_cannot_be(blobs: list[tuple[Any, ...]], words: str) -> None:
    with pytest.raises(SpecError, match=r"layer 'b' \(Bad\): " + words):
        bad(setup=lambda self, bottoms: [self.add_blob(*blob) for blob in blobs])


def test_blobs_in_another_order() -> None:
    def setup(self: Layer, bottoms: list[Shape]) -> None:
        for name in ("b", "a"):
            self.add_blob(name, (3,))

    with pytest.raises(SpecError, match=r"its setup declares the blobs b, a, its blob_order says a, b; let"):
        bad(blob_order=("a", "b"), setup=setup)


def test_a_gradient_that_is_cut(caplog: pytest.LogCaptureFixture) -> None:
    net = bad(
        setup=lambda self, bottoms: self.add_blob("w", (3,)),
        forward=lambda self, x: (x * self.w).detach(),
    )
    for _ in range(2):
        net()
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == 1
    assert "layer 'b' (Bad): autograd finds no way from its tops to its blobs w, which will not learn" in said[0]


@pytest.mark.parametrize("name", [3, "", " ", Layer])
def test_names_that_cannot_be_registered(name: Any) -> None:
    with pytest.raises(SpecError, match=r'register is given .*; write @caffecli.register\("MyType"\) over the class'):
        register(name)


@pytest.mark.parametrize("what", [len, dict])
def test_what_is_no_layer(what: Any) -> None:
    with pytest.raises(
        SpecError, match=r"layer type 'Bad': builtins.* is no layer; derive the class from caffecli.Layer"
    ):
        register("Bad")(what)


def test_a_type_that_nobody_knows() -> None:
    with pytest.raises(SpecError) as caught:
        Net(text.parse(BAD.replace('"Bad"', '"Zzyzx"'), NetParameter()))
    assert str(caught.value) == (
        "layer 'b': unknown type 'Zzyzx'; docs/layers.md lists the types; a module with one of your own is named by "
        "--layers MODULE"
    )
