"""A small run to train: a net with dropout over the recorded digits, in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "solvers"

NET = """
name: "small"
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TRAIN }}
  transform_param {{ scale: 0.00390625 mirror: true crop_size: 24 }}
  data_param {{ source: "train_lmdb" batch_size: 16 backend: LMDB }} }}
layer {{ name: "data" type: "Data" top: "data" top: "label" include {{ phase: TEST }}
  transform_param {{ scale: 0.00390625 crop_size: 24 }}
  data_param {{ source: "test_lmdb" batch_size: 24 backend: LMDB }} }}
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1"
  param {{ lr_mult: 1 }} param {{ lr_mult: 2 decay_mult: 0 }}
  convolution_param {{ num_output: 6 kernel_size: 5 stride: 2 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "conv1" top: "conv1" }}
layer {{ name: "drop1" type: "Dropout" bottom: "conv1" top: "conv1" }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "conv1" top: "ip1"
  inner_product_param {{ num_output: {classes} weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip1" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip1" bottom: "label" top: "loss" }}
"""

SOLVER = """
net: "net.prototxt" test_iter: 3 test_interval: 10 base_lr: 0.05 momentum: 0.9 weight_decay: 0.0005 lr_policy: "fixed"
display: 5 max_iter: 20 snapshot: 10 snapshot_prefix: "s" solver_mode: CPU random_seed: 7
"""


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with ``net.prototxt``, ``solver.prototxt`` and both databases."""
    for database in ("train_lmdb", "test_lmdb"):
        shutil.copytree(GOLDEN / database, tmp_path / database)
    (tmp_path / "net.prototxt").write_text(NET.format(classes=10))
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def edit(run_folder: Path) -> Callable[[str, str, str], None]:
    """Change a file of the run: ``edit("solver.prototxt", "max_iter: 20", "max_iter: 5")``."""

    def change(name: str, old: str, new: str) -> None:
        text = (run_folder / name).read_text()
        assert old in text
        (run_folder / name).write_text(text.replace(old, new))

    return change
