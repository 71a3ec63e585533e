"""--class-weights, and the flags that a resumed run goes on with."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from caffecli.formats import caffemodel, datum
from caffecli.formats.db import open_reader

Command = Callable[..., tuple[int, str]]
Fails = Callable[..., str]
Edit = Callable[..., None]
TRAIN = ("train", "--solver=solver.prototxt")


def counts() -> list[int]:
    with open_reader("train_lmdb") as reader:
        found = Counter(datum.decode(value).label for _, value in reader)
    return [found[label] for label in range(10)]


def written(path: str) -> list[float]:
    definition, _ = caffemodel.read_with_net(path)
    (loss,) = [layer for layer in definition.layer if layer.type == "SoftmaxWithLoss"]
    assert loss.loss_param.weight_by_label_freqs == bool(loss.loss_param.class_weighting)
    return [*loss.loss_param.class_weighting]


def test_auto_makes_all_classes_count_alike_in_a_resumed_run_too(folder: Path, edit: Edit, command: Command) -> None:
    edit("solver.prototxt", "max_iter: 2", "max_iter: 4", "test_interval: 10", "test_interval: 2")
    code, log = command(*TRAIN, "--class-weights=auto", "--best", "--warmup=3:0.01")
    assert code == 0
    expected = sum(counts()) / (10 * np.array(counts()))
    assert np.dot(expected, counts()) == pytest.approx(sum(counts()))
    told = re.search(r"Class weights of layer 'loss': (.*)", log)
    assert told is not None
    np.testing.assert_allclose([float(part) for part in told[1].split(", ")], expected, rtol=1e-5)
    np.testing.assert_allclose(written("s_iter_4.caffemodel"), expected, rtol=1e-6)
    whole = caffemodel.read("s_iter_4.caffemodel")
    kept = json.loads(Path("s_iter_2.solverstate.json").read_text())["flags"]
    np.testing.assert_allclose(kept["class_weights"], expected)
    code, log = command(*TRAIN, "--snapshot=s_iter_2.solverstate")
    assert code == 0
    assert re.search(
        r"Going on with --best --warmup=3:0.01 --class-weights=[\d.,e+-]+, as the run did that wrote "
        r"s_iter_2.solverstate; --forget-flags leaves that out",
        log,
    )
    again = caffemodel.read("s_iter_4.caffemodel")
    assert all(np.array_equal(a, b) for name in whole for a, b in zip(whole[name], again[name], strict=True))
    code, log = command(*TRAIN, "--snapshot=s_iter_2.solverstate", "--min-lr=0.001")
    assert "Going on with --best --class-weights=" in log and "--warmup" not in log.split("Going on with")[1][:60]
    code, log = command(*TRAIN, "--snapshot=s_iter_2.solverstate", "--forget-flags")
    assert code == 0 and "Going on with" not in log
    assert "was written by a run with --best; this one goes on without" in log
    assert written("s_iter_4.caffemodel") == []
    assert "flags" not in json.loads(Path("s_iter_4.solverstate.json").read_text())


def test_given_weights_weigh(folder: Path, command: Command) -> None:
    weights = [0.5, *[1.0] * 8, 2.5]
    code, log = command(*TRAIN, f"--class_weights={','.join(map(str, weights))}")
    assert code == 0 and "Class weights of layer 'loss': 0.5, 1, 1, 1, 1, 1, 1, 1, 1, 2.5\n" in log
    assert written("s_iter_2.caffemodel") == weights
    weighted = caffemodel.read("s_iter_2.caffemodel")
    command(*TRAIN)
    plain = caffemodel.read("s_iter_2.caffemodel")
    assert not np.array_equal(plain["ip1"][0], weighted["ip1"][0])
    ones = ",".join(["1"] * 10)
    command(*TRAIN, f"--class-weights={ones}")
    np.testing.assert_allclose(caffemodel.read("s_iter_2.caffemodel")["ip1"][0], plain["ip1"][0], atol=1e-6)


def test_what_does_not_fit(folder: Path, edit: Edit, fails: Fails) -> None:
    for wrong in ("automatic", "1,-2", "1,nan", "0,0", "1,,2"):
        assert f"'{wrong}' is neither 'auto' nor a number for each class" in fails(
            *TRAIN, f"--class-weights={wrong}", code=2
        )
    assert "expected a weight for each of 10 classes, got 2" in fails(*TRAIN, "--class-weights=1,2")
    edit("net.prototxt", 'bottom: "label" top: "loss"', 'bottom: "label" top: "loss" loss_param { '
         + "weight_by_label_freqs: true " + "class_weighting: 1 " * 10 + "}")  # fmt: skip
    assert "has a class_weighting already; take it out" in fails(*TRAIN, "--class-weights=auto")
    edit(
        "net.prototxt",
        '"SoftmaxWithLoss"',
        '"HingeLoss"',
        "weight_by_label_freqs: true " + "class_weighting: 1 " * 10,
        "",
    )
    assert "has no SoftmaxWithLoss, whose classes they weigh" in fails(*TRAIN, "--class-weights=auto")


def test_labels_that_cannot_be_counted(folder: Path, fails: Fails) -> None:
    Path("net.prototxt").write_text("""
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 4 } shape { dim: 8 } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
""")
    assert "its labels 'label' are not those of a Data or ImageData layer, whose records can be counted" in fails(
        *TRAIN, "--class-weights=auto"
    )


def test_damaged_flags_are_told(folder: Path, command: Command, fails: Fails) -> None:
    command(*TRAIN, "--best")
    path = Path("s_iter_2.solverstate.json")
    position = json.loads(path.read_text())
    position["flags"]["watch"]["early_stop"] = "x"
    path.write_text(json.dumps(position))
    assert 'flags.watch.early_stop is "x"; expected a whole number' in fails(*TRAIN, "--snapshot=s_iter_2.solverstate")
