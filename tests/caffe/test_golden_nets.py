"""Every recorded net of tests/golden/layers, replayed through caffe.Net as pycaffe's users would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import caffe
from caffecli.layers import registry
from caffecli.proto.caffe_pb2 import NetParameter, Phase
from caffecli.spec import text

FOLDER = Path(__file__).parents[1] / "golden" / "layers"
TOLERANCE = 2e-4


def known(case: str) -> bool:
    param = text.read(FOLDER / f"{case}.prototxt", NetParameter)
    return all(layer.type in registry.types() for layer in param.layer)


CASES = [case for case in sorted(p.stem for p in FOLDER.glob("*.npz")) if known(case)]


def check(what: str, got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape, f"{what}: shape {got.shape}, recorded {expected.shape}"
    error = np.abs(got - expected).max(initial=0.0)
    assert error <= TOLERANCE * max(1.0, np.abs(expected).max(initial=0.0)), f"{what}: off by {error}"


@pytest.mark.parametrize("held", [False, True], ids=["read after", "held before"])
@pytest.mark.parametrize("case", CASES)
def test_recorded_net(case: str, held: bool) -> None:
    """With ``held``, all arrays are taken before the passes and read after them."""
    answers = dict(np.load(FOLDER / f"{case}.npz"))
    groups: dict[str, dict[str, np.ndarray]] = {}
    for key, value in answers.items():
        if "/" in key:
            groups.setdefault(key.split("/", 1)[0], {})[key.split("/", 1)[1]] = value
    net = caffe.Net(str(FOLDER / f"{case}.prototxt"), Phase.Value(str(answers["phase"])))
    arrays = {
        f"{name}/{part}": getattr(blob, part) for name, blob in net.blobs.items() for part in ("data", "diff") if held
    }

    def array(name: str, part: str) -> np.ndarray:
        now = getattr(net.blobs[name], part)
        before = arrays.get(f"{name}/{part}", now)
        return before if before.shape == now.shape else now  # Filter's top shrinks

    for key, value in groups.get("param", {}).items():
        layer, index = key.rsplit("/", 1)
        net.params[layer][int(index)].data[...] = value
    for name, value in groups.get("in", {}).items():
        net.blobs[name].data[...] = value
    net.forward()
    for name, expected in groups.get("out", {}).items():
        check(f"blob {name}", array(name, "data"), expected)
    for name, value in groups.get("topdiff", {}).items():
        net.blobs[name].diff[...] = value
    net.backward()
    for name, expected in groups.get("diff", {}).items():
        check(f"diff of {name}", array(name, "diff"), expected)
    for group, part in (("param_after", "data"), ("paramdiff", "diff")):
        for key, expected in groups.get(group, {}).items():
            layer, index = key.rsplit("/", 1)
            check(f"{group} {key}", getattr(net.params[layer][int(index)], part), expected)
