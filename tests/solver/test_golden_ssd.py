"""The recorded training of SSD: losses, rates, average precisions, log lines and final weights,
from the start and from SSD's own solverstate.
"""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

from caffecli import logs
from caffecli.formats import annotated, caffemodel
from caffecli.formats.db import open_reader
from caffecli.proto.caffe_pb2 import TEST, LayerParameter, NetParameter
from caffecli.solver import loop
from caffecli.solver.monitor import Monitor
from caffecli.solver.solver import Solver
from caffecli.spec import load
from caffecli.tools.detect import ObjectOptions, detect_objects
from caffecli.tools.score_detections import ScoreOptions, score_detections
from caffecli.tools.test import TestOptions
from caffecli.tools.test import test as score

GOLDEN = Path(__file__).parents[1] / "golden" / "ssd_train"
#: lines of SSD's that have no counterpart: the test net takes its weights before each test, and says so
_LEFT_OUT = "Ignoring source layer"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the recording: the run's folder, databases and label map beside it."""
    copy = tmp_path_factory.mktemp("ssd") / "ssd_train"
    shutil.copytree(GOLDEN, copy)
    return copy / "ssd_sgd"


def lines(log: str) -> list[str]:
    """What a log says from the first line about the training on, without times and places."""
    told = [re.sub(r"^[IWE]\S+ \S+ +\d+ \S+\] ", "", line) for line in log.splitlines()]
    start = next(i for i, line in enumerate(told) if line.startswith("Solving"))
    kept = [re.sub(r" \(\S+ iter/s, .*? iters\)", "", line) for line in told[start:] if _LEFT_OUT not in line]
    return [line for line in kept if line != "Optimization Done."]


def split(line: str) -> tuple[str, list[float]]:
    """A line without its figures, and the figures."""
    pattern = r"(?<![\w.])-?\d+\.?\d*(?:e[-+]?\d+)?(?![\w.])"
    return re.sub(pattern, "#", line), [float(number) for number in re.findall(pattern, line)]


@pytest.mark.parametrize("resume", [False, True], ids=["from_init", "from_solverstate"])
def test_run(folder: Path, monkeypatch: pytest.MonkeyPatch, resume: bool) -> None:
    monkeypatch.chdir(folder)
    param = load.load_solver(Path("solver.prototxt"))
    heard = io.StringIO()
    handler = logs.show(heard)
    try:
        if not resume:
            param.weights.append("init.caffemodel")
        solver = Solver(param, "cpu")
        if resume:
            solver.restore(GOLDEN / "ssd_sgd" / "t_iter_15.solverstate")
        solver.solve()
        solver.close()
    finally:
        logs.hide(handler)
    expected = lines((GOLDEN / "ssd_sgd" / ("resume.log" if resume else "train.log")).read_text())
    got = lines(heard.getvalue())
    assert [split(line)[0] for line in got] == [split(line)[0] for line in expected]
    for ours, theirs in zip(got, expected, strict=True):
        what, figures = split(ours)
        tolerance = 1e-4 if "lr" in what else 0.0 if "detection_eval" in what else 2e-3
        absolute = 2e-2 if "detection_eval" in what else 0.0
        np.testing.assert_allclose(figures, split(theirs)[1], rtol=tolerance, atol=absolute, err_msg=ours)
    final = np.load("final_resumed.npz" if resume else "final.npz")
    written = caffemodel.read(Path("t_iter_30.caffemodel"))
    assert final.files
    for key in final.files:
        layer, index = key.rsplit("/", 1)
        error = np.abs(written[layer][int(index)] - final[key]).max()
        assert error <= 2e-3 * max(1.0, np.abs(final[key]).max()), key


def test_the_figures_of_a_trained_net(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test is called, and that caffecli test says what the solver's test does."""
    monkeypatch.chdir(folder)
    param = load.load_solver(Path("solver.prototxt"))
    param.show_per_class_result = True
    solver = Solver(param, "cpu")
    assert solver.test_figures(0) == ["detection_eval", *(f"detection_eval/class{label}" for label in (1, 2, 3))]
    assert Monitor.find("", solver.test_nets, [solver.test_figures(0)]) == Monitor(0, "detection_eval", "max")
    solver.restore(GOLDEN / "ssd_sgd" / "t_iter_15.solverstate")
    by_solver = loop.test(solver, 0)
    solver.close()
    weights = str(GOLDEN / "ssd_sgd" / "t_iter_15.caffemodel")
    by_tool = score(TestOptions(Path("net.prototxt"), weights, each=True, ap_version="11point"))
    assert {name: float(value) for name, value in by_tool.items()} == pytest.approx(
        {name: float(value) for name, value in by_solver.items()}
    )
    assert float(by_tool["detection_eval"]) > 0


@pytest.mark.parametrize(("name", "count"), [("ssd_train_lmdb", 40), ("ssd_test_lmdb", 20)])
def test_records_are_written_as_they_were_read(name: str, count: int) -> None:
    with open_reader(GOLDEN / name) as reader:
        records = list(reader)
    assert len(records) == count
    for key, value in records:
        record = annotated.decode(value, key)
        assert record.SerializeToString() == value
        boxes = annotated.boxes(record)
        assert len(boxes) >= 1 and boxes[:, 0].min() >= 1 and boxes[:, 0].max() <= 3
        assert (boxes[:, 2:4] < boxes[:, 4:6]).all()


def test_files_of_what_the_trained_net_finds_have_the_figures_of_its_test(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """detect, which prepares the pictures as the caffemodel says, then score_detections, beside caffecli test."""
    monkeypatch.chdir(folder)
    weights = str(GOLDEN / "ssd_sgd" / "t_iter_15.caffemodel")
    net = load.prepare_net(load.load_net("net.prototxt"), TEST)
    kept = [layer for layer in net.layer if layer.type not in ("AnnotatedData", "MultiBoxLoss", "DetectionEvaluate")]
    deploy = NetParameter(layer=[LayerParameter(name="data", type="Input", top=["data"]), *kept])
    deploy.layer[0].input_param.shape.add(dim=[1, 3, 48, 48])
    Path("deploy.prototxt").write_text(text_format.MessageToString(deploy))
    found = detect_objects(
        ObjectOptions(
            model_def="deploy.prototxt", pretrained_model=weights, label_map_file="../labelmap.prototxt", threshold=0,
            input_file="../ssd_test_lmdb", output_file="found.json",
        )
    )  # fmt: skip
    assert len(found) == 20
    for version in ("Integral", "11point", "MaxIntegral"):
        by_test = score(TestOptions(Path("net.prototxt"), weights, each=True, ap_version=version))
        scores = score_detections(ScoreOptions(results="found.json", truth="../ssd_test_lmdb", ap_version=version))
        assert scores.mean.figures["AP"] == pytest.approx(float(by_test["detection_eval"]), abs=1e-6)
