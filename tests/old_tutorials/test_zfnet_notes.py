"""Notes of 2017 on ZFNet, with a program that shows the filters of cifar10_quick."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from tests.old_tutorials.conftest import GOLDEN, MODELS, Terminal, pictures, write_database


def test_the_training(caffe_root: Path, typed: Terminal) -> None:
    """``caffe.exe train --solver=examples/cifar10/cifar10_quick_solver.prototxt``, which ends in files of HDF5."""
    for split, count in (("train", 40), ("test", 20)):
        images, labels = pictures(count, 3, 32, 10)
        write_database(Path(f"examples/cifar10/cifar10_{split}_lmdb"), "lmdb", images, labels)
    shutil.copy(GOLDEN / "cifar10_quick/mean.binaryproto", "examples/cifar10")
    net = (MODELS / "cifar10_quick/train_val.prototxt").read_text().replace("data/cifar10", "examples/cifar10")
    net = re.sub(r"batch_size: \d+", "batch_size: 20", net)
    Path("examples/cifar10/cifar10_quick_train_test.prototxt").write_text(net)
    Path("examples/cifar10/cifar10_quick_solver.prototxt").write_text(
        'net: "examples/cifar10/cifar10_quick_train_test.prototxt" test_iter: 1 test_interval: 5 base_lr: 0.001 '
        'momentum: 0.9 weight_decay: 0.004 lr_policy: "fixed" display: 5 max_iter: 5 snapshot: 5 '
        'snapshot_format: HDF5 snapshot_prefix: "examples/cifar10/cifar10_quick" solver_mode: CPU random_seed: 1'
    )
    said = typed("./build/tools/caffe train --solver=examples/cifar10/cifar10_quick_solver.prototxt")
    assert "Optimization Done." in said
    assert Path("examples/cifar10/cifar10_quick_iter_5.caffemodel.h5").exists()
    assert Path("examples/cifar10/cifar10_quick_iter_5.solverstate.h5").exists()


def show_feature(data: np.ndarray, padsize: int = 1, padval: float = 0) -> np.ndarray:
    """As the program has it, but that it returns the picture."""
    data -= data.min()
    data /= data.max()
    n = int(np.ceil(np.sqrt(data.shape[0])))
    padding = ((0, n**2 - data.shape[0]), (0, padsize), (0, padsize), *((0, 0),) * (data.ndim - 3))
    data = np.pad(data, padding, mode="constant", constant_values=(padval, padval))
    data = data.reshape((n, n, *data.shape[1:])).transpose((0, 2, 1, 3, *range(4, data.ndim + 1)))
    return data.reshape((n * data.shape[1], n * data.shape[3], *data.shape[4:]))


def test_the_program(caffe_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recorded weights of cifar10_quick, from HDF5: shapes as the comments say, pictures of as many filters."""
    monkeypatch.chdir("python")  # the program goes to the root by itself
    os.chdir(caffe_root)
    monkeypatch.setattr(sys, "path", [str(caffe_root / "python"), *sys.path])
    write_database(Path("cifar10_test_lmdb"), "lmdb", *pictures(100, 3, 32, 10))
    net_text = (MODELS / "cifar10_quick/train_val.prototxt").read_text()
    net_text = net_text.replace("data/cifar10/", "").replace("cifar10_train", "cifar10_test")
    Path("examples/cifar10/cifar10_quick_train_test.prototxt").write_text(net_text)
    for name, target in (("mean.binaryproto", "."), ("cifar10_quick_iter_5000.caffemodel.h5", "examples/cifar10")):
        shutil.copy(GOLDEN / "cifar10_quick" / name, target)
    net = caffe.Net(
        "examples/cifar10/cifar10_quick_train_test.prototxt",
        "examples/cifar10/cifar10_quick_iter_5000.caffemodel.h5",
        caffe.TEST,
    )
    shapes = {k: v[0].data.shape for k, v in net.params.items()}
    assert [shapes[f"conv{i}"] for i in (1, 2, 3)] == [(32, 3, 5, 5), (32, 32, 5, 5), (64, 32, 5, 5)]
    weight = net.params["conv1"][0].data
    shown = show_feature(weight.transpose(0, 2, 3, 1))
    assert shown.shape == (36, 36, 3) and (shown.min(), shown.max()) == (0, 1)  # 32 filters in 6 rows, with borders
    weight = net.params["conv2"][0].data
    assert show_feature(weight.reshape(32**2, 5, 5)).shape == (192, 192)
    weight = net.params["conv3"][0].data
    assert show_feature(weight.reshape(64 * 32, 5, 5)[:1024]).shape == (192, 192)
