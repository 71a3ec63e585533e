"""eval_type "detection": average precisions by hand, and what a solver's test, and caffecli test, say of them."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from caffecli.errors import SolverError
from caffecli.layers.activation import TanH
from caffecli.layers.data import HDF5Data
from caffecli.proto.caffe_pb2 import LayerParameter
from caffecli.solver.detection import Detections, DetectionTest, average_precision
from caffecli.solver.monitor import WatchOptions
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.test import TestOptions
from caffecli.tools.test import test as score
from caffecli.tools.train import TrainOptions, train

SOLVER = Path("solver.prototxt")


def ap(hits: list[int], objects: int, version: str, scores: list[float] | None = None) -> float:
    falling = np.linspace(0.9, 0.1, len(hits))
    return average_precision(
        np.array(scores or falling.tolist(), np.float32), np.array(hits, np.float32), objects, version
    )


@pytest.mark.parametrize(
    ("hits", "objects", "integral", "eleven", "most"),
    [
        # one object, found at once
        ([1], 1, 1.0, 1.0, 1.0),
        # precisions 1, 1/2, 2/3, 1/2; recalls 1/2, 1/2, 1, 1
        ([1, 0, 1, 0], 2, 0.5 * 1 + 0.5 * 2 / 3, (6 * 1 + 5 * 2 / 3) / 11, 0.5 * 1 + 0.5 * 2 / 3),
        # precisions 0, 1/2, 2/3; recalls 0, 1/4, 1/2: the best precision counts for lower recalls too
        ([0, 1, 1], 4, 0.25 * 1 / 2 + 0.25 * 2 / 3, 6 * (2 / 3) / 11, 0.5 * 2 / 3),
        ([0, 0], 3, 0.0, 0.0, 0.0),
        ([0], 0, 0.0, 0.0, 0.0),
        ([], 3, 0.0, 0.0, 0.0),
        # recalls 0.1, 0.2, ... 0.7, where float32's 0.7 does not reach the eleven points' 0.7
        ([1] * 7, 10, 0.7, 7 / 11, 0.7),
    ],
)
def test_average_precision(hits: list[int], objects: int, integral: float, eleven: float, most: float) -> None:
    found = [ap(hits, objects, version) for version in ("Integral", "11point", "MaxIntegral")]
    assert found == pytest.approx([integral, eleven, most], abs=1e-6)


def test_detections_count_by_falling_score_and_equal_ones_in_their_order() -> None:
    assert ap([0, 1], 1, "Integral", [0.2, 0.9]) == 1.0
    assert ap([0, 1], 1, "Integral", [0.5, 0.5]) == 0.5
    assert ap([1, 0], 1, "Integral", [0.5, 0.5]) == 1.0


def by_definition(scores: np.ndarray, hits: np.ndarray, objects: int, version: str) -> float:
    """Average precision with loops."""
    ranked = [hits[i] for i in sorted(range(len(scores)), key=lambda i: -scores[i])]
    precision = [sum(ranked[: i + 1]) / (i + 1) for i in range(len(ranked))]
    recall = [np.float32(sum(ranked[: i + 1])) / np.float32(objects) for i in range(len(ranked))]
    best = [max(precision[i:]) for i in range(len(ranked))]
    if version == "11point":
        points = [
            max((p for p, r in zip(precision, recall, strict=True) if float(r) >= t / 10), default=0) for t in range(11)
        ]
        return sum(points) / 11
    height = best if version == "MaxIntegral" else precision
    return float(sum(height[i] * (recall[i] - (recall[i - 1] if i else 0)) for i in range(len(ranked))))


@pytest.mark.parametrize("version", ["Integral", "11point", "MaxIntegral"])
def test_by_definition(version: str) -> None:
    rng = np.random.default_rng(4)
    for _ in range(200):
        hits: np.ndarray = (rng.random(rng.integers(1, 30)) < 0.4).astype(np.float32)
        scores = (rng.integers(0, 12, len(hits)) / 12).astype(np.float32)
        objects = int(hits.sum()) + int(rng.integers(0, 4))
        if objects:
            expected = by_definition(scores, hits, objects, version)
            assert average_precision(scores, hits, objects, version) == pytest.approx(expected, abs=1e-5)


NONE = (-1, 3, 0, -1, -1)
#: two batches of rows: class 1 has 1 + 1 objects, class 2 has 2 + 0, class 3 has none and no detection
BATCHES = np.array(
    [
        [(-1, 1, 1, -1, -1), (-1, 2, 2, -1, -1), NONE, (0, 1, 0.9, 1, 0), (0, 2, 0.8, 0, 1), (0, 2, 0.4, 1, 0)],
        [(-1, 1, 1, -1, -1), (-1, 2, 0, -1, -1), NONE, (0, 1, 0.7, 0, 1), (0, 1, 0.6, 1, 0), (1, 2, 0.9, 0, 0)],
    ],
    np.float32,
)
#: class 1: hit, miss, hit of 2; class 2: miss, hit of 2, and one that does not count
PRECISIONS = {1: 0.5 + 0.5 * 2 / 3, 2: 0.25, 3: None}
MEAN = (0.5 + 0.5 * 2 / 3 + 0.25) / 3


def test_batches_add_up() -> None:
    found = Detections()
    for batch in BATCHES:
        found.add(batch[None, None])
    assert found.objects == {1: 2, 2: 2, 3: 0}
    assert found.precisions("Integral") == pytest.approx(PRECISIONS)


def test_ranks_are_joined_in_their_order() -> None:
    parts = [DetectionTest(), DetectionTest(), DetectionTest()]
    for part, batch in zip(parts, BATCHES, strict=False):  # the third has had no batch
        part.add({"eval": torch.from_numpy(batch[None, None])}, {"eval": TanH(LayerParameter(name="eval"))})
    whole = DetectionTest()
    whole.join(parts)
    assert whole.outputs["eval"].precisions("Integral") == pytest.approx(PRECISIONS)


# -- in a solver -------------------------------------------------------------------------------------------------

NET = """
layer { name: "rows" type: "HDF5Data" top: "eval" include { phase: TEST }
  hdf5_data_param { source: "rows.txt" batch_size: 1 } }
layer { name: "in" type: "DummyData" top: "x" top: "y" include { phase: TRAIN }
  dummy_data_param { shape { dim: 2 dim: 3 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" include { phase: TRAIN }
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "y" top: "loss" include { phase: TRAIN } }
"""


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a test net that gives BATCHES, and a solver that scores them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HDF5Data, "detection_classes", (1, 2, 3))
    with h5py.File("rows.h5", "w") as file:
        file["eval"] = BATCHES[:, None]
    Path("rows.txt").write_text("rows.h5\n")
    Path("net.prototxt").write_text(NET)
    SOLVER.write_text(
        'net: "net.prototxt" test_iter: 2 test_interval: 1 base_lr: 0.1 lr_policy: "fixed" max_iter: 2 random_seed: 1 '
        'eval_type: "detection" show_per_class_result: true snapshot: 1 snapshot_prefix: "s" solver_mode: CPU'
    )
    return tmp_path


def lines(heard: io.StringIO, pattern: str) -> list[str]:
    return [line.partition("] ")[2] for line in heard.getvalue().splitlines() if re.search(pattern, line)]


def test_a_test_of_detections(run_folder: Path, heard: io.StringIO) -> None:
    solver = Solver(load.load_solver(SOLVER), "cpu")
    solver.test_all()
    solver.close()
    told = lines(heard, r"class\d|Missing|Test net output")
    assert told == [
        "class1: 0.833333",
        "class2: 0.25",
        "Missing true_pos for label: 3",
        "    Test net output #0: eval = 0.361111",
    ]


@pytest.mark.parametrize(("version", "mean"), [("11point", "0.373737"), ("MaxIntegral", "0.361111")])
def test_ap_version(run_folder: Path, heard: io.StringIO, version: str, mean: str) -> None:
    """Class 1: six points of 1 and five of 2/3; class 2: six of 1/2."""
    SOLVER.write_text(SOLVER.read_text().replace("show_per_class_result: true", f'ap_version: "{version}"'))
    solver = Solver(load.load_solver(SOLVER), "cpu")
    solver.test_all()
    solver.close()
    assert lines(heard, r"class\d|Test net output") == [f"    Test net output #0: eval = {mean}"]


def test_what_watches_and_records(run_folder: Path) -> None:
    assert train(TrainOptions(SOLVER, csv=Path("a.csv"), watch=WatchOptions("eval/class2", early_stop=2, best=True)))
    with Path("a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["test0/eval", "test0/eval/class1", "test0/eval/class2", "test0/eval/class3"]
    tests = [row for row in rows if row["test0/eval"]]
    assert len(tests) >= 2
    assert [float(tests[0][name]) for name in list(rows[0])[-4:]] == pytest.approx([MEAN, 5 / 6, 0.25, 0], abs=1e-6)
    assert Path("s_best.caffemodel").exists()


def test_the_mean_is_what_is_watched_unasked(run_folder: Path, heard: io.StringIO) -> None:
    assert train(TrainOptions(SOLVER, watch=WatchOptions(best=True)))
    with pytest.raises(SolverError, match=r"no output 'eval/class7'; its outputs: eval, eval/class1"):
        train(TrainOptions(SOLVER, watch=WatchOptions("eval/class7", best=True)))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"detection"', '"segmentation"', "eval_type: expected 'classification' or 'detection', got 'segmentation'"),
        (
            '"detection"',
            '"detection" ap_version: "VOC"',
            "ap_version: expected 'Integral' or '11point' or 'MaxIntegral'",
        ),
    ],
)
def test_settings_that_there_are_not(run_folder: Path, old: str, new: str, words: str) -> None:
    SOLVER.write_text(SOLVER.read_text().replace(old, new))
    with pytest.raises(SolverError, match=words):
        Solver(load.load_solver(SOLVER), "cpu")


def test_a_loss_beside_detections(run_folder: Path, heard: io.StringIO) -> None:
    """A single number has its mean told."""
    more = 'layer { name: "one" type: "DummyData" top: "one" dummy_data_param { data_filler { value: 3 } shape {} } }'
    Path("net.prototxt").write_text(NET + more)
    solver = Solver(load.load_solver(SOLVER), "cpu")
    solver.test_all()
    assert solver.test_figures(0) == ["eval", "eval/class1", "eval/class2", "eval/class3", "one"]
    solver.close()
    assert lines(heard, "Test net output") == [
        "    Test net output #0: eval = 0.361111", "    Test net output #1: one = 3"
    ]  # fmt: skip


def test_an_output_that_is_none_of_detections(run_folder: Path) -> None:
    more = 'layer { name: "more" type: "DummyData" top: "more" dummy_data_param { shape { dim: 2 } } }'
    Path("net.prototxt").write_text(NET + more)
    with pytest.raises(
        SolverError, match=r"test net #0 has the output 'more' of shape \(2,\); expected rows of 5 numbers"
    ):
        Solver(load.load_solver(SOLVER), "cpu")


def test_detections_without_eval_type(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each batch has as many rows, the mean means nothing, as in SSD; else it is told."""
    SOLVER.write_text(SOLVER.read_text().replace('eval_type: "detection"', ""))
    solver = Solver(load.load_solver(SOLVER), "cpu")
    batches = iter((torch.zeros(1, 1, 2, 5), torch.zeros(1, 1, 3, 5)))
    monkeypatch.setattr(HDF5Data, "forward", lambda *_: next(batches))
    with pytest.raises(
        SolverError, match=r"output 'eval' changes its shape from batch to batch.*set eval_type: .detection"
    ):
        solver.test_all()
    solver.close()


def test_caffecli_test(run_folder: Path, heard: io.StringIO, edit_weights: Callable[[], str]) -> None:
    means = score(TestOptions(Path("net.prototxt"), edit_weights(), iterations=2))
    assert {name: float(value) for name, value in means.items()} == pytest.approx(
        {"eval": MEAN, "eval/class1": 5 / 6, "eval/class2": 0.25, "eval/class3": 0}
    )
    assert lines(heard, r"class\d|Missing|eval =|Batch") == [
        "class1: 0.833333",
        "class2: 0.25",
        "Missing true_pos for label: 3",
        "eval = 0.361111",
    ]
    eleven = score(TestOptions(Path("net.prototxt"), edit_weights(), iterations=2, ap_version="11point"))
    assert float(eleven["eval"]) == pytest.approx(0.373737, abs=1e-6)


@pytest.fixture
def edit_weights(run_folder: Path) -> Callable[[], str]:
    """Weights of the net, which has none in TEST."""

    def write() -> str:
        solver = Solver(load.load_solver(SOLVER), "cpu")
        model, _ = solver.snapshot()
        solver.close()
        return str(model)

    return write
