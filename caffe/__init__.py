"""``import caffe``: the Python interface that Caffe's users know, over ``caffecli``.

PyTorch is imported when something that needs it is first used: ``from caffe.proto import caffe_pb2``, ``caffe.io`` and
``NetSpec`` do not.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from caffe import io, proto
from caffe.mode import (
    has_nccl,
    init_log,
    layer_type_list,
    log,
    set_device,
    set_mode_cpu,
    set_mode_gpu,
    set_multiprocess,
    set_phase_test,
    set_phase_train,
    set_random_seed,
    set_solver_count,
    set_solver_rank,
    solver_count,
    solver_rank,
)
from caffe.net_spec import NetSpec, layers, params, to_proto
from caffecli import host, logs
from caffecli.spec.phase import Phase

if TYPE_CHECKING:
    from caffe import _caffe, pycaffe
    from caffe.classifier import Classifier
    from caffe.detector import Detector
    from caffe.net import Net
    from caffe.solver import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        get_solver,
    )
    from caffe.timer import NCCL, Timer
    from caffecli.layers.python import PythonLayerBase as Layer

__version__ = "1.0.0"

TRAIN, TEST = Phase.TRAIN, Phase.TEST

#: where each name is that needs torch
_HOMES = {
    "Classifier": "caffe.classifier",
    "Detector": "caffe.detector",
    "Net": "caffe.net",
    "Layer": "caffe._caffe",
    "NCCL": "caffe.timer",
    "Timer": "caffe.timer",
    **dict.fromkeys(
        (
            "AdaDeltaSolver",
            "AdaGradSolver",
            "AdamSolver",
            "NesterovSolver",
            "RMSPropSolver",
            "SGDSolver",
            "get_solver",
        ),
        "caffe.solver",
    ),
}
#: the modules that are there after ``import caffe``
_MODULES = ("_caffe", "classifier", "detector", "pycaffe")

host.share_the_cores()
host.keep_memory()  # as Caffe's blobs keep theirs
logs.show_by_default()  # as glog does in a program that has not set it up

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Timer",
    "_caffe",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "params",
    "proto",
    "pycaffe",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_phase_test",
    "set_phase_train",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"caffe.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'caffe' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
