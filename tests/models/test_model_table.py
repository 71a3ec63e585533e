"""docs/models.md is what the nets in models/ give today, and every net has its times."""

from __future__ import annotations

import json

import pytest
import torch

from scripts import model_table, model_times
from scripts.zoo import made_up


def test_the_page_is_current() -> None:
    assert model_table.PAGE.read_text(encoding="utf-8") == model_table.page(), "run `make docs`"


def test_every_net_has_its_times() -> None:
    times = json.loads(model_table.TIMES.read_text(encoding="utf-8"))["nets"]
    assert sorted(times) == model_table.names()
    for name, found in times.items():
        assert found.keys() == {"forward", "opencv", "step"}, name
        assert isinstance(found["forward"], str) or found["forward"] > 0
        assert isinstance(found["step"], str) == (not (model_table.MODELS / name / "train_val.prototxt").exists())


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0"),
        (812, "812"),
        (1000, "1.00 k"),
        (89_600, "89.6 k"),
        (999_700, "1.00 M"),
        (60_965_224, "61.0 M"),
        (181e9, "181 G"),
    ],
)
def test_three_digits_and_a_unit(count: int, told: str) -> None:
    assert model_table.short(count) == told


def test_reasons_are_notes_each_given_once() -> None:
    notes: list[str] = []
    found: list[float | str | None] = [0.1266, 12.34, 5012.3, None, "No.", "Neither.", "No."]
    assert [model_table.cell(each, notes) for each in found] == [
        "0.127",
        "12.3",
        "5012",
        "",
        "note 1",
        "note 2",
        "note 1",
    ]
    assert notes == ["No.", "Neither."]
    said = 'caffe_importer.cpp:1: error: (-2) Can\'t create layer "embedding" of type "Embed" in function'
    assert model_times.refusal(said, ["Input", "Embed"]) == "OpenCV has no layer type Embed."


def test_a_name_that_is_no_model() -> None:
    with pytest.raises(SystemExit, match=r"^there is no model 'vgg61'; the models are age_net, "):
        model_table.main(["vgg61"])


def test_made_up_weights_and_inputs_are_the_same_each_time() -> None:
    first, second = (model_times.deploy("mnist_siamese") for _ in range(2))
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    (given,), (again,) = made_up.inputs(first, 3).values(), made_up.inputs(second, 3).values()
    assert given.shape == (3, 1, 28, 28) and torch.equal(given, again)


def test_times_of_a_small_net(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_times, "SECONDS", 0.01)
    threads = torch.get_num_threads()
    try:
        found = model_times.main("mnist_siamese")
    finally:
        torch.set_num_threads(threads)
    assert found["forward"] > 0 and found["step"] > 0
