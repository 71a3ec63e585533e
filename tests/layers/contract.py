"""The contract of every layer type: what its class says is what it does.

``check(type_name, case)`` holds one type to all of it; each function of ``CHECKS`` to a part. A type of your own is
registered, given a ``Case``, and checked like ours (``docs/your-own-layer.md``). What is particular to a type, its
formula and the reference's answers, is for a test of its own: ``oracle.py`` helps there.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import caffe
from caffecli.errors import SpecError
from caffecli.formats import caffemodel
from caffecli.layers import layer_class
from caffecli.layers.base import Context, Coordinates, Layer, Precision, as_tuple
from caffecli.layers.data import MemoryData
from caffecli.layers.recurrent import Recurrent
from caffecli.net import exported, weights
from caffecli.net.graph import Node
from caffecli.net.net import Net
from caffecli.net.precision import BFLOAT16
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter
from caffecli.spec import text
from converters.convert_weights import convert_weights

FILES = itertools.count()
PICTURES = (2, 6, 5, 4)
PHASES = (TRAIN, TEST)


@dataclass(frozen=True)
class Bottom:
    """What a layer reads: values drawn by chance, or whole numbers below ``classes``, or one ``value``."""

    shape: tuple[int, ...]
    classes: int = 0
    value: float | None = None

    def array(self, seed: int) -> np.ndarray:
        draws = np.random.default_rng(seed)
        if self.value is not None:
            return np.full(self.shape, self.value, np.float32)
        if self.classes:
            return draws.integers(self.classes, size=self.shape).astype(np.float32)
        return draws.uniform(0.05, 1, self.shape).astype(np.float32)


def values(*shape: int) -> Bottom:
    return Bottom(shape)


def numbers(classes: int, *shape: int) -> Bottom:
    return Bottom(shape, classes)


@dataclass(frozen=True)
class Case:
    """How a layer type is tried.

    ``settings``: prototxt inside the layer. ``tops``: how many. ``other``: bottoms of other shapes, which its blobs fit
    too. ``exports=False``: torch.export finds what it cannot trace, though the class does not refuse by itself.
    ``shapes_known=False``: the shapes of the tops depend on values.
    """

    settings: str = ""
    bottoms: tuple[Bottom, ...] = (Bottom(PICTURES),)
    tops: int = 1
    other: tuple[Bottom, ...] | None = None
    exports: bool = True
    shapes_known: bool = True

    def reshaped(self) -> tuple[Bottom, ...]:
        """``other``, by default one item more in each bottom."""
        if self.other is not None:
            return self.other
        return tuple(replace(bottom, shape=(bottom.shape[0] + 1, *bottom.shape[1:])) for bottom in self.bottoms)


def net_text(name: str, case: Case, bottoms: Sequence[Bottom] | None = None, in_place: bool = False) -> str:
    """A net of Input layers x0, x1, ... and the layer ``tested`` of that type over them, its tops y0, y1, ..."""
    parts = [f'name: "{name}" force_backward: true']
    for i, bottom in enumerate(case.bottoms if bottoms is None else bottoms):
        dims = " ".join(f"dim: {dim}" for dim in bottom.shape)
        parts.append(f'layer {{ name: "x{i}" type: "Input" top: "x{i}" input_param {{ shape {{ {dims} }} }} }}')
    reads = " ".join(f'bottom: "x{i}"' for i in range(len(case.bottoms)))
    makes = " ".join(f'top: "{"x" if in_place and i == 0 else "y"}{i}"' for i in range(case.tops))
    settings = case.settings.replace("out.h5", f"out{next(FILES)}.h5")  # which two nets may not write at once
    parts.append(f'layer {{ name: "tested" type: "{name}" {reads} {makes} {settings} }}')
    return "\n".join(parts)


@dataclass
class Trial:
    """The net of a case, the layer that is tested, and values for the net's inputs."""

    net: Net
    layer: Layer
    inputs: dict[str, Tensor]

    @property
    def node(self) -> Node:
        return self.net.nodes[-1]

    def run(self, seed: int = 2, inputs: Mapping[str, Tensor] | None = None) -> list[Tensor]:
        """The tops of the layer."""
        return [top.detach().clone() for top in self.tops(self.inputs if inputs is None else inputs, seed)]

    def tops(self, inputs: Mapping[str, Tensor], seed: int = 2) -> list[Tensor]:
        torch.manual_seed(seed)
        seen: list[Tensor] = []

        def observe(node: Node, tops: tuple[Tensor, ...]) -> None:
            if node is self.node:
                seen.extend(tops)

        Whole(self.net).forward(inputs, observe=observe)
        return seen

    def gradients(self) -> tuple[list[Tensor | None], list[Tensor | None]]:
        """The diffs of the bottoms and of the blobs, of the sum of all tops, by autograd over the whole net."""
        inputs = {name: value.clone().requires_grad_() for name, value in self.inputs.items()}
        differentiate_sum(self.tops(inputs))
        return [value.grad for value in inputs.values()], [blob.grad for blob in self.layer.blobs]


@contextlib.contextmanager
def trial(
    name: str, case: Case, phase: int = TRAIN, bottoms: Sequence[Bottom] | None = None, in_place: bool = False
) -> Iterator[Trial]:
    param = text.parse(net_text(name, case, bottoms, in_place), NetParameter())
    param.state.phase = phase  # type: ignore[assignment]
    torch.manual_seed(1)
    with contextlib.closing(Net(param, Context(seed=1))) as net:
        layer = net.layer("tested")
        if isinstance(layer, MemoryData):
            layer.set_input_arrays(np.ones((2, 3, 4, 5), np.float32), np.zeros(2, np.float32))
        given = case.bottoms if bottoms is None else bottoms
        yield Trial(net, layer, {f"x{i}": torch.from_numpy(bottom.array(i)) for i, bottom in enumerate(given)})


def kind(name: str) -> type[Layer]:
    found = layer_class(name)
    assert found is not None, f"no layer type {name!r} is registered"
    return found


def differentiate_sum(tops: Sequence[Tensor]) -> None:
    total = sum((top.float().sum() for top in tops if top.requires_grad), torch.zeros(()))
    if total.requires_grad:
        total.backward()


def same(what: str, found: Sequence[Tensor | None], expected: Sequence[Tensor | None], tolerance: float = 1e-5) -> None:
    assert len(found) == len(expected), f"{what}: {len(found)} tensors, expected {len(expected)}"
    for i, (one, other) in enumerate(zip(found, expected, strict=True)):
        assert (one is None) == (other is None), f"{what}: tensor {i} is there on one side only"
        if one is not None and other is not None:
            torch.testing.assert_close(
                one.float(), other.float(), rtol=tolerance, atol=tolerance, msg=lambda text: f"{what}: {text}"
            )


# -- the checks ------------------------------------------------------------------------------------------------------


def check_facts(name: str, case: Case) -> None:
    """What the class says holds together."""
    cls = kind(name)
    assert cls.type == name
    assert isinstance(cls.precision, Precision)
    assert cls.coordinates is None or isinstance(cls.coordinates, Coordinates)
    assert set(cls.label_bottoms) <= set(cls.no_gradient), "label_bottoms: labels have no gradient"
    assert cls.shares_data or not cls.shares_diff, "shares_diff without shares_data"
    assert cls.in_place or not cls.usually_in_place, "usually_in_place, but not in_place"
    assert cls.keeps_shape or not cls.usually_in_place, "usually_in_place, but keeps_shape is not said"
    assert len(set(cls.blob_order)) == len(cls.blob_order), "blob_order has a name twice"
    assert cls.color.startswith("#") and len(cls.color) == 7, "color is not #RRGGBB"


def check_forward(name: str, case: Case) -> None:
    """Finite tops of the shapes that were said, the same each time unless it is random;
    the bottoms stay as they are.
    """
    for phase in PHASES:
        with trial(name, case, phase) as tried:
            layer, tops = tried.layer, tried.run()
            assert all(top.dtype == torch.float32 for top in tops), "a top is not float32"
            assert all(bool(torch.isfinite(top).all()) for top in tops), "a top is not finite"
            said = [tuple(tried.net.shape(f"y{i}")) for i in range(case.tops)]
            if case.shapes_known:
                assert [tuple(top.shape) for top in tops] == said, "keeps_shape or reshape says other shapes"
            for i, bottom in enumerate(case.bottoms):
                np.testing.assert_array_equal(tried.inputs[f"x{i}"].numpy(), bottom.array(i), "it changed its bottom")
            first = tried.inputs.get("x0")
            for top in tops if layer.shares_data else ():
                assert first is not None and torch.equal(top.flatten(), first.flatten()), "shares_data: other values"
            if layer.is_loss:
                assert tops[0].numel() == 1, "is_loss: the first top is not one number"
            if layer.coordinates is Coordinates.SAME and first is not None:
                assert all(top.shape[2:] == first.shape[2:] for top in tops), "coordinates: not the same places"
            work = layer.multiply_adds([bottom.shape for bottom in case.bottoms], [*said])
            assert work > 0 if layer.precision is Precision.BFLOAT16 else work >= 0, f"multiply_adds says {work}"
            if layer.param.bottom and not layer.random:
                with trial(name, case, phase) as again:
                    same("random: it draws numbers", again.run(seed=3), tops)


def check_gradients(name: str, case: Case) -> None:
    """Diffs reach all bottoms but those of no_gradient, and all blobs that are learned."""
    if not case.bottoms:
        return
    with trial(name, case) as tried:
        bottoms, blobs = tried.gradients()
        reached = {i for i, diff in enumerate(bottoms) if diff is not None and bool(diff.any())}
        without = set(tried.layer.no_gradient)
        assert not reached & without, f"no_gradient: bottoms {sorted(reached & without)} have one"
        if case.tops:
            missing = set(range(len(bottoms))) - without - reached
            assert not missing, f"no_gradient: bottoms {sorted(missing)} have none"
        learned = [blob.requires_grad for blob in tried.layer.blobs]
        assert [diff is not None for diff in blobs] == learned, "a learned blob has no gradient, or another has one"


def check_in_place(name: str, case: Case) -> None:
    """Over its bottom it gives the same tops and diffs; or its class refuses."""
    cls = kind(name)
    if not case.bottoms or not case.tops:
        return
    if not cls.in_place:
        try:
            with trial(name, case, in_place=True):
                raise AssertionError("in_place: the class refuses, but the net was built")
        except SpecError as refusal:
            assert "cannot work in place on 'x0'; give the top another name" in str(refusal)
    elif cls.keeps_shape:
        with trial(name, case) as tried, trial(name, case, in_place=True) as over:
            assert over.node.tops[0] == "x0"
            same("in place", over.run(), tried.run())
            for found, expected in zip(over.gradients(), tried.gradients(), strict=True):
                same("diffs in place", found, expected)


def check_channels_last(name: str, case: Case) -> None:
    """The same tops where pictures, and weights, lie channels-last in memory."""
    for phase in PHASES if case.bottoms else ():
        with trial(name, case, phase) as tried, trial(name, case, phase) as placed:
            if tried.layer.random:  # draws in the memory's order
                continue
            placed.net.place("cpu")
            turned = {
                n: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
                for n, x in tried.inputs.items()
            }
            same("channels last", placed.run(inputs=turned), tried.run())


def check_layer_by_layer(name: str, case: Case) -> None:
    """The same tops and diffs where each layer is run and differentiated by itself."""
    for phase in PHASES if case.bottoms else ():
        with trial(name, case, phase) as tried, trial(name, case, phase) as stepped:
            steps, node = Stepwise(stepped.net), stepped.node
            torch.manual_seed(2)
            result = steps.forward(stepped.inputs)
            tops = [steps.data[slot] for slot in node.outputs]
            expected, blobs = tried.gradients()
            with trial(name, case, phase) as fresh:
                same("layer by layer", tops, fresh.run())
            unweighted = [n for n, weight in zip(node.tops, node.loss_weights, strict=True) if not weight]
            steps.backward(result, {n: torch.ones_like(steps.data[steps.slot(n)]) for n in unweighted})
            found = [steps.diff[steps.first_slot(n)] for n in stepped.inputs]
            for i in {*stepped.layer.no_gradient} & {*range(len(found))}:
                assert found[i] is None or not bool(found[i].any()), f"layer by layer: bottom {i} has a diff"
            down = [i for i in range(len(found)) if i not in stepped.layer.no_gradient and case.tops]
            same("diffs layer by layer", [found[i] for i in down], [expected[i] for i in down])
            same("blobs' diffs layer by layer", [blob.grad for blob in stepped.layer.blobs], blobs)


def check_from_python(name: str, case: Case) -> None:
    """The same tops from caffe.Net."""
    for phase in PHASES if case.bottoms else ():
        caffe.set_random_seed(1)
        with trial(name, case, phase) as tried, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.prototxt"
            path.write_text(net_text(name, case))
            made = caffe.Net(str(path), phase)
            for n, value in tried.inputs.items():
                made.blobs[n].data[...] = value.numpy()
            for ours, blob in zip(made.params["tested"] if tried.layer.blobs else (), tried.layer.blobs, strict=True):
                ours.data[...] = blob.detach().numpy()
            if tried.layer.random:
                continue
            made.forward()
            found: list[Tensor | None] = [torch.from_numpy(made.blobs[f"y{i}"].data) for i in range(case.tops)]
            same("caffe.Net", found, tried.run())


def check_mixed_precision(name: str, case: Case) -> None:
    """Under ``--amp`` about the same tops, from bottoms in bfloat16 too; outputs and blobs' diffs are float32."""
    if not case.bottoms:
        return
    with trial(name, case) as tried, trial(name, case) as mixed:
        rounded = {n: x.bfloat16() for n, x in tried.inputs.items()}
        expected = tried.run(inputs={n: x.float() for n, x in rounded.items()})
        torch.manual_seed(2)
        tops = as_tuple(BFLOAT16.run(mixed.node, list(rounded.values()))) if case.tops else ()
        assert all(top.dtype == torch.float32 for top in tops), "precision: a net's outputs are float32"
        exact = mixed.layer.precision is Precision.FLOAT32
        same("precision: too coarse in bfloat16", tops, expected, 1e-5 if exact else 0.05)
        differentiate_sum(tops)
        for blob in mixed.layer.blobs:
            assert blob.grad is None or (blob.grad.dtype == torch.float32 and bool(torch.isfinite(blob.grad).all()))


def check_compiling(name: str, case: Case, backend: str = "eager") -> None:
    """The same tops as one piece of torch.compile; or its class refuses."""
    if not case.bottoms:
        return
    with trial(name, case) as tried:
        if not tried.layer.compiles:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of itself
            code = torch.compile(tried.layer, backend=backend, fullgraph=True, dynamic=False)
            torch.manual_seed(2)
            try:
                tops = code(*tried.inputs.values())
            except Exception as error:
                raise AssertionError(f"compiles: torch.compile cannot: {error}") from error
            finally:
                torch.compiler.reset()
        if backend == "eager" or not tried.layer.random:
            same("compiled", as_tuple(tops), tried.run())


def check_exporting(name: str, case: Case) -> None:
    """The same outputs from its torch.export program; or its class, or the tracer, refuses by its name."""
    with trial(name, case, TEST) as tried:
        net, layer = tried.net, tried.layer
        if layer.not_exported or (case.bottoms and not case.exports):
            try:
                exported.program(net)
            except SpecError as refusal:
                assert f"layer 'tested' ({name}){layer.not_exported and ' '}{layer.not_exported}" in str(refusal)
                return
            raise AssertionError("not_exported, or the case, refuses, but it was exported")
        if not case.bottoms or not case.tops:
            return
        net.requires_grad_(False)
        whole = exported.exposed(net)  # with what a recurrent layer carries on as inputs
        given = [tried.inputs.get(n, torch.zeros(tuple(whole.shape(n)))) for n in whole.inputs]
        try:
            made = dict(zip(whole.outputs, exported.program(whole).module()(*given), strict=True))
        except SpecError as refusal:
            raise AssertionError(f"not_exported: it cannot be exported: {refusal}") from refusal
        if not layer.random:
            same("exported", [made[f"y{i}"] for i in range(case.tops)], tried.run())


def check_reshaping(name: str, case: Case) -> None:
    """Over bottoms of other shapes it says and makes the tops of a layer that was made for them,
    with the same blobs.
    """
    other = case.reshaped()
    for phase in PHASES if case.bottoms else ():
        with trial(name, case, phase) as tried, trial(name, case, phase, other) as fresh:
            layer, before = tried.layer, [*tried.layer.blobs]
            tried.run()
            tops = layer.reshape([bottom.shape for bottom in other])
            assert tops == [fresh.net.shape(f"y{i}") for i in range(case.tops)], (
                "reshape: other shapes than a new layer's"
            )
            assert all(one is two for one, two in zip(before, layer.blobs, strict=True)), "reshape: its blobs changed"
            for blob, theirs in zip(fresh.layer.blobs, layer.blobs, strict=True):
                blob.data = theirs.detach().clone()
            if (
                not layer.random and not layer.one_process and not isinstance(layer, Recurrent)
            ):  # which carries a state on
                torch.manual_seed(2)
                same("reshaped", as_tuple(layer(*fresh.inputs.values())) if case.tops else (), fresh.run())


def check_weights_file(name: str, case: Case) -> None:
    """Its blobs go through a file of each form and back, under the names that the class says."""
    with trial(name, case) as tried, trial(name, case) as loaded, tempfile.TemporaryDirectory() as folder:
        cls, layer, names = kind(name), tried.layer, tried.layer.blob_names
        assert names == [n for n in layer.blob_order if n in names], "blob_order: other names, or another order"
        assert tuple(names) == cls.names_of_blobs(layer.param, len(names)), "names_of_blobs: other names"
        with torch.no_grad():
            for i, blob in enumerate(layer.blobs):
                blob.copy_(torch.from_numpy(np.random.default_rng(i).normal(size=tuple(blob.shape))))
        first, last = str(Path(folder) / "a.caffemodel"), str(Path(folder) / "c.caffemodel")
        caffemodel.write(first, weights.definition(tried.net), weights.export(tried.net))
        for form in ("caffemodel", "caffemodel.h5", "npz", "safetensors"):
            between = str(Path(folder) / f"b.{form}")
            convert_weights(first, between)
            if form == "npz":
                with np.load(between) as arrays:
                    assert set(arrays) - {"caffe.net", "caffe.blobs"} == set(exported.state(tried.net)), (
                        "blob_order: other names in files"
                    )
            convert_weights(between, last)
            with torch.no_grad():
                for blob in loaded.layer.blobs:
                    blob.fill_(torch.nan)
            weights.load(loaded.net, last)
            for blob, expected in zip(loaded.layer.blobs, layer.blobs, strict=True):
                assert torch.equal(blob, expected), f"{form}: other values came back"


CHECKS: tuple[Callable[[str, Case], None], ...] = (
    check_facts,
    check_forward,
    check_gradients,
    check_in_place,
    check_channels_last,
    check_layer_by_layer,
    check_from_python,
    check_mixed_precision,
    check_compiling,
    check_exporting,
    check_reshaping,
    check_weights_file,
)


def check(name: str, case: Case) -> None:
    """Hold a registered type to the whole contract; an AssertionError says where it breaks it."""
    for part in CHECKS:
        part(name, case)
