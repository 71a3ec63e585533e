"""The contract of every registered layer type, driven by what its class says.

Each type has a case in cases.py. What is particular to a type (its formula, its settings, the reference's answers) is in the test
of its family.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import caffe
from caffecli.errors import SpecError
from caffecli.formats import caffemodel
from caffecli.layers import layer_class, registry
from caffecli.layers.base import Context, Coordinates, Layer, Precision
from caffecli.layers.data import MemoryData
from caffecli.layers.recurrent import Recurrent
from caffecli.net import exported, weights
from caffecli.net.net import Net
from caffecli.net.precision import BFLOAT16
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from caffecli.spec import text
from converters.convert_weights import convert_weights
from tests.layers.cases import CASES, Bottom, net_text, write_files

TYPES = registry.types()
READING = [name for name in TYPES if CASES.get(name) and CASES[name].bottoms]
#: how many boxes there are, or what shape what the user gives has, is not known beforehand
OPEN = {"DetectionOutput", "MemoryData"}

each = pytest.mark.parametrize("name", TYPES)
each_reading = pytest.mark.parametrize("name", READING)
phases = pytest.mark.parametrize("phase", [TRAIN, TEST], ids=["TRAIN", "TEST"])


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path)


def kind(name: str) -> type[Layer]:
    found = layer_class(name)
    assert found is not None
    return found


@contextlib.contextmanager
def net_of(
    name: str, phase: int = TRAIN, bottoms: Sequence[Bottom] | None = None, in_place: bool = False
) -> Iterator[tuple[Net, Layer, dict[str, Tensor]]]:
    """The net of a case, the layer that is tested, and values for the net's inputs."""
    param = text.parse(net_text(name, bottoms, in_place), NetParameter())
    param.state.phase = phase  # type: ignore[assignment]
    torch.manual_seed(1)
    with contextlib.closing(Net(param, Context(seed=1))) as net:
        layer = net.layer("tested")
        if isinstance(layer, MemoryData):
            layer.set_input_arrays(np.ones((2, 3, 4, 5), np.float32), np.zeros(2, np.float32))
        given = CASES[name].bottoms if bottoms is None else bottoms
        yield net, layer, {f"x{i}": torch.from_numpy(bottom.array(i)) for i, bottom in enumerate(given)}


def run(net: Net, inputs: dict[str, Tensor], seed: int = 2) -> list[Tensor]:
    """The tops of the layer that is tested."""
    torch.manual_seed(seed)
    seen: list[Tensor] = []
    Whole(net).forward(inputs, observe=lambda node, tops: seen.extend(tops) if node.name == "tested" else None)
    return [top.detach().clone() for top in seen]


def gradients(net: Net, inputs: dict[str, Tensor]) -> tuple[dict[str, Tensor | None], list[Tensor | None]]:
    """The diffs of the bottoms and of the blobs, of the sum of all tops, by autograd over the whole net."""
    inputs = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    torch.manual_seed(2)
    seen: list[Tensor] = []
    Whole(net).forward(inputs, observe=lambda node, tops: seen.extend(tops) if node.name == "tested" else None)
    total = sum((top.sum() for top in seen if top.requires_grad), torch.zeros(()))
    if total.requires_grad:
        total.backward()
    return {name: value.grad for name, value in inputs.items()}, [blob.grad for blob in net.layer("tested").blobs]


def close(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other.float(), rtol=tolerance, atol=tolerance)


@each
def test_there_is_a_case(name: str) -> None:
    assert name in CASES, f"give {name} a case in tests/layers/cases.py"


@each
def test_what_the_class_says_holds_together(name: str) -> None:
    cls = kind(name)
    assert cls.type == name
    assert isinstance(cls.precision, Precision)
    assert cls.coordinates is None or isinstance(cls.coordinates, Coordinates)
    assert set(cls.label_bottoms) <= set(cls.no_gradient), "labels have no gradient"
    assert cls.shares_data or not cls.shares_diff
    assert not (cls.usually_in_place and not cls.in_place)
    assert not cls.usually_in_place or cls.keeps_shape
    assert len(set(cls.blob_order)) == len(cls.blob_order)
    assert cls.color.startswith("#") and len(cls.color) == 7


@each
@phases
def test_forward(name: str, phase: int) -> None:
    with net_of(name, phase) as (net, layer, inputs):
        tops = run(net, inputs)
        assert all(bool(torch.isfinite(top).all()) for top in tops)
        if name not in OPEN:
            assert [tuple(top.shape) for top in tops] == [tuple(net.shape(f"y{i}")) for i in range(CASES[name].tops)]
        for i, bottom in enumerate(CASES[name].bottoms):
            np.testing.assert_array_equal(inputs[f"x{i}"].numpy(), bottom.array(i), err_msg="it changed its bottom")
        if layer.param.bottom and not layer.random:
            with net_of(name, phase) as (again, _, _):
                close(run(again, inputs, seed=3), tops)


@each_reading
def test_gradients_go_where_the_class_says(name: str) -> None:
    with net_of(name) as (net, layer, inputs):
        bottoms, blobs = gradients(net, inputs)
        reached = {i for i, diff in enumerate(bottoms.values()) if diff is not None and bool(diff.any())}
        assert not reached & set(layer.no_gradient)
        if CASES[name].tops:
            assert reached == set(range(len(bottoms))) - set(layer.no_gradient)
        learned = [blob.requires_grad for blob in layer.blobs]
        assert [diff is not None for diff in blobs] == learned


@each_reading
def test_in_place(name: str) -> None:
    cls = kind(name)
    if not cls.in_place:
        with (
            pytest.raises(SpecError, match=r"cannot work in place on 'x0'; give the top another name"),
            net_of(name, in_place=True),
        ):
            pass
    elif cls.keeps_shape:
        with net_of(name) as (net, _, inputs), net_of(name, in_place=True) as (other, _, _):
            close(run(other, inputs), run(net, inputs))
            (first, blobs), (second, blobs_too) = gradients(net, inputs), gradients(other, inputs)
            for one, two in zip([*first.values(), *blobs], [*second.values(), *blobs_too], strict=True):
                assert (one is None) == (two is None)
                if one is not None and two is not None:
                    torch.testing.assert_close(one, two)


@each_reading
@phases
def test_channels_last(name: str, phase: int) -> None:
    with net_of(name, phase) as (net, layer, inputs), net_of(name, phase) as (placed, _, _):
        if layer.random:
            return
        placed.place("cpu")
        turned = {n: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for n, x in inputs.items()}
        close(run(placed, turned), run(net, inputs))


@each_reading
@phases
def test_layer_by_layer(name: str, phase: int) -> None:
    with net_of(name, phase) as (net, layer, inputs), net_of(name, phase) as (stepped, _, _):
        steps = Stepwise(stepped)
        torch.manual_seed(2)
        result = steps.forward(inputs)
        node = stepped.nodes[-1]
        found = [top for slot in node.outputs if (top := steps.data[slot]) is not None]
        expected, blobs = gradients(net, inputs)
        with net_of(name, phase) as (fresh, _, _):
            close(found, run(fresh, inputs))
        for slot in node.outputs:
            top = steps.data[slot]
            steps.diff[slot] = None if top is None else torch.zeros_like(top)
        ones = {n: torch.ones_like(found[i]) for i, n in enumerate(node.tops) if not node.loss_weights[i]}
        steps.backward(result, {n: diff for n, diff in ones.items() if n in stepped.outputs})
        for n, want in expected.items():
            diff = steps.diff[steps.first_slot(n)]
            if want is not None and diff is not None and n not in [f"x{i}" for i in layer.no_gradient]:
                torch.testing.assert_close(diff, want)
        for blob, want in zip(stepped.layer("tested").blobs, blobs, strict=True):
            if want is not None:
                torch.testing.assert_close(blob.grad, want)


@each_reading
@phases
def test_from_python(name: str, phase: int) -> None:
    Path("net.prototxt").write_text(net_text(name))
    caffe.set_random_seed(1)
    with net_of(name, phase) as (net, layer, inputs):
        made = caffe.Net("net.prototxt", phase)
        for n, value in inputs.items():
            made.blobs[n].data[...] = value.numpy()
        for ours, blob in zip(made.params["tested"] if layer.blobs else (), layer.blobs, strict=True):
            ours.data[...] = blob.detach().numpy()
        if layer.random:
            return
        expected = run(net, inputs)
        made.forward()
        close([torch.from_numpy(made.blobs[f"y{i}"].data) for i in range(CASES[name].tops)], expected)


@each_reading
def test_mixed_precision(name: str) -> None:
    with net_of(name) as (net, _, inputs), net_of(name) as (other, _, _):
        torch.manual_seed(2)
        seen: list[Tensor] = []
        Whole(other, BFLOAT16).forward(inputs, observe=lambda node, tops: seen.extend(tops) if node.name == "tested" else None)
        assert all(top.dtype == torch.float32 for top in seen), "a net's outputs are float32"
        close(seen, run(net, inputs), 0.05)


@each_reading
def test_compiling(name: str) -> None:
    with net_of(name) as (net, layer, inputs):
        if not layer.compiles:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of itself
            code = torch.compile(layer, backend="eager", fullgraph=True, dynamic=False)
            torch.manual_seed(2)
            tops = code(*inputs.values())
        close([*tops] if isinstance(tops, tuple) else [tops], run(net, inputs))
    torch.compiler.reset()


@each
def test_exporting(name: str) -> None:
    with net_of(name, TEST) as (net, layer, inputs):
        if layer.not_exported:
            with pytest.raises(SpecError, match=rf"layer 'tested' \({name}\) {layer.not_exported}"):
                exported.program(net)
            return
        if not inputs or not CASES[name].tops:
            return
        net.requires_grad_(False)
        whole = exported.exposed(net)  # with what a recurrent layer carries on as inputs
        given = [inputs.get(n, torch.zeros(tuple(whole.shape(n)))) for n in whole.inputs]
        try:
            program = exported.program(whole)
        except SpecError as refusal:
            assert f"layer 'tested' ({name})" in str(refusal), "a refusal names the layer"
            return
        made = dict(zip(whole.outputs, program.module()(*given), strict=True))
        if not layer.random:
            close([made[f"y{i}"] for i in range(CASES[name].tops)], run(net, inputs))


@each_reading
@phases
def test_reshape(name: str, phase: int) -> None:
    other = CASES[name].reshaped()
    with net_of(name, phase) as (net, layer, inputs), net_of(name, phase, other) as (fresh, built, more):
        run(net, inputs)
        tops = layer.reshape([bottom.shape for bottom in other])
        assert tops == [fresh.shape(f"y{i}") for i in range(CASES[name].tops)]
        for blob, theirs in zip(built.blobs, layer.blobs, strict=True):
            blob.data = theirs.detach().clone()
        if not layer.random and not built.one_process and not isinstance(layer, Recurrent):  # which carries a state on
            torch.manual_seed(2)
            again = layer(*more.values())
            close([*again] if isinstance(again, tuple) else [again], run(fresh, more))


@each
@pytest.mark.parametrize("form", ["caffemodel", "caffemodel.h5", "safetensors"])
def test_weights_through_a_file(name: str, form: str) -> None:
    with net_of(name) as (net, layer, _), net_of(name) as (other, loaded, _):
        assert layer.blob_names == [n for n in layer.blob_order if n in layer.blob_names] or not layer.blob_order
        with torch.no_grad():
            for i, blob in enumerate(layer.blobs):
                blob.copy_(torch.from_numpy(np.random.default_rng(i).normal(size=tuple(blob.shape))))
        caffemodel.write("a.caffemodel", weights.definition(net), weights.export(net))
        convert_weights("a.caffemodel", f"b.{form}")
        convert_weights(f"b.{form}", "c.caffemodel")
        weights.load(other, "c.caffemodel")
        for blob, expected in zip(loaded.blobs, layer.blobs, strict=True):
            assert torch.equal(blob, expected)
