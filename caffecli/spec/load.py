"""Loads net and solver files: reads and upgrades them, and prepares a net for building: filter, then splits."""

from __future__ import annotations

import os
from collections.abc import Iterable

from caffecli.proto.caffe_pb2 import NetParameter, NetState, Phase, SolverParameter
from caffecli.spec import support, text
from caffecli.spec.filter import filter_net
from caffecli.spec.splits import insert_splits
from caffecli.spec.upgrade import upgrade_net, upgrade_solver


def load_net(path: str | os.PathLike[str]) -> NetParameter:
    """The net in a prototxt of any age. Raises SpecError."""
    return upgrade_net(text.read(path, NetParameter), str(path))


def load_solver(path: str | os.PathLike[str]) -> SolverParameter:
    """The solver in a prototxt of any age; the paths in it stay as they are written. Raises SpecError."""
    solver = upgrade_solver(text.read(path, SolverParameter), str(path))
    support.check_solver(solver, str(path))
    return solver


def prepare_net(net: NetParameter, phase: int, level: int = 0, stages: Iterable[str] = ()) -> NetParameter:
    """The definition from which a Net is built: the layers for this phase, level and stages, splits inserted. Raises
    SpecError.
    """
    prepared = NetParameter()
    prepared.CopyFrom(net)
    prepared.state.CopyFrom(NetState(phase=Phase.Name(phase), level=level, stage=stages))
    return insert_splits(filter_net(prepared, prepared.state), prepared)
