"""N + N iterations equal 2N, bit for bit, over the data of layers that shuffle or sample."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from caffecli.formats import caffemodel
from caffecli.formats.datum import from_array
from caffecli.formats.db import open_writer
from caffecli.tools.train import TrainOptions, train

SOLVER = """
net: "net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" max_iter: 20 snapshot: 10 snapshot_prefix: "s"
solver_mode: CPU random_seed: 7
"""

LEARN = """
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def weights() -> list[np.ndarray]:
    return [blob for blobs in caffemodel.read(Path("s_iter_20.caffemodel")).values() for blob in blobs]


def check(layer: str) -> None:
    Path("net.prototxt").write_text(layer + LEARN)
    Path("solver.prototxt").write_text(SOLVER)
    assert train(TrainOptions(Path("solver.prototxt")))
    whole = weights()
    Path("s_iter_20.caffemodel").unlink()
    assert train(TrainOptions(Path("solver.prototxt"), snapshot=Path("s_iter_10.solverstate")))
    assert whole
    assert all(np.array_equal(a, b) for a, b in zip(weights(), whole, strict=True))


def test_shuffled_hdf5_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    for name, rows in {"a.h5": 9, "b.h5": 4, "c.h5": 14}.items():
        with h5py.File(name, "w") as file:
            file["data"] = rng.normal(size=(rows, 2, 3))
            file["label"] = rng.integers(0, 3, rows)
    Path("files.txt").write_text("a.h5\nb.h5\nc.h5\n")
    check(
        'layer { name: "data" type: "HDF5Data" top: "data" top: "label" '
        'hdf5_data_param { source: "files.txt" batch_size: 4 shuffle: true } }'
    )


def test_sampled_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    text = ""
    for i in range(3):
        cv2.imwrite(f"p{i}.png", rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
        text += f"# {i}\np{i}.png\n3\n20\n30\n4\n1 1 0 0 9 9\n2 0.8 5 2 19 12\n1 0.2 3 3 20 18\n2 0 9 0 29 19\n"
    Path("windows.txt").write_text(text)
    check(
        'layer { name: "data" type: "WindowData" top: "data" top: "label" transform_param { crop_size: 6 mirror: true '
        '} window_data_param { source: "windows.txt" batch_size: 4 context_pad: 1 scale: 0.01 } }'
    )


def test_shuffled_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    with open_writer("db", "lmdb") as db:
        for i in range(13):
            picture = rng.integers(0, 256, (3, 5, 5), dtype=np.uint8)
            db.put(b"%08d" % i, from_array(picture, int(rng.integers(3))).SerializeToString())
    check(
        'layer { name: "data" type: "Data" top: "data" top: "label" transform_param { crop_size: 4 scale: 0.01 } '
        'data_param { source: "db" backend: LMDB batch_size: 4 shuffle: true } }'
    )
