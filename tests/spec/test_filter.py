"""Which layers a net state includes."""

from __future__ import annotations

import io
from typing import Any

import pytest

from caffecli import logs
from caffecli.errors import SpecError
from caffecli.proto.caffe_pb2 import TEST, TRAIN, NetParameter, NetState
from caffecli.spec import text
from caffecli.spec.filter import filter_net


def kept(rules: str, **state: Any) -> bool:
    net = text.parse(f"layer {{ name: 'a' {rules} }} layer {{ name: 'b' }}", NetParameter())
    names = [layer.name for layer in filter_net(net, NetState(**state)).layer]
    assert names in (["a", "b"], ["b"])
    assert len(net.layer) == 2
    return names == ["a", "b"]


@pytest.mark.parametrize(
    ("rules", "state", "expected"),
    [
        ("", {"phase": TRAIN}, True),
        ("include { phase: TRAIN }", {"phase": TRAIN}, True),
        ("include { phase: TRAIN }", {"phase": TEST}, False),
        ("include { phase: TRAIN } include { phase: TEST }", {"phase": TEST}, True),
        ("exclude { phase: TEST }", {"phase": TEST}, False),
        ("exclude { phase: TEST }", {"phase": TRAIN}, True),
        ("exclude { }", {}, False),
        ("include { }", {}, True),
        ("include { min_level: 2 }", {"level": 1}, False),
        ("include { min_level: 2 }", {"level": 2}, True),
        ("include { min_level: 0 max_level: 1 }", {"level": 2}, False),
        ("include { max_level: 2 }", {"level": 2}, True),
        ("include { stage: 'x' stage: 'y' }", {"stage": ["x"]}, False),
        ("include { stage: 'x' stage: 'y' }", {"stage": ["y", "z", "x"]}, True),
        ("include { not_stage: 'x' }", {"stage": ["x"]}, False),
        ("include { not_stage: 'x' stage: 'y' }", {"stage": ["y"]}, True),
        ("include { phase: TEST stage: 'x' }", {"phase": TRAIN, "stage": ["x"]}, False),
        ("exclude { stage: 'x' } exclude { not_stage: 'y' }", {"stage": ["y"]}, True),
    ],
)
def test_rules(rules: str, state: dict[str, object], expected: bool) -> None:
    assert kept(rules, **state) is expected


def test_both_kinds_of_rules() -> None:
    with pytest.raises(SpecError) as error:
        kept("include { phase: TEST } exclude { phase: TEST }")
    assert str(error.value) == "layer 'a': give include rules or exclude rules, not both"


@pytest.mark.parametrize(
    ("rules", "line"),
    [
        (
            "phase: TRAIN",
            "net.cpp:296] The NetState phase (1) differed from the phase (0) specified by a rule in layer a",
        ),
        (
            "min_level: 9",
            "net.cpp:306] The NetState level (3) is above the min_level (9) specified by a rule in layer a",
        ),
        (
            "max_level: 2",
            "net.cpp:316] The NetState level (3) is above the max_level (2) specified by a rule in layer a",
        ),
        ("stage: 'x'", "net.cpp:332] The NetState did not contain stage 'x' specified by a rule in layer a"),
        ("not_stage: 'y'", "net.cpp:347] The NetState contained a not_stage 'y' specified by a rule in layer a"),
    ],
)
def test_log_lines(rules: str, line: str) -> None:
    stream = io.StringIO()
    handler = logs.show(stream)
    try:
        kept(f"include {{ {rules} }}", phase=TEST, level=3, stage=["y"])
    finally:
        logs.hide(handler)
    assert stream.getvalue().rstrip("\n").endswith(line)
