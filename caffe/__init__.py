"""``import caffe``: the Python interface that Caffe's users know, over ``caffecli``."""

from __future__ import annotations

from caffe import _caffe, io, proto, pycaffe
from caffe.classifier import Classifier
from caffe.detector import Detector
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
from caffe.net import Net
from caffe.net_spec import NetSpec, layers, params, to_proto
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
from caffecli import host, logs
from caffecli.layers.python import Phase
from caffecli.layers.python import PythonLayerBase as Layer

__version__ = "1.0.0"

TRAIN, TEST = Phase.TRAIN, Phase.TEST

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
