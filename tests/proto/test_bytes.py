"""What is written for the reference's Caffe is, byte for byte,
what it was before the forks' fields came into the schema.

``bytes.json`` holds digests of what the last version with a schema of the reference alone wrote.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from caffecli.formats import caffemodel, solverstate
from caffecli.proto.caffe_pb2 import NetParameter, SolverParameter
from caffecli.spec import text
from caffecli.spec.upgrade import upgrade_net

GOLDEN = Path(__file__).parents[1] / "golden"
RECORDED = Path(__file__).with_name("bytes.json")
FILES = {path for part in ("layers", "upgrade", "solvers") for path in (GOLDEN / part).rglob("*.prototxt")}
SOLVERS = sorted(str(path.relative_to(GOLDEN)) for path in FILES if "solver" in path.name)
NETS = sorted({str(path.relative_to(GOLDEN)) for path in FILES} - set(SOLVERS))


def of_net(name: str, folder: Path) -> dict[str, str]:
    """Digests of a net as a message, upgraded, as text, and as caffemodels."""
    net = text.read(GOLDEN / name, NetParameter)
    made = {"message": net.SerializeToString()}
    net = upgrade_net(net)
    made["upgraded"] = net.SerializeToString()
    made["text"] = text.format(net).encode()
    values = np.random.default_rng(1)
    weights = {layer.name: [values.normal(size=(2, 3)), values.normal(size=4)] for layer in list(net.layer)[:3]}
    caffemodel.write(folder / "plain.caffemodel", net, weights)  # type: ignore[arg-type]
    caffemodel.write(folder / "diffs.caffemodel", net, weights, weights)  # type: ignore[arg-type]
    caffemodel.write(folder / "half.caffemodel", net, weights, raw_type="FLOAT16")  # type: ignore[arg-type]
    for kind in ("plain", "diffs", "half"):
        made[kind] = (folder / f"{kind}.caffemodel").read_bytes()
    return {kind: hashlib.sha256(data).hexdigest()[:16] for kind, data in made.items()}


def of_solver(name: str, folder: Path) -> dict[str, str]:
    """Digests of a solver as a message and as text, and of a solverstate."""
    solver = text.read(GOLDEN / name, SolverParameter)
    history = [np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)]
    solverstate.write(folder / "a.solverstate", solverstate.SolverState(7, 1, "a.caffemodel", history))
    made = [solver.SerializeToString(), text.format(solver).encode(), (folder / "a.solverstate").read_bytes()]
    return dict(
        zip(("message", "text", "state"), (hashlib.sha256(data).hexdigest()[:16] for data in made), strict=True)
    )


@pytest.mark.parametrize("name", NETS)
def test_nets_are_written_as_before(name: str, tmp_path: Path) -> None:
    assert of_net(name, tmp_path) == json.loads(RECORDED.read_text())[name]


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers_are_written_as_before(name: str, tmp_path: Path) -> None:
    assert of_solver(name, tmp_path) == json.loads(RECORDED.read_text())[name]
