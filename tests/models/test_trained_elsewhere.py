"""Nets that others trained: OpenCV's outputs, and every way there and back.

MTCNN's det1 to det4 (K. Zhang and others, 2016; .prototxt and .caffemodel) and vanillaCNN.caffemodel are taken from the
folder that CAFFECLI_MODELS names, at any depth. Those that are not there have nets of the same layers stand in, with
weights made up.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.cli import main
from caffecli.formats import caffemodel
from caffecli.net import exported, weights
from caffecli.net.net import Net
from converters import export
from converters.convert_weights import convert_weights
from converters.import_ import import_program
from scripts.zoo import made_up
from tests.models.opencv import assert_agree, needs_importer, read

VANILLA = Path(__file__).parents[2] / "models/vanilla_cnn/deploy.prototxt"
NAMES = ("det1", "det2", "det3", "det4", "vanillaCNN")


def layer(type: str, name: str, bottoms: str, tops: str, settings: str = "") -> str:
    lists = "".join(f' bottom: "{x}"' for x in bottoms.split()) + "".join(f' top: "{x}"' for x in tops.split())
    return f'layer {{ name: "{name}" type: "{type}"{lists} {settings} }}\n'


def stages(bottom: str, suffix: str, *plan: str) -> Iterator[str]:
    """``28 3 pool 3``: a convolution of 28 outputs and kernel 3, a PReLU over it, a max pooling of 3x3 every 2."""
    for i, (outputs, kernel, *pool) in enumerate(map(str.split, plan), 1):
        name = f"conv{i}{suffix}"
        yield layer(
            "Convolution", name, bottom, name, f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} }}"
        )
        yield layer("PReLU", f"prelu{i}{suffix}", name, name)
        bottom = name
        if pool:
            bottom = f"pool{i}{suffix}"
            yield layer(
                "Pooling", bottom, name, bottom, f"pooling_param {{ pool: MAX kernel_size: {pool[1]} stride: 2 }}"
            )


def inner(name: str, bottom: str, outputs: int, prelu: str = "") -> str:
    made = layer("InnerProduct", name, bottom, name, f"inner_product_param {{ num_output: {outputs} }}")
    return made + (layer("PReLU", prelu, name, name) if prelu else "")


def stand_in(name: str) -> str:
    """A net of the kind, with the ``input_dim`` of old."""
    size = {"det1": (3, 12), "det2": (3, 24), "det3": (3, 48), "det4": (15, 24)}[name]
    head = f'name: "{name}" input: "data" input_dim: 1 input_dim: {size[0]} input_dim: {size[1]} input_dim: {size[1]}\n'
    prob = layer("Softmax", "prob1", "score", "prob1")
    if name == "det1":
        scores = [
            layer("Convolution", top, "conv3", top, f"convolution_param {{ num_output: {n} kernel_size: 1 }}")
            for top, n in (("score", 2), ("box", 4))
        ]
        return head + "".join([*stages("data", "", "10 3 pool 2", "16 3", "32 3"), *scores, prob])
    if name == "det2":
        body = [*stages("data", "", "28 3 pool 3", "48 3 pool 3", "64 2")]
        return head + "".join(
            [*body, inner("ip", "conv3", 128, "p"), inner("score", "ip", 2), inner("box", "ip", 4), prob]
        )
    if name == "det3":
        body = [*stages("data", "", "32 3 pool 3", "64 3 pool 3", "64 3 pool 2", "128 2")]
        ends = [inner(top, "ip", n) for top, n in (("score", 2), ("box", 4), ("points", 10))]
        drop = layer("Dropout", "drop", "ip", "ip", "dropout_param { dropout_ratio: 0.25 }")
        return head + "".join([*body, inner("ip", "conv4", 256), drop, layer("PReLU", "p", "ip", "ip"), *ends, prob])
    parts = [f"data{i}" for i in range(5)]
    points = "".join(f" slice_point: {at}" for at in (3, 6, 9, 12))
    body = [
        line for i, part in enumerate(parts) for line in stages(part, f"_{i}", "28 3 pool 3", "48 3 pool 3", "64 2")
    ]
    ends = [inner(f"fc4_{i}", "fc4", 64, f"p_{i}") + inner(f"fc5_{i}", f"fc4_{i}", 2) for i in range(5)]
    concat = layer("Concat", "all", " ".join(f"conv3_{i}" for i in range(5)), "all")
    slices = layer("Slice", "slice", "data", " ".join(parts), f"slice_param {{ axis: 1{points} }}")
    return head + "".join([slices, *body, concat, inner("fc4", "all", 256, "p"), *ends])


def found(file: str) -> Path | None:
    folder = os.environ.get("CAFFECLI_MODELS")
    return next(iter(sorted(Path(folder).rglob(file))), None) if folder else None


@pytest.fixture(params=NAMES)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """A definition and its weights."""
    name = request.param
    trained = found(f"{name}.caffemodel")
    definition = VANILLA if name == "vanillaCNN" else found(f"{name}.prototxt")
    if trained and definition:
        return definition, trained
    if name != "vanillaCNN":
        definition = tmp_path / f"{name}.prototxt"
        definition.write_text(stand_in(name))
    assert definition
    net = made_up.weights(export.build(definition, None))
    caffemodel.write(tmp_path / f"{name}.caffemodel", weights.definition(net), weights.export(net))
    return definition, tmp_path / f"{name}.caffemodel"


def outputs(net: Net) -> dict[str, np.ndarray]:
    with torch.no_grad():
        return {name: values.numpy() for name, values in net(made_up.inputs(net, 2)).items()}


def same(one: caffemodel.Weights, other: caffemodel.Weights) -> None:
    kept = {name: arrays for name, arrays in one.items() if arrays}
    assert kept.keys() == {name for name, arrays in other.items() if arrays}
    for name, arrays in kept.items():
        for a, b in zip(arrays, other[name], strict=True):
            assert (a.shape, a.tobytes()) == (b.shape, b.tobytes()), name


@needs_importer
def test_opencv_gives_the_same(files: tuple[Path, Path], tmp_path: Path) -> None:
    net = export.build(*files)
    assert_agree(net, read(net, files[0], tmp_path))


@pytest.mark.parametrize("form", ["caffemodel.h5", "npz", "safetensors"])
def test_weights_come_back_from_other_forms(files: tuple[Path, Path], form: str, tmp_path: Path) -> None:
    convert_weights(files[1], tmp_path / f"x.{form}")
    convert_weights(tmp_path / f"x.{form}", tmp_path / "back.caffemodel")
    same(caffemodel.read(files[1]), caffemodel.read(tmp_path / "back.caffemodel"))
    kept, back = outputs(export.build(*files)), outputs(export.build(files[0], tmp_path / "back.caffemodel"))
    for name, values in kept.items():
        np.testing.assert_array_equal(back[name], values)


def test_upgraded_files_are_the_same_net(files: tuple[Path, Path], tmp_path: Path) -> None:
    for tool, path, out in (("text", files[0], "net.prototxt"), ("binary", files[1], "net.caffemodel")):
        main.load_command(f"upgrade_net_proto_{tool}").main([str(path), str(tmp_path / out)], standalone_mode=False)
    same(caffemodel.read(files[1]), caffemodel.read(tmp_path / "net.caffemodel"))
    kept, upgraded = (
        outputs(export.build(*files)),
        outputs(export.build(tmp_path / "net.prototxt", tmp_path / "net.caffemodel")),
    )
    assert kept.keys() == upgraded.keys()
    for name, values in kept.items():
        np.testing.assert_array_equal(upgraded[name], values)


def test_programs_give_the_same_and_come_back(files: tuple[Path, Path], tmp_path: Path) -> None:
    export.export(*files, "torch", tmp_path / "net")
    net = export.build(*files)
    with exported.quiet():
        program = torch.export.load(tmp_path / "net.pt2").module()
    for values, came in zip(outputs(net).values(), program(*made_up.inputs(net, 2).values()), strict=True):
        np.testing.assert_allclose(came.detach().numpy(), values, rtol=0, atol=1e-5 * np.abs(values).max())

    import_program(tmp_path / "net.pt2", tmp_path / "back")
    back = export.build(tmp_path / "back.prototxt", tmp_path / "back.caffemodel")
    inputs = made_up.inputs(net)
    with torch.no_grad():
        before, after = net(inputs), back(dict(zip(back.inputs, inputs.values(), strict=True)))
    assert len(after) == len(before)
    for name, values in before.items():  # which have other names now
        alike = [came for came in after.values() if came.shape == values.shape]
        assert any(torch.allclose(came, values, rtol=0, atol=1e-5 * float(values.abs().max())) for came in alike), name
