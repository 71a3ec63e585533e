"""The section about boxes, of what a detector found in two pictures that are made up."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch

from caffecli.proto.caffe_pb2 import NetParameter
from caffecli.solver.detection import Detections
from caffecli.spec import text
from caffecli.tools.open import build_net
from caffecli.tools.report import ReportOptions
from caffecli.tools.report.findings import Findings, Scene, judged_rows
from caffecli.tools.report.material import Missing, Report
from caffecli.tools.report.objects import Found, Mistakes, Object
from caffecli.tools.report.runs import Run
from caffecli.tools.report.sections import boxes
from tests.tools.report.pages import Page

PIXELS = np.zeros((4, 8, 3), np.uint8)
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def shown(findings: Findings) -> Page:
    run = Run("a", Path("a.log"))
    report = Report([run], ReportOptions((run.path,), Path("a.html")), True, {1: "cat <b>"}, lambda one: findings)
    return Page(boxes.section(report))


def test_boxes() -> None:
    """Class 1: a hit, a miss, a hit of three objects, precisions 1, 1/2, 2/3 at the recalls 1/3, 1/3, 2/3."""
    found = Findings(Path("w.caffemodel"), 2)
    rows = [[-1, 1, 3, -1, -1], [0, 1, 0.9, 1, 0], [0, 1, 0.8, 0, 1], [1, 1, 0.4, 1, 0]]
    found.detections["eval"] = Detections()
    found.detections["eval"].add(np.array(rows, np.float32))
    found.scenes = [Scene("k<1>", PIXELS, [(1, 0.9, *LEFT), (1, 0.2, *RIGHT)], [(1, 1.0, *LEFT)])]
    found.mistakes = Mistakes()
    found.mistakes.take("k<1>", lambda: PIXELS, [Found(1, 0.9, LEFT), Found(1, 0.8, LEFT)], [Object(1, LEFT)])
    found.mistakes.take("k2", lambda: PIXELS, [Found(1, 0.4, LEFT)], [Object(1, LEFT), Object(1, RIGHT)])
    page = shown(found)
    assert "Over the first 2 records" in page.text
    assert page.tables["Detections of each class, by eval"][1:] == [
        ["cat <b>", "1", "3", "3", "2", "66.67%", f"{1 / 3 + 2 / 9:.4f}"]
    ]
    assert {row[0]: row[1] for row in page.tables["Why boxes are wrong, at an overlap of 0.5"][1:]} == {
        "nothing is there": "0", "another class is there": "0",
        "an object of the class is near, but the overlap is too small": "0", "an object of another class is near": "0",
        "a surer box found the object": "1",
    }  # fmt: skip
    said = page.sections[""]
    assert "record k<1>; found: cat <b> 90%; true: cat <b>" in said
    assert "cat <b> 80%: a surer box found the object, overlap 1.00; record k<1>" in said
    assert "cat <b>: no box hits it; record k2" in said
    drawn = [found for tag, found in page.seen if tag == "rect"]
    assert [(one["class"], one["x"], one["width"]) for one in drawn] == [
        ("true", "0.00", "4.00"), ("found", "0.00", "4.00"),  # the scene, without the box of 0.2
        ("true", "0.00", "4.00"), ("found", "0.00", "4.00"),
        ("true", "4.00", "4.00"),
    ]  # fmt: skip


def test_of_a_batch_some_records() -> None:
    text_ = """layer { name: "in" type: "Input" top: "found" top: "true"
      input_param { shape { dim: [1, 1, 3, 7] } shape { dim: [1, 1, 2, 8] } } }
    layer { name: "eval" type: "DetectionEvaluate" bottom: "found" bottom: "true" top: "eval"
      detection_evaluate_param { num_classes: 2 } }"""
    param = text.parse(text_, NetParameter(), "net")
    with contextlib.closing(build_net(param, Path("net"), device=torch.device("cpu"))) as net:
        node = net.nodes[-1]
        found = torch.tensor([[0, 1, 0.9, *LEFT], [1, 1, 0.8, *RIGHT], [1, 1, 0.7, *LEFT]])[None, None]
        true = torch.tensor([[0, 1, 0, *LEFT, 0], [1, 1, 0, *RIGHT, 0]])[None, None]
        seen = dict(zip(node.inputs, (found, true), strict=True))
        made = node.layer.forward(found, true)
        assert isinstance(made, torch.Tensor)
        seen[node.outputs[0]] = made
        assert judged_rows(node, seen, 2, 2)[0, 0, :, 2].tolist() == pytest.approx([2, 0.9, 0.8, 0.7])
        assert judged_rows(node, seen, 1, 2)[0, 0].tolist() == [[-1, 1, 1, -1, -1], [0, 1, pytest.approx(0.9), 1, 0]]


def test_without_mistakes_or_pictures() -> None:
    found = Findings(Path("w.caffemodel"), 1)
    found.detections["eval"] = Detections({1: 0})
    assert "Boxes are not drawn" in shown(found).sections[""]
    found.mistakes = Mistakes()
    assert "Wrong boxes with a score of 0.3 and more: 0." in shown(found).sections[""]


def test_without_a_detector() -> None:
    with pytest.raises(Missing, match="no DetectionEvaluate"):
        shown(Findings(Path("w.caffemodel"), 1))
