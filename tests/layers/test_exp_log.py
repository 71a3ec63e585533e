"""Exp and Log. Their recorded answers are in test_activation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from caffecli.errors import SpecError
from tests.layers.oracle import SHAPE, build, check, distinct

SETTINGS = [
    ("", np.e, 1, 0),
    ("base: -1 scale: -0.5 shift: 2.5", np.e, -0.5, 2.5),
    ("base: 2", 2, 1, 0),
    ("base: 0.5 scale: 2 shift: 4.5", 0.5, 2, 4.5),
    ("shift: 3", np.e, 1, 3),
    ("base: 10 scale: 0.25 shift: 1", 10, 0.25, 1),
]


@pytest.mark.parametrize(("settings", "base", "scale", "shift"), SETTINGS)
def test_exp(settings: str, base: float, scale: float, shift: float) -> None:
    check(f'type: "Exp" exp_param {{ {settings} }}', oracle=lambda x: base ** (shift + scale * x), tolerance=1e-4)


@pytest.mark.parametrize(("settings", "base", "scale", "shift"), SETTINGS)
def test_log(settings: str, base: float, scale: float, shift: float) -> None:
    inputs = [np.abs(distinct(*SHAPE)) + 0.1 if shift < 2.5 else distinct(*SHAPE)]
    check(
        f'type: "Log" log_param {{ {settings} }}', inputs=inputs,
        oracle=lambda x: np.log(shift + scale * x) / np.log(base),
    )  # fmt: skip


def test_exp_to_base_1_is_1() -> None:
    assert build('type: "Exp" exp_param { base: 1 shift: 3 }', (2,))(torch.tensor([-5.0, 5])).tolist() == [1, 1]


def test_log_at_its_border() -> None:
    assert build('type: "Log"', (2,))(torch.tensor([0.0, 1])).tolist() == [-np.inf, 0]
    assert build('type: "Log"', (1,))(torch.tensor([-1.0])).isnan().all()


@pytest.mark.parametrize("base", [0, -2, -0.5])
@pytest.mark.parametrize(("kind", "message"), [("Exp", "exp_param"), ("Log", "log_param")])
def test_a_base_needs_a_logarithm(kind: str, message: str, base: float) -> None:
    with pytest.raises(SpecError, match=rf"layer 'l' \({kind}\): expected a base above 0, or -1 for e, got {base:g}"):
        build(f'type: "{kind}" {message} {{ base: {base} }}', SHAPE)


def test_no_logarithm_to_base_1() -> None:
    with pytest.raises(SpecError, match=r"layer 'l' \(Log\): expected a base other than 1"):
        build('type: "Log" log_param { base: 1 }', SHAPE)
