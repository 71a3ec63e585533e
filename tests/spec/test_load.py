"""The passes together."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter, NetState, SolverParameter
from caffecli.spec import load, text
from caffecli.spec.filter import filter_net


def test_load_net_reads_and_upgrades(golden: Path) -> None:
    net = load.load_net(golden / "upgrade" / "v1_lenet.prototxt")
    assert [layer.type for layer in net.layer][:3] == ["Data", "Convolution", "Pooling"]


def test_load_solver_reads_and_upgrades_and_leaves_paths(golden: Path) -> None:
    solver = load.load_solver(golden / "upgrade" / "solver_enum.prototxt")
    assert solver == SolverParameter(base_lr=0.1, lr_policy="fixed", net="n.prototxt", type="AdaGrad")


def test_prepare_net(tmp_path: Path) -> None:
    path = tmp_path / "n.prototxt"
    path.write_text(
        "state { phase: TRAIN stage: 'old' } layer { name: 'd' top: 'x' } "
        "layer { name: 'a' bottom: 'x' include { phase: TEST } } "
        "layer { name: 'b' bottom: 'x' include { stage: 's' min_level: 2 } } "
        "layer { name: 'c' bottom: 'x' include { stage: 'old' } }"
    )
    net = load.load_net(path)
    test = load.prepare_net(net, TEST, 2, ("s",))
    assert [layer.name for layer in test.layer] == ["d", "x_d_0_split", "a", "b"]
    assert (test.state.phase, test.state.level, list(test.state.stage)) == (TEST, 2, ["s"])
    assert [layer.name for layer in load.prepare_net(net, TRAIN).layer] == ["d"]
    assert len(net.layer) == 4


@pytest.mark.parametrize("case", ["sgd_fixed", "sgd_batchnorm"])
def test_nets_are_those_of_the_recorded_logs(golden: Path, case: str) -> None:
    log = (golden / "solvers" / case / "train.log").read_text()
    net = load.load_net(golden / "solvers" / case / "net.prototxt")
    names = [layer.name for phase in (TRAIN, TEST) for layer in load.prepare_net(net, phase).layer]
    assert names == re.findall(r"net\.cpp:\d+\] Creating Layer (\S+)", log)
    filtered = re.findall(r"Initializing net from parameters: \n(.*?\n)[IWE]\d", log, re.DOTALL)
    states = [NetState(phase="TRAIN", level=0, stage=[""]), NetState(phase="TEST")]  # as the solver sets them
    for state, printed in zip(states, filtered, strict=True):
        copy = NetParameter(state=state)
        copy.MergeFrom(net)
        assert text.format(filter_net(copy, state)) == printed


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "n.prototxt"
    path.write_text("layer { }\nlayers { }\n")
    with pytest.raises(SpecError, match="both 'layer' and 'layers'") as error:
        load.load_net(path)
    assert str(error.value).startswith(f"{path}: ")
