"""A layer beside a formula in NumPy, and beside the reference's recorded answers:
two functions for the tests of families.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from google.protobuf import text_format
from torch import Tensor

from caffecli.layers import registry
from caffecli.layers.base import Layer
from caffecli.proto.caffe_pb2 import TEST, TRAIN, LayerParameter, NetParameter
from caffecli.spec import text as spec_text

Arrays = tuple[np.ndarray, ...]
Oracle = Callable[..., "np.ndarray | Arrays"]
SHAPE = (2, 7, 3, 4)  # all different, so that axes mixed up show


def layer_param(text: str) -> LayerParameter:
    """A LayerParameter of prototxt text; one bottom, one top and a name are put in where the text has none."""
    param = spec_text.parse(text, LayerParameter())
    param.name = param.name or "l"
    if not param.bottom:
        param.bottom.append("x")
    if not param.top:
        param.top.append("y")
    return param


def build(text: str, *shapes: Sequence[int], phase: int = TRAIN) -> Layer:
    """The layer of ``text``, ready to run on bottoms of these shapes;
    its bottoms are named x, x1, ... if the text does not.
    """
    param = layer_param(text)
    while len(param.bottom) < len(shapes):
        param.bottom.append(f"x{len(param.bottom)}")
    layer = registry.create(param, phase)
    layer.check_wiring(param.bottom, param.top)
    layer.setup([tuple(shape) for shape in shapes])
    layer.reshape([tuple(shape) for shape in shapes])
    layer.materialize()
    return layer


def distinct(*shape: int, seed: int = 0) -> np.ndarray:
    """Values from -2 to 2, no two equal and none near 0: away from the kinks of ReLU, Max and their like."""
    count = int(np.prod(shape, dtype=int))
    values = (np.arange(count) + 0.5) * 4 / max(count, 1) - 2
    values = np.where(np.abs(values) < 0.01, 0.011, values)
    return np.random.default_rng(seed).permutation(values).reshape(shape).astype(np.float32)


def tops_of(layer: Layer, bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The layer's tops, always as a tuple."""
    tops = layer(*bottoms)
    return tops if isinstance(tops, tuple) else (tops,)


def check(
    text: str,
    *shapes: Sequence[int],
    oracle: Oracle | None = None,
    inputs: Sequence[np.ndarray] | None = None,
    phase: int = TRAIN,
    gradient: bool | Sequence[int] = True,
    tolerance: float = 1e-5,
    random: bool = False,
) -> Layer:
    """Hold a layer against a formula and its own gradient; returns it.

    ``oracle(*bottoms, *blobs)`` gives the tops in float64 NumPy. ``inputs`` replace the bottoms drawn by ``distinct``.
    ``gradient``: whether gradcheck runs (False for layers without gradient), or the bottoms that have one.
    ``random``: the layer draws numbers, whose order follows the memory's, so channels_last may give other tops.
    """
    shapes = shapes or (SHAPE,)
    arrays = list(inputs) if inputs is not None else [distinct(*shape, seed=i) for i, shape in enumerate(shapes)]
    bottoms = [torch.from_numpy(array).clone() for array in arrays]
    for other in {TRAIN, TEST} - {phase}:
        _check_shapes(build(text, *shapes, phase=other), shapes, bottoms)
    torch.manual_seed(1)
    layer = build(text, *shapes, phase=phase)
    with torch.no_grad():
        for i, blob in enumerate(layer.blobs):  # fillers leave many at 0, where faults do not show
            learned = isinstance(blob, torch.nn.Parameter)
            blob.copy_(torch.from_numpy(distinct(*blob.shape, seed=9 + i)) if learned else torch.rand(blob.shape) + 0.5)
    blobs = [blob.detach().numpy().astype(np.float64) for blob in layer.blobs]
    tops = _check_shapes(layer, shapes, bottoms)
    for bottom, array in zip(bottoms, arrays, strict=True):
        np.testing.assert_array_equal(bottom.numpy(), array, err_msg="the layer changed its bottom")
    if oracle is not None:
        expected = oracle(*(array.astype(np.float64) for array in arrays), *blobs)
        expected = expected if isinstance(expected, tuple) else (expected,)
        assert len(expected) == len(tops)
        for top, array in zip(tops, expected, strict=True):
            np.testing.assert_allclose(top.detach().numpy(), array, rtol=tolerance, atol=tolerance)
    if not random:
        _check_channels_last(layer, bottoms, tops)
    if gradient is not False:
        wanted = range(len(bottoms)) if gradient is True else gradient
        _check_gradient(layer, bottoms, wanted)
    return layer


def _check_shapes(layer: Layer, shapes: Sequence[Sequence[int]], bottoms: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run the layer; its tops have the shapes inferred beforehand,
    and a second run from the same seed gives the same.
    """
    planned = registry.create(layer.param, layer.phase)
    planned.setup([tuple(shape) for shape in shapes])
    inferred = planned.reshape([tuple(shape) for shape in shapes])
    runs = []
    for _ in range(2):
        torch.manual_seed(2)
        runs.append(tops_of(layer, bottoms))
    assert [top.shape for top in runs[0]] == inferred
    assert len(inferred) == len(layer.param.top)
    for first, second in zip(*runs, strict=True):
        assert torch.equal(first, second), "two runs differ"
    return runs[0]


def _check_channels_last(layer: Layer, bottoms: Sequence[Tensor], tops: Sequence[Tensor]) -> None:
    if not any(bottom.dim() == 4 for bottom in bottoms):
        return
    turned = [b.contiguous(memory_format=torch.channels_last) if b.dim() == 4 else b for b in bottoms]
    for first, second in zip(tops, tops_of(layer, turned), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)


def _check_gradient(layer: Layer, bottoms: Sequence[Tensor], wanted: Sequence[int]) -> None:
    layer.double()
    inputs = [b.double().requires_grad_(i in wanted) if b.is_floating_point() else b for i, b in enumerate(bottoms)]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(3)
        return tuple(top for top in tops_of(layer, tensors[: len(inputs)]) if top.requires_grad)

    assert torch.autograd.gradcheck(run, (*inputs, *layer.parameters()), atol=1e-5, rtol=1e-4, fast_mode=True)
    layer.float()


def run_golden(folder: Path, case: str) -> None:
    """Run the small net ``case`` layer by layer and compare with what the reference computed:
    tops, blobs and gradients.
    """
    net = text_format.Parse((folder / f"{case}.prototxt").read_text(), NetParameter())
    with np.load(folder / f"{case}.npz") as file:
        want = {key: file[key] for key in file.files}
    phase = TEST if str(want["phase"]) == "TEST" else TRAIN
    inputs = {key[3:]: torch.from_numpy(want[key]).clone().requires_grad_() for key in want if key.startswith("in/")}
    blobs: dict[str, Tensor] = dict(inputs)
    layers: dict[str, Layer] = {}
    seeds: list[Tensor] = []
    for param in net.layer:
        if param.type in ("Input", "Silence"):
            continue
        bottoms = [blobs[name] for name in param.bottom]
        layer = registry.create(param, phase)
        layer.check_wiring(param.bottom, param.top)
        layer.setup([bottom.shape for bottom in bottoms])
        layer.reshape([bottom.shape for bottom in bottoms])
        layer.materialize()
        with torch.no_grad():
            for i, blob in enumerate(layer.blobs):
                blob.copy_(torch.from_numpy(want[f"param/{param.name}/{i}"]))
        layers[param.name] = layer
        for i, (name, top) in enumerate(zip(param.top, tops_of(layer, bottoms), strict=True)):
            blobs[name] = top
            weight = param.loss_weight[i] if i < len(param.loss_weight) else float(layer.is_loss and i == 0)
            if weight and f"topdiff/{name}" not in want:
                seeds.append(weight * top.sum())
    if net.force_backward or seeds:  # else the reference finds nothing to run backward for, and its diffs stay 0
        seeds += [(blobs[key[8:]] * torch.from_numpy(want[key])).sum() for key in want if key.startswith("topdiff/")]
    seeds = [seed for seed in seeds if seed.requires_grad]
    if seeds:
        torch.autograd.backward(seeds)
    got: dict[str, np.ndarray] = {}
    for key in want:
        kind, _, rest = key.partition("/")
        if kind == "out":
            got[key] = blobs[rest].detach().numpy()
        elif kind == "diff" and rest in inputs:
            grad = inputs[rest].grad
            got[key] = np.zeros(want[key].shape, np.float32) if grad is None else grad.numpy()
        elif kind in ("paramdiff", "param_after"):
            name, _, index = rest.rpartition("/")
            blob = layers[name].blobs[int(index)]
            value = (
                blob.detach() if kind == "param_after" else torch.zeros_like(blob) if blob.grad is None else blob.grad
            )
            got[key] = value.numpy()
    assert any(key.startswith("out/") for key in got)
    for key, array in got.items():
        assert array.shape == want[key].shape, f"{case}: {key}: {array.shape}, expected {want[key].shape}"
        error = np.abs(array - want[key]).max(initial=0)
        assert error <= 2e-4 * max(1.0, np.abs(want[key]).max(initial=0)), f"{case}: {key} differs by {error:g}"
