"""Fillers: their distributions, their fans, and what they refuse."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor

from caffecli.errors import SpecError
from caffecli.layers.fillers import fill
from caffecli.proto.caffe_pb2 import FillerParameter


def filled(text: str, *shape: int) -> Tensor:
    tensor = torch.full(shape, math.nan)
    torch.manual_seed(0)
    fill(tensor, text_format.Parse(text, FillerParameter()), "conv1")
    return tensor


def test_constant_is_the_default_and_its_value_is_0() -> None:
    assert torch.equal(filled("", 3, 2), torch.zeros(3, 2))
    assert torch.equal(filled("type: 'constant' value: 0.5", 3), torch.full((3,), 0.5))
    assert filled("value: 2").item() == 2


def test_uniform() -> None:
    values = filled("type: 'uniform' min: -1 max: 3", 100, 100)
    assert values.min() >= -1 and values.max() <= 3
    assert abs(values.mean() - 1) < 0.05 and abs(values.var() - 16 / 12) < 0.05
    assert 0 <= filled("type: 'uniform'", 100).min() <= filled("type: 'uniform'", 100).max() <= 1


def test_gaussian() -> None:
    values = filled("type: 'gaussian' mean: 2 std: 0.1", 100, 100)
    assert abs(values.mean() - 2) < 0.01 and abs(values.std() - 0.1) < 0.01


def test_sparse_keeps_a_value_with_probability_sparse_by_outputs() -> None:
    values = filled("type: 'gaussian' sparse: 5", 50, 400)
    assert abs((values != 0).float().mean() - 5 / 50) < 0.01
    assert not filled("type: 'gaussian' sparse: 0", 50, 4).any()


def test_positive_unitball_rows_sum_to_1() -> None:
    values = filled("type: 'positive_unitball'", 4, 3, 5)
    assert (values >= 0).all()
    torch.testing.assert_close(values.sum((1, 2)), torch.ones(4))


@pytest.mark.parametrize(("norm", "n"), [("FAN_IN", 30 * 9), ("FAN_OUT", 60 * 9), ("AVERAGE", 45 * 9)])
def test_fans(norm: str, n: float) -> None:
    xavier = filled(f"type: 'xavier' variance_norm: {norm}", 60, 30, 3, 3)
    assert math.isclose(xavier.abs().max().item(), math.sqrt(3 / n), rel_tol=0.01)
    msra = filled(f"type: 'msra' variance_norm: {norm}", 60, 30, 3, 3)
    assert math.isclose(msra.std().item(), math.sqrt(2 / n), rel_tol=0.03)


def test_the_fan_out_of_a_blob_of_one_axis_is_its_count() -> None:
    assert filled("type: 'xavier' variance_norm: FAN_OUT", 300).abs().max() <= math.sqrt(3 / 300)
    assert filled("type: 'xavier'", 300).abs().max() > math.sqrt(3 / 300)


@pytest.mark.parametrize("width", [3, 4])
def test_bilinear(width: int) -> None:
    centre = (width - 1) / 2 if width % 2 else width / 2 - 0.5
    line = 1 - np.abs(np.arange(width) - centre) / math.ceil(width / 2)
    expected = np.broadcast_to(np.outer(line, line), (2, 1, width, width))
    np.testing.assert_allclose(filled("type: 'bilinear'", 2, 1, width, width), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "shape", "words"),
    [
        (
            "type: 'xavir'",
            (2, 2),
            "layer 'conv1': unknown filler 'xavir'; did you mean 'xavier'? known fillers: constant, uniform",
        ),
        ("type: 'zzz'", (2, 2), "unknown filler 'zzz'; known fillers: constant"),
        ("type: 'msra' sparse: 3", (2, 2), "layer 'conv1', msra filler: sparse is for gaussian fillers only"),
        ("type: 'gaussian' sparse: 3", (2, 2), "expected sparse from 0 to 2"),
        ("type: 'gaussian' sparse: -2", (2, 2), "expected sparse from 0 to 2"),
        ("type: 'gaussian' std: 0", (2, 2), "expected std > 0, got 0"),
        ("type: 'uniform' min: 2", (2, 2), "expected min <= max, got min: 2 and max: 1"),
        ("type: 'bilinear'", (2, 2, 3, 4), "expected a blob of 4 axes with a square kernel, got (2, 2, 3, 4)"),
        ("type: 'bilinear'", (2, 2), "got (2, 2)"),
        ("type: 'xavier'", (), "at least one axis"),
    ],
)
def test_refusals(text: str, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(SpecError) as caught:
        filled(text, *shape)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_the_seed_decides() -> None:
    assert torch.equal(filled("type: 'xavier'", 9, 9), filled("type: 'xavier'", 9, 9))
