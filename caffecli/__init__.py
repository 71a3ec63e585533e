"""Caffe's command-line training toolchain on PyTorch.

What other programs use is here::

    import caffecli

    net = caffecli.Net(caffecli.load_net("deploy.prototxt"))  # an nn.Module; net({"data": pictures}) gives its outputs
    solver = caffecli.Solver(caffecli.load_solver("solver.prototxt"), callbacks=[MyCallback()])
    solver.solve()

``Layer`` and ``register`` are for layers of one's own, ``Callback`` for what watches a training; all that goes wrong is
a ``CaffeError``. PyTorch is imported when something that needs it is first used. docs/architecture.md has the plan of
the house.
"""

from __future__ import annotations

import importlib

from caffecli import checkouts

TYPE_CHECKING = False  # typing's own would import it whenever Python starts: see checkouts
if TYPE_CHECKING:
    from typing import Any

    from caffecli.errors import CaffeError
    from caffecli.layers.base import Layer
    from caffecli.layers.registry import register
    from caffecli.net.net import Net
    from caffecli.solver.callbacks import Callback
    from caffecli.solver.solver import Solver
    from caffecli.spec.load import load_net, load_solver

__version__ = "0.2.0"
__all__ = ["CaffeError", "Callback", "Layer", "Net", "Solver", "load_net", "load_solver", "register"]

#: where each public name is
_HOMES = {
    "CaffeError": "caffecli.errors",
    "Callback": "caffecli.solver.callbacks",
    "Layer": "caffecli.layers.base",
    "Net": "caffecli.net.net",
    "Solver": "caffecli.solver.solver",
    "load_net": "caffecli.spec.load",
    "load_solver": "caffecli.spec.load",
    "register": "caffecli.layers.registry",
}

checkouts.pass_over()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'caffecli' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
