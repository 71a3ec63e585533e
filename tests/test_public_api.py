"""The names that users' programs rely on.

A change here is a change for them: say so in CHANGELOG.md under Compatibility.
"""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys

import pytest

import caffecli
from caffecli import errors
from caffecli.cli.main import COMMANDS
from caffecli.net.net import Net
from caffecli.net.runners.stepwise import Stepwise
from caffecli.net.runners.whole import Whole
from caffecli.solver.callbacks import Callback
from caffecli.solver.solver import Solver
from caffecli.tools.test import TestOptions
from caffecli.tools.time import TimeOptions
from caffecli.tools.train import TrainOptions


def public(cls: type) -> set[str]:
    return {name for name in dir(cls) if not name.startswith("_")}


def test_the_face() -> None:
    assert caffecli.__all__ == [
        "CaffeError",
        "Callback",
        "Layer",
        "Net",
        "Solver",
        "load_net",
        "load_solver",
        "register",
    ]
    for name in caffecli.__all__:
        assert getattr(caffecli, name).__name__ == name
    assert set(caffecli.__all__) <= set(dir(caffecli))
    with pytest.raises(AttributeError, match="module 'caffecli' has no attribute 'Nett'"):
        caffecli.Nett  # noqa: B018


def test_the_face_needs_no_torch_until_it_is_used() -> None:
    program = (
        "import sys, caffecli; caffecli.CaffeError, caffecli.load_net, caffecli.load_solver; "
        "assert 'torch' not in sys.modules; from caffecli import Layer; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_commands() -> None:
    assert set(COMMANDS) == {
        "new", "train", "test", "time", "device_query", "extract_features", "convert_imageset", "compute_image_mean",
        "doctor", "completion", "plot",
        "convert_mnist_data", "convert_cifar_data", "convert_mnist_siamese_data", "upgrade_net_proto_text",
        "upgrade_net_proto_binary", "upgrade_solver_proto_text", "link_tools", "parse_log", "plot_log", "summarize",
        "report",
        "resize_images",
        "convert_annoset", "create_label_map", "get_image_size", "score_detections",
        "classify", "detect", "draw_net", "export", "import", "merge_bn",
        "convert_weights", "convert_mean", "download_model", "visualize",
    }  # fmt: skip


def test_errors() -> None:
    tree = {name: cls.__base__.__name__ for name, cls in inspect.getmembers(errors, inspect.isclass)}
    assert tree == {
        "CaffeError": "Exception",
        "DataError": "CaffeError",
        "FormatError": "CaffeError",
        "PythonLayerError": "CaffeError",
        "ShapeError": "CaffeError",
        "SolverError": "CaffeError",
        "SpecError": "CaffeError",
    }


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (Net, {"forward", "layer", "shape", "place", "close", "source_layers"}),
        (Whole, {"forward", "backward"}),
        (Stepwise, {"forward", "backward", "forward_layer", "backward_layer", "slot", "first_slot"}),
        (Solver, {"solve", "step", "test_all", "snapshot", "restore", "close", "stop"}),
        (
            Callback,
            {"started", "displayed", "tested", "tests_done", "snapshotted", "finished", "close", "state", "restore"},
        ),
    ],
)
def test_methods(cls: type, names: set[str]) -> None:
    assert names <= public(cls)


@pytest.mark.parametrize(
    ("cls", "first"),
    [
        (TrainOptions, ["solver", "snapshot", "weights", "gpu", "cpu"]),
        (TestOptions, ["model", "weights"]),
        (TimeOptions, ["model"]),
    ],
)
def test_options(cls: type, first: list[str]) -> None:
    assert [field.name for field in dataclasses.fields(cls)][: len(first)] == first
