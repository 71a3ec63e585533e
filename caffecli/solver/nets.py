"""Which nets a solver file asks for: one to train, any number to test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter, NetState, SolverParameter
from caffecli.spec import load, text
from caffecli.spec.upgrade import upgrade_net

_TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


def train_net(param: SolverParameter) -> NetParameter:
    """The net to train, its state set: solver defaults, then the net's own state, then ``train_state``."""
    given = [name for name in _TRAIN_FIELDS if param.HasField(name)]
    if len(given) != 1:
        what = f"{' and '.join(given)} are given" if given else "none is given"
        raise SolverError(f"the solver must name its train net by exactly one of {', '.join(_TRAIN_FIELDS)}; {what}")
    line, source = {
        "train_net_param": (88, "specified in train_net_param."),
        "train_net": (92, f"from train_net file: {param.train_net}"),
        "net_param": (97, "specified in net_param."),
        "net": (102, f"from net file: {param.net}"),
    }[given[0]]
    logs.info(f"solver.cpp:{line}", f"Creating training net {source}")
    return _with_state(_net(param, given[0]), TRAIN, param.train_state)


def test_nets(param: SolverParameter) -> list[tuple[str, NetParameter]]:
    """The nets to test on and where each came from: ``test_net_param``, ``test_net``,
    then the generic net for what is left.
    """
    nets = [("test_net_param", _upgraded(net)) for net in param.test_net_param]
    nets += [(f"test_net file: {path}", load.load_net(Path(path))) for path in param.test_net]
    generic = next((name for name in ("net_param", "net") if param.HasField(name)), None)
    wanted = len(param.test_iter)
    if wanted < len(nets) or (generic is None and wanted != len(nets)):
        raise SolverError(f"test_iter must be given once per test net: {len(nets)} test net(s), {wanted} test_iter")
    while generic is not None and len(nets) < wanted:
        nets.append((f"net file: {param.net}" if generic == "net" else generic, _net(param, generic)))
    if param.test_state and len(param.test_state) != len(nets):
        raise SolverError(
            f"test_state must be given once per test net or not at all: {len(nets)} nets, {len(param.test_state)} "
            "states"
        )
    if nets and param.test_interval <= 0:
        raise SolverError(f"test_interval must be positive when there are test nets, got {param.test_interval}")
    states = list(param.test_state) or [NetState()] * len(nets)
    return [(source, _with_state(net, TEST, state)) for (source, net), state in zip(nets, states, strict=True)]


def folders(param: SolverParameter) -> tuple[Path, ...]:
    """Where the net files lie, for the modules of Python layers beside them."""
    files = [param.net, param.train_net, *param.test_net]
    return tuple(dict.fromkeys(Path(name).parent for name in files if name))


def weight_files(entries: Iterable[str]) -> list[str]:
    """The files of weights in a solver's ``weights``: an entry is one, or several separated by commas."""
    return [part.strip() for entry in entries for part in entry.split(",")]


def _net(param: SolverParameter, field: str) -> NetParameter:
    value = getattr(param, field)
    return load.load_net(Path(value)) if isinstance(value, str) else _upgraded(value)


def _upgraded(net: NetParameter) -> NetParameter:
    copy = NetParameter()
    copy.CopyFrom(net)
    return upgrade_net(copy)


def _with_state(net: NetParameter, phase: int, state: NetState) -> NetParameter:
    merged = NetState(phase=phase)  # type: ignore[arg-type]
    merged.MergeFrom(net.state)
    merged.MergeFrom(state)
    net.state.CopyFrom(merged)
    return net


def shown(param: SolverParameter) -> str:
    """The solver's text, as Caffe logs it."""
    return text.format(param).rstrip("\n")
