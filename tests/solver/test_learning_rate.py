"""The policies against their formulas, and the settings they need."""

from __future__ import annotations

import io
import math

import pytest
from google.protobuf import text_format

from caffecli import logs
from caffecli.errors import SolverError
from caffecli.formats.solverstate import SolverState
from caffecli.proto.caffe_pb2 import SolverParameter
from caffecli.solver.learning_rate import LossPlateau, RateOptions, check, current_step, learning_rate

STAGES = "stagelr: 0.25 stageiter: 5 stagelr: 2 stageiter: 9"


def solver(text: str) -> SolverParameter:
    return text_format.Parse(text, SolverParameter())


@pytest.mark.parametrize(
    ("settings", "iteration", "rate"),
    [
        ('lr_policy: "fixed"', 1000, 0.5),
        ('lr_policy: "step" gamma: 0.1 stepsize: 10', 9, 0.5),
        ('lr_policy: "step" gamma: 0.1 stepsize: 10', 10, 0.05),
        ('lr_policy: "step" gamma: 0.1 stepsize: 10', 25, 0.005),
        ('lr_policy: "exp" gamma: 0.9', 3, 0.5 * 0.9**3),
        ('lr_policy: "inv" gamma: 0.0001 power: 0.75', 5000, 0.5 * 1.5**-0.75),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 7', 2, 0.5),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 7', 3, 0.25),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 7', 100, 0.125),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 3', 3, 0.25),  # one step an iteration
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 3 stepvalue: 3', 4, 0.125),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 0', 0, 0.25),
        ('lr_policy: "poly" power: 2 max_iter: 10', 5, 0.125),
        ('lr_policy: "poly" power: 2 max_iter: 10', 10, 0.0),
        ('lr_policy: "sigmoid" gamma: 0.5 stepsize: 4', 6, 0.5 / (1 + math.exp(-1.0))),
        ('lr_policy: "sigmoid" gamma: 50 stepsize: 100', 0, 0.0),
        *((f'lr_policy: "multifixed" {STAGES}', at, rate) for at, rate in ((0, 0.25), (5, 0.25), (6, 2.0), (99, 2.0))),
        (f'lr_policy: "multifixed" {STAGES} stagelr: 0.125 stageiter: 4', 5, 0.25),
        (f'lr_policy: "multifixed" {STAGES} stagelr: 0.125 stageiter: 4', 10, 0.125),
        ('lr_policy: "cosine" max_iter: 12', 0, 0.5),
        ('lr_policy: "cosine" max_iter: 12', 2, 0.25 * (1 + math.sqrt(3) / 2)),
        ('lr_policy: "cosine" max_iter: 12', 4, 0.375),
        ('lr_policy: "cosine" max_iter: 12', 6, 0.25),
        ('lr_policy: "cosine" max_iter: 12', 12, 0.0),
        ('lr_policy: "cosine" max_iter: 12', 99, 0.0),
        # what is not set is 0, as in Caffe
        ('lr_policy: "step" stepsize: 10', 9, 0.5),
        ('lr_policy: "step" stepsize: 10', 10, 0.0),
        ('lr_policy: "exp"', 0, 0.5),
        ('lr_policy: "exp"', 1, 0.0),
        ('lr_policy: "inv" power: 0.75', 5000, 0.5),
        ('lr_policy: "inv" gamma: 0.1', 5000, 0.5),
        ('lr_policy: "multistep" stepvalue: 3', 2, 0.5),
        ('lr_policy: "multistep" stepvalue: 3', 3, 0.0),
        ('lr_policy: "multistep" gamma: 0.5', 3000, 0.5),
        ('lr_policy: "poly" max_iter: 10', 5, 0.5),
        ('lr_policy: "sigmoid"', 6, 0.25),
        ('lr_policy: "sigmoid" gamma: 1', 2, 0.5 / (1 + math.exp(-2.0))),
        ('lr_policy: "step" gamma: -0.5 stepsize: 10', 10, -0.25),
        # the steps come in the order in which they are written, each when its turn and its time have come
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 2', 4, 0.5),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 2', 5, 0.25),
        ('lr_policy: "multistep" gamma: 0.5 stepvalue: 5 stepvalue: 2', 6, 0.125),
    ],
)
def test_rate(settings: str, iteration: int, rate: float) -> None:
    param = solver("base_lr: 0.5 " + settings)
    check(param)
    assert learning_rate(param, iteration) == pytest.approx(rate, rel=1e-5, abs=1e-30)


def test_steps() -> None:
    assert current_step(solver('lr_policy: "multistep" stepvalue: 3 stepvalue: 7'), 7) == 2
    assert current_step(solver('lr_policy: "step" stepsize: 5'), 14) == 2
    assert current_step(solver('lr_policy: "inv"'), 14) == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('base_lr: 1 lr_policy: "fixd"', "unknown policy 'fixd'; did you mean 'fixed'"),
        ('base_lr: 1 lr_policy: "zzz"', "known policies: fixed, step"),
        ("base_lr: 1", "unknown policy ''"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1', "stepsize must be positive, got 0"),
        ('base_lr: 1 lr_policy: "step" gamma: 0.1 stepsize: 0', "stepsize must be positive, got 0"),
        ('lr_policy: "multifixed"', "expected a stagelr and a stageiter for each stage, got 0 and 0"),
        (f'lr_policy: "multifixed" {STAGES} stagelr: 1', "for each stage, got 3 and 2"),
        ('base_lr: 1 lr_policy: "cosine"', "'cosine' goes down to 0 at max_iter, which is not set; give it"),
    ],
)
def test_wrong_settings(settings: str, words: str) -> None:
    with pytest.raises(SolverError, match=words):
        check(solver(settings))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('lr_policy: "fixed"', "'fixed' reads base_lr, not set: the learning rate is 0, and nothing is learned"),
        (
            'base_lr: 1 lr_policy: "step" stepsize: 5',
            "'step' reads gamma, not set: it counts as 0, so that the learning rate falls to 0 at the first step",
        ),
        ('base_lr: 1 lr_policy: "inv"', "'inv' reads gamma and power, not set: they count as 0"),
        ('base_lr: 1 lr_policy: "poly" max_iter: 9', "'poly' reads power, not set: it counts as 0"),
        (
            'base_lr: 1 lr_policy: "multistep" gamma: 0.1 stepvalue: 5 stepvalue: 2',
            "stepvalue does not rise: [5, 2]; each step waits for those before it",
        ),
        ('base_lr: 1 lr_policy: "step" stepsize: 5 gamma: 0', ""),
        ('base_lr: 0 lr_policy: "fixed"', ""),
    ],
)
def test_what_is_not_set_is_said(settings: str, words: str) -> None:
    stream = io.StringIO()
    handler = logs.show(stream)
    check(solver(settings))
    logs.hide(handler)
    assert words in stream.getvalue() and stream.getvalue().count("\n") == bool(words)


def test_no_number_where_c_has_none() -> None:
    assert math.isnan(learning_rate(solver('base_lr: 1 lr_policy: "inv" gamma: -1 power: 0.5'), 2))
    assert learning_rate(solver('base_lr: 1 lr_policy: "exp" gamma: 10'), 400) == math.inf
    assert learning_rate(solver('base_lr: 1 lr_policy: "inv" gamma: -1 power: 1'), 1) == math.inf


def test_warmup() -> None:
    param = solver('base_lr: 0.5 lr_policy: "exp" gamma: 0.9')
    plain, warm, from_low = RateOptions(), RateOptions(warmup=4), RateOptions(warmup=4, start_lr=0.1)
    for i in range(4):
        rate = learning_rate(param, i)
        assert learning_rate(param, i, plain) == rate
        assert learning_rate(param, i, warm) == pytest.approx(rate * (i + 1) / 4)
        assert learning_rate(param, i, from_low) == pytest.approx(0.1 + (rate - 0.1) * (i + 1) / 4)
    for i in (3, 4, 50):
        assert learning_rate(param, i, warm) == learning_rate(param, i, from_low) == learning_rate(param, i)


def test_min_lr() -> None:
    param = solver('base_lr: 0.5 lr_policy: "poly" power: 1 max_iter: 10')
    assert [learning_rate(param, i, RateOptions(min_lr=0.2)) for i in (0, 5, 6, 9, 10, 99)] == [
        0.5,
        0.25,
        0.2,
        0.2,
        0.2,
        0.2,
    ]
    assert learning_rate(param, 5, RateOptions(min_lr=0.2), factor=0.1) == 0.2
    assert learning_rate(param, 5, RateOptions(min_lr=0.01), factor=0.1) == pytest.approx(0.025)
    assert learning_rate(param, 0, RateOptions(min_lr=0.2, warmup=10)) == pytest.approx(
        0.05
    )  # the floor is the policy's


@pytest.mark.parametrize("least", [0.6, math.inf, math.nan])
def test_min_lr_above_base_lr(least: float) -> None:
    with pytest.raises(SolverError, match=f"--min-lr {least:g} is above base_lr 0.5; give a smaller one"):
        check(solver('base_lr: 0.5 lr_policy: "fixed"'), RateOptions(min_lr=least))


PLATEAU = 'base_lr: 0.5 lr_policy: "plateau" gamma: 0.1 plateau_winsize: 3 plateau_winsize: 2 display: 2'


def test_plateau_steps_down_where_the_loss_has_no_new_minimum(caplog: pytest.LogCaptureFixture) -> None:
    """Three iterations after the last minimum, then two after that step or a later minimum; then it stays."""
    param, plateau = solver(PLATEAU), LossPlateau()
    losses = [5, 4, 4, 4, 4, 3, 3, 9, 9, 9, 9]
    rates = []
    with caplog.at_level("INFO", "caffecli"):
        for iteration, loss in enumerate(losses):
            plateau.update(param, iteration, loss)
            rates.append(learning_rate(param, iteration, step=plateau.step))
    assert rates == pytest.approx([0.5] * 4 + [0.05] * 3 + [0.005] * 4)
    assert plateau == LossPlateau(2, 3.0, 7)
    assert [record.message for record in caplog.records] == [
        "Plateau Status: Iteration 0, current minimum_loss = 5",
        "Plateau Status: Iteration 2, current minimum_loss = 4",
        "Plateau Status: Iteration 4, step = 1",
        "Plateau Status: Iteration 4, current minimum_loss = 4",
        "Plateau Status: Iteration 6, current minimum_loss = 3",
        "Plateau Status: Iteration 7, step = 2",
        "Plateau Status: Iteration 8, current minimum_loss = 3",
    ]


def test_plateau_of_a_solverstate() -> None:
    assert LossPlateau.of(SolverState(9, 1, minimum_loss=2.5, iter_last_event=7)) == LossPlateau(1, 2.5, 7)
    assert LossPlateau.of(SolverState(9, 1)).minimum > 1e38  # another's: the next loss is a new minimum


def test_plateau_without_windows(caplog: pytest.LogCaptureFixture) -> None:
    check(solver('base_lr: 0.5 lr_policy: "plateau" gamma: 0.1'))
    assert "lr_policy 'plateau' has no plateau_winsize: the rate stays at base_lr" in caplog.text
