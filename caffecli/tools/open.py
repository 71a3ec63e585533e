"""Open a net: read its definition, choose its state, build it, place it on its device, give it weights, precision,
a runner.

``open_net`` does all of that. A command that changes the definition in between, or runs no net, calls ``read_net``,
then ``build_net``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import torch

from caffecli.layers import user_modules
from caffecli.layers.base import Context
from caffecli.net import precision
from caffecli.net import weights as net_weights
from caffecli.net.net import Net
from caffecli.net.precision import PrecisionPolicy
from caffecli.net.runners.base import Runner
from caffecli.proto.caffe_pb2 import TEST, NetParameter
from caffecli.spec import load

StrPath = str | os.PathLike[str]
R = TypeVar("R", bound=Runner)
_CPU = torch.device("cpu")


def open_net(
    model: StrPath,
    runner: Callable[[Net, PrecisionPolicy], R],
    phase: int = TEST,
    level: int = 0,
    stages: Iterable[str] = (),
    *,
    layers: Iterable[str] = (),
    device: torch.device = _CPU,
    amp: bool = False,
    weights: Iterable[StrPath] = (),
) -> R:
    """A runner of the net of the prototxt ``model``: see ``read_net`` and ``build_net``. The caller closes its net.

    ``amp``: products of matrices in bfloat16. Raises SolverError where there is no bfloat16.
    """
    param = read_net(model, phase, level, stages, layers=layers)
    asked = precision.choose(amp, device)
    return runner(build_net(param, model, device=device, weights=weights), asked)


def read_net(
    model: StrPath, phase: int = TEST, level: int = 0, stages: Iterable[str] = (), *, layers: Iterable[str] = ()
) -> NetParameter:
    """The definition in the prototxt ``model``, of any age, and in its ``state`` for which phase,
    level and stages to build it.

    The stages that the file's own state has stay, as in Caffe. ``layers``: modules of the user's own that register
    layers.
    """
    user_modules.load(layers)
    param = load.load_net(model)
    param.state.phase = phase  # type: ignore[assignment]
    param.state.level = level
    param.state.stage.extend(stages)
    return param


def build_net(
    param: NetParameter,
    model: StrPath,
    *,
    device: torch.device | None = None,
    weights: Iterable[StrPath] = (),
    kind: type[Net] = Net,
) -> Net:
    """The net of a definition from the file ``model``, beside which Python layers' modules may lie.

    The caller closes it.

    Without a ``device`` it stays as it is built: on the CPU, weights in Caffe's order. ``weights``: files, the later
    over the earlier; what they lack keeps the fillers' values.
    Raises SpecError, ShapeError and FormatError as building a net and loading weights do.
    """
    files = [os.fspath(path) for path in weights]
    net_weights.check_there(files)
    net = kind(param, Context(folders=(Path(model).parent,)))
    try:
        if device is not None:
            net.place(device)
        there = {name for file in files for name in net_weights.load(net, file)}
        if files:
            net_weights.tell_lacking((node.layer.param for node in net.nodes if node.layer.blobs), there, files[-1])
    except BaseException:
        net.close()
        raise
    return net


def split_names(names: str) -> list[str]:
    """The files that a flag such as ``--weights`` names, parted by commas."""
    return [name.strip() for name in names.split(",")]
