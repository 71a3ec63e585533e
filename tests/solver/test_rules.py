"""Update rules against arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format

from caffecli.errors import SolverError
from caffecli.layers.linear import InnerProduct
from caffecli.net import params
from caffecli.proto.caffe_pb2 import LayerParameter, SolverParameter
from caffecli.solver import rules
from caffecli.solver.rules import Rule


def setting(solver: str, specs: str = "") -> tuple[Rule, torch.Tensor, torch.Tensor]:
    """A rule over a layer of a (2, 3) weight and a (2,) bias."""
    text = f'name: "ip" type: "InnerProduct" inner_product_param {{ num_output: 2 }} {specs}'
    layer = InnerProduct(text_format.Parse(text, LayerParameter()))
    layer.setup([(5, 3)])
    found: list[params.Param] = []
    params.add(found, {}, layer)
    layer.materialize()
    weight, bias = layer.blobs
    with torch.no_grad():
        weight.copy_(torch.tensor([[1.0, -2.0, 3.0], [0.5, 0.0, -0.25]]))
        bias.copy_(torch.tensor([0.1, -0.2]))
    return rules.create(text_format.Parse(solver, SolverParameter()), found), weight, bias


def set_grads(weight: torch.Tensor, bias: torch.Tensor, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    weight.grad = scale * torch.tensor([[0.3, 0.1, -0.2], [0.0, 0.4, 0.6]])
    bias.grad = scale * torch.tensor([1.0, -1.0])
    return weight.grad.numpy().copy(), bias.grad.numpy().copy()


def test_sgd_two_steps_with_a_rate_that_falls() -> None:
    rule, weight, bias = setting("momentum: 0.9")
    w, b = weight.detach().numpy().copy(), bias.detach().numpy().copy()
    v, u = np.zeros_like(w), np.zeros_like(b)
    for iteration, rate in enumerate((0.1, 0.01)):
        g, h = set_grads(weight, bias)
        rule.update(rate, iteration)
        v, u = 0.9 * v + rate * g, 0.9 * u + rate * h
        w, b = w - v, b - u
    np.testing.assert_allclose(weight.detach(), w, rtol=1e-6)
    np.testing.assert_allclose(bias.detach(), b, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(rule.history[0], v, rtol=1e-6)


def by_hand(kind: str, w: np.ndarray, gradients: list[np.ndarray], rate: float) -> tuple[np.ndarray, list[np.ndarray]]:
    """The weights and the history after the gradients, as each solver's paper has it."""
    m, m2, decay, delta = 0.9, 0.99, 0.95, 1e-3
    first, second = np.zeros_like(w), np.zeros_like(w)
    for t, g in enumerate(gradients, start=1):
        if kind == "Nesterov":
            before, first = first, m * first + rate * g
            w = w - ((1 + m) * first - m * before)
        elif kind == "AdaGrad":
            first = first + g * g
            w = w - rate * g / (np.sqrt(first) + delta)
        elif kind == "RMSProp":
            first = decay * first + (1 - decay) * g * g
            w = w - rate * g / (np.sqrt(first) + delta)
        elif kind == "AdaDelta":
            first = m * first + (1 - m) * g * g
            u = g * np.sqrt((second + delta) / (first + delta))
            second = m * second + (1 - m) * u * u
            w = w - rate * u
        elif kind == "Adam":
            first, second = m * first + (1 - m) * g, m2 * second + (1 - m2) * g * g
            w = w - rate * np.sqrt(1 - m2**t) / (1 - m**t) * first / (np.sqrt(second) + delta)
    return w, [first, second]


@pytest.mark.parametrize("kind", ["Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_three_steps_of_the_other_rules(kind: str) -> None:
    momentum = 0 if kind in ("AdaGrad", "RMSProp") else 0.9
    rule, weight, bias = setting(f'type: "{kind}" momentum: {momentum} momentum2: 0.99 rms_decay: 0.95 delta: 1e-3')
    before, gradients = weight.detach().numpy().astype(np.float64), []
    for iteration, scale in enumerate((1.0, -0.5, 2.0)):
        gradients.append(set_grads(weight, bias, scale)[0].astype(np.float64))
        rule.update(0.1, iteration)
    expected, history = by_hand(kind, before, gradients, 0.1)
    np.testing.assert_allclose(weight.detach(), expected, rtol=2e-5)
    assert len(rule.history) == 2 * rule.slots  # type: ignore[attr-defined]
    for slot in range(rule.slots):  # type: ignore[attr-defined]
        np.testing.assert_allclose(rule.history[2 * slot], history[slot], rtol=2e-5, atol=1e-9)


@pytest.mark.parametrize("kind", ["AdaDelta", "Adam", "AdaGrad"])
def test_decay_of_a_frozen_blob_is_remembered_as_caffe_does(kind: str) -> None:
    momentum = 0 if kind == "AdaGrad" else 0.9
    rule, weight, bias = setting(
        f'type: "{kind}" momentum: {momentum} weight_decay: 0.1', "param { lr_mult: 0 } param { lr_mult: 1 }"
    )
    before = weight.detach().clone()
    set_grads(weight, bias)
    weight.grad = None
    rule.update(0.1, 0)
    assert torch.equal(weight, before)
    assert rule.history[0].any()


@pytest.mark.parametrize("kind", ["L1", "L2"])
def test_multipliers_and_decay(kind: str) -> None:
    specs = "param { lr_mult: 2 decay_mult: 3 } param { lr_mult: 5 decay_mult: 0 }"
    rule, weight, bias = setting(f'momentum: 0 weight_decay: 0.01 regularization_type: "{kind}"', specs)
    w, b = weight.detach().numpy().copy(), bias.detach().numpy().copy()
    g, h = set_grads(weight, bias)
    rule.update(0.1, 0)
    pull = w if kind == "L2" else np.sign(w)
    np.testing.assert_allclose(weight.detach(), w - 0.2 * (g + 0.03 * pull), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(bias.detach(), b - 0.5 * h, rtol=1e-5)


def test_frozen_blobs_stay() -> None:
    rule, weight, bias = setting("momentum: 0.9 weight_decay: 0.1", "param { lr_mult: 0 } param { lr_mult: 1 }")
    before = weight.detach().clone()
    assert not weight.requires_grad
    set_grads(weight, bias)
    rule.update(0.1, 0)
    assert torch.equal(weight, before)
    assert not rule.history[0].any()


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_by_the_global_norm_before_iter_size(limit: float) -> None:
    rule, weight, bias = setting(f"momentum: 0 clip_gradients: {limit} iter_size: 4")
    w = weight.detach().numpy().copy()
    g, h = set_grads(weight, bias)
    norm = np.sqrt((g**2).sum() + (h**2).sum())
    rule.update(0.1, 0)
    np.testing.assert_allclose(weight.detach(), w - 0.1 * g * min(1.0, limit / norm) / 4, rtol=1e-5)


def test_decay_works_without_a_gradient() -> None:
    rule, weight, bias = setting("momentum: 0 weight_decay: 0.5")
    w = weight.detach().numpy().copy()
    weight.grad = bias.grad = None
    rule.update(0.1, 0)
    np.testing.assert_allclose(weight.detach(), 0.95 * w, rtol=1e-6)


@pytest.mark.parametrize(
    ("solver", "words"),
    [
        ('type: "SGDD"', "solver type 'SGDD' is not known; did you mean 'SGD'"),
        ('type: "AdaGrad" momentum: 0.9', "momentum: the AdaGrad solver takes none, got 0.9; set momentum: 0"),
        ('type: "RMSProp" momentum: 0.9', "momentum: the RMSProp solver takes none, got 0.9"),
        ('type: "RMSProp" rms_decay: 1', "rms_decay: expected at least 0 and below 1, got 1"),
        ('regularization_type: "L3"', "regularization_type: expected 'L1' or 'L2', got 'L3'"),
    ],
)
def test_wrong_settings(solver: str, words: str) -> None:
    with pytest.raises(SolverError, match=words):
        setting(solver)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_history_moves_with_the_parameters(kind: str) -> None:
    found = []
    for move in (False, True):
        rule, weight, bias = setting(f'type: "{kind}" momentum: 0.9 snapshot_diff: true')
        for iteration in range(3):
            set_grads(weight, bias)
            rule.update(0.1, iteration)
            if move:
                rule.to(torch.device("cpu"))
        found.append([weight, bias, *rule.history, *rule.diffs()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    rule.to(torch.device("meta"))
    assert all(blob.is_meta for blob in rule.history) and not weight.is_meta
